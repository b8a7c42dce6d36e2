/* quantize_act_q8: a block is eight registers, which AArch64 has to spare, so x is read once. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

// Four values as int32. fminnm makes NaN 127; fcvtns rounds ties to even.
EL_INLINE int32x4_t rounded(float32x4_t x, float32x4_t inverse)
{
    const float32x4_t t = vminnmq_f32(vmulq_f32(x, inverse), vdupq_n_f32(127.0f));
    return vcvtnq_s32_f32(vmaxq_f32(t, vdupq_n_f32(-127.0f)));
}

EL_INLINE int8x16_t sixteen(const float32x4_t v[4], float32x4_t inverse)
{
    const int16x8_t a = vcombine_s16(vmovn_s32(rounded(v[0], inverse)), vmovn_s32(rounded(v[1], inverse)));
    const int16x8_t b = vcombine_s16(vmovn_s32(rounded(v[2], inverse)), vmovn_s32(rounded(v[3], inverse)));
    return vcombine_s8(vmovn_s16(a), vmovn_s16(b));
}

void el_quantize_act_q8__neon(size_t k, const float *x, el_act_q8 *y)
{
    assert(k % EL_BLOCK == 0);
    for (size_t b = 0; b < k / EL_BLOCK; b++, x += EL_BLOCK) {
        float32x4_t v[8], max = vdupq_n_f32(0.0f);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + i * 4);
            max = vmaxnmq_f32(max, vabsq_f32(v[i]));  // `max` where v is NaN
        }
        const float amax = vmaxnmvq_f32(max);
        const bool tiny = amax < EL_ACT_TINY;
        y[b].scale = tiny ? 0.0f : amax / 127.0f;
        const float32x4_t inverse = vdupq_n_f32(tiny ? 0.0f : 127.0f / amax);

        const int8x16_t lo = sixteen(v, inverse), hi = sixteen(v + 4, inverse);
        vst1q_s8(y[b].q, lo);
        vst1q_s8(y[b].q + 16, hi);
        y[b].sum_lo = vaddlvq_s8(lo);
        y[b].sum = y[b].sum_lo + vaddlvq_s8(hi);
    }
}
