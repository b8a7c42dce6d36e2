/* quantize_act_q8: a block is two registers. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

EL_INLINE __m512i rounded(__m512 x, __m512 inverse)
{
    __m512 t = _mm512_mul_ps(x, inverse);
    t = _mm512_min_ps(t, _mm512_set1_ps(127.0f));  // NaN becomes 127: the second operand
    t = _mm512_max_ps(t, _mm512_set1_ps(-127.0f));
    return _mm512_cvtps_epi32(t);  // ties to even
}

void el_quantize_act_q8__avx512vnni(size_t k, const float *x, el_act_q8 *y)
{
    assert(k % EL_BLOCK == 0);

    for (size_t b = 0; b < k / EL_BLOCK; b++) {
        const __m512 lo = _mm512_loadu_ps(x + b * EL_BLOCK), hi = _mm512_loadu_ps(x + b * EL_BLOCK + 16);
        // max(x, 0) with x first takes 0 where x is NaN, as ref does
        const __m512 zero = _mm512_setzero_ps();
        const __m512 a = _mm512_max_ps(_mm512_abs_ps(lo), zero), c = _mm512_max_ps(_mm512_abs_ps(hi), zero);
        const float amax = _mm512_reduce_max_ps(_mm512_max_ps(a, c));

        const bool tiny = amax < EL_ACT_TINY;
        y[b].scale = tiny ? 0.0f : amax / 127.0f;
        const __m512 inverse = _mm512_set1_ps(tiny ? 0.0f : 127.0f / amax);
        const __m512i q_lo = rounded(lo, inverse), q_hi = rounded(hi, inverse);
        _mm_storeu_si128((__m128i *)y[b].q, _mm512_cvtepi32_epi8(q_lo));
        _mm_storeu_si128((__m128i *)(y[b].q + 16), _mm512_cvtepi32_epi8(q_hi));
        y[b].sum_lo = _mm512_reduce_add_epi32(q_lo);
        y[b].sum = y[b].sum_lo + _mm512_reduce_add_epi32(q_hi);
    }
}
