/* The products of a block by sdot: four bytes of W in each lane times four bytes of X, taken by element. x16 is
 * made for it: no byte is moved and nothing is widened. */
#ifndef EL_DOT_DOTPROD_H
#define EL_DOT_DOTPROD_H

#include "kernels/neon/el_q8_neon.h"

EL_INLINE int32x4_t el_dot_four(int32x4_t dot, const int8x16_t w[4], int8x16_t x)
{
    dot = vdotq_laneq_s32(dot, w[0], x, 0);
    dot = vdotq_laneq_s32(dot, w[1], x, 1);
    dot = vdotq_laneq_s32(dot, w[2], x, 2);
    return vdotq_laneq_s32(dot, w[3], x, 3);
}

EL_INLINE int32x4_t el_dot_block(el_layout kind, int32x4_t start, const int8x16_t w[8], const int8_t *q)
{
    (void)kind;
    const int32x4_t lo = el_dot_four(start, w, vld1q_s8(q));
    return el_dot_four(lo, w + 4, vld1q_s8(q + 16));
}

EL_INLINE void el_dot_halves(el_layout kind, const int8x16_t w[8], const int8_t *q, int32x4_t *lo,
                             int32x4_t *hi)
{
    (void)kind;
    *lo = el_dot_four(*lo, w, vld1q_s8(q));
    *hi = el_dot_four(*hi, w + 4, vld1q_s8(q + 16));
}

#endif
