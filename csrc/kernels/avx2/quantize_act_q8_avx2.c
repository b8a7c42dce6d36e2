/* quantize_act_q8: a block is four registers. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

EL_INLINE __m256i rounded(__m256 x, __m256 inverse)
{
    __m256 t = _mm256_mul_ps(x, inverse);
    t = _mm256_min_ps(t, _mm256_set1_ps(127.0f));  // NaN becomes 127: the second operand
    t = _mm256_max_ps(t, _mm256_set1_ps(-127.0f));
    return _mm256_cvtps_epi32(t);  // ties to even
}

void el_quantize_act_q8__avx2(size_t k, const float *x, el_act_q8 *y)
{
    assert(k % EL_BLOCK == 0);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    // vpack works within 128-bit halves; this puts groups of four values back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);

    for (size_t b = 0; b < k / EL_BLOCK; b++) {
        __m256 v[4], max = _mm256_setzero_ps();
        for (size_t i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + b * EL_BLOCK + i * 8);
            max = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), max);  // `max` where v is NaN
        }
        const float amax = el_max_x8(max);

        const bool tiny = amax < EL_ACT_TINY;
        y[b].scale = tiny ? 0.0f : amax / 127.0f;
        const __m256 inverse = _mm256_set1_ps(tiny ? 0.0f : 127.0f / amax);
        __m256i q[4];
        for (size_t i = 0; i < 4; i++) q[i] = rounded(v[i], inverse);

        const __m256i lo = _mm256_packs_epi32(q[0], q[1]), hi = _mm256_packs_epi32(q[2], q[3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(lo, hi), order);
        _mm256_storeu_si256((__m256i *)y[b].q, bytes);
        y[b].sum_lo = el_sum_epi32(_mm256_add_epi32(q[0], q[1]));
        y[b].sum = y[b].sum_lo + el_sum_epi32(_mm256_add_epi32(q[2], q[3]));
    }
}
