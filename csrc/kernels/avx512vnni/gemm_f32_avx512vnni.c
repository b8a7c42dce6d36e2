/* gemm_f32_*: lanes are rows of W; each output is one chain of fma in k order. Several chains run at
 * once (tiles of W times rows of X) to hide the latency of an fma. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 8, EL_TILES = 3, EL_AHEAD = 4096 };

typedef enum layout { F32, F16, BF16 } layout;

EL_INLINE __m512 weights(layout kind, const uint8_t *tile, size_t j)
{
    if (kind == F32) return _mm512_load_ps(tile + j * 64);
    if (kind == F16) return el_f16x16(tile + j * 32);
    const __m256i half = _mm256_loadu_si256((const __m256i *)(tile + j * 32));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// `tiles` consecutive tiles times `rows` rows of X; both and `kind` are constants after inlining.
EL_INLINE void tile_rows(layout kind, size_t tiles, size_t rows, size_t k, const uint8_t *w,
                         size_t tile_bytes, const float *x, size_t x_stride, float *y, size_t y_stride,
                         size_t n)
{
    __m512 acc[EL_TILES][EL_ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < tiles; i++) {
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) acc[i][r] = _mm512_setzero_ps();
    }

    for (size_t j = 0; j < k; j++) {
#pragma GCC unroll 4
        for (size_t i = 0; i < tiles; i++) {
            const __m512 wj = weights(kind, w + i * tile_bytes, j);
            _mm_prefetch((const char *)w + i * tile_bytes + j * (kind == F32 ? 64 : 32) + EL_AHEAD,
                         _MM_HINT_T0);
#pragma GCC unroll 8
            for (size_t r = 0; r < rows; r++) {
                acc[i][r] = _mm512_fmadd_ps(wj, _mm512_set1_ps(x[r * x_stride + j]), acc[i][r]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < tiles; i++) {
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            _mm512_mask_storeu_ps(y + r * y_stride + i * EL_LANES, el_mask16(n - i * EL_LANES), acc[i][r]);
        }
    }
}

EL_INLINE void all_rows(layout kind, size_t tiles, size_t m, size_t k, const uint8_t *w, size_t tile_bytes,
                        const float *x, size_t x_stride, float *y, size_t y_stride, size_t n)
{
    for (; m >= EL_ROWS; m -= EL_ROWS, x += EL_ROWS * x_stride, y += EL_ROWS * y_stride) {
        tile_rows(kind, tiles, EL_ROWS, k, w, tile_bytes, x, x_stride, y, y_stride, n);
    }
    for (; m >= 3; m -= 3, x += 3 * x_stride, y += 3 * y_stride) {
        tile_rows(kind, tiles, 3, k, w, tile_bytes, x, x_stride, y, y_stride, n);
    }
    if (m == 2) tile_rows(kind, tiles, 2, k, w, tile_bytes, x, x_stride, y, y_stride, n);
    if (m == 1) tile_rows(kind, tiles, 1, k, w, tile_bytes, x, x_stride, y, y_stride, n);
}

EL_INLINE void gemm(layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    const size_t tile_bytes = kind == F32 ? k * 64 : el_round_up(k * 32, 64);
    size_t row = 0;
    for (; n - row > (EL_TILES - 1) * EL_LANES; row += EL_TILES * EL_LANES, w += EL_TILES * tile_bytes) {
        all_rows(kind, EL_TILES, m, k, w, tile_bytes, x, x_stride, y + row, y_stride, n - row);
        if (n - row <= EL_TILES * EL_LANES) return;
    }
    for (; row < n; row += EL_LANES, w += tile_bytes) {
        all_rows(kind, 1, m, k, w, tile_bytes, x, x_stride, y + row, y_stride, n - row);
    }
}

void el_gemm_f32_f32x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(F32, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_f16x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(F16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_f32_bf16x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const float *x,
                                     size_t x_stride, float *y, size_t y_stride)
{
    gemm(BF16, m, n, k, w, x, x_stride, y, y_stride);
}
