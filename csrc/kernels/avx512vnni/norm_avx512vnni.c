/* rms_norm, layer_norm and softmax: the sixteen partial sums are the lanes of one register. A tail is
 * loaded with zeros in the lanes that do not exist, and those lanes are left out of the sums, so that
 * they keep their sign of zero. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

void el_rms_norm__avx512vnni(size_t n, const float *x, const float *w, float eps, float *y)
{
    assert(n > 0);
    __m512 s = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        s = _mm512_mask3_fmadd_ps(v, v, s, mask);
    }
    const float mean = el_tree_x16(s) / (float)n;
    const __m512 inverse = _mm512_set1_ps(1.0f / el_sqrtf(mean + eps));

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), inverse);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, w + i)));
    }
}

void el_layer_norm__avx512vnni(size_t n, const float *x, const float *w, const float *b, float eps, float *y)
{
    assert(n > 0);
    __m512 s = _mm512_setzero_ps(), v = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        s = _mm512_mask_add_ps(s, mask, s, _mm512_maskz_loadu_ps(mask, x + i));
    }
    const __m512 mean = _mm512_set1_ps(el_tree_x16(s) / (float)n);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 c = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean);
        v = _mm512_mask3_fmadd_ps(c, c, v, mask);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / el_sqrtf(el_tree_x16(v) / (float)n + eps));

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 c = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), inverse);
        const __m512 wi = _mm512_maskz_loadu_ps(mask, w + i);
        const __m512 out =
            b == NULL ? _mm512_mul_ps(c, wi) : _mm512_fmadd_ps(c, wi, _mm512_maskz_loadu_ps(mask, b + i));
        _mm512_mask_storeu_ps(y + i, mask, out);
    }
}

void el_softmax__avx512vnni(size_t n, const float *x, float *y)
{
    assert(n > 0);
    __m512 max = _mm512_set1_ps(x[0]);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        max = _mm512_mask_max_ps(max, mask, _mm512_maskz_loadu_ps(mask, x + i), max);
    }
    max = _mm512_set1_ps(_mm512_reduce_max_ps(max));

    __m512 s = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        const __m512 e = el_exp_neg_x16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), max));
        _mm512_mask_storeu_ps(y + i, mask, e);
        s = _mm512_mask_add_ps(s, mask, s, e);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / el_tree_x16(s));
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + i), inverse));
    }
}
