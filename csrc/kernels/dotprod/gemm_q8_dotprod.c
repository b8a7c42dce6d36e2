/* gemm_q8_* for ARMv8.2-A with dot products (Cortex-A55, A75, A76 and later; Raspberry Pi 5).
 *
 * A76 has two vector pipes, sdot runs on both. As compiled, a block of q4_0 and one row are 90 vector operations (32
 * to unpack, 32 sdot, the rest scales and float) in 125 instructions: 45 cycles for 288 bytes, 15 GB/s at
 * 2.4 GHz, more than the memory of a Raspberry Pi 5 gives to one core. Four rows over a panel are 198 for
 * 2048 products: 21 a cycle of at most 32. */
#ifndef __ARM_FEATURE_DOTPROD
#error "compile this file with the flags of its folder"
#endif

#include "kernels/dotprod/el_dot_dotprod.h"
#include "kernels/el_declare.h"
#include "kernels/neon/el_gemm_q8_neon.h"

void el_gemm_q8_q4_0x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                   size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__dotprod(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                  size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_q8(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
