/* gemm_f32_*: lanes are rows of W, four to a register, a tile is four registers; each output is one chain
 * of fma in k order. Four rows of X are sixteen chains, more than the two pipes of A72 (latency 7) and A76
 * (latency 4) can use, and x is multiplied by element: four columns are 16 loads of weights, 4 of x and
 * 64 fma. One row is four chains: 4 fma per 64 bytes keep up with memory (A72: 7 cycles, 9 bytes a cycle). */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

enum { EL_ROWS = 4, EL_AHEAD = 4096 };

typedef enum layout { F32, F16, BF16 } layout;

// Quarter t of column j of a tile.
EL_INLINE float32x4_t weights(layout kind, const uint8_t *tile, size_t j, size_t t)
{
    if (kind == F32) return vld1q_f32((const float *)(tile + j * 64 + t * 16));
    if (kind == F16) return el_f16x4(tile + j * 32 + t * 8);
    const uint16x4_t bits = vld1_u16((const uint16_t *)(tile + j * 32 + t * 8));
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

EL_INLINE void column(layout kind, size_t rows, const uint8_t *tile, size_t j, const float32x4_t x[EL_ROWS],
                      int lane, float32x4_t acc[EL_ROWS][4])
{
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++) {
        const float32x4_t w = weights(kind, tile, j, t);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) acc[r][t] = vfmaq_f32(acc[r][t], w, vdupq_n_f32(x[r][lane]));
    }
}

// One tile times `rows` rows of X; `rows` and `kind` are constants after inlining.
EL_INLINE void tile_rows(layout kind, size_t rows, size_t k, const uint8_t *w, bool cold, const float *x,
                         size_t x_stride, float *y, size_t y_stride, size_t n)
{
    const size_t bytes = kind == F32 ? 64 : 32;
    float32x4_t acc[EL_ROWS][4], xj[EL_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) acc[r][t] = vdupq_n_f32(0.0f);
    }

    size_t j = 0;
    for (; k - j >= 4; j += 4) {
        if (cold) {
#pragma GCC unroll 4
            for (size_t i = 0; i < 4 * bytes; i += 64) __builtin_prefetch(w + j * bytes + EL_AHEAD + i);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) xj[r] = vld1q_f32(x + r * x_stride + j);
        column(kind, rows, w, j, xj, 0, acc);
        column(kind, rows, w, j + 1, xj, 1, acc);
        column(kind, rows, w, j + 2, xj, 2, acc);
        column(kind, rows, w, j + 3, xj, 3, acc);
    }
    for (; j < k; j++) {
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) xj[r] = vdupq_n_f32(x[r * x_stride + j]);
        column(kind, rows, w, j, xj, 0, acc);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) el_store16(y + r * y_stride, n, acc[r]);
}

EL_INLINE void gemm(layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    const size_t tile_bytes = kind == F32 ? k * 64 : el_round_up(k * 32, 64);
    for (size_t row = 0; row < n; row += EL_LANES, w += tile_bytes, y += EL_LANES) {
        bool cold = true;  // only the first pass over a tile meets cold weights
        size_t done = 0;
        for (; m - done >= EL_ROWS; done += EL_ROWS, cold = false) {
            tile_rows(kind, EL_ROWS, k, w, cold, x + done * x_stride, x_stride, y + done * y_stride, y_stride,
                      n - row);
        }
        const float *xr = x + done * x_stride;
        float *yr = y + done * y_stride;
        if (m - done == 3) tile_rows(kind, 3, k, w, cold, xr, x_stride, yr, y_stride, n - row);
        if (m - done == 2) tile_rows(kind, 2, k, w, cold, xr, x_stride, yr, y_stride, n - row);
        if (m - done == 1) tile_rows(kind, 1, k, w, cold, xr, x_stride, yr, y_stride, n - row);
    }
}

void el_gemm_f32_f32x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                              float *y, size_t y_stride)
{
    gemm(F32, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_f16x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                              float *y, size_t y_stride)
{
    gemm(F16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_bf16x16__neon(size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    gemm(BF16, m, n, k, w, x, x_stride, y, y_stride);
}
