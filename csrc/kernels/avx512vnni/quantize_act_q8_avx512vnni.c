/* quantize_act_q8. Four blocks at a time share the steps across lanes: largest magnitudes, the two
 * divisions, packing and sums. Each block's own steps are those of a block alone. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

EL_INLINE __m512 magnitude(__m512 lo, __m512 hi)
{
    // max(x, 0) with x first takes 0 where x is NaN, as ref does
    const __m512 zero = _mm512_setzero_ps();
    return _mm512_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), zero), _mm512_max_ps(_mm512_abs_ps(hi), zero));
}

/// Largest lane of each of four registers. A maximum does not depend on its order.
EL_INLINE __m128 largest(__m512 a, __m512 b, __m512 c, __m512 d)
{
    const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 all = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

EL_INLINE __m512i rounded(__m512 x, __m512 inverse)
{
    __m512 t = _mm512_mul_ps(x, inverse);
    t = _mm512_min_ps(t, _mm512_set1_ps(127.0f));  // NaN becomes 127: the second operand
    t = _mm512_max_ps(t, _mm512_set1_ps(-127.0f));
    return _mm512_cvtps_epi32(t);  // ties to even
}

/// Two blocks of integers as bytes in order: packing works within 128 bits, the permutation undoes that.
EL_INLINE __m512i packed(const __m512i q[4])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    return _mm512_permutexvar_epi32(order, bytes);
}

EL_INLINE void four(const float *x, el_act_q8 *y)
{
    __m512 v[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++) v[i] = _mm512_loadu_ps(x + i * 16);
    const __m128 amax =
        largest(magnitude(v[0], v[1]), magnitude(v[2], v[3]), magnitude(v[4], v[5]), magnitude(v[6], v[7]));
    const __mmask8 some = (__mmask8)~_mm_cmp_ps_mask(amax, _mm_set1_ps(EL_ACT_TINY), _CMP_LT_OQ);
    const __m128 most = _mm_set1_ps(127.0f);
    const __m128 scale = _mm_maskz_div_ps(some, amax, most), inverse = _mm_maskz_div_ps(some, most, amax);

    __m512i q[8], bytes[2];
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++) {
        const __m512i lane = _mm512_set1_epi32((int)(i / 2));
        q[i] = rounded(v[i], _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(inverse)));
    }
    bytes[0] = packed(q);
    bytes[1] = packed(q + 4);

    // Sums of four bytes, then of the four in 128 bits: half a block. The 128 bits at 4 c then begin with
    // half c % 2 of block c / 2 of bytes[0] and of bytes[1].
    const __m512i ones = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    const __m512i a = _mm512_dpbusd_epi32(zero, ones, bytes[0]);
    const __m512i b = _mm512_dpbusd_epi32(zero, ones, bytes[1]);
    const __m512i pairs = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    int32_t sums[16];
    _mm512_storeu_si512(sums, _mm512_add_epi32(pairs, _mm512_shuffle_epi32(pairs, _MM_PERM_BADC)));
    float scales[4];
    _mm_storeu_ps(scales, scale);

#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        const int32_t *s = sums + j % 2 * 8 + j / 2;
        y[j].scale = scales[j];
        y[j].sum_lo = s[0];
        y[j].sum = s[0] + s[4];
    }
    _mm256_storeu_si256((__m256i *)y[0].q, _mm512_castsi512_si256(bytes[0]));
    _mm256_storeu_si256((__m256i *)y[1].q, _mm512_extracti64x4_epi64(bytes[0], 1));
    _mm256_storeu_si256((__m256i *)y[2].q, _mm512_castsi512_si256(bytes[1]));
    _mm256_storeu_si256((__m256i *)y[3].q, _mm512_extracti64x4_epi64(bytes[1], 1));
}

EL_INLINE void one(const float *x, el_act_q8 *y)
{
    const __m512 lo = _mm512_loadu_ps(x), hi = _mm512_loadu_ps(x + 16);
    const float amax = _mm512_reduce_max_ps(magnitude(lo, hi));
    const bool tiny = amax < EL_ACT_TINY;
    y->scale = tiny ? 0.0f : amax / 127.0f;
    const __m512 inverse = _mm512_set1_ps(tiny ? 0.0f : 127.0f / amax);
    const __m512i q_lo = rounded(lo, inverse), q_hi = rounded(hi, inverse);
    _mm_storeu_si128((__m128i *)y->q, _mm512_cvtepi32_epi8(q_lo));
    _mm_storeu_si128((__m128i *)(y->q + 16), _mm512_cvtepi32_epi8(q_hi));
    y->sum_lo = _mm512_reduce_add_epi32(q_lo);
    y->sum = y->sum_lo + _mm512_reduce_add_epi32(q_hi);
}

void el_quantize_act_q8__avx512vnni(size_t k, const float *x, el_act_q8 *y)
{
    assert(k % EL_BLOCK == 0);
    const size_t blocks = k / EL_BLOCK;
    if (blocks < 4) {
        for (size_t b = 0; b < blocks; b++) one(x + b * EL_BLOCK, y + b);
        return;
    }
    // The last four may repeat some of those before them, which costs less than one by one.
    for (size_t b = 0; b < blocks; b += 4) {
        const size_t at = blocks - b < 4 ? blocks - 4 : b;
        four(x + at * EL_BLOCK, y + at);
    }
}
