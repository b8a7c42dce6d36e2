/* gemm_q8_* with int8 tiles and the exact pass over scales: rows of a C tile are rows of X, columns are rows
 * of W, and each of its 16 x 16 outputs follows ref/ step by step.
 *
 * A chunk of k of sixteen rows of W is decoded to signed bytes once (el_amx_panel.h) and serves all rows of
 * X. X is gathered once per call into tiles without holes: el_act_q8 has 44 bytes, so every second of its
 * rows would straddle two cache lines.
 *
 * What bounds it, in cycles for 16 x 16 outputs and one block of 32 values (instruction tables for Sapphire
 * Rapids: TDPBSSD 16 apart with a latency of 52, TILELOADD one load per row, TILESTORED 16, two 512-bit
 * loads and two 512-bit float operations per cycle):
 *
 *   float ports   16 x (cvt, mul, fma) / 2 = 24     + 16 with minima, + 32 with sub-scales and minima
 *   load ports    (A 16 + B 8 + C 16 + broadcast of dx 16) / 2 = 28
 *   tile unit     16;   stores 16
 *
 * so the pass is the price of exactness, 28 cycles for 16384 operations, and all else must hide behind it.
 * Products run one step (two C tiles) ahead of the pass, which hides their latency. The ring of C tiles that
 * they go through has 4 KB and no more: loads would meet stores in flight whose addresses agree in the low
 * 12 bits, and wait for nothing. The front does not stop at the end of a tile of X; past the last it multiplies
 * what is there, and nobody looks. Accumulators stay in 16 registers over a chunk, and in Y between chunks.
 *
 * On an Emerald Rapids without tiles, with the tile instructions replaced by plain loads and stores of as many
 * bytes, 128 rows of q4_0 take 44 cycles (a ring of 8 KB: 47; two panels in turns for each tile of X: 46),
 * 4 of them for decoding and 28 for the pass alone. */
#ifndef __AMX_INT8__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/amx/el_amx_panel.h"
#include "kernels/el_declare.h"

enum {
    EL_RING = 2,    // steps; a step is two C tiles
    EL_TILES = 192  // A tiles gathered at a time: 96 KB of stack
};

/// Rows of X as A tiles: (tiles of rows, blocks of the chunk), blocks padded to an even number.
typedef struct acts {
    _Alignas(64) int8_t q[EL_TILES + 2 * (EL_RING - 1)][EL_TILE_ROWS][EL_BLOCK];
    _Alignas(64) float dx[EL_TILES][EL_TILE_ROWS];
    float sum[EL_TILES][EL_TILE_ROWS];  // EL_MIN_2: of the first half
    float sum_hi[EL_TILES][EL_TILE_ROWS];
} acts;

/// One panel against all gathered rows.
typedef struct job {
    const acts *x;
    const el_panel *w;
    size_t rows;    // of X
    size_t blocks;  // of the chunk, padded
    float *y;
    size_t y_stride;
    __mmask16 mask;  // of lanes that exist
    bool first;      // of the chunks of k: Y holds nothing yet
    const uint8_t *ahead, *ahead_end;  // packed weights that the next panel is made of
} job;

/// Where the products are.
typedef struct front {
    const int8_t *a, *b, *b_first, *b_end;
    int32_t (*ring)[2][256];
    size_t slot;
    const uint8_t *ahead, *ahead_end;
} front;

// Tiles 0, 1: C. 4, 6: A. 5, 7: B.
EL_INLINE void configure(void)
{
    el_tile_config config = {.palette = 1};
    for (size_t i = 0; i < 8; i++) config.rows[i] = 16;
    for (size_t i = 0; i < 8; i++) config.row_bytes[i] = 64;
    config.row_bytes[4] = config.row_bytes[6] = EL_BLOCK;
    config.rows[5] = config.rows[7] = 8;
    el_tile_configure(&config);
}

// Two products: two blocks, or both halves of one.
EL_INLINE void multiply(bool halves, front *f)
{
    EL_TILE_LOAD(4, f->a, EL_BLOCK);
    EL_TILE_LOAD(5, f->b, 64);
    EL_TILE_ZERO(0);
    EL_TILE_DOT_I8(0, 4, 5);
    EL_TILE_LOAD(7, f->b + 512, 64);
    EL_TILE_ZERO(1);
    if (halves) {
        EL_TILE_DOT_I8(1, 4, 7);
    } else {
        EL_TILE_LOAD(6, f->a + 512, EL_BLOCK);
        EL_TILE_DOT_I8(1, 6, 7);
    }
    EL_TILE_STORE(0, f->ring[f->slot][0], 64);
    EL_TILE_STORE(1, f->ring[f->slot][1], 64);

    f->a += halves ? 512 : 1024;
    f->b = f->b + 1024 == f->b_end ? f->b_first : f->b + 1024;
    f->slot = (f->slot + 1) % EL_RING;
    for (int i = 0; i < 4 && f->ahead < f->ahead_end; i++, f->ahead += 64) {
        _mm_prefetch((const char *)f->ahead, _MM_HINT_T1);
    }
}

// Scale one block's C tile (two for halves) and add it to the accumulators, in the order of numerics.md.
EL_INLINE void scale_block(el_form form, const job *j, size_t b, size_t tile, const int32_t *c,
                           __m512 acc[EL_TILE_ROWS])
{
    const __m512 zero = _mm512_setzero_ps(), d = _mm512_load_ps(j->w->d[b]);
    const bool minima = form == EL_MIN || form == EL_SUB_MIN || form == EL_MIN_2;
    const bool subs = form == EL_SUB_MIN || form == EL_MIN_2 || form == EL_HALVES;
    const __m512 m = minima ? _mm512_load_ps(j->w->m[b]) : zero;
    const __m512 s = subs ? _mm512_load_ps(j->w->s[b]) : zero, n = subs ? _mm512_load_ps(j->w->n[b]) : zero;
    const float *dx = j->x->dx[tile], *sums = j->x->sum[tile], *sums_hi = j->x->sum_hi[tile];

#pragma GCC unroll 16
    for (size_t r = 0; r < EL_TILE_ROWS; r++) {
        __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(c + r * 16));
        if (form == EL_HALVES) {
            const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(c + 256 + r * 16));
            dot = _mm512_fmadd_ps(high, n, _mm512_mul_ps(dot, s));
        }
        if (form == EL_SUB_MIN) dot = _mm512_mul_ps(dot, s);
        acc[r] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(dx[r])), dot, acc[r]);
        if (!minima) continue;
        __m512 sum = _mm512_set1_ps(sums[r]);
        if (form == EL_SUB_MIN) sum = _mm512_mul_ps(n, sum);
        if (form == EL_MIN_2) sum = _mm512_fmadd_ps(n, _mm512_set1_ps(sums_hi[r]), _mm512_mul_ps(s, sum));
        acc[r] = _mm512_fmadd_ps(_mm512_mul_ps(m, _mm512_set1_ps(dx[r])), sum, acc[r]);
    }
}

EL_INLINE void run(el_form form, const job *j)
{
    const bool halves = form == EL_HALVES;
    const size_t steps = halves ? j->blocks : j->blocks / 2;
    _Alignas(64) int32_t ring[EL_RING][2][256];
    const int8_t *b = j->w->q[0];
    front f = {j->x->q[0][0], b, b, b + steps * 1024, ring, 0, j->ahead, j->ahead_end};
    for (size_t i = 0; i < EL_RING - 1; i++) multiply(halves, &f);

    size_t tile = 0, slot = 0;
    for (size_t row = 0; row < j->rows; row += EL_TILE_ROWS) {
        const size_t left = j->rows - row;
        float *y = j->y + row * j->y_stride;
        __m512 acc[EL_TILE_ROWS];
#pragma GCC unroll 16
        for (size_t r = 0; r < EL_TILE_ROWS; r++) {
            acc[r] = j->first || r >= left ? _mm512_setzero_ps()
                                           : _mm512_maskz_loadu_ps(j->mask, y + r * j->y_stride);
        }
        for (size_t i = 0; i < steps; i++) {
            multiply(halves, &f);
            const int32_t *c = ring[slot][0];
            slot = (slot + 1) % EL_RING;
            if (halves) {
                scale_block(form, j, i, tile++, c, acc);
            } else {
                scale_block(form, j, 2 * i, tile, c, acc);
                scale_block(form, j, 2 * i + 1, tile + 1, c + 256, acc);
                tile += 2;
            }
        }
#pragma GCC unroll 16
        for (size_t r = 0; r < EL_TILE_ROWS; r++) {
            if (r < left) _mm512_mask_storeu_ps(y + r * j->y_stride, j->mask, acc[r]);
        }
    }
}

// One body per form, not per layout.
#define EL_RUN(form)                                                                                         \
    static __attribute__((noinline)) void run_##form(const job *j) { run(form, j); }
EL_RUN(EL_PLAIN)
EL_RUN(EL_MIN)
EL_RUN(EL_SUB_MIN)
EL_RUN(EL_MIN_2)
EL_RUN(EL_HALVES)

static void run_any(el_form form, const job *j)
{
    switch (form) {
    case EL_PLAIN: run_EL_PLAIN(j); break;
    case EL_MIN: run_EL_MIN(j); break;
    case EL_SUB_MIN: run_EL_SUB_MIN(j); break;
    case EL_MIN_2: run_EL_MIN_2(j); break;
    case EL_HALVES: run_EL_HALVES(j); break;
    }
}

// One A tile. Rows that do not exist get scale 0; their bytes do not matter, and are not touched.
EL_INLINE void gather_tile(el_form form, const el_act_q8 *x, size_t x_stride, size_t rows, size_t tile,
                           acts *out)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i at = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)(x_stride * sizeof *x)));
    const __mmask16 mask = el_mask16(rows);
    const __m512i none = _mm512_setzero_si512();
    const __m512i scale = _mm512_mask_i32gather_epi32(none, mask, at, &x->scale, 1);
    _mm512_store_si512(out->dx[tile], scale);
    if (form == EL_MIN || form == EL_SUB_MIN || form == EL_MIN_2) {
        const __m512i sum = _mm512_mask_i32gather_epi32(none, mask, at, &x->sum, 1);
        const __m512i low =
            form == EL_MIN_2 ? _mm512_mask_i32gather_epi32(none, mask, at, &x->sum_lo, 1) : sum;
        _mm512_store_ps(out->sum[tile], _mm512_cvtepi32_ps(low));
        if (form == EL_MIN_2)
            _mm512_store_ps(out->sum_hi[tile], _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, low)));
    }
    size_t r = 0;
    for (; r + 1 < rows; r += 2) {
        const __m256i even = _mm256_loadu_si256((const __m256i *)x[r * x_stride].q);
        const __m256i odd = _mm256_loadu_si256((const __m256i *)x[(r + 1) * x_stride].q);
        _mm512_store_si512(out->q[tile][r], _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1));
    }
    if (r < rows) {
        _mm256_store_si256((__m256i *)out->q[tile][r],
                           _mm256_loadu_si256((const __m256i *)x[r * x_stride].q));
    }
}

// `count` blocks of `rows` rows; a block that fills up the last pair has scale 0.
static __attribute__((noinline)) void gather(el_form form, const el_act_q8 *x, size_t x_stride, size_t rows,
                                             size_t count, size_t blocks, acts *out)
{
    size_t tile = 0;
    for (size_t row = 0; row < rows; row += EL_TILE_ROWS, x += EL_TILE_ROWS * x_stride) {
        const size_t here = rows - row < EL_TILE_ROWS ? rows - row : EL_TILE_ROWS;
        for (size_t b = 0; b < count; b++) gather_tile(form, x + b, x_stride, here, tile++, out);
        if (count == blocks) continue;
        memset(out->dx[tile], 0, sizeof out->dx[tile]);
        memset(out->sum[tile], 0, sizeof out->sum[tile]);
        memset(out->sum_hi[tile], 0, sizeof out->sum_hi[tile]);
        tile++;
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
    // Parts of equal size: of k, and of X so that one part's A tiles have room.
    const size_t blocks = k / EL_BLOCK, most = form == EL_HALVES ? EL_CHUNK_HALVES : EL_CHUNK;
    const size_t chunk = el_round_up(el_divide_up(blocks, el_divide_up(blocks, most)), 2);
    const size_t tiles = el_divide_up(m, EL_TILE_ROWS), parts = el_divide_up(tiles, EL_TILES / chunk);
    const size_t step = el_divide_up(tiles, parts) * EL_TILE_ROWS;
    acts held;
    el_panel panel;
    configure();

    for (size_t row = 0; row < m; row += step) {
        const size_t rows = m - row < step ? m - row : step;
        for (size_t b = 0; b < blocks; b += chunk) {
            const size_t count = blocks - b < chunk ? blocks - b : chunk, padded = el_round_up(count, 2);
            gather(form, x + row * x_stride + b, x_stride, rows, count, padded, &held);
            for (size_t lane = 0; lane < n; lane += EL_LANES) {
                const uint8_t *tile = w + lane / EL_LANES * at.bytes;
                const uint8_t *ahead = tile + at.bytes + at.q + b * shape.q;
                el_decode_any(layout, tile, at, b, count, &panel);
                if (count % 2 != 0) el_decode_nothing(count, &panel);
                const job j = {&held,
                               &panel,
                               rows,
                               padded,
                               y + row * y_stride + lane,
                               y_stride,
                               el_mask16(n - lane),
                               b == 0,
                               ahead,
                               ahead + count * shape.q};
                run_any(form, &j);
            }
        }
    }
    el_tile_release();
}

void el_gemm_q8_q4_0x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q8_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_0x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_0X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_1x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_1X16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_iq4_nlx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                               size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_IQ4_NLX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_kx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q4_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q5_kx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q5_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q2_kx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q2_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q3_kx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q3_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q6_kx16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                             size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_Q6_KX16, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_tq2_0x16__amx(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(EL_LAYOUT_TQ2_0X16, m, n, k, w, x, x_stride, y, y_stride);
}
