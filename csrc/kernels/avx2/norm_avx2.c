/* rms_norm, layer_norm and softmax: the sixteen partial sums are two registers. A tail is loaded with
 * zeros, which change no sum: a sum that starts at +0 is never -0. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

void el_rms_norm__avx2(size_t n, const float *x, const float *w, float eps, float *y)
{
    assert(n > 0);
    __m256 lo = _mm256_setzero_ps(), hi = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __m256 a = el_load8(x + i, n - i), b = el_load8(x + i + 8, el_after8(n - i));
        lo = _mm256_fmadd_ps(a, a, lo);
        hi = _mm256_fmadd_ps(b, b, hi);
    }
    const float mean = el_tree_x8(lo, hi) / (float)n;
    const __m256 inverse = _mm256_set1_ps(1.0f / el_sqrtf(mean + eps));

    for (size_t i = 0; i < n; i += 8) {
        const __m256 v = _mm256_mul_ps(el_load8(x + i, n - i), inverse);
        el_store8(y + i, n - i, _mm256_mul_ps(v, el_load8(w + i, n - i)));
    }
}

// x - mean, and zero in lanes from n on
EL_INLINE __m256 centred(const float *x, size_t n, __m256 mean)
{
    const __m256 c = _mm256_sub_ps(el_load8(x, n), mean);
    return n >= 8 ? c : _mm256_and_ps(c, _mm256_castsi256_ps(el_mask8(n)));
}

void el_layer_norm__avx2(size_t n, const float *x, const float *w, const float *b, float eps, float *y)
{
    assert(n > 0);
    __m256 lo = _mm256_setzero_ps(), hi = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        lo = _mm256_add_ps(lo, el_load8(x + i, n - i));
        hi = _mm256_add_ps(hi, el_load8(x + i + 8, el_after8(n - i)));
    }
    const __m256 mean = _mm256_set1_ps(el_tree_x8(lo, hi) / (float)n);

    lo = hi = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        const __m256 c = centred(x + i, n - i, mean), e = centred(x + i + 8, el_after8(n - i), mean);
        lo = _mm256_fmadd_ps(c, c, lo);
        hi = _mm256_fmadd_ps(e, e, hi);
    }
    const __m256 inverse = _mm256_set1_ps(1.0f / el_sqrtf(el_tree_x8(lo, hi) / (float)n + eps));

    for (size_t i = 0; i < n; i += 8) {
        const __m256 c = _mm256_mul_ps(_mm256_sub_ps(el_load8(x + i, n - i), mean), inverse);
        const __m256 wi = el_load8(w + i, n - i);
        const __m256 out = b == NULL ? _mm256_mul_ps(c, wi) : _mm256_fmadd_ps(c, wi, el_load8(b + i, n - i));
        el_store8(y + i, n - i, out);
    }
}

EL_INLINE __m256 weight(const float *x, size_t n, __m256 max)
{
    const __m256 e = el_exp_neg_x8(_mm256_sub_ps(el_load8(x, n), max));
    return n >= 8 ? e : _mm256_and_ps(e, _mm256_castsi256_ps(el_mask8(n)));
}

void el_softmax__avx2(size_t n, const float *x, float *y)
{
    assert(n > 0);
    __m256 max = _mm256_set1_ps(x[0]);
    size_t i = 0;
    for (; n - i >= 8; i += 8) max = _mm256_max_ps(_mm256_loadu_ps(x + i), max);
    float top = el_max_x8(max);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    max = _mm256_set1_ps(top);

    __m256 lo = _mm256_setzero_ps(), hi = _mm256_setzero_ps();
    for (i = 0; i < n; i += 16) {
        const size_t second = el_after8(n - i);
        const __m256 a = weight(x + i, n - i, max), b = weight(x + i + 8, second, max);
        el_store8(y + i, n - i, a);
        if (second > 0) el_store8(y + i + 8, second, b);
        lo = _mm256_add_ps(lo, a);
        hi = _mm256_add_ps(hi, b);
    }
    const __m256 inverse = _mm256_set1_ps(1.0f / el_tree_x8(lo, hi));
    for (i = 0; i < n; i += 8) el_store8(y + i, n - i, _mm256_mul_ps(el_load8(y + i, n - i), inverse));
}
