/* attention_f16, attention_f32 and attention_q8_0: one body. A cache of q8_0 is turned into float32 block by
 * block, for which exact products of scale and integer are enough. Query rows go six, three or one at a
 * time and share each key and value that is loaded (and converted); twelve or eight sums hide the latency of
 * an fma. Scores: lanes are keys, so each is one fma chain. Values: lanes are the head's values, keys follow
 * in order. Keys past a row's last, or before its window, are computed with whatever the cache holds there and
 * then dropped: their weight is set to zero and their value is never touched. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 6, EL_REGS = 8 };

typedef enum width { HALF, FULL } width;  // of what is read; a constant everywhere

/// What a group of rows carries from one block of keys to the next.
typedef struct group {
    const float *q[EL_ROWS];
    size_t from[EL_ROWS], to[EL_ROWS];    // visible positions
    size_t skip[EL_ROWS], count[EL_ROWS];  // and those of this block: from `skip` to before `count`
    float max[EL_ROWS], c[EL_ROWS];
    __m256 sums[EL_ROWS][2];
    float p[EL_ROWS][EL_KEY_BLOCK];
    float acc[EL_ROWS][EL_HEAD_MAX];
} group;

/// What all rows of a call share.
typedef struct task {
    size_t d, window, ring;
    const float *q;
    float scale;
    const void *k, *v;
    float *y;
    float *
        wide;  // for a cache of bytes: (EL_KEY_BLOCK, d) of the keys, or of the values, of a block; else NULL
} task;

/// Eight values of a cache, from element i on.
EL_INLINE __m256 cached(width kind, const void *cache, size_t i)
{
    return kind == HALF ? el_f16x8((const uint16_t *)cache + i) : _mm256_loadu_ps((const float *)cache + i);
}

/// Registers of keys or values that go with a number of rows.
EL_INLINE size_t regs_of(size_t rows) { return rows == 6 ? 2 : rows == 3 ? 4 : EL_REGS; }

// acc[r][t] += x[r][i] * register t of the cache, of which each pair starts `pair` elements after the one
// before. What is loaded first, and so stays in registers, is the smaller of the two sides.
EL_INLINE void add_products(width kind, size_t rows, size_t regs, const float *const *x, size_t i,
                            const void *cache, size_t at, size_t pair, __m256 acc[][EL_REGS])
{
    if (rows > regs) {
        __m256 c[EL_REGS];
#pragma GCC unroll 8
        for (size_t t = 0; t < regs; t++) c[t] = cached(kind, cache, at + t / 2 * pair + t % 2 * 8);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            const __m256 xr = _mm256_set1_ps(x[r][i]);
#pragma GCC unroll 8
            for (size_t t = 0; t < regs; t++) acc[r][t] = _mm256_fmadd_ps(xr, c[t], acc[r][t]);
        }
        return;
    }
    __m256 xr[EL_ROWS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) xr[r] = _mm256_set1_ps(x[r][i]);
#pragma GCC unroll 8
    for (size_t t = 0; t < regs; t++) {
        const __m256 c = cached(kind, cache, at + t / 2 * pair + t % 2 * 8);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) acc[r][t] = _mm256_fmadd_ps(xr[r], c, acc[r][t]);
    }
}

// Scores of 8 * regs keys from `tile` on; k is element `k_at` of the cache. `rows` and `regs` are constants.
EL_INLINE void score(width kind, group *g, size_t rows, size_t regs, size_t d, size_t tile, float scale,
                     const void *k, size_t k_at)
{
    __m256 acc[EL_ROWS][EL_REGS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (size_t t = 0; t < regs; t++) acc[r][t] = _mm256_setzero_ps();
    }
    k_at += tile * d * EL_KEYS;
    for (size_t i = 0; i < d; i++) {
        add_products(kind, rows, regs, g->q, i, k, k_at + i * EL_KEYS, d * EL_KEYS, acc);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (size_t t = 0; t < regs; t++) {
            _mm256_storeu_ps(g->p[r] + tile * EL_KEYS + t * 8,
                             _mm256_mul_ps(acc[r][t], _mm256_set1_ps(scale)));
        }
    }
}

/// A row's largest visible score, of this block or before.
EL_INLINE float largest(const group *g, size_t r)
{
    const size_t count = g->count[r];
    __m256 max = _mm256_set1_ps(g->max[r]);
    size_t j = 0;
    for (; count - j >= 8; j += 8) max = _mm256_max_ps(_mm256_loadu_ps(g->p[r] + j), max);
    if (j < count) {
        const __m256 p = _mm256_blendv_ps(_mm256_set1_ps(-EL_INF), _mm256_loadu_ps(g->p[r] + j),
                                          _mm256_castsi256_ps(el_mask8(count - j)));
        max = _mm256_max_ps(p, max);
    }
    return el_max_x8(max);
}

/// Turn eight scores, of which `count` are visible, into weights.
EL_INLINE __m256 weights(float *p, size_t count, __m256 max)
{
    const __m256 all = el_exp_neg_x8(_mm256_sub_ps(_mm256_loadu_ps(p), max));
    const __m256 visible = _mm256_and_ps(all, _mm256_castsi256_ps(el_mask8(count)));
    _mm256_storeu_ps(p, visible);
    return visible;
}

// Turn a row's scores into weights, and move its maximum and sums on.
static void weigh(group *g, size_t r)
{
    const size_t count = g->count[r];
    const float new_max = largest(g, r);
    const __m256 max = _mm256_set1_ps(new_max);

    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const __m256 c = el_exp_neg_x8(_mm256_sub_ps(_mm256_set1_ps(g->max[r]), max));
    g->c[r] = _mm256_cvtss_f32(c);
    g->max[r] = new_max;
    __m256 sums[2] = {_mm256_mul_ps(g->sums[r][0], c), _mm256_mul_ps(g->sums[r][1], c)};
    for (size_t j = 0; j < count; j += 16) {
        sums[0] = _mm256_add_ps(sums[0], weights(g->p[r] + j, count - j, max));
        if (count - j > 8) sums[1] = _mm256_add_ps(sums[1], weights(g->p[r] + j + 8, count - j - 8, max));
    }
    g->sums[r][0] = sums[0];
    g->sums[r][1] = sums[1];
}

// acc = acc * c, then fma with keys from .. to - 1, for `rows` rows from row r0 on and `regs` registers
// of values from i on; v is element `v_at` of the cache. `rows` and `regs` are constants.
EL_INLINE void add_values(width kind, group *g, size_t r0, size_t rows, size_t regs, size_t d, size_t i,
                          size_t from, size_t to, const void *v, size_t v_at)
{
    __m256 acc[EL_ROWS][EL_REGS];
    const float *p[EL_ROWS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        p[r] = g->p[r0 + r];
        const __m256 c = _mm256_set1_ps(g->c[r0 + r]);
#pragma GCC unroll 8
        for (size_t t = 0; t < regs; t++) {
            acc[r][t] = _mm256_mul_ps(_mm256_loadu_ps(g->acc[r0 + r] + i + t * 8), c);
        }
    }
    for (size_t j = from; j < to; j++) {
        add_products(kind, rows, regs, p, j, v, v_at + j * d + i, 16, acc);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (size_t t = 0; t < regs; t++) _mm256_storeu_ps(g->acc[r0 + r] + i + t * 8, acc[r][t]);
    }
}

EL_INLINE void add_rows(width kind, group *g, size_t r0, size_t rows, size_t d, size_t from, size_t to,
                        const void *v, size_t v_at)
{
    const size_t regs = regs_of(rows);
    size_t i = 0;
    for (; d - i >= regs * 8; i += regs * 8) add_values(kind, g, r0, rows, regs, d, i, from, to, v, v_at);
    for (; i < d; i += 8) add_values(kind, g, r0, rows, 1, d, i, from, to, v, v_at);
}

// Keys from .. to - 1 of row r alone. What c there is has then been applied.
static void add_row(width kind, group *g, size_t r, size_t d, size_t from, size_t to, const void *v,
                    size_t v_at)
{
    if (from >= to) return;
    if (kind == HALF) {
        add_rows(HALF, g, r, 1, d, from, to, v, v_at);
    } else {
        add_rows(FULL, g, r, 1, d, from, to, v, v_at);
    }
    g->c[r] = 1.0f;
}

/// What each row sees of the block of keys from position `first` on.
EL_INLINE void look(group *g, size_t rows, size_t first)
{
    for (size_t r = 0; r < rows; r++) {
        const size_t left = g->to[r] > first ? g->to[r] - first : 0;
        g->count[r] = left < EL_KEY_BLOCK ? left : EL_KEY_BLOCK;
        g->skip[r] = g->from[r] > first ? g->from[r] - first : 0;
        if (g->skip[r] >= g->count[r]) g->skip[r] = g->count[r] = 0;
    }
}

// Eight values of a block of bytes.
EL_INLINE __m256 scaled(const uint8_t *q, __m256 scale)
{
    const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)q));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), scale);
}

static void widen_keys(size_t tiles, size_t d, const uint8_t *k, float *out)
{
    for (size_t t = 0; t < tiles; t++, k += EL_KEYS * el_q8_row_bytes(d)) {
        const uint8_t *q = k + el_head_blocks(d) * EL_KEYS * sizeof(uint16_t);
        for (size_t i = 0; i < d;) {
            const uint8_t *at = k + i / EL_BLOCK * EL_KEYS * sizeof(uint16_t);
            const __m256 lo = el_f16x8(at), hi = el_f16x8(at + 16);
            for (const size_t end = d - i < EL_BLOCK ? d : i + EL_BLOCK; i < end; i++, out += EL_KEYS) {
                _mm256_storeu_ps(out, scaled(q + i * EL_KEYS, lo));
                _mm256_storeu_ps(out + 8, scaled(q + i * EL_KEYS + 8, hi));
            }
        }
    }
}

static void widen_values(size_t count, size_t d, const uint8_t *v, float *out)
{
    for (size_t j = 0; j < count; j++) {
        const uint8_t *row = v + j * el_q8_row_bytes(d), *q = row + el_head_blocks(d) * sizeof(uint16_t);
        for (size_t i = 0; i < d; i += 8) {
            const float scale = el_f16_to_f32(el_load_u16(row + i / EL_BLOCK * sizeof(uint16_t)));
            _mm256_storeu_ps(out + j * d + i, scaled(q + i, _mm256_set1_ps(scale)));
        }
    }
}

// Weights of one block of keys for a group of `rows` rows, a constant.
EL_INLINE void score_block(width kind, group *g, size_t rows, size_t d, size_t most, float scale,
                           const void *k, size_t k_at)
{
    const size_t tiles = (most + EL_KEYS - 1) / EL_KEYS, step = regs_of(rows) / 2;
    size_t tile = 0;
    for (; tiles - tile >= step; tile += step) score(kind, g, rows, 2 * step, d, tile, scale, k, k_at);
    for (; tile < tiles; tile++) score(kind, g, rows, 2, d, tile, scale, k, k_at);

    for (size_t r = 0; r < rows; r++) {
        g->c[r] = 1.0f;  // a row that sees none of this block keeps its result
        for (size_t j = 0; j < g->skip[r]; j++) g->p[r][j] = -EL_INF;  // a weight of 0 changes no sum
        if (g->count[r] > 0) weigh(g, r);
    }
}

// The values of one block. Keys that all rows see are taken for all at once, the others row by row.
EL_INLINE void add_block(width kind, group *g, size_t rows, size_t d, size_t skip, size_t least,
                         const void *v, size_t v_at)
{
    const size_t to = skip < least ? least : skip;
    for (size_t r = 0; r < rows && skip > 0; r++) {
        add_row(kind, g, r, d, g->skip[r], g->count[r] < skip ? g->count[r] : skip, v, v_at);
    }
    add_rows(kind, g, 0, rows, d, skip, to, v, v_at);
    for (size_t r = 0; r < rows && rows > 1; r++) {
        g->c[r] = 1.0f;
        add_row(kind, g, r, d, to, g->count[r], v, v_at);
    }
}

// One block of keys for a group of `rows` rows, a constant.
EL_INLINE void block(width kind, const task *t, group *g, size_t rows, size_t first, size_t place)
{
    const size_t d = t->d;
    size_t most = 0, least = EL_KEY_BLOCK, skip = 0;
    look(g, rows, first);
    for (size_t r = 0; r < rows; r++) {
        most = g->count[r] > most ? g->count[r] : most;
        least = g->count[r] < least ? g->count[r] : least;
        skip = g->skip[r] > skip ? g->skip[r] : skip;
    }
    if (most == 0) return;
    if (kind == HALF || t->wide == NULL) {
        score_block(kind, g, rows, d, most, t->scale, t->k, place * d);
        add_block(kind, g, rows, d, skip, least, t->v, place * d);
        return;
    }
    const size_t at = place * el_q8_row_bytes(d);
    widen_keys((most + EL_KEYS - 1) / EL_KEYS, d, (const uint8_t *)t->k + at, t->wide);
    score_block(kind, g, rows, d, most, t->scale, t->wide, 0);
    widen_values(most, d, (const uint8_t *)t->v + at, t->wide);
    add_block(kind, g, rows, d, skip, least, t->wide, 0);
}

EL_INLINE void attend(width kind, const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    group g;
    const size_t d = t->d;
    size_t begin = SIZE_MAX, end = 0;
    for (size_t r = 0; r < rows; r++) {
        g.q[r] = t->q + offset[r];
        g.to[r] = last[r] + 1;
        g.from[r] = g.to[r] > t->window ? g.to[r] - t->window : 0;
        g.max[r] = -EL_INF;
        g.sums[r][0] = g.sums[r][1] = _mm256_setzero_ps();
        for (size_t i = 0; i < d; i += 8) _mm256_storeu_ps(g.acc[r] + i, _mm256_setzero_ps());
        begin = g.from[r] < begin ? g.from[r] : begin;
        end = g.to[r] > end ? g.to[r] : end;
    }
    size_t first = begin / EL_KEY_BLOCK * EL_KEY_BLOCK;
    for (size_t place = first % t->ring; first < end; first += EL_KEY_BLOCK) {
        block(kind, t, &g, rows, first, place);
        place = place + EL_KEY_BLOCK == t->ring ? 0 : place + EL_KEY_BLOCK;
    }
    for (size_t r = 0; r < rows; r++) {
        const __m256 inverse = _mm256_set1_ps(1.0f / el_tree_x8(g.sums[r][0], g.sums[r][1]));
        for (size_t i = 0; i < d; i += 8) {
            _mm256_storeu_ps(t->y + offset[r] + i, _mm256_mul_ps(_mm256_loadu_ps(g.acc[r] + i), inverse));
        }
    }
}

EL_INLINE void attention(width kind, const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    assert(t->d % 8 == 0 && t->d <= EL_HEAD_MAX && t->ring % EL_KEY_BLOCK == 0 && t->window > 0);
    size_t r = 0;
    for (; rows - r >= 6; r += 6) attend(kind, t, 6, offset + r, last + r);
    for (; rows - r >= 3; r += 3) attend(kind, t, 3, offset + r, last + r);
    for (; r < rows; r++) attend(kind, t, 1, offset + r, last + r);
}

static void attention_full(const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    attention(FULL, t, rows, offset, last);
}

void el_attention_f16__avx2(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                            float *y)
{
    attention(HALF, &(task){d, window, ring, q, scale, k_cache, v_cache, y, NULL}, rows, offset, last);
}

void el_attention_f32__avx2(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                            float *y)
{
    attention_full(&(task){d, window, ring, q, scale, k_cache, v_cache, y, NULL}, rows, offset, last);
}

void el_attention_q8_0__avx2(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                             size_t window, size_t ring, float scale, const void *k_cache,
                             const void *v_cache, float *y)
{
    float wide[EL_KEY_BLOCK * EL_HEAD_MAX];
    attention_full(&(task){d, window, ring, q, scale, k_cache, v_cache, y, wide}, rows, offset, last);
}
