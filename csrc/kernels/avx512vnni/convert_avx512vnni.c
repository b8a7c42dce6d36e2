/* f32_to_f16, f16_to_f32, kv_write_f16 and kv_write_q8_0. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"
#include "kernels/el_kv_q8.h"

EL_INLINE __m256i to_f16(__m512 x)
{
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void el_f32_to_f16__avx512vnni(size_t n, const float *x, uint16_t *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm256_mask_storeu_epi16(y + i, mask, to_f16(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

void el_f16_to_f32__avx512vnni(size_t n, const uint16_t *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)));
    }
}

void el_kv_write_f16__avx512vnni(size_t d, size_t position, const float *key, const float *value,
                                 void *k_cache, void *v_cache)
{
    assert(d % 8 == 0);
    uint16_t *k = (uint16_t *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    uint16_t *v = (uint16_t *)v_cache + position * d;
    for (size_t i = 0; i < d; i += 16) {
        const __mmask16 mask = el_mask16(d - i);
        uint16_t halves[16];
        _mm256_storeu_si256((__m256i *)halves, to_f16(_mm512_maskz_loadu_ps(mask, key + i)));
        for (size_t j = 0; j < 16 && i + j < d; j++) k[(i + j) * EL_KEYS] = halves[j];
        _mm256_mask_storeu_epi16(v + i, mask, to_f16(_mm512_maskz_loadu_ps(mask, value + i)));
    }
}

void el_kv_write_q8_0__avx512vnni(size_t d, size_t position, const float *key, const float *value,
                                  void *k_cache, void *v_cache)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_kv_write_q8(el_quantize_act_q8__avx512vnni, d, position, key, value, k_cache, v_cache);
}
