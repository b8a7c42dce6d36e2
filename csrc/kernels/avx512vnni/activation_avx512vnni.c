/* The elementwise operations, sixteen at a time; formulas and constants in el_math.h. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

EL_INLINE __m512 set(float x) { return _mm512_set1_ps(x); }

EL_INLINE __m512 gelu(__m512 x)
{
    const __m512 u = _mm512_mul_ps(x, set(EL_GELU_RSQRT2));
    const __mmask16 negative = _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_LT_OQ);
    const __m512 t = _mm512_abs_ps(u);

    const __m512 s = _mm512_mul_ps(t, t);
    __m512 e = set(EL_ERF_E5);
    e = _mm512_fmadd_ps(e, s, set(EL_ERF_E4));
    e = _mm512_fmadd_ps(e, s, set(EL_ERF_E3));
    e = _mm512_fmadd_ps(e, s, set(EL_ERF_E2));
    e = _mm512_fmadd_ps(e, s, set(EL_ERF_E1));
    e = _mm512_fmadd_ps(e, s, set(EL_ERF_E0));
    const __m512 near = _mm512_fmadd_ps(set(0.5f), _mm512_fmadd_ps(e, u, u), set(0.5f));

    const __m512 c = _mm512_min_ps(set(EL_GELU_END), t);
    __m512 q = set(EL_ERF_Q6);
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q5));
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q4));
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q3));
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q2));
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q1));
    q = _mm512_fmadd_ps(q, c, set(EL_ERF_Q0));
    const __m512 minus = _mm512_xor_ps(_mm512_mul_ps(c, q), set(-0.0f));
    __m512 tail = _mm512_mul_ps(set(0.5f), el_exp_x16(minus));
    tail = _mm512_mask_mov_ps(tail, _mm512_cmp_ps_mask(t, set(EL_GELU_END), _CMP_GT_OQ), _mm512_setzero_ps());
    const __m512 far = _mm512_mask_mov_ps(_mm512_sub_ps(set(1.0f), tail), negative, tail);

    const __mmask16 small = _mm512_cmp_ps_mask(t, set(EL_GELU_SPLIT), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(far, small, near));
}

EL_INLINE __m512 gelu_tanh(__m512 x)
{
    const __m512 cubic = _mm512_fmadd_ps(_mm512_mul_ps(set(EL_GELU_TANH_A), x), _mm512_mul_ps(x, x), x);
    const __m512 e = el_exp_x16(_mm512_mul_ps(set(EL_GELU_TANH_B), cubic));
    return _mm512_div_ps(x, _mm512_add_ps(set(1.0f), e));
}

void el_silu__avx512vnni(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_mask_storeu_ps(y + i, mask, el_silu_x16(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

void el_gelu__avx512vnni(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_mask_storeu_ps(y + i, mask, gelu(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

void el_gelu_tanh__avx512vnni(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_mask_storeu_ps(y + i, mask, gelu_tanh(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

void el_swiglu__avx512vnni(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 g = el_silu_x16(_mm512_maskz_loadu_ps(mask, gate + i));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(g, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

void el_geglu_tanh__avx512vnni(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 g = gelu_tanh(_mm512_maskz_loadu_ps(mask, gate + i));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(g, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

void el_add__avx512vnni(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(y + i, mask, sum);
    }
}
