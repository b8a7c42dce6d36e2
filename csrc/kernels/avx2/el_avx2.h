/* What the AVX2 kernels share. Each lane follows el_math.h step by step. */
#ifndef EL_AVX2_H
#define EL_AVX2_H

#ifndef __AVX2__
#error "compile this folder with -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>

#include "kernels/el_math.h"

#define EL_INLINE static inline __attribute__((always_inline))

/// All bits set in the first `n` of 8 lanes; in all of them when n >= 8.
EL_INLINE __m256i el_mask8(size_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= 8 ? 8 : (int)n), lane);
}

/// The first min(n, 8) values at p; zeros in the other lanes.
EL_INLINE __m256 el_load8(const float *p, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, el_mask8(n));
}

EL_INLINE void el_store8(float *p, size_t n, __m256 x)
{
    if (n >= 8) {
        _mm256_storeu_ps(p, x);
    } else {
        _mm256_maskstore_ps(p, el_mask8(n), x);
    }
}

/// Elements left for the second half of a step of sixteen.
EL_INLINE size_t el_after8(size_t n) { return n > 8 ? n - 8 : 0; }

EL_INLINE __m256 el_f16x8(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

/// e^x for x <= 0 (or NaN): el_expf without the steps that large arguments need.
EL_INLINE __m256 el_exp_neg_x8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(EL_EXP_MAGIC), lo = _mm256_set1_ps(EL_EXP_LO);
    const __m256 c = _mm256_max_ps(lo, x);  // the second operand where one is NaN
    const __m256 t = _mm256_fmadd_ps(c, _mm256_set1_ps(EL_EXP_LOG2E), magic);
    const __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EL_EXP_LN2_HI), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EL_EXP_LN2_LO), r);

    __m256 p = _mm256_set1_ps(EL_EXP_C0);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EL_EXP_C1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EL_EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EL_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EL_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EL_EXP_C5));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));

    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    const __m256 y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lo, _CMP_LT_OQ), y);
}

/// el_expf
EL_INLINE __m256 el_exp_x8(__m256 x)
{
    const __m256 hi = _mm256_set1_ps(EL_EXP_HI);
    const __m256 y = el_exp_neg_x8(_mm256_min_ps(hi, x));
    return _mm256_blendv_ps(y, _mm256_set1_ps(EL_INF), _mm256_cmp_ps(x, hi, _CMP_GT_OQ));
}

/// el_tree16 of sixteen sums in two registers.
EL_INLINE float el_tree_x8(__m256 lo, __m256 hi)
{
    const __m256 a = _mm256_add_ps(lo, hi);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

EL_INLINE float el_max_x8(__m256 x)
{
    const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

EL_INLINE int32_t el_sum_epi32(__m256i x)
{
    const __m128i a = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i b = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xB1)));
}

#endif
