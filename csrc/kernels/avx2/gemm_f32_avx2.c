/* gemm_f32_*: lanes are rows of W, eight to a register; each output is one chain of fma in k order.
 * Two tiles at once and up to three rows of X hide the latency of an fma. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 3, EL_TILES = 2, EL_AHEAD = 4096 };

typedef enum layout { F32, F16, BF16 } layout;

// Half `half` of column j of a tile.
EL_INLINE __m256 weights(layout kind, const uint8_t *tile, size_t j, size_t half)
{
    if (kind == F32) return _mm256_load_ps((const float *)(tile + j * 64 + half * 32));
    if (kind == F16) return el_f16x8(tile + j * 32 + half * 16);
    const __m128i bits = _mm_loadu_si128((const __m128i *)(tile + j * 32 + half * 16));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// `tiles` consecutive tiles times `rows` rows of X; both and `kind` are constants after inlining.
EL_INLINE void tile_rows(layout kind, size_t tiles, size_t rows, size_t k, const uint8_t *w,
                         size_t tile_bytes, const float *x, size_t x_stride, float *y, size_t y_stride,
                         size_t n)
{
    __m256 acc[2 * EL_TILES][EL_ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < 2 * tiles; i++) {
#pragma GCC unroll 3
        for (size_t r = 0; r < rows; r++) acc[i][r] = _mm256_setzero_ps();
    }

    for (size_t j = 0; j < k; j++) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 2 * tiles; i++) {
            const uint8_t *tile = w + i / 2 * tile_bytes;
            const __m256 wj = weights(kind, tile, j, i % 2);
            if (i % 2 == 0)
                _mm_prefetch((const char *)tile + j * (kind == F32 ? 64 : 32) + EL_AHEAD, _MM_HINT_T0);
#pragma GCC unroll 3
            for (size_t r = 0; r < rows; r++) {
                acc[i][r] = _mm256_fmadd_ps(wj, _mm256_set1_ps(x[r * x_stride + j]), acc[i][r]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 2 * tiles; i++) {
        if (n <= i * 8) break;
#pragma GCC unroll 3
        for (size_t r = 0; r < rows; r++) el_store8(y + r * y_stride + i * 8, n - i * 8, acc[i][r]);
    }
}

EL_INLINE void all_rows(layout kind, size_t tiles, size_t m, size_t k, const uint8_t *w, size_t tile_bytes,
                        const float *x, size_t x_stride, float *y, size_t y_stride, size_t n)
{
    for (; m >= EL_ROWS; m -= EL_ROWS, x += EL_ROWS * x_stride, y += EL_ROWS * y_stride) {
        tile_rows(kind, tiles, EL_ROWS, k, w, tile_bytes, x, x_stride, y, y_stride, n);
    }
    if (m == 2) tile_rows(kind, tiles, 2, k, w, tile_bytes, x, x_stride, y, y_stride, n);
    if (m == 1) tile_rows(kind, tiles, 1, k, w, tile_bytes, x, x_stride, y, y_stride, n);
}

EL_INLINE void gemm(layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    const size_t tile_bytes = kind == F32 ? k * 64 : el_round_up(k * 32, 64);
    size_t row = 0;
    for (; row + EL_LANES < n; row += 2 * EL_LANES, w += 2 * tile_bytes) {
        all_rows(kind, 2, m, k, w, tile_bytes, x, x_stride, y + row, y_stride, n - row);
    }
    if (row < n) all_rows(kind, 1, m, k, w, tile_bytes, x, x_stride, y + row, y_stride, n - row);
}

void el_gemm_f32_f32x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                              float *y, size_t y_stride)
{
    gemm(F32, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_f16x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                              float *y, size_t y_stride)
{
    gemm(F16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_bf16x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    gemm(BF16, m, n, k, w, x, x_stride, y, y_stride);
}
