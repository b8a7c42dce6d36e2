/* What the NEON kernels share. Each lane follows el_math.h step by step.
 *
 * fmax and fmin give NaN where an operand is NaN, fmaxnm and fminnm the other operand: el_math.h's
 * `a > x ? a : x` keeps x, so the first pair serves where x is what may be NaN. A fused subtraction
 * c - a * b is fmls: the negation is exact, so it has the bits of fma(-a, b, c). */
#ifndef EL_NEON_H
#define EL_NEON_H

#ifndef __ARM_NEON
#error "compile this folder for AArch64"
#endif

#include <arm_neon.h>

#include "kernels/el_math.h"

#define EL_INLINE static inline __attribute__((always_inline))

/// The first min(n, 4) values at p; zeros in the other lanes.
EL_INLINE float32x4_t el_load4(const float *p, size_t n)
{
    if (n >= 4) return vld1q_f32(p);
    float part[4] = {0.0f};
    for (size_t i = 0; i < n; i++) part[i] = p[i];
    return vld1q_f32(part);
}

EL_INLINE void el_store4(float *p, size_t n, float32x4_t x)
{
    if (n >= 4) {
        vst1q_f32(p, x);
        return;
    }
    float part[4];
    vst1q_f32(part, x);
    for (size_t i = 0; i < n; i++) p[i] = part[i];
}

/// The first min(n, 16) of sixteen lanes to p.
EL_INLINE void el_store16(float *p, size_t n, const float32x4_t x[4])
{
    float part[EL_LANES], *to = n >= EL_LANES ? p : part;
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++) vst1q_f32(to + t * 4, x[t]);
    for (size_t i = 0; i < n && to == part; i++) p[i] = part[i];
}

/// Elements left after `used` of n.
EL_INLINE size_t el_after(size_t n, size_t used) { return n > used ? n - used : 0; }

/// All bits set in the first min(n, 4) lanes.
EL_INLINE uint32x4_t el_mask4(size_t n)
{
    static const uint32_t lanes[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(n >= 4 ? 4 : (uint32_t)n));
}

/// x in lanes where the mask is set, +0 elsewhere.
EL_INLINE float32x4_t el_keep4(float32x4_t x, uint32x4_t mask)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), mask));
}

/// +0 in lanes where the mask is set, x elsewhere.
EL_INLINE float32x4_t el_drop4(float32x4_t x, uint32x4_t mask)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), mask));
}

EL_INLINE float32x4_t el_f16x4(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p)));
}

/// e^x for x <= 0 (or NaN): el_expf without the steps that large arguments need.
EL_INLINE float32x4_t el_exp_neg_x4(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(EL_EXP_MAGIC), lo = vdupq_n_f32(EL_EXP_LO);
    const float32x4_t c = vmaxq_f32(x, lo);
    const float32x4_t t = vfmaq_f32(magic, c, vdupq_n_f32(EL_EXP_LOG2E));
    const float32x4_t n = vsubq_f32(t, magic);
    float32x4_t r = vfmsq_f32(c, n, vdupq_n_f32(EL_EXP_LN2_HI));
    r = vfmsq_f32(r, n, vdupq_n_f32(EL_EXP_LN2_LO));

    float32x4_t p = vdupq_n_f32(EL_EXP_C0);
    p = vfmaq_f32(vdupq_n_f32(EL_EXP_C1), p, r);
    p = vfmaq_f32(vdupq_n_f32(EL_EXP_C2), p, r);
    p = vfmaq_f32(vdupq_n_f32(EL_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EL_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EL_EXP_C5), p, r);
    p = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0f));

    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
    const float32x4_t y = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), exponent));
    return el_drop4(y, vcltq_f32(x, lo));
}

/// el_expf
EL_INLINE float32x4_t el_exp_x4(float32x4_t x)
{
    const float32x4_t hi = vdupq_n_f32(EL_EXP_HI);
    const float32x4_t y = el_exp_neg_x4(vminq_f32(x, hi));
    return vbslq_f32(vcgtq_f32(x, hi), vdupq_n_f32(EL_INF), y);
}

/// el_tree16 of sixteen sums in four registers.
EL_INLINE float el_tree_x4(const float32x4_t s[4])
{
    const float32x4_t a = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

#endif
