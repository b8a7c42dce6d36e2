/* rope: ld2 takes pairs apart, so four pairs are four lanes of x0 and four of x1. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

void el_rope__neon(size_t heads, size_t d, size_t rotated, const float *cs, float *x)
{
    assert(rotated % 2 == 0 && rotated <= d);
    size_t i = 0;
    for (; rotated - i >= 8; i += 8) {
        const float32x4x2_t a = vld2q_f32(cs + i);  // cosines, sines
        for (size_t h = 0; h < heads; h++) {
            float *v = x + h * d + i;
            const float32x4x2_t p = vld2q_f32(v);
            float32x4x2_t out;
            out.val[0] = vfmaq_f32(vnegq_f32(vmulq_f32(p.val[1], a.val[1])), p.val[0], a.val[0]);
            out.val[1] = vfmaq_f32(vmulq_f32(p.val[1], a.val[0]), p.val[0], a.val[1]);
            vst2q_f32(v, out);
        }
    }
    for (; i < rotated; i += 2) {
        const float c = cs[i], s = cs[i + 1];
        for (size_t h = 0; h < heads; h++) {
            float *v = x + h * d + i;
            const float a = v[0], b = v[1];
            v[0] = el_fmaf(a, c, -(b * s));
            v[1] = el_fmaf(a, s, b * c);
        }
    }
}
