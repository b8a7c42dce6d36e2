/* gemm_q8_* with vpmaddubsw, which adds two products of an unsigned and a signed byte and saturates at 16
 * bits, so the operands are kept where it cannot. With |x| <= 127 and weights of at most `top`, as many
 * pairs are summed in 16 bits as fit in 32767:
 *
 *   top 15   8 pairs    8 * 2 * 15 * 127 = 30480
 *   top 31   4 pairs    4 * 2 * 31 * 127 = 31496
 *   top 63   2 pairs    2 * 2 * 63 * 127 = 32004
 *   bytes    1 pair     w x = |w| * (x with the sign of w), and 2 * 128 * 127 = 32512 */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx2/el_avx2.h"

enum { EL_ROWS = 6, EL_BYTES_SATURATE = 1 };

EL_INLINE __m256i four(const int8_t *x)
{
    int32_t u;
    memcpy(&u, x, sizeof u);
    return _mm256_set1_epi32(u);
}

// Without this gcc turns a chain of additions into a tree, for which there are not enough registers.
EL_INLINE __m256i in_order(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

// dot[i * rows + r]: of `groups` groups of four values, rows of half i of W with row r of X. Halves are
// `stride` bytes apart. All sizes and `top`, the largest weight, are constants.
EL_INLINE void el_dot(unsigned top, size_t groups, size_t halves, size_t rows, const __m256i *w,
                      size_t stride, const int8_t *const *x, __m256i *dot)
{
    const size_t most = top <= 15 ? 8 : top <= 31 ? 4 : top <= 63 ? 2 : 1;
    const size_t pairs = most < groups ? most : groups;
#pragma GCC unroll 2
    for (size_t i = 0; i < halves; i++) {
        const __m256i *wi = (const __m256i *)((const char *)w + i * stride);
#pragma GCC unroll 8
        for (size_t g = 0; g < groups; g += pairs) {
            __m256i sum[EL_ROWS];
#pragma GCC unroll 8
            for (size_t j = 0; j < pairs; j++) {
                const __m256i wg = wi[g + j], size = top > 63 ? _mm256_abs_epi8(wg) : wg;
#pragma GCC unroll 6
                for (size_t r = 0; r < rows; r++) {
                    const __m256i xg = four(x[r] + (g + j) * 4);
                    const __m256i pair = _mm256_maddubs_epi16(size, top > 63 ? _mm256_sign_epi8(xg, wg) : xg);
                    sum[r] = j == 0 ? pair : in_order(_mm256_add_epi16(sum[r], pair));
                }
            }
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                const __m256i wide = _mm256_madd_epi16(sum[r], _mm256_set1_epi16(1));
                dot[i * rows + r] = g == 0 ? wide : in_order(_mm256_add_epi32(dot[i * rows + r], wide));
            }
        }
    }
}

#include "kernels/el_gemm_q8_256.h"

static void pass_plain_15(const el_pass *p, size_t m) { el_pass_all(EL_PLAIN, 15, 8, 1, 6, p, m); }
static void pass_plain_31(const el_pass *p, size_t m) { el_pass_all(EL_PLAIN, 31, 16, 1, 6, p, m); }
static void pass_plain_bytes(const el_pass *p, size_t m) { el_pass_all(EL_PLAIN, 255, 0, 1, 6, p, m); }
static void pass_min_15(const el_pass *p, size_t m) { el_pass_all(EL_MIN, 15, 0, 1, 6, p, m); }
static void pass_min_31(const el_pass *p, size_t m) { el_pass_all(EL_MIN, 31, 0, 1, 6, p, m); }
static void pass_sub_min_15(const el_pass *p, size_t m) { el_pass_all(EL_SUB_MIN, 15, 0, 1, 6, p, m); }
static void pass_sub_min_31(const el_pass *p, size_t m) { el_pass_all(EL_SUB_MIN, 31, 0, 1, 6, p, m); }
static void pass_halves_7(const el_pass *p, size_t m) { el_pass_all(EL_HALVES, 7, 4, 1, 6, p, m); }
static void pass_halves_63(const el_pass *p, size_t m) { el_pass_all(EL_HALVES, 63, 32, 1, 6, p, m); }
static void pass_halves_min(const el_pass *p, size_t m) { el_pass_all(EL_HALVES_MIN, 3, 0, 1, 6, p, m); }

void el_gemm_q8_q4_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_0X16, 15, 8, pass_plain_15, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_1X16, 15, 0, pass_min_15, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q8_0X16, 255, 0, pass_plain_bytes, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_0X16, 31, 16, pass_plain_31, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_1X16, 31, 0, pass_min_31, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_IQ4_NLX16, 255, 0, pass_plain_bytes, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q2_KX16, 3, 0, pass_halves_min, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q3_KX16, 7, 4, pass_halves_7, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q4_KX16, 15, 0, pass_sub_min_15, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q5_KX16, 31, 0, pass_sub_min_31, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_Q6_KX16, 63, 32, pass_halves_63, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    el_gemm_256(EL_LAYOUT_TQ2_0X16, 3, 8, pass_plain_15, m, n, k, w, x, x_stride, y, y_stride);
}
