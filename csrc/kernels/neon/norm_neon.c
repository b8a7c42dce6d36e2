/* rms_norm, layer_norm and softmax: the sixteen partial sums are four registers. A tail is loaded with
 * zeros, which change no sum: a sum that starts at +0 is never -0. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

void el_rms_norm__neon(size_t n, const float *x, const float *w, float eps, float *y)
{
    assert(n > 0);
    float32x4_t s[4] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
    for (size_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) {
            const float32x4_t v = el_load4(x + i + t * 4, el_after(n, i + t * 4));
            s[t] = vfmaq_f32(s[t], v, v);
        }
    }
    const float mean = el_tree_x4(s) / (float)n;
    const float32x4_t inverse = vdupq_n_f32(1.0f / el_sqrtf(mean + eps));

    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t v = vmulq_f32(el_load4(x + i, n - i), inverse);
        el_store4(y + i, n - i, vmulq_f32(v, el_load4(w + i, n - i)));
    }
}

// x - mean, and zero in lanes from n on
EL_INLINE float32x4_t centred(const float *x, size_t n, float32x4_t mean)
{
    const float32x4_t c = vsubq_f32(el_load4(x, n), mean);
    return n >= 4 ? c : el_keep4(c, el_mask4(n));
}

void el_layer_norm__neon(size_t n, const float *x, const float *w, const float *b, float eps, float *y)
{
    assert(n > 0);
    const float32x4_t zero = vdupq_n_f32(0.0f);
    float32x4_t s[4] = {zero, zero, zero, zero}, v[4] = {zero, zero, zero, zero};
    for (size_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) {
            s[t] = vaddq_f32(s[t], el_load4(x + i + t * 4, el_after(n, i + t * 4)));
        }
    }
    const float32x4_t mean = vdupq_n_f32(el_tree_x4(s) / (float)n);

    for (size_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) {
            const float32x4_t c = centred(x + i + t * 4, el_after(n, i + t * 4), mean);
            v[t] = vfmaq_f32(v[t], c, c);
        }
    }
    const float32x4_t inverse = vdupq_n_f32(1.0f / el_sqrtf(el_tree_x4(v) / (float)n + eps));

    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t c = vmulq_f32(vsubq_f32(el_load4(x + i, n - i), mean), inverse);
        const float32x4_t wi = el_load4(w + i, n - i);
        el_store4(y + i, n - i, b == NULL ? vmulq_f32(c, wi) : vfmaq_f32(el_load4(b + i, n - i), c, wi));
    }
}

EL_INLINE float32x4_t weight(const float *x, size_t n, float32x4_t max)
{
    const float32x4_t e = el_exp_neg_x4(vsubq_f32(el_load4(x, n), max));
    return n >= 4 ? e : el_keep4(e, el_mask4(n));
}

void el_softmax__neon(size_t n, const float *x, float *y)
{
    assert(n > 0);
    float32x4_t most = vdupq_n_f32(x[0]);
    size_t i = 0;
    for (; n - i >= 4; i += 4) most = vmaxnmq_f32(most, vld1q_f32(x + i));
    float top = vmaxnmvq_f32(most);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    const float32x4_t max = vdupq_n_f32(top);

    const float32x4_t zero = vdupq_n_f32(0.0f);
    float32x4_t s[4] = {zero, zero, zero, zero};
    for (i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) {
            const size_t left = el_after(n, i + t * 4);
            if (left == 0) break;
            const float32x4_t e = weight(x + i + t * 4, left, max);
            el_store4(y + i + t * 4, left, e);
            s[t] = vaddq_f32(s[t], e);
        }
    }
    const float32x4_t inverse = vdupq_n_f32(1.0f / el_tree_x4(s));
    for (i = 0; i < n; i += 4) el_store4(y + i, n - i, vmulq_f32(el_load4(y + i, n - i), inverse));
}
