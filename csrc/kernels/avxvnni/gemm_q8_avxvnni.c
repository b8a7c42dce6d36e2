/* gemm_q8_* with VEX-coded vpdpbusd, which multiplies unsigned by signed bytes without saturation: weights
 * are unsigned, plus a bias that is repaid once per block with the exact integer bias * sum(x). */
#ifndef __AVXVNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx2/el_avx2.h"

enum { EL_ROWS = 6, EL_BYTES_SATURATE = 0 };

// dot[i * rows + r]: of `groups` groups of four values, rows of half i of W with row r of X. Halves are
// `stride` bytes apart. All sizes are constants; `top`, the largest weight, does not matter here.
EL_INLINE void el_dot(unsigned top, size_t groups, size_t halves, size_t rows, const __m256i *w,
                      size_t stride, const int8_t *const *x, __m256i *dot)
{
    (void)top;
#pragma GCC unroll 8
    for (size_t g = 0; g < groups; g++) {
        __m256i wg[2];
#pragma GCC unroll 2
        for (size_t i = 0; i < halves; i++) wg[i] = *(const __m256i *)((const char *)(w + g) + i * stride);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x[r] + g * 4, sizeof four);
            const __m256i xg = _mm256_set1_epi32(four);
#pragma GCC unroll 2
            for (size_t i = 0; i < halves; i++) {
                __m256i *sum = &dot[i * rows + r];
                *sum = _mm256_dpbusd_avx_epi32(g == 0 ? _mm256_setzero_si256() : *sum, wg[i], xg);
            }
        }
    }
}

#include "kernels/el_gemm_q8_256.h"

static void pass_plain(const el_pass *p, size_t m) { el_pass_all(EL_PLAIN, 255, 128, 2, 6, p, m); }
static void pass_min(const el_pass *p, size_t m) { el_pass_all(EL_MIN, 255, 0, 2, 6, p, m); }
static void pass_sub_min(const el_pass *p, size_t m) { el_pass_all(EL_SUB_MIN, 255, 0, 2, 6, p, m); }
static void pass_halves(const el_pass *p, size_t m) { el_pass_all(EL_HALVES, 255, 32, 2, 4, p, m); }
static void pass_halves_min(const el_pass *p, size_t m) { el_pass_all(EL_HALVES_MIN, 255, 0, 2, 4, p, m); }

void el_gemm_q8_q4_0x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_0X16, 255, 128, pass_plain, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_1X16, 255, 0, pass_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q8_0X16, 255, 128, pass_plain, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_0X16, 255, 128, pass_plain, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_1X16, 255, 0, pass_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                   size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_IQ4_NLX16, 255, 128, pass_plain, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q2_KX16, 255, 0, pass_halves_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q3_KX16, 255, 32, pass_halves, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_KX16, 255, 0, pass_sub_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_KX16, 255, 0, pass_sub_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q6_KX16, 255, 32, pass_halves, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__avxvnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                  size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_TQ2_0X16, 255, 128, pass_plain, m, n, k, w, x, x_stride, y, y_stride);
}
