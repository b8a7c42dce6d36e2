/* The specification of gemm_q8_*: weights in tiles of 16 rows, 8-bit activations.
 * Each block's integer dot product is exact; what is rounded, and in which order, is
 * what every other kernel of these names repeats bit for bit. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

typedef float el_block_fn(const uint8_t *tile, size_t blocks, size_t b, size_t lane, const el_act_q8 *x,
                          float acc);

static void gemm_q8(size_t m, size_t n, size_t k, const uint8_t *w, size_t tile_bytes, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride, el_block_fn *block)
{
    assert(k % EL_BLOCK == 0);
    const size_t blocks = k / EL_BLOCK;

    for (size_t row = 0; row < n; row++) {
        const uint8_t *tile = w + row / EL_LANES * tile_bytes;
        for (size_t t = 0; t < m; t++) {
            const el_act_q8 *xt = x + t * x_stride;  // x[t, :]: (blocks,)
            float acc = 0.0f;
            for (size_t b = 0; b < blocks; b++) acc = block(tile, blocks, b, row % EL_LANES, &xt[b], acc);
            y[t * y_stride + row] = acc;
        }
    }
}

static float f16_at(const uint8_t *part, size_t b, size_t lane)
{
    return el_f16_to_f32(el_load_u16(part + (b * EL_LANES + lane) * 2));
}

// Sum of nibble * x over a block; `q` is q[4][16][4]. At most 32 * 15 * 127 = 60960.
static int32_t dot_nibbles(const uint8_t *q, size_t lane, const int8_t *x)
{
    int32_t dot = 0;
    for (size_t j = 0; j < EL_BLOCK / 2; j++) {
        const uint8_t pair = q[(j / 4 * EL_LANES + lane) * 4 + j % 4];
        dot += (pair & 0x0F) * x[j] + (pair >> 4) * x[j + EL_BLOCK / 2];
    }
    return dot;
}

// Sum of (byte - 128) * x over values first .. first + 15; `q` is q[8][16][4].
// At most 16 * 128 * 127 = 260096.
static int32_t dot_bytes(const uint8_t *q, size_t lane, const int8_t *x, size_t first)
{
    int32_t dot = 0;
    for (size_t j = first; j < first + 16; j++) {
        dot += (q[(j / 4 * EL_LANES + lane) * 4 + j % 4] - 128) * x[j];
    }
    return dot;
}

static float block_q4_0(const uint8_t *tile, size_t blocks, size_t b, size_t lane, const el_act_q8 *x,
                        float acc)
{
    const uint8_t *q = tile + el_round_up(blocks * 32, 64) + b * 256;
    const int32_t dot = dot_nibbles(q, lane, x->q) - 8 * x->sum;  // |dot| <= 32 * 8 * 127
    return el_fmaf(f16_at(tile, b, lane) * x->scale, (float)dot, acc);
}

static float block_q4_1(const uint8_t *tile, size_t blocks, size_t b, size_t lane, const el_act_q8 *x,
                        float acc)
{
    const uint8_t *minima = tile + el_round_up(blocks * 32, 64);
    const uint8_t *q = minima + el_round_up(blocks * 32, 64) + b * 256;
    const int32_t dot = dot_nibbles(q, lane, x->q);
    acc = el_fmaf(f16_at(tile, b, lane) * x->scale, (float)dot, acc);
    return el_fmaf(f16_at(minima, b, lane) * x->scale, (float)x->sum, acc);
}

static float block_q8_0(const uint8_t *tile, size_t blocks, size_t b, size_t lane, const el_act_q8 *x,
                        float acc)
{
    const uint8_t *q = tile + el_round_up(blocks * 32, 64) + b * 512;
    const int32_t dot = dot_bytes(q, lane, x->q, 0) + dot_bytes(q, lane, x->q, 16);
    return el_fmaf(f16_at(tile, b, lane) * x->scale, (float)dot, acc);
}

static float block_q8_sx(const uint8_t *tile, size_t blocks, size_t b, size_t lane, const el_act_q8 *x,
                         float acc)
{
    float d, m;
    memcpy(&d, tile + (b * EL_LANES + lane) * 4, sizeof d);
    memcpy(&m, tile + blocks * 64 + (b * EL_LANES + lane) * 4, sizeof m);
    const uint8_t *scales = tile + blocks * 128;
    const uint8_t *minima = scales + el_round_up(blocks * 32, 64);
    const uint8_t *q = minima + el_round_up(blocks * 32, 64) + b * 512;
    scales += b * 32 + lane;
    minima += b * 32 + lane;

    // |s q| <= 128 * 32 (el_blocks.h), so |dot| <= 32 * 4096 * 127 = 16646144 < 2^24: (float) is exact.
    const int32_t dot =
        (int8_t)scales[0] * dot_bytes(q, lane, x->q, 0) + (int8_t)scales[16] * dot_bytes(q, lane, x->q, 16);
    const int32_t sum = minima[0] * x->sum_lo + minima[16] * (x->sum - x->sum_lo);
    acc = el_fmaf(d * x->scale, (float)dot, acc);
    return el_fmaf(-(m * x->scale), (float)sum, acc);  // changes nothing where m is 0: numerics.md
}

void el_gemm_q8_q4_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    const size_t blocks = k / EL_BLOCK, tile_bytes = el_round_up(blocks * 32, 64) + blocks * 256;
    gemm_q8(m, n, k, w, tile_bytes, x, x_stride, y, y_stride, block_q4_0);
}

void el_gemm_q8_q4_1x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    const size_t blocks = k / EL_BLOCK, tile_bytes = 2 * el_round_up(blocks * 32, 64) + blocks * 256;
    gemm_q8(m, n, k, w, tile_bytes, x, x_stride, y, y_stride, block_q4_1);
}

void el_gemm_q8_q8_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    const size_t blocks = k / EL_BLOCK, tile_bytes = el_round_up(blocks * 32, 64) + blocks * 512;
    gemm_q8(m, n, k, w, tile_bytes, x, x_stride, y, y_stride, block_q8_0);
}

void el_gemm_q8_q8_sx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    const size_t blocks = k / EL_BLOCK;
    const size_t tile_bytes = blocks * 640 + 2 * el_round_up(blocks * 32, 64);
    gemm_q8(m, n, k, w, tile_bytes, x, x_stride, y, y_stride, block_q8_sx);
}
