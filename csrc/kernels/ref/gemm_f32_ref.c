/* The specification of gemm_f32_*: one chain of fused multiply-adds per output, in k order. */
#include "kernels/el_declare.h"
#include "kernels/el_math.h"

typedef float el_weight_fn(const uint8_t *tile, size_t i);

static float weight_f32(const uint8_t *tile, size_t i)
{
    float w;
    memcpy(&w, tile + i * 4, sizeof w);
    return w;
}

static float weight_f16(const uint8_t *tile, size_t i) { return el_f16_to_f32(el_load_u16(tile + i * 2)); }

static float weight_bf16(const uint8_t *tile, size_t i) { return el_bf16_to_f32(el_load_u16(tile + i * 2)); }

static void gemm_f32(size_t m, size_t n, size_t k, const uint8_t *w, size_t tile_bytes, const float *x,
                     size_t x_stride, float *y, size_t y_stride, el_weight_fn *weight)
{
    for (size_t row = 0; row < n; row++) {
        const uint8_t *tile = w + row / EL_LANES * tile_bytes;  // (k, EL_LANES)
        for (size_t t = 0; t < m; t++) {
            float acc = 0.0f;
            for (size_t j = 0; j < k; j++) {
                acc = el_fmaf(weight(tile, j * EL_LANES + row % EL_LANES), x[t * x_stride + j], acc);
            }
            y[t * y_stride + row] = acc;
        }
    }
}

void el_gemm_f32_f32x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                             float *y, size_t y_stride)
{
    gemm_f32(m, n, k, w, k * 64, x, x_stride, y, y_stride, weight_f32);
}

void el_gemm_f32_f16x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                             float *y, size_t y_stride)
{
    gemm_f32(m, n, k, w, el_round_up(k * 32, 64), x, x_stride, y, y_stride, weight_f16);
}

void el_gemm_f32_bf16x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                              float *y, size_t y_stride)
{
    gemm_f32(m, n, k, w, el_round_up(k * 32, 64), x, x_stride, y, y_stride, weight_bf16);
}
