/* The specification of gemm_q8_*: weights in tiles of 16 rows, 8-bit activations.
 * Each block's integers are exact; what is rounded, and in which order, is what every
 * other kernel of these names repeats bit for bit. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/ref/el_planes.h"

/// Where one lane of a tile is read.
typedef struct lane_view {
    const uint8_t *d, *m, *s, *n, *q;
    size_t lane;
    el_shape shape;
} lane_view;

/// One block of one lane.
typedef struct lane_block {
    float d, m;
    int32_t s[2], n[2];  // sub-scales and sub-minima of the halves
    int8_t v[EL_BLOCK];
} lane_block;

static void load_block(el_layout layout, const lane_view *w, size_t b, lane_block *out)
{
    const size_t head = w->shape.super ? b / (EL_SUPER / EL_BLOCK) : b;
    const uint8_t *s = w->s + b * w->shape.s + w->lane, *n = w->n + b * w->shape.n + w->lane;

    out->d = el_lane_f16(w->d, head, w->lane);
    out->m = w->shape.minima ? el_lane_f16(w->m, head, w->lane) : 0.0f;
    el_lane_values(layout, w->q + b * w->shape.q, w->lane, out->v);
    for (size_t h = 0; h < 2; h++) {
        out->s[h] = 1;
        out->n[h] = 1;
        if (layout == EL_LAYOUT_Q4_KX16 || layout == EL_LAYOUT_Q5_KX16) {
            out->s[h] = s[0];
            out->n[h] = n[0];
        } else if (layout == EL_LAYOUT_Q2_KX16) {
            out->s[h] = s[h * EL_LANES] & 15;
            out->n[h] = s[h * EL_LANES] >> 4;
        } else if (layout == EL_LAYOUT_Q3_KX16 || layout == EL_LAYOUT_Q6_KX16) {
            out->s[h] = (int8_t)s[h * EL_LANES];
        }
    }
}

// Largest integers: numerics.md, "gemm_q8"; all below 2^24, so (float) of them is exact.
static float add_block(const lane_view *w, const lane_block *block, const el_act_q8 *x, float acc)
{
    int32_t lo = 0, hi = 0;
    for (size_t j = 0; j < EL_BLOCK / 2; j++) {
        lo += block->v[j] * x->q[j];
        hi += block->v[j + EL_BLOCK / 2] * x->q[j + EL_BLOCK / 2];
    }
    acc = el_fmaf(block->d * x->scale, (float)(block->s[0] * lo + block->s[1] * hi), acc);
    if (!w->shape.minima) return acc;

    const int32_t sum = block->n[0] * x->sum_lo + block->n[1] * (x->sum - x->sum_lo);
    const float m = block->m * x->scale;
    return el_fmaf(w->shape.super ? -m : m, (float)sum, acc);  // K-quants take their minima off
}

static void gemm_q8(el_layout layout, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    enum { ROWS = 8 };  // rows of X that share the reading of a block
    assert(k % EL_BLOCK == 0);
    const el_shape shape = el_shape_of(layout);
    const el_parts at = el_parts_of(shape, k);

    for (size_t row = 0; row < n; row++) {
        const uint8_t *tile = w + row / EL_LANES * at.bytes;
        const lane_view lane = {tile,        tile + at.m,    tile + at.s, tile + at.n,
                                tile + at.q, row % EL_LANES, shape};
        for (size_t first = 0; first < m; first += ROWS) {
            const size_t rows = m - first < ROWS ? m - first : ROWS;
            float acc[ROWS] = {0.0f};
            for (size_t b = 0; b < k / EL_BLOCK; b++) {
                lane_block block;
                load_block(layout, &lane, b, &block);
                for (size_t r = 0; r < rows; r++) {
                    acc[r] = add_block(&lane, &block, x + (first + r) * x_stride + b, acc[r]);
                }
            }
            for (size_t r = 0; r < rows; r++) y[(first + r) * y_stride + row] = acc[r];
        }
    }
}

void el_gemm_q8_q4_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__ref(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm_q8(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
