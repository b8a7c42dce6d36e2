/* gemm_q8 by rows of X: the loops that `neon` and `dotprod` share, and `i8mm` for one row. The file that
 * includes this has defined the two products of a block:
 *
 *   el_dot_block(kind, start, w, x)     start + all 32 values
 *   el_dot_halves(kind, w, x, lo, hi)   *lo and *hi plus values 0..15 and 16..31
 *
 * Lanes are rows of W, four to a register; a block of a tile is four quads. One row of X keeps four
 * accumulators, four rows sixteen, beside eight registers of unpacked weights: what is unpacked serves
 * four rows, and nothing is ever added across lanes. From seven rows on a tile is unpacked once into a panel
 * of at most EL_Q8_PANEL blocks that stays in L1 (14 KB of the 32 KB of A53 and A72), and all rows run over it;
 * between panels the sums wait in Y. Unpacking to memory costs as much as half a pass of four rows, so two
 * passes pay it back; a pass that is not full does not. */
#ifndef EL_GEMM_Q8_NEON_H
#define EL_GEMM_Q8_NEON_H

#include <assert.h>

#include "kernels/neon/el_q8_neon.h"

enum {
    EL_Q8_ROWS = 4,       ///< rows of X per pass
    EL_Q8_PANEL = 16,     ///< blocks of a panel
    EL_Q8_PANEL_FROM = 7, ///< rows from which a panel pays
    EL_Q8_AHEAD = 4096    ///< bytes of weights prefetched ahead
};

/// The sums of one row so far.
EL_INLINE void el_q8_resume(const float *y, size_t n, float32x4_t acc[4])
{
    float part[EL_LANES] = {0.0f};
    const float *from = n >= EL_LANES ? y : part;
    for (size_t i = 0; i < n && from == part; i++) part[i] = y[i];
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) acc[c] = vld1q_f32(from + c * 4);
}

/// Ask for the bytes that the walk over a tile will meet EL_Q8_AHEAD later.
EL_INLINE void el_q8_prefetch(el_layout kind, const uint8_t *ahead, size_t b)
{
    const size_t step = el_shape_of(kind).q + 64;
    if (ahead == NULL) return;
#pragma GCC unroll 9
    for (size_t i = 0; i < step; i += 64) __builtin_prefetch(ahead + b * step + i);
}

/// One quad times `rows` rows of X, a constant; `exact`, another, says that no bias is left in w.
EL_INLINE void el_q8_quad_rows(el_layout kind, bool exact, size_t rows, const el_q8_quad *w,
                               const el_act_q8 *const x[EL_Q8_ROWS], size_t b, float32x4_t acc[EL_Q8_ROWS][4],
                               size_t c)
{
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        const el_act_q8 *xb = x[r] + b;
        const el_q8_terms terms = el_q8_terms_of(kind, exact, xb, xb);
        int32x4_t lo = terms.start, hi = terms.start_hi;
        if (el_q8_halves(kind)) {
            el_dot_halves(kind, w->w, xb->q, &lo, &hi);
        } else {
            lo = el_dot_block(kind, lo, w->w, xb->q);
        }
        acc[r][c] = el_q8_add(kind, w, &terms, lo, hi, acc[r][c]);
    }
}

/// A whole tile times `rows` rows of X, a constant; `ahead` is not NULL where its weights may be cold.
EL_INLINE void el_q8_direct(el_layout kind, size_t rows, size_t blocks, const el_q8_tile *t,
                            const uint8_t *ahead, const el_act_q8 *const x[EL_Q8_ROWS],
                            float *const y[EL_Q8_ROWS], size_t n)
{
    float32x4_t acc[EL_Q8_ROWS][4];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) acc[r][c] = vdupq_n_f32(0.0f);
    }
    for (size_t b = 0; b < blocks; b++) {
        el_q8_prefetch(kind, ahead, b);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            el_q8_quad w;
            el_q8_load(kind, t, b, c, &w);
            el_q8_quad_rows(kind, false, rows, &w, x, b, acc, c);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) el_store16(y[r], n, acc[r]);
}

/// Blocks first .. first + count - 1 of a tile, unpacked in `panel`, times four rows of X.
EL_INLINE void el_q8_panel_rows(el_layout kind, const el_q8_quad *panel, size_t first, size_t count,
                                const el_act_q8 *const x[EL_Q8_ROWS], float *const y[EL_Q8_ROWS], size_t n)
{
    float32x4_t acc[EL_Q8_ROWS][4];
#pragma GCC unroll 4
    for (size_t r = 0; r < EL_Q8_ROWS; r++) {
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) acc[r][c] = vdupq_n_f32(0.0f);
        if (first > 0) el_q8_resume(y[r], n, acc[r]);
    }
    for (size_t b = 0; b < count; b++) {
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            el_q8_quad_rows(kind, true, EL_Q8_ROWS, &panel[b * 4 + c], x, first + b, acc, c);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < EL_Q8_ROWS; r++) el_store16(y[r], n, acc[r]);
}

/// Rows done .. done + 3; past the last one it is repeated, which computes and writes the same again.
EL_INLINE void el_q8_take_rows(size_t done, size_t m, const el_act_q8 *x, size_t x_stride, float *y,
                               size_t y_stride, const el_act_q8 *xs[EL_Q8_ROWS], float *ys[EL_Q8_ROWS])
{
#pragma GCC unroll 4
    for (size_t r = 0; r < EL_Q8_ROWS; r++) {
        const size_t row = done + r < m ? done + r : m - 1;
        xs[r] = x + row * x_stride;
        ys[r] = y + row * y_stride;
    }
}

EL_INLINE void el_q8_prefill(el_layout kind, size_t m, size_t n, size_t blocks, const el_q8_tile *t,
                             const uint8_t *ahead, const el_act_q8 *x, size_t x_stride, float *y,
                             size_t y_stride)
{
    el_q8_quad panel[EL_Q8_PANEL * 4];
    const el_act_q8 *xs[EL_Q8_ROWS];
    float *ys[EL_Q8_ROWS];
    for (size_t first = 0; first < blocks; first += EL_Q8_PANEL) {
        const size_t left = blocks - first, count = left < EL_Q8_PANEL ? left : EL_Q8_PANEL;
        for (size_t b = 0; b < count; b++) {
            el_q8_prefetch(kind, ahead, first + b);
            for (size_t c = 0; c < 4; c++) el_q8_load_exact(kind, t, first + b, c, &panel[b * 4 + c]);
        }
        for (size_t done = 0; done < m; done += EL_Q8_ROWS) {
            el_q8_take_rows(done, m, x, x_stride, y, y_stride, xs, ys);
            el_q8_panel_rows(kind, panel, first, count, xs, ys, n);
        }
    }
}

EL_INLINE void el_q8_decode(el_layout kind, size_t m, size_t n, size_t blocks, const el_q8_tile *t,
                            const uint8_t *ahead, const el_act_q8 *x, size_t x_stride, float *y,
                            size_t y_stride)
{
    const el_act_q8 *xs[EL_Q8_ROWS];
    float *ys[EL_Q8_ROWS];
    for (size_t done = 0; done < m; done += EL_Q8_ROWS, ahead = NULL) {
        el_q8_take_rows(done, m, x, x_stride, y, y_stride, xs, ys);
        switch (m - done) {
        case 1: el_q8_direct(kind, 1, blocks, t, ahead, xs, ys, n); break;
        case 2: el_q8_direct(kind, 2, blocks, t, ahead, xs, ys, n); break;
        default: el_q8_direct(kind, EL_Q8_ROWS, blocks, t, ahead, xs, ys, n); break;
        }
    }
}

EL_INLINE void el_gemm_q8(el_layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
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
            el_q8_decode(kind, m, n - row, blocks, &t, ahead, x, x_stride, y, y_stride);
        } else {
            el_q8_prefill(kind, m, n - row, blocks, &t, ahead, x, x_stride, y, y_stride);
        }
    }
}

#endif
