/* The elementwise operations, eight at a time; formulas and constants in el_math.h. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

EL_INLINE __m256 set(float x) { return _mm256_set1_ps(x); }

EL_INLINE __m256 silu(__m256 x)
{
    return _mm256_div_ps(x, _mm256_add_ps(set(1.0f), el_exp_x8(_mm256_xor_ps(x, set(-0.0f)))));
}

EL_INLINE __m256 gelu(__m256 x)
{
    const __m256 u = _mm256_mul_ps(x, set(EL_GELU_RSQRT2));
    const __m256 negative = _mm256_cmp_ps(u, _mm256_setzero_ps(), _CMP_LT_OQ);
    const __m256 t = _mm256_andnot_ps(set(-0.0f), u);

    const __m256 s = _mm256_mul_ps(t, t);
    __m256 e = set(EL_ERF_E5);
    e = _mm256_fmadd_ps(e, s, set(EL_ERF_E4));
    e = _mm256_fmadd_ps(e, s, set(EL_ERF_E3));
    e = _mm256_fmadd_ps(e, s, set(EL_ERF_E2));
    e = _mm256_fmadd_ps(e, s, set(EL_ERF_E1));
    e = _mm256_fmadd_ps(e, s, set(EL_ERF_E0));
    const __m256 near = _mm256_fmadd_ps(set(0.5f), _mm256_fmadd_ps(e, u, u), set(0.5f));

    const __m256 c = _mm256_min_ps(set(EL_GELU_END), t);
    __m256 q = set(EL_ERF_Q6);
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q5));
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q4));
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q3));
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q2));
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q1));
    q = _mm256_fmadd_ps(q, c, set(EL_ERF_Q0));
    __m256 tail = _mm256_mul_ps(set(0.5f), el_exp_x8(_mm256_xor_ps(_mm256_mul_ps(c, q), set(-0.0f))));
    tail = _mm256_andnot_ps(_mm256_cmp_ps(t, set(EL_GELU_END), _CMP_GT_OQ), tail);
    const __m256 far = _mm256_blendv_ps(_mm256_sub_ps(set(1.0f), tail), tail, negative);

    const __m256 small = _mm256_cmp_ps(t, set(EL_GELU_SPLIT), _CMP_LT_OQ);
    return _mm256_mul_ps(x, _mm256_blendv_ps(far, near, small));
}

EL_INLINE __m256 gelu_tanh(__m256 x)
{
    const __m256 cubic = _mm256_fmadd_ps(_mm256_mul_ps(set(EL_GELU_TANH_A), x), _mm256_mul_ps(x, x), x);
    const __m256 e = el_exp_x8(_mm256_mul_ps(set(EL_GELU_TANH_B), cubic));
    return _mm256_div_ps(x, _mm256_add_ps(set(1.0f), e));
}

void el_silu__avx2(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 8) el_store8(y + i, n - i, silu(el_load8(x + i, n - i)));
}

void el_gelu__avx2(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 8) el_store8(y + i, n - i, gelu(el_load8(x + i, n - i)));
}

void el_gelu_tanh__avx2(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 8) el_store8(y + i, n - i, gelu_tanh(el_load8(x + i, n - i)));
}

void el_swiglu__avx2(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256 g = silu(el_load8(gate + i, n - i));
        el_store8(y + i, n - i, _mm256_mul_ps(g, el_load8(up + i, n - i)));
    }
}

void el_geglu_tanh__avx2(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256 g = gelu_tanh(el_load8(gate + i, n - i));
        el_store8(y + i, n - i, _mm256_mul_ps(g, el_load8(up + i, n - i)));
    }
}

void el_add__avx2(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 8) {
        el_store8(y + i, n - i, _mm256_add_ps(el_load8(x + i, n - i), el_load8(y + i, n - i)));
    }
}
