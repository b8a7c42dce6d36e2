/* gemm_q8_* for CPUs with the int8 matrix product (Cortex-A510, A78C, A710, X2, Neoverse V1, N2 and later).
 *
 * smmla multiplies two rows of eight bytes by two: zip puts groups 2 j and 2 j + 1 together, so that a register
 * holds eight values of two lanes, and the result is two rows of X times two lanes of W. Its arrangement
 * (x0 w0, x0 w1, x1 w0, x1 w1) is kept for the sums too: scales are put in the same order once per block, and lanes
 * are put in order when a row is stored. Two rows and four lanes of a block are 8 smmla and 6 of float, where
 * sdot takes 16 and 6; four rows over a panel 142 vector operations for 2048 products of q4_0, where sdot
 * takes 198. One row alone has nothing to pair with and runs as `dotprod`. */
#ifndef __ARM_FEATURE_MATMUL_INT8
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/dotprod/el_dot_dotprod.h"
#include "kernels/el_declare.h"
#include "kernels/neon/el_gemm_q8_neon.h"

enum { EL_PAIRS = EL_Q8_ROWS / 2, EL_LANE_PAIRS = EL_LANES / 2 };

// Four rows of X and their results, as pairs (2 j, 2 j + 1).
typedef struct rows_of_x {
    const el_act_q8 *x[EL_Q8_ROWS];
    float *y[EL_Q8_ROWS];
} rows_of_x;

// a0 a1 a0 a1 and a2 a3 a2 a3
EL_INLINE float32x4_t twice(float32x4_t a, size_t half)
{
    return half == 0 ? vcombine_f32(vget_low_f32(a), vget_low_f32(a))
                     : vcombine_f32(vget_high_f32(a), vget_high_f32(a));
}

// Block b of lanes 4 c .. 4 c + 3 as two pairs of lanes; of each only w[0..3] are used.
EL_INLINE void load_pairs(el_layout kind, bool exact, const el_q8_tile *t, size_t b, size_t c,
                          el_q8_quad out[2])
{
    el_q8_quad w;
    if (exact) {
        el_q8_load_exact(kind, t, b, c, &w);
    } else {
        el_q8_load(kind, t, b, c, &w);
    }
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        const int32x4_t even = vreinterpretq_s32_s8(w.w[2 * j]), odd = vreinterpretq_s32_s8(w.w[2 * j + 1]);
        out[0].w[j] = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
        out[1].w[j] = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
    }
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++) {
        out[half].d = twice(w.d, half);
        if (el_q8_offset(kind) || el_q8_minima(kind)) out[half].m = twice(w.m, half);
        if (el_q8_scaled(kind) || el_q8_halves(kind)) out[half].s[0] = twice(w.s[0], half);
        if (el_q8_halves(kind)) out[half].s[1] = twice(w.s[1], half);
        if (el_q8_minima(kind)) out[half].n[0] = twice(w.n[0], half);
        if (kind == EL_LAYOUT_Q2_KX16) out[half].n[1] = twice(w.n[1], half);
    }
}

// Values 8 j .. 8 j + 7 of two rows of X.
EL_INLINE void load_x(const el_act_q8 *a, const el_act_q8 *b, int8x16_t x[4])
{
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) x[j] = vcombine_s8(vld1_s8(a->q + j * 8), vld1_s8(b->q + j * 8));
}

// Two lanes of W times `pairs` pairs of rows of X, a constant.
EL_INLINE void lanes_rows(el_layout kind, bool exact, size_t pairs, const el_q8_quad *w,
                          const rows_of_x *rows, size_t b, float32x4_t acc[EL_PAIRS][EL_LANE_PAIRS], size_t h)
{
#pragma GCC unroll 2
    for (size_t p = 0; p < pairs; p++) {
        const el_act_q8 *x0 = rows->x[2 * p] + b, *x1 = rows->x[2 * p + 1] + b;
        const el_q8_terms terms = el_q8_terms_of(kind, exact, x0, x1);
        int8x16_t x[4];
        load_x(x0, x1, x);
        int32x4_t lo = vmmlaq_s32(terms.start, x[0], w->w[0]), hi = terms.start_hi;
        lo = vmmlaq_s32(lo, x[1], w->w[1]);
        if (el_q8_halves(kind)) {
            hi = vmmlaq_s32(vmmlaq_s32(hi, x[2], w->w[2]), x[3], w->w[3]);
        } else {
            lo = vmmlaq_s32(vmmlaq_s32(lo, x[2], w->w[2]), x[3], w->w[3]);
        }
        acc[p][h] = el_q8_add(kind, w, &terms, lo, hi, acc[p][h]);
    }
}

// Sums of a pair of rows into the order of X, and back: each is its own inverse but for the names.
EL_INLINE void rows_of(const float32x4_t acc[EL_LANE_PAIRS], float32x4_t first[4], float32x4_t second[4])
{
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) {
        first[c] = vcombine_f32(vget_low_f32(acc[2 * c]), vget_low_f32(acc[2 * c + 1]));
        second[c] = vcombine_f32(vget_high_f32(acc[2 * c]), vget_high_f32(acc[2 * c + 1]));
    }
}

EL_INLINE void resume(const rows_of_x *rows, size_t p, size_t n, float32x4_t acc[EL_LANE_PAIRS])
{
    float32x4_t first[4], second[4];
    el_q8_resume(rows->y[2 * p], n, first);
    el_q8_resume(rows->y[2 * p + 1], n, second);
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) {
        acc[2 * c] = vcombine_f32(vget_low_f32(first[c]), vget_low_f32(second[c]));
        acc[2 * c + 1] = vcombine_f32(vget_high_f32(first[c]), vget_high_f32(second[c]));
    }
}

EL_INLINE void store(const rows_of_x *rows, size_t p, size_t n, const float32x4_t acc[EL_LANE_PAIRS])
{
    float32x4_t first[4], second[4];
    rows_of(acc, first, second);
    el_store16(rows->y[2 * p], n, first);
    el_store16(rows->y[2 * p + 1], n, second);
}

// A whole tile times `pairs` pairs of rows, a constant.
EL_INLINE void direct(el_layout kind, size_t pairs, size_t blocks, const el_q8_tile *t, const uint8_t *ahead,
                      const rows_of_x *rows, size_t n)
{
    float32x4_t acc[EL_PAIRS][EL_LANE_PAIRS];
#pragma GCC unroll 2
    for (size_t p = 0; p < pairs; p++) {
#pragma GCC unroll 8
        for (size_t h = 0; h < EL_LANE_PAIRS; h++) acc[p][h] = vdupq_n_f32(0.0f);
    }
    for (size_t b = 0; b < blocks; b++) {
        el_q8_prefetch(kind, ahead, b);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            el_q8_quad w[2];
            load_pairs(kind, false, t, b, c, w);
            lanes_rows(kind, false, pairs, &w[0], rows, b, acc, 2 * c);
            lanes_rows(kind, false, pairs, &w[1], rows, b, acc, 2 * c + 1);
        }
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < pairs; p++) store(rows, p, n, acc[p]);
}

// Blocks first .. first + count - 1 of a tile, unpacked in `panel`, times four rows.
EL_INLINE void panel_rows(el_layout kind, const el_q8_quad *panel, size_t first, size_t count,
                          const rows_of_x *rows, size_t n)
{
    float32x4_t acc[EL_PAIRS][EL_LANE_PAIRS];
#pragma GCC unroll 2
    for (size_t p = 0; p < EL_PAIRS; p++) {
#pragma GCC unroll 8
        for (size_t h = 0; h < EL_LANE_PAIRS; h++) acc[p][h] = vdupq_n_f32(0.0f);
        if (first > 0) resume(rows, p, n, acc[p]);
    }
    for (size_t b = 0; b < count; b++) {
#pragma GCC unroll 8
        for (size_t h = 0; h < EL_LANE_PAIRS; h++) {
            lanes_rows(kind, true, EL_PAIRS, &panel[b * EL_LANE_PAIRS + h], rows, first + b, acc, h);
        }
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < EL_PAIRS; p++) store(rows, p, n, acc[p]);
}

EL_INLINE void prefill(el_layout kind, size_t m, size_t n, size_t blocks, const el_q8_tile *t,
                       const uint8_t *ahead, const el_act_q8 *x, size_t x_stride, float *y, size_t y_stride)
{
    el_q8_quad panel[EL_Q8_PANEL * EL_LANE_PAIRS];
    rows_of_x rows;
    for (size_t first = 0; first < blocks; first += EL_Q8_PANEL) {
        const size_t left = blocks - first, count = left < EL_Q8_PANEL ? left : EL_Q8_PANEL;
        for (size_t b = 0; b < count; b++) {
            el_q8_prefetch(kind, ahead, first + b);
            for (size_t c = 0; c < 4; c++)
                load_pairs(kind, true, t, first + b, c, &panel[b * EL_LANE_PAIRS + 2 * c]);
        }
        for (size_t done = 0; done < m; done += EL_Q8_ROWS) {
            el_q8_take_rows(done, m, x, x_stride, y, y_stride, rows.x, rows.y);
            panel_rows(kind, panel, first, count, &rows, n);
        }
    }
}

EL_INLINE void decode(el_layout kind, size_t m, size_t n, size_t blocks, const el_q8_tile *t,
                      const uint8_t *ahead, const el_act_q8 *x, size_t x_stride, float *y, size_t y_stride)
{
    rows_of_x rows;
    for (size_t done = 0; done < m; done += EL_Q8_ROWS, ahead = NULL) {
        el_q8_take_rows(done, m, x, x_stride, y, y_stride, rows.x, rows.y);
        switch (m - done) {
        case 1: el_q8_direct(kind, 1, blocks, t, ahead, rows.x, rows.y, n); break;
        case 2: direct(kind, 1, blocks, t, ahead, &rows, n); break;
        default: direct(kind, EL_PAIRS, blocks, t, ahead, &rows, n); break;
        }
    }
}

EL_INLINE void gemm(el_layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    assert(k % EL_BLOCK == 0);
    const size_t blocks = k / EL_BLOCK;
    for (size_t row = 0; row < n && m > 0; row += EL_LANES, y += EL_LANES) {
        size_t bytes = 0;
        const el_q8_tile t = el_q8_view(kind, k, w, &bytes);
        const uint8_t *ahead = w + EL_Q8_AHEAD;
        w += bytes;
        if (m < EL_Q8_PANEL_FROM) {
            decode(kind, m, n - row, blocks, &t, ahead, x, x_stride, y, y_stride);
        } else {
            prefill(kind, m, n - row, blocks, &t, ahead, x, x_stride, y, y_stride);
        }
    }
}

void el_gemm_q8_q4_0x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__i8mm(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
