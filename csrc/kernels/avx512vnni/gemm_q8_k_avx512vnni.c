/* gemm_q8_* of the types with super-blocks of 256. The body is in el_gemm_q8_avx512vnni.h. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx512vnni/el_gemm_q8_avx512vnni.h"

void el_gemm_q8_q4_kx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                     size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
