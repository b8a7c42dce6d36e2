/* What the AVX-512 kernels share. Each lane follows el_math.h step by step. */
#ifndef EL_AVX512VNNI_H
#define EL_AVX512VNNI_H

#ifndef __AVX512VNNI__
#error "compile this folder with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni"
#endif

#include <immintrin.h>

#include "kernels/el_math.h"

#define EL_INLINE static inline __attribute__((always_inline))

/// Mask of the first `n` of 16 lanes; all of them when n >= 16.
EL_INLINE __mmask16 el_mask16(size_t n) { return n >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << n) - 1u); }

EL_INLINE __m512 el_f16x16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/// e^x for x <= 0 (or NaN): el_expf without the steps that large arguments need.
EL_INLINE __m512 el_exp_neg_x16(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(EL_EXP_MAGIC), lo = _mm512_set1_ps(EL_EXP_LO);
    const __m512 c = _mm512_max_ps(lo, x);  // the second operand where one is NaN
    const __m512 t = _mm512_fmadd_ps(c, _mm512_set1_ps(EL_EXP_LOG2E), magic);
    const __m512 n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EL_EXP_LN2_HI), c);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EL_EXP_LN2_LO), r);

    __m512 p = _mm512_set1_ps(EL_EXP_C0);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EL_EXP_C1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EL_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EL_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EL_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EL_EXP_C5));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));

    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    const __m512 y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, lo, _CMP_LT_OQ), _mm512_setzero_ps());
}

/// el_expf
EL_INLINE __m512 el_exp_x16(__m512 x)
{
    const __m512 hi = _mm512_set1_ps(EL_EXP_HI);
    const __m512 y = el_exp_neg_x16(_mm512_min_ps(hi, x));
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, hi, _CMP_GT_OQ), _mm512_set1_ps(EL_INF));
}

/// el_siluf
EL_INLINE __m512 el_silu_x16(__m512 x)
{
    const __m512 minus = _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), el_exp_x16(minus)));
}

/// el_tree16: the halves of the register are the halves of the tree.
EL_INLINE float el_tree_x16(__m512 s)
{
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

#endif
