/* f32_to_f16, f16_to_f32, kv_write_f16 and kv_write_q8_0. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"
#include "kernels/el_kv_q8.h"

EL_INLINE __m128i to_f16(__m256 x)
{
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void el_f32_to_f16__avx2(size_t n, const float *x, uint16_t *y)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) _mm_storeu_si128((__m128i *)(y + i), to_f16(_mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] = el_f32_to_f16(x[i]);
}

void el_f16_to_f32__avx2(size_t n, const uint16_t *x, float *y)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) _mm256_storeu_ps(y + i, el_f16x8(x + i));
    for (; i < n; i++) y[i] = el_f16_to_f32(x[i]);
}

void el_kv_write_f16__avx2(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                           void *v_cache)
{
    assert(d % 8 == 0);
    uint16_t *k = (uint16_t *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    uint16_t *v = (uint16_t *)v_cache + position * d;
    for (size_t i = 0; i < d; i += 8) {
        uint16_t halves[8];
        _mm_storeu_si128((__m128i *)halves, to_f16(_mm256_loadu_ps(key + i)));
        for (size_t j = 0; j < 8; j++) k[(i + j) * EL_KEYS] = halves[j];
        _mm_storeu_si128((__m128i *)(v + i), to_f16(_mm256_loadu_ps(value + i)));
    }
}

void el_kv_write_q8_0__avx2(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                            void *v_cache)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_kv_write_q8(el_quantize_act_q8__avx2, d, position, key, value, k_cache, v_cache);
}
