/* gemm_q8_* outside the arithmetic contract (docs/decisions/0010): weights and activations are rounded to
 * bf16 with their scales multiplied in, and the tile unit adds up products in f32, so that no pass over
 * scales is left. Bits differ from ref/; the error is that of bf16, 2^-8 of each factor.
 *
 * 32 rows of X times 32 rows of W at a time: four C tiles stay in registers over a chunk of k, and each
 * block of 32 values is 4 TDPBF16PS (64 cycles) for 4 tile loads (32 cycles of both load ports). Decoding a
 * block of 16 rows of W to bf16 is about 90 cycles, so that X comes in parts of up to 256 rows; rounding
 * 16 rows of X is about as much, for all of W. */
#ifndef __AMX_BF16__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/amx/el_amx_panel.h"
#include "kernels/el_declare.h"

enum {
    EL_PART = 16,        // tiles of rows of X at a time
    EL_A_TILES = 192,    // of 1 KB: (tiles of rows, blocks of the chunk)
    EL_MOST_BLOCKS = 16  // of a chunk, which EL_HALVES has room for
};

typedef struct work {
    _Alignas(64) uint16_t a[EL_A_TILES][EL_TILE_ROWS][EL_BLOCK];
    _Alignas(64) uint16_t b[2][EL_MOST_BLOCKS][EL_BLOCK / 2][EL_LANES][2];
    _Alignas(64) float c[2 * EL_TILE_ROWS][2 * EL_LANES];
    el_panel panel;
} work;

/// 16 rows of X and 16 of W, twice each.
typedef struct square {
    const work *from;
    size_t tile;    // A tile of the upper rows; the lower ones' is `blocks` further
    size_t blocks;  // of the chunk
    float *c;
    size_t stride;  // bytes between rows of c
} square;

// Tiles 0..3: C, row by row. 4, 5: A. 6, 7: B.
EL_INLINE void configure(void)
{
    el_tile_config config = {.palette = 1};
    for (size_t i = 0; i < 8; i++) config.rows[i] = 16;
    for (size_t i = 0; i < 8; i++) config.row_bytes[i] = 64;
    el_tile_configure(&config);
}

static void multiply_square(const square *s, bool first)
{
    float *low = s->c + EL_TILE_ROWS * s->stride / sizeof *s->c;
    const uint16_t *upper = s->from->a[s->tile][0], *lower = s->from->a[s->tile + s->blocks][0];
    const uint16_t *left = s->from->b[0][0][0][0], *right = s->from->b[1][0][0][0];
    if (first) {
        EL_TILE_ZERO(0);
        EL_TILE_ZERO(1);
        EL_TILE_ZERO(2);
        EL_TILE_ZERO(3);
    } else {
        EL_TILE_LOAD(0, s->c, s->stride);
        EL_TILE_LOAD(1, s->c + EL_LANES, s->stride);
        EL_TILE_LOAD(2, low, s->stride);
        EL_TILE_LOAD(3, low + EL_LANES, s->stride);
    }
    for (size_t b = 0; b < s->blocks; b++) {
        const size_t at = b * 512;
        EL_TILE_LOAD(4, upper + at, 64);
        EL_TILE_LOAD(6, left + at, 64);
        EL_TILE_LOAD(7, right + at, 64);
        EL_TILE_LOAD(5, lower + at, 64);
        EL_TILE_DOT_BF16(0, 4, 6);
        EL_TILE_DOT_BF16(1, 4, 7);
        EL_TILE_DOT_BF16(2, 5, 6);
        EL_TILE_DOT_BF16(3, 5, 7);
    }
    EL_TILE_STORE(0, s->c, s->stride);
    EL_TILE_STORE(1, s->c + EL_LANES, s->stride);
    EL_TILE_STORE(2, low, s->stride);
    EL_TILE_STORE(3, low + EL_LANES, s->stride);
}

// Two vectors of 16 lanes to 16 pairs of bf16, round to nearest even.
EL_INLINE __m512i pairs(__m512 even, __m512 odd)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

// The byte at the top of each lane.
EL_INLINE __m512 top_byte(__m512i w) { return _mm512_cvtepi32_ps(_mm512_srai_epi32(w, 24)); }

// The decoded panel with its scales multiplied in, as B tiles.
static __attribute__((noinline)) void round_weights(el_form form, const el_panel *p, size_t count,
                                                    uint16_t out[][EL_BLOCK / 2][EL_LANES][2])
{
    for (size_t i = 0; i < count; i++) {
        const __m512 d = _mm512_load_ps(p->d[i]), s = _mm512_load_ps(p->s[i]), n = _mm512_load_ps(p->n[i]);
        const __m512 m = _mm512_load_ps(p->m[i]), none = _mm512_setzero_ps();
        for (size_t g = 0; g < 8; g++) {
            const bool high = g >= 4;
            const int8_t *q = (form == EL_HALVES ? p->q[2 * i + high] : p->q[i]) + g * 64;
            const __m512i w = _mm512_load_si512(q);
            __m512 scale = d, offset = none;
            if (form == EL_MIN) offset = m;
            if (form == EL_SUB_MIN) scale = _mm512_mul_ps(d, s), offset = _mm512_mul_ps(m, n);
            if (form == EL_MIN_2) offset = _mm512_mul_ps(m, high ? n : s);
            if (form == EL_HALVES) scale = _mm512_mul_ps(d, high ? n : s);
            const __m512 v0 = _mm512_fmadd_ps(top_byte(_mm512_slli_epi32(w, 24)), scale, offset);
            const __m512 v1 = _mm512_fmadd_ps(top_byte(_mm512_slli_epi32(w, 16)), scale, offset);
            const __m512 v2 = _mm512_fmadd_ps(top_byte(_mm512_slli_epi32(w, 8)), scale, offset);
            const __m512 v3 = _mm512_fmadd_ps(top_byte(w), scale, offset);
            _mm512_store_si512(out[i][2 * g], pairs(v0, v1));
            _mm512_store_si512(out[i][2 * g + 1], pairs(v2, v3));
        }
    }
}

static __attribute__((noinline)) void round_rows(const el_act_q8 *x, size_t x_stride, size_t rows,
                                                 size_t count, uint16_t out[][EL_TILE_ROWS][EL_BLOCK])
{
    for (size_t row = 0; row < rows; row++, x += x_stride) {
        for (size_t b = 0; b < count; b++) {
            const __m512 scale = _mm512_set1_ps(x[b].scale);
            const uint8_t *q = (const uint8_t *)x[b].q;
            const __m512 low = _mm512_mul_ps(_mm512_cvtepi32_ps(el_load_i8x16(q)), scale);
            const __m512 high = _mm512_mul_ps(_mm512_cvtepi32_ps(el_load_i8x16(q + 16)), scale);
            _mm512_store_si512(out[row / EL_TILE_ROWS * count + b][row % EL_TILE_ROWS],
                               (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

// Squares at the edges of Y go through a buffer.
static void multiply_edge(work *held, square s, bool first, size_t rows, size_t lanes)
{
    const __mmask16 left = el_mask16(lanes), right = lanes > 16 ? el_mask16(lanes - 16) : 0;
    float *y = s.c;
    const size_t y_stride = s.stride / sizeof *y;
    for (size_t r = 0; r < rows && !first; r++) {
        _mm512_store_ps(held->c[r], _mm512_maskz_loadu_ps(left, y + r * y_stride));
        _mm512_store_ps(held->c[r] + 16, _mm512_maskz_loadu_ps(right, y + r * y_stride + 16));
    }
    s.c = held->c[0];
    s.stride = sizeof held->c[0];
    multiply_square(&s, first);
    for (size_t r = 0; r < rows; r++) {
        _mm512_mask_storeu_ps(y + r * y_stride, left, _mm512_load_ps(held->c[r]));
        _mm512_mask_storeu_ps(y + r * y_stride + 16, right, _mm512_load_ps(held->c[r] + 16));
    }
}

static void gemm(el_layout layout, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                 size_t x_stride, float *y, size_t y_stride)
{
    assert(k % EL_BLOCK == 0);
    if (m == 0 || n == 0) return;
    for (size_t r = 0; r < m && k == 0; r++) memset(y + r * y_stride, 0, n * sizeof *y);
    if (k == 0) return;

    const el_form form = el_form_of(layout);
    const el_shape shape = el_shape_of(layout);
    const el_parts at = el_parts_of(shape, k);
    const size_t blocks = k / EL_BLOCK, pairs_of_tiles = el_divide_up(m, 2 * EL_TILE_ROWS);
    const size_t part = el_divide_up(pairs_of_tiles, el_divide_up(pairs_of_tiles, EL_PART / 2)) * 2;  // tiles
    const size_t room = EL_A_TILES / part, most = room < EL_MOST_BLOCKS ? room : EL_MOST_BLOCKS;
    const size_t chunk = el_divide_up(blocks, el_divide_up(blocks, most)), step = part * EL_TILE_ROWS;
    work held;
    configure();

    for (size_t row = 0; row < m; row += step) {
        const size_t rows = m - row < step ? m - row : step;
        for (size_t b = 0; b < blocks; b += chunk) {
            const size_t count = blocks - b < chunk ? blocks - b : chunk;
            round_rows(x + row * x_stride + b, x_stride, rows, count, held.a);
            for (size_t lane = 0; lane < n; lane += 2 * EL_LANES) {
                for (size_t half = 0; half < 2 && lane + half * EL_LANES < n; half++) {
                    el_decode_any(layout, w + (lane / EL_LANES + half) * at.bytes, at, b, count, &held.panel);
                    round_weights(form, &held.panel, count, held.b[half]);
                }
                for (size_t r = 0; r < rows; r += 2 * EL_TILE_ROWS) {
                    const square s = {&held, r / EL_TILE_ROWS * count, count, y + (row + r) * y_stride + lane,
                                      y_stride * sizeof *y};
                    if (rows - r >= 2 * EL_TILE_ROWS && n - lane >= 2 * EL_LANES) {
                        multiply_square(&s, b == 0);
                    } else {
                        const size_t left = rows - r, tail = 2 * EL_TILE_ROWS;
                        multiply_edge(&held, s, b == 0, left < tail ? left : tail, n - lane);
                    }
                }
            }
        }
    }
    el_tile_release();
}

void el_gemm_q8_q4_0x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                   size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                 size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__amxbf16(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                  size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
