/* The elementwise operations, four at a time; formulas and constants in el_math.h. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

EL_INLINE float32x4_t set(float x) { return vdupq_n_f32(x); }

EL_INLINE float32x4_t silu(float32x4_t x)
{
    return vdivq_f32(x, vaddq_f32(set(1.0f), el_exp_x4(vnegq_f32(x))));
}

EL_INLINE float32x4_t gelu(float32x4_t x)
{
    const float32x4_t u = vmulq_f32(x, set(EL_GELU_RSQRT2));
    const uint32x4_t negative = vcltzq_f32(u);
    const float32x4_t t = vabsq_f32(u);

    const float32x4_t s = vmulq_f32(t, t);
    float32x4_t e = set(EL_ERF_E5);
    e = vfmaq_f32(set(EL_ERF_E4), e, s);
    e = vfmaq_f32(set(EL_ERF_E3), e, s);
    e = vfmaq_f32(set(EL_ERF_E2), e, s);
    e = vfmaq_f32(set(EL_ERF_E1), e, s);
    e = vfmaq_f32(set(EL_ERF_E0), e, s);
    const float32x4_t near = vfmaq_f32(set(0.5f), set(0.5f), vfmaq_f32(u, e, u));

    const float32x4_t c = vminq_f32(t, set(EL_GELU_END));
    float32x4_t q = set(EL_ERF_Q6);
    q = vfmaq_f32(set(EL_ERF_Q5), q, c);
    q = vfmaq_f32(set(EL_ERF_Q4), q, c);
    q = vfmaq_f32(set(EL_ERF_Q3), q, c);
    q = vfmaq_f32(set(EL_ERF_Q2), q, c);
    q = vfmaq_f32(set(EL_ERF_Q1), q, c);
    q = vfmaq_f32(set(EL_ERF_Q0), q, c);
    float32x4_t tail = vmulq_f32(set(0.5f), el_exp_x4(vnegq_f32(vmulq_f32(c, q))));
    tail = el_drop4(tail, vcgtq_f32(t, set(EL_GELU_END)));
    const float32x4_t far = vbslq_f32(negative, tail, vsubq_f32(set(1.0f), tail));

    return vmulq_f32(x, vbslq_f32(vcltq_f32(t, set(EL_GELU_SPLIT)), near, far));
}

EL_INLINE float32x4_t gelu_tanh(float32x4_t x)
{
    const float32x4_t cubic = vfmaq_f32(x, vmulq_f32(set(EL_GELU_TANH_A), x), vmulq_f32(x, x));
    const float32x4_t e = el_exp_x4(vmulq_f32(set(EL_GELU_TANH_B), cubic));
    return vdivq_f32(x, vaddq_f32(set(1.0f), e));
}

void el_silu__neon(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 4) el_store4(y + i, n - i, silu(el_load4(x + i, n - i)));
}

void el_gelu__neon(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 4) el_store4(y + i, n - i, gelu(el_load4(x + i, n - i)));
}

void el_gelu_tanh__neon(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += 4) el_store4(y + i, n - i, gelu_tanh(el_load4(x + i, n - i)));
}

void el_swiglu__neon(size_t n, const float *gate, const float *up, float *y)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {  // two chains hide the latency of the polynomial and of the division
        const float32x4_t a = silu(vld1q_f32(gate + i)), b = silu(vld1q_f32(gate + i + 4));
        const float32x4_t c = vld1q_f32(up + i), d = vld1q_f32(up + i + 4);
        vst1q_f32(y + i, vmulq_f32(a, c));
        vst1q_f32(y + i + 4, vmulq_f32(b, d));
    }
    for (; i < n; i += 4) {
        const float32x4_t g = silu(el_load4(gate + i, n - i));
        el_store4(y + i, n - i, vmulq_f32(g, el_load4(up + i, n - i)));
    }
}

void el_geglu_tanh__neon(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t g = gelu_tanh(el_load4(gate + i, n - i));
        el_store4(y + i, n - i, vmulq_f32(g, el_load4(up + i, n - i)));
    }
}

void el_add__neon(size_t n, const float *x, float *y)
{
    size_t i = 0;
    for (; n - i >= 4; i += 4) vst1q_f32(y + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++) y[i] = x[i] + y[i];
}
