/* gemm_q8_* for any ARMv8-A. smull and smlal multiply eight bytes with eight and add in 16 bits; four bytes of X
 * are repeated over a register, so both halves of a weight register meet them.
 *
 * Eight products of the narrow kinds fit: 8 * 31 * 127 = 31496 (5 bits), 8 * 32 * 127 = 32512 is the bound of
 * 16 bits, and q6_k, 63 as stored, adds four: 4 * 63 * 127 = 32004. So a quad and row of a block are 16 multiplies,
 * then two saddlp and one addp. Bytes fill 16 bits with two (2 * 128 * 127 = 32512) and
 * are widened by sadalp after each pair.
 *
 * A72 multiplies on one of its two pipes, so 16 cycles a quad and row are the floor, 8 products a cycle; the
 * other pipe does the rest. As compiled, a block of q4_0 and one row are 145 vector operations, 64 of
 * them multiplies: 73 cycles for 288 bytes, 6 GB/s a core at 1.5 GHz, more than a Raspberry Pi 4 reads. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include "kernels/el_declare.h"
#include "kernels/neon/el_q8_neon.h"

// Bytes 4 g .. 4 g + 3 of sixteen, four times over; g is 0 to 3.
EL_INLINE void repeated(const int8_t *q, int8x16_t x[4])
{
    const int32x4_t all = vreinterpretq_s32_s8(vld1q_s8(q));
    x[0] = vreinterpretq_s8_s32(vdupq_laneq_s32(all, 0));
    x[1] = vreinterpretq_s8_s32(vdupq_laneq_s32(all, 1));
    x[2] = vreinterpretq_s8_s32(vdupq_laneq_s32(all, 2));
    x[3] = vreinterpretq_s8_s32(vdupq_laneq_s32(all, 3));
}

// `groups` groups in 16 bits: lanes 0 and 1 in *lo, 2 and 3 in *hi.
EL_INLINE void multiply(size_t groups, const int8x16_t *w, const int8x16_t *x, int16x8_t *lo, int16x8_t *hi)
{
    *lo = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
    *hi = vmull_high_s8(w[0], x[0]);
#pragma GCC unroll 8
    for (size_t g = 1; g < groups; g++) {
        *lo = vmlal_s8(*lo, vget_low_s8(w[g]), vget_low_s8(x[g]));
        *hi = vmlal_high_s8(*hi, w[g], x[g]);
    }
}

// `groups` groups of a kind whose products do not fit in 16 bits.
EL_INLINE int32x4_t multiply_wide(size_t groups, const int8x16_t *w, const int8x16_t *x)
{
    int16x8_t lo, hi;
    multiply(2, w, x, &lo, &hi);
    int32x4_t a = vpaddlq_s16(lo), b = vpaddlq_s16(hi);
#pragma GCC unroll 4
    for (size_t g = 2; g < groups; g += 2) {
        multiply(2, w + g, x + g, &lo, &hi);
        a = vpadalq_s16(a, lo);
        b = vpadalq_s16(b, hi);
    }
    return vpaddq_s32(a, b);
}

EL_INLINE int32x4_t el_dot_block(el_layout kind, int32x4_t start, const int8x16_t w[8], const int8_t *q)
{
    int8x16_t x[8];
    repeated(q, x);
    repeated(q + 16, x + 4);
    if (el_q8_wide(kind)) return vaddq_s32(start, multiply_wide(8, w, x));
    int16x8_t lo, hi;
    multiply(8, w, x, &lo, &hi);
    return vaddq_s32(start, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
}

EL_INLINE void el_dot_halves(el_layout kind, const int8x16_t w[8], const int8_t *q, int32x4_t *dot_lo,
                             int32x4_t *dot_hi)
{
    (void)kind;  // every kind with halves is narrow
    int8x16_t x[8];
    int16x8_t lo, hi;
    repeated(q, x);
    repeated(q + 16, x + 4);
    multiply(4, w, x, &lo, &hi);
    *dot_lo = vaddq_s32(*dot_lo, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
    multiply(4, w + 4, x + 4, &lo, &hi);
    *dot_hi = vaddq_s32(*dot_hi, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
}

#include "kernels/neon/el_gemm_q8_neon.h"

void el_gemm_q8_q4_0x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
