/* gemm_q8_* with 256-bit registers: lanes are rows of W, eight to a register, so a tile is two halves and
 * nothing is added across lanes.
 *
 * One row of X: each half block is unpacked into registers and used at once; the core runs ahead over blocks.
 * More rows: EL_PANEL blocks of a tile are unpacked into a panel in the first-level cache, once for all rows,
 * which pass over it in groups that share each register of weights.
 *
 * The file that includes this has defined
 *   EL_BYTES_SATURATE  whether products of two bytes may not fit: then bytes are kept signed (bias 0)
 *   el_dot()           the integer dot products, see avx2/ and avxvnni/ */
#ifndef EL_GEMM_Q8_256_H
#define EL_GEMM_Q8_256_H

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_tile_256.h"

// Blocks of a panel, most rows that do without one, bytes of weights prefetched ahead.
enum { EL_PANEL = 16, EL_FEW = 8, EL_AHEAD = 8192 };

/// What rows of X need to pass over a panel.
typedef struct el_pass {
    const el_half (*panel)[2];
    size_t blocks;
    const el_act_q8 *x;  ///< first row, at the panel's first block
    float *y;            ///< first row, at the tile's first output
    size_t x_stride, y_stride, n;
    bool first;  ///< the panel is the first of the tile: y holds nothing yet
} el_pass;

typedef void el_pass_fn(const el_pass *pass, size_t m);

// Integers here stay below 2^24, so float products and sums of them are exact.
EL_INLINE __m256 el_add_block(el_form form, int bias, const el_half *h, const el_act_q8 *x, __m256i lo,
                              __m256i hi, __m256 acc)
{
    const __m256 dx = _mm256_set1_ps(x->scale);
    const __m256i sum = _mm256_set1_epi32(x->sum), sum_lo = _mm256_set1_epi32(x->sum_lo);
    const __m256i bias_by = _mm256_set1_epi32(bias);
    __m256 dot;
    if (form < EL_HALVES) {
        if (bias != 0) lo = _mm256_sub_epi32(lo, _mm256_mullo_epi32(sum, bias_by));
        dot = _mm256_cvtepi32_ps(lo);
        if (form == EL_SUB_MIN) dot = _mm256_mul_ps(dot, h->s[0]);
    } else {
        const __m256i sum_hi = _mm256_sub_epi32(sum, sum_lo);
        if (bias != 0) {
            lo = _mm256_sub_epi32(lo, _mm256_mullo_epi32(sum_lo, bias_by));
            hi = _mm256_sub_epi32(hi, _mm256_mullo_epi32(sum_hi, bias_by));
        }
        dot = _mm256_mul_ps(_mm256_cvtepi32_ps(lo), h->s[0]);
        dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(hi), h->s[1], dot);
    }
    acc = _mm256_fmadd_ps(_mm256_mul_ps(h->d, dx), dot, acc);

    if (form == EL_MIN) acc = _mm256_fmadd_ps(_mm256_mul_ps(h->m, dx), _mm256_cvtepi32_ps(sum), acc);
    if (form == EL_SUB_MIN) {
        const __m256 minimum = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), h->s[1]);
        acc = _mm256_fnmadd_ps(_mm256_mul_ps(h->m, dx), minimum, acc);
    }
    if (form == EL_HALVES_MIN) {
        const __m256i sum_hi = _mm256_sub_epi32(sum, sum_lo);  // |sums| <= 16 * 127: 16 bits are enough
        const __m256i sums = _mm256_blend_epi16(sum_lo, _mm256_slli_epi32(sum_hi, 16), 0xAA);
        const __m256i minimum = _mm256_madd_epi16(h->n, sums);
        acc = _mm256_fnmadd_ps(_mm256_mul_ps(h->m, dx), _mm256_cvtepi32_ps(minimum), acc);
    }
    return acc;
}

EL_INLINE void el_prefetch(const uint8_t *p, size_t bytes)
{
#pragma GCC unroll 10
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/// One block of half a tile times `rows` rows of X, a constant.
EL_INLINE void el_half_rows(el_layout layout, unsigned top, size_t rows, const el_half *h,
                            const el_act_q8 *const *x, size_t b, __m256 *acc)
{
    const el_form form = el_form_of(layout);
    const int bias = EL_BYTES_SATURATE && top > 63 ? 0 : el_bias_of(layout);
    const int8_t *q[2];
    __m256i lo[2], hi[2];
#pragma GCC unroll 2
    for (size_t r = 0; r < rows; r++) q[r] = x[r][b].q;
    el_dot(top, form < EL_HALVES ? 8 : 4, 1, rows, h->w, 0, q, lo);
    if (form >= EL_HALVES) {
#pragma GCC unroll 2
        for (size_t r = 0; r < rows; r++) q[r] += 16;
        el_dot(top, 4, 1, rows, h->w + 4, 0, q, hi);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < rows; r++) {
        const __m256i high = form < EL_HALVES ? lo[r] : hi[r];
        acc[r] = el_add_block(form, bias, h, &x[r][b], lo[r], high, acc[r]);
    }
}

/// At most EL_FEW rows of X over one tile, `rows` of them (a constant, 1 or 2) at a time.
EL_INLINE void el_tile_rows(el_layout layout, unsigned top, size_t rows, size_t m, size_t blocks,
                            const el_tile *t, const uint8_t *ahead, const el_act_q8 *x, size_t x_stride,
                            float *y, size_t y_stride, size_t n)
{
    const int bias = EL_BYTES_SATURATE && top > 63 ? 0 : el_bias_of(layout);
    const size_t step = el_block_bytes_of(layout);
    const el_act_q8 *xr[EL_FEW];
    __m256 acc[2][EL_FEW];
    for (size_t r = 0; r < m + m % rows; r++) {  // of an odd number the last one counts twice
        xr[r] = x + (r < m ? r : m - 1) * x_stride;
        acc[0][r] = acc[1][r] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < blocks; b++) {
        el_prefetch(ahead + b * step, step);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            el_half h;
            el_unpack_w(layout, bias, t, b, half, h.w);
            el_unpack_scales(layout, t, b, half, &h);
            size_t r = 0;
            do {
                el_half_rows(layout, top, rows, &h, xr + r, b, acc[half] + r);
                r += rows;
            } while (rows > 1 && r < m);
        }
    }
    for (size_t r = 0; r < m; r++) {
        el_store8(y + r * y_stride, n, acc[0][r]);
        if (n > 8) el_store8(y + r * y_stride + 8, n - 8, acc[1][r]);
    }
}

/// `rows` rows of X over a panel, `halves` halves at a time; all but `pass` and `count` are constants.
/// Only `count` of the rows are there: the last one takes the place of those that are not.
EL_INLINE void el_pass_rows(el_form form, unsigned top, int bias, size_t halves, size_t rows,
                            const el_pass *pass, size_t row, size_t count)
{
    const el_act_q8 *x[EL_ROWS];
    float *y[EL_ROWS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        const size_t at = row + (r < count ? r : count - 1);
        x[r] = pass->x + at * pass->x_stride;
        y[r] = pass->y + at * pass->y_stride;
    }
    for (size_t half = 0; half < 2 && half * 8 < pass->n; half += halves) {
        __m256 acc[2][EL_ROWS];
#pragma GCC unroll 2
        for (size_t i = 0; i < halves; i++) {
            const size_t at = (half + i) * 8, left = pass->n > at ? pass->n - at : 0;
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                acc[i][r] = pass->first || left == 0 ? _mm256_setzero_ps() : el_load8(y[r] + at, left);
            }
        }
        for (size_t b = 0; b < pass->blocks; b++) {
            const el_half *h = &pass->panel[b][half];
            __m256i lo[2 * EL_ROWS], hi[2 * EL_ROWS];
            const int8_t *q[EL_ROWS];
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) q[r] = x[r][b].q;
            el_dot(top, form < EL_HALVES ? 8 : 4, halves, rows, h->w, sizeof *h, q, lo);
            if (form >= EL_HALVES) {
#pragma GCC unroll 6
                for (size_t r = 0; r < rows; r++) q[r] += 16;
                el_dot(top, 4, halves, rows, h->w + 4, sizeof *h, q, hi);
            }
#pragma GCC unroll 2
            for (size_t i = 0; i < halves; i++) {
#pragma GCC unroll 6
                for (size_t r = 0; r < rows; r++) {
                    const __m256i high = form < EL_HALVES ? lo[i * rows + r] : hi[i * rows + r];
                    acc[i][r] = el_add_block(form, bias, h + i, &x[r][b], lo[i * rows + r], high, acc[i][r]);
                }
            }
        }
#pragma GCC unroll 2
        for (size_t i = 0; i < halves; i++) {
            const size_t at = (half + i) * 8;
            if (pass->n <= at) break;
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) el_store8(y[r] + at, pass->n - at, acc[i][r]);
        }
    }
}

/// All rows of X over a panel, `most` (4 or 6) at a time.
EL_INLINE void el_pass_all(el_form form, unsigned top, int bias, size_t halves, size_t most,
                           const el_pass *pass, size_t m)
{
    for (size_t row = 0; row < m;) {
        const size_t left = m - row;
        if (most == 6 && left >= 5 && left != 7 && left != 8) {
            el_pass_rows(form, top, bias, halves, 6, pass, row, left < 6 ? left : 6);
            row += 6;
        } else if (left >= 3) {
            el_pass_rows(form, top, bias, halves, 4, pass, row, left < 4 ? left : 4);
            row += 4;
        } else {
            el_pass_rows(form, top, bias, halves, 2, pass, row, left);
            row += 2;
        }
    }
}

/// The operation for one layout; `pass_all` takes panels that hold the values plus `bias`.
EL_INLINE void el_gemm_256(el_layout layout, unsigned top, int bias, el_pass_fn *pass_all, size_t m, size_t n,
                           size_t k, const uint8_t *w, const el_act_q8 *x, size_t x_stride, float *y,
                           size_t y_stride)
{
    assert(k % (el_shape_of(layout).super ? EL_SUPER : EL_BLOCK) == 0);
    const size_t blocks = k / EL_BLOCK, step = el_block_bytes_of(layout);
    el_half panel[EL_PANEL][2];

    for (size_t row = 0; row < n; row += EL_LANES, y += EL_LANES) {
        size_t bytes = 0;
        const el_tile t = el_view_tile(layout, k, w, &bytes);
        const uint8_t *ahead = w + EL_AHEAD;
        if (m == 1) {
            el_tile_rows(layout, top, 1, 1, blocks, &t, ahead, x, x_stride, y, y_stride, n - row);
        } else if (m > 0 && m <= EL_FEW) {
            el_tile_rows(layout, top, 2, m, blocks, &t, ahead, x, x_stride, y, y_stride, n - row);
        } else if (m > EL_FEW) {
            el_pass pass = {panel, 0, x, y, x_stride, y_stride, n - row, true};
            for (size_t first = 0; first < blocks || first == 0; first += EL_PANEL, pass.first = false) {
                pass.blocks = blocks - first < EL_PANEL ? blocks - first : EL_PANEL;
                pass.x = x + first;
                for (size_t i = 0; i < 2 * pass.blocks; i++) {
                    if (i % 2 == 0) el_prefetch(ahead + (first + i / 2) * step, step);
                    el_unpack_w(layout, bias, &t, first + i / 2, i % 2, panel[i / 2][i % 2].w);
                    el_unpack_scales(layout, &t, first + i / 2, i % 2, &panel[i / 2][i % 2]);
                }
                pass_all(&pass, m);
            }
        }
        w += bytes;
    }
}

#endif
