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

// One block. Largest integers: numerics.md, "gemm_q8"; all below 2^24, so (float) of them is exact.
static float block(el_layout layout, const lane_view *w, size_t b, const el_act_q8 *x, float acc)
{
    const size_t head = w->shape.super ? b / (EL_SUPER / EL_BLOCK) : b;
    const float d = el_lane_f16(w->d, head, w->lane) * x->scale;
    const float m = w->shape.minima ? el_lane_f16(w->m, head, w->lane) * x->scale : 0.0f;
    const uint8_t *s = w->s + b * w->shape.s + w->lane, *n = w->n + b * w->shape.n + w->lane;
    const int32_t sum = x->sum, sum_lo = x->sum_lo, sum_hi = sum - sum_lo;
    int32_t lo = 0, hi = 0;
    int8_t v[EL_BLOCK];

    el_lane_values(layout, w->q + b * w->shape.q, w->lane, v);
    for (size_t j = 0; j < EL_BLOCK / 2; j++) {
        lo += v[j] * x->q[j];
        hi += v[j + EL_BLOCK / 2] * x->q[j + EL_BLOCK / 2];
    }
    switch (layout) {
    case EL_LAYOUT_Q4_1X16:
    case EL_LAYOUT_Q5_1X16:  //
        acc = el_fmaf(d, (float)(lo + hi), acc);
        return el_fmaf(m, (float)sum, acc);
    case EL_LAYOUT_Q4_KX16:
    case EL_LAYOUT_Q5_KX16:
        acc = el_fmaf(d, (float)(s[0] * (lo + hi)), acc);
        return el_fmaf(-m, (float)(n[0] * sum), acc);
    case EL_LAYOUT_Q2_KX16:  // s[0] and s[16] have the halves' sub-scales low and their sub-minima high
        acc = el_fmaf(d, (float)((s[0] & 15) * lo + (s[16] & 15) * hi), acc);
        return el_fmaf(-m, (float)((s[0] >> 4) * sum_lo + (s[16] >> 4) * sum_hi), acc);
    case EL_LAYOUT_Q3_KX16:
    case EL_LAYOUT_Q6_KX16:  //
        return el_fmaf(d, (float)((int8_t)s[0] * lo + (int8_t)s[16] * hi), acc);
    default:  // one scale and no minimum
        return el_fmaf(d, (float)(lo + hi), acc);
    }
}

static void gemm_q8(el_layout layout, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    assert(k % EL_BLOCK == 0);
    const el_shape shape = el_shape_of(layout);
    const el_parts at = el_parts_of(shape, k);

    for (size_t row = 0; row < n; row++) {
        const uint8_t *tile = w + row / EL_LANES * at.bytes;
        const lane_view lane = {tile,        tile + at.m,    tile + at.s, tile + at.n,
                                tile + at.q, row % EL_LANES, shape};
        for (size_t t = 0; t < m; t++) {
            const el_act_q8 *xt = x + t * x_stride;  // x[t, :]: (k / EL_BLOCK,)
            float acc = 0.0f;
            for (size_t b = 0; b < k / EL_BLOCK; b++) acc = block(layout, &lane, b, &xt[b], acc);
            y[t * y_stride + row] = acc;
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
