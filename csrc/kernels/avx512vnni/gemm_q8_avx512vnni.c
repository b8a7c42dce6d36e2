/* gemm_q8_* of the types with blocks of 32. The body is in el_gemm_q8_avx512vnni.h. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx512vnni/el_gemm_q8_avx512vnni.h"

void el_gemm_q8_q4_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                      size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}
