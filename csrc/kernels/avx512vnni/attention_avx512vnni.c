/* attention_f16, attention_f32 and attention_q8_0, one body. Scores: lanes are keys, so each is one fma chain; several
 * tiles and rows hide its latency. Values: lanes are the head's values, keys follow in order. Keys past a
 * row's last, or before its window, are computed with whatever the cache holds there and then dropped:
 * their weight is set to zero and their value is never touched.
 *
 * Six rows share each key and value that is loaded. Where there are more, a block of keys is converted
 * from f16 once for many of them, since a conversion takes the ports of two fma. A block of q8_0 always is. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

enum {
    EL_ROWS = 6,
    EL_MANY = 96,  // a multiple of EL_ROWS
    EL_ACC = EL_MANY * 128,  // values; half as many rows of the largest heads
    EL_CHUNK = 4,  // registers of values
    EL_CONVERTED_MAX = 128  // head size up to which a block is converted: two buffers of 32 KB on the stack
};

/// What rows carry from one block of keys to the next.
typedef struct state {
    const float *q[EL_MANY];
    size_t from[EL_MANY], to[EL_MANY];  // visible positions
    float max[EL_MANY];
    __m512 sums[EL_MANY];
    float acc[EL_ACC];  // (rows, stride)
    size_t stride;
} state;

/// What a group of up to EL_ROWS rows needs within a block.
typedef struct group {
    size_t first;  // row of the state
    size_t skip[EL_ROWS], count[EL_ROWS];  // visible keys: from `skip` to before `count`
    float c[16];
    float p[EL_ROWS][EL_KEY_BLOCK];
} group;

/// Sixteen values of a cache (`half`, a constant: of f16), or the first ones that `mask` names.
EL_INLINE __m512 load(const void *cache, size_t i, bool half)
{
    if (half) return el_f16x16((const uint16_t *)cache + i);
    return _mm512_loadu_ps((const float *)cache + i);
}

EL_INLINE __m512 load_some(const void *cache, size_t i, bool half, __mmask16 mask)
{
    if (half) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)cache + i));
    return _mm512_maskz_loadu_ps(mask, (const float *)cache + i);
}

EL_INLINE const void *moved(const void *cache, size_t values, bool half)
{
    return (const char *)cache + values * (half ? sizeof(uint16_t) : sizeof(float));
}

// Scores of `tiles` tiles of keys from `tile` of this block on; `rows` and `tiles` are constants. One
// block ahead is asked for where the cache itself is read.
EL_INLINE void score_tiles(const state *s, group *g, size_t rows, size_t tiles, size_t d, size_t tile,
                           float scale, const void *k, bool half)
{
    __m512 acc[EL_ROWS][4];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles; t++) acc[r][t] = _mm512_setzero_ps();
    }
    k = moved(k, tile * d * EL_KEYS, half);
    for (size_t i = 0; i < d; i++) {
        __m512 keys[4];
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles; t++) {
            keys[t] = load(k, (t * d + i) * EL_KEYS, half);
            if (half) {
                _mm_prefetch((const char *)moved(k, (t * d + i) * EL_KEYS + EL_KEY_BLOCK * d, half),
                             _MM_HINT_T0);
            }
        }
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            const __m512 q = _mm512_set1_ps(s->q[g->first + r][i]);
#pragma GCC unroll 4
            for (size_t t = 0; t < tiles; t++) acc[r][t] = _mm512_fmadd_ps(q, keys[t], acc[r][t]);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles; t++) {
            _mm512_storeu_ps(g->p[r] + (tile + t) * EL_KEYS, _mm512_mul_ps(acc[r][t], _mm512_set1_ps(scale)));
        }
    }
}

// Turn scores into weights, and move the rows' maxima and sums on.
EL_INLINE void weigh(state *s, group *g, size_t rows)
{
    float gap[16] = {0.0f};
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < g->skip[r]; j++) g->p[r][j] = -EL_INF;  // a weight of 0 changes no sum
        __m512 max = _mm512_set1_ps(s->max[g->first + r]);
        for (size_t j = 0; j < g->count[r]; j += EL_KEYS) {
            max = _mm512_mask_max_ps(max, el_mask16(g->count[r] - j), max, _mm512_loadu_ps(g->p[r] + j));
        }
        // A row that sees none of this block has a gap of 0, or NaN before its first: never used.
        const float new_max = _mm512_reduce_max_ps(max);
        gap[r] = s->max[g->first + r] - new_max;
        s->max[g->first + r] = new_max;
    }
    // In the first block the old maximum is -infinity, which makes c exactly 0.
    _mm512_storeu_ps(g->c, el_exp_neg_x16(_mm512_loadu_ps(gap)));

    for (size_t r = 0; r < rows; r++) {
        if (g->count[r] == 0) {
            g->c[r] = 1.0f;  // it keeps its result
            continue;
        }
        const __m512 max = _mm512_set1_ps(s->max[g->first + r]);
        __m512 sums = _mm512_mul_ps(s->sums[g->first + r], _mm512_set1_ps(g->c[r]));
        for (size_t j = 0; j < g->count[r]; j += EL_KEYS) {
            const __m512 p = el_exp_neg_x16(_mm512_sub_ps(_mm512_loadu_ps(g->p[r] + j), max));
            const __m512 visible = _mm512_maskz_mov_ps(el_mask16(g->count[r] - j), p);
            sums = _mm512_add_ps(sums, visible);
            _mm512_storeu_ps(g->p[r] + j, visible);
        }
        s->sums[g->first + r] = sums;
    }
}

// acc = acc * c, then fma with keys from .. to - 1, for `rows` rows of the group from r0 on and `regs`
// registers of values from i on; the last register holds `mask` lanes. `rows` and `regs` are constants.
EL_INLINE void add_values(state *s, const group *g, size_t r0, size_t rows, size_t regs, size_t d, size_t i,
                          __mmask16 mask, size_t from, size_t to, const void *v, bool half)
{
    __m512 acc[EL_ROWS][EL_CHUNK];
    float *at[EL_ROWS];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        const __m512 c = _mm512_set1_ps(g->c[r0 + r]);
        at[r] = s->acc + (g->first + r0 + r) * s->stride + i;
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) acc[r][t] = _mm512_mul_ps(_mm512_loadu_ps(at[r] + t * 16), c);
    }
    for (size_t j = from; j < to; j++) {
        const void *vj = moved(v, j * d + i, half);
        if (half) {
            for (size_t t = 0; t < regs; t += 2) {
                _mm_prefetch((const char *)moved(vj, EL_KEY_BLOCK * d + t * 16, half), _MM_HINT_T0);
            }
        }
        __m512 values[EL_CHUNK];
#pragma GCC unroll 4
        for (size_t t = 0; t + 1 < regs; t++) values[t] = load(vj, t * 16, half);
        values[regs - 1] = load_some(vj, (regs - 1) * 16, half, mask);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            const __m512 p = _mm512_set1_ps(g->p[r0 + r][j]);
#pragma GCC unroll 4
            for (size_t t = 0; t < regs; t++) acc[r][t] = _mm512_fmadd_ps(p, values[t], acc[r][t]);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) _mm512_storeu_ps(at[r] + t * 16, acc[r][t]);
    }
}

EL_INLINE void add_rows(state *s, const group *g, size_t r0, size_t rows, size_t d, size_t from, size_t to,
                        const void *v, bool half)
{
    size_t i = 0;
    for (; d - i >= EL_CHUNK * 16; i += EL_CHUNK * 16) {
        add_values(s, g, r0, rows, EL_CHUNK, d, i, 0xFFFF, from, to, v, half);
    }
    for (; d - i > 16; i += 32 < d - i ? 32 : d - i) {
        add_values(s, g, r0, rows, 2, d, i, el_mask16(d - i - 16), from, to, v, half);
    }
    if (i < d) add_values(s, g, r0, rows, 1, d, i, el_mask16(d - i), from, to, v, half);
}

// Keys from .. to - 1 of row r of a group alone. What c there is has then been applied.
static void add_row(state *s, group *g, size_t r, size_t d, size_t from, size_t to, const void *v, bool half)
{
    if (from >= to) return;
    if (half) {
        add_rows(s, g, r, 1, d, from, to, v, true);
    } else {
        add_rows(s, g, r, 1, d, from, to, v, false);
    }
    g->c[r] = 1.0f;
}

// Keys that all rows see are taken for all at once, the others row by row.
EL_INLINE void add_block(state *s, group *g, size_t rows, size_t d, size_t skip, size_t least, const void *v,
                         bool half)
{
    const size_t to = skip < least ? least : skip;
    for (size_t r = 0; r < rows && skip > 0; r++) {
        add_row(s, g, r, d, g->skip[r], g->count[r] < skip ? g->count[r] : skip, v, half);
    }
    add_rows(s, g, 0, rows, d, skip, to, v, half);
    for (size_t r = 0; r < rows && rows > 1; r++) {
        g->c[r] = 1.0f;
        add_row(s, g, r, d, to, g->count[r], v, half);
    }
}

// One block of keys for the `rows` rows, a constant, of the state from row `first_row` on.
EL_INLINE void block(state *s, size_t first_row, size_t rows, size_t d, size_t first, float scale,
                     const void *k, const void *v, bool half)
{
    group g;
    g.first = first_row;
    size_t most = 0, least = EL_KEY_BLOCK, skip = 0;
    for (size_t r = 0; r < rows; r++) {
        const size_t to = s->to[first_row + r], from = s->from[first_row + r];
        const size_t left = to > first ? to - first : 0;
        g.count[r] = left < EL_KEY_BLOCK ? left : EL_KEY_BLOCK;
        g.skip[r] = from > first ? from - first : 0;
        if (g.skip[r] >= g.count[r]) g.skip[r] = g.count[r] = 0;
        most = g.count[r] > most ? g.count[r] : most;
        least = g.count[r] < least ? g.count[r] : least;
        skip = g.skip[r] > skip ? g.skip[r] : skip;
    }
    const size_t tiles = (most + EL_KEYS - 1) / EL_KEYS;
    if (tiles == 0) return;
    if (tiles == 4) {
        score_tiles(s, &g, rows, 4, d, 0, scale, k, half);
    } else {
        if (tiles >= 2) score_tiles(s, &g, rows, 2, d, 0, scale, k, half);
        if (tiles % 2 == 1) score_tiles(s, &g, rows, 1, d, tiles - 1, scale, k, half);
    }
    weigh(s, &g, rows);
    add_block(s, &g, rows, d, skip, least, v, half);
}

// The same for any number of rows; those between a group's size and its constant repeat the last row.
EL_INLINE void blocks(state *s, size_t rows, size_t d, size_t first, float scale, const void *k,
                      const void *v, bool half)
{
    size_t r = 0;
    for (; rows - r >= 5; r += rows - r < EL_ROWS ? rows - r : EL_ROWS) {
        block(s, r, EL_ROWS, d, first, scale, k, v, half);
    }
    switch (rows - r) {
    case 4: block(s, r, 4, d, first, scale, k, v, half); break;
    case 3:
    case 2: block(s, r, 3, d, first, scale, k, v, half); break;
    case 1: block(s, r, 1, d, first, scale, k, v, half); break;
    default: break;
    }
}

static void blocks_f16(state *s, size_t rows, size_t d, size_t first, float scale, const void *k,
                       const void *v)
{
    blocks(s, rows, d, first, scale, k, v, true);
}

static void blocks_f32(state *s, size_t rows, size_t d, size_t first, float scale, const void *k,
                       const void *v)
{
    blocks(s, rows, d, first, scale, k, v, false);
}

/// What all rows of a call share.
typedef struct task {
    size_t d, window, ring;
    const float *q;
    float scale;
    const void *k, *v;
    float *y;
} task;

// The positions that any of the rows sees: from *begin to before what is returned.
static size_t begin(state *s, const task *t, size_t rows, const size_t *offset, const size_t *last,
                    size_t *first)
{
    size_t end = 0;
    *first = SIZE_MAX;
    s->stride = el_round_up(t->d, 16);
    for (size_t r = 0; r < el_round_up(rows, EL_ROWS); r++) {
        const size_t real = r < rows ? r : rows - 1, to = last[real] + 1;
        s->q[r] = t->q + offset[real];
        s->to[r] = to;
        s->from[r] = to > t->window ? to - t->window : 0;
        s->max[r] = -EL_INF;
        s->sums[r] = _mm512_setzero_ps();
        *first = s->from[r] < *first ? s->from[r] : *first;
        end = to > end ? to : end;
        for (size_t i = 0; i < t->d; i += 16) {
            _mm512_storeu_ps(s->acc + r * s->stride + i, _mm512_setzero_ps());
        }
    }
    *first = *first / EL_KEY_BLOCK * EL_KEY_BLOCK;
    return end;
}

static void end(const state *s, const task *t, size_t rows, const size_t *offset)
{
    for (size_t r = 0; r < rows; r++) {
        const __m512 inverse = _mm512_set1_ps(1.0f / el_tree_x16(s->sums[r]));
        for (size_t i = 0; i < t->d; i += 16) {
            const __m512 out = _mm512_mul_ps(_mm512_loadu_ps(s->acc + r * s->stride + i), inverse);
            _mm512_mask_storeu_ps(t->y + offset[r] + i, el_mask16(t->d - i), out);
        }
    }
}

// The first n values of a cache of f16.
static void widen_f16(size_t n, const void *x, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 mask = el_mask16(n - i);
        _mm512_storeu_ps(y + i, load_some(x, i, true, mask));
    }
}

/// Sixteen values of q8_0, or the first ones that `mask` names.
EL_INLINE __m512 scaled(const uint8_t *q, __mmask16 mask, __m512 scale)
{
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, q));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(wide), scale);
}

// `tiles` tiles of keys, and the values of `count` places.
static void widen_q8_keys(size_t tiles, size_t d, const uint8_t *k, float *out)
{
    for (size_t t = 0; t < tiles; t++, k += EL_KEYS * el_q8_row_bytes(d)) {
        const uint8_t *q = k + el_head_blocks(d) * EL_KEYS * sizeof(uint16_t);
        for (size_t i = 0; i < d;) {
            const __m512 scale = el_f16x16(k + i / EL_BLOCK * EL_KEYS * sizeof(uint16_t));
            for (const size_t last = d - i < EL_BLOCK ? d : i + EL_BLOCK; i < last; i++, out += EL_KEYS) {
                _mm512_storeu_ps(out, scaled(q + i * EL_KEYS, 0xFFFF, scale));
            }
        }
    }
}

static void widen_q8_values(size_t count, size_t d, const uint8_t *v, float *out)
{
    for (size_t j = 0; j < count; j++, out += d) {
        const uint8_t *row = v + j * el_q8_row_bytes(d), *q = row + el_head_blocks(d) * sizeof(uint16_t);
        for (size_t i = 0; i < d; i += 16) {
            const __mmask16 mask = el_mask16(d - i);
            const uint16_t scale = el_load_u16(row + i / EL_BLOCK * sizeof scale);
            _mm512_mask_storeu_ps(out + i, mask,
                                  scaled(q + i, mask, _mm512_cvtph_ps(_mm256_set1_epi16((short)scale))));
        }
    }
}

/// Where a block of a cache that is not float32 is widened, keys and values; NULL for none.
typedef struct room {
    float *k, *v;
} room;

typedef enum kind { F16, F32, Q8 } kind;

// One block: where it is in the cache, and for many rows through the room. `kind` is a constant.
EL_INLINE void any_block(kind kind, const task *t, state *s, size_t rows, size_t first, size_t place,
                         size_t count, room room)
{
    const size_t d = t->d, tiles = (count + EL_KEYS - 1) / EL_KEYS;
    const size_t row = kind == Q8 ? el_q8_row_bytes(d) : d * (kind == F16 ? sizeof(uint16_t) : sizeof(float));
    const uint8_t *k = (const uint8_t *)t->k + place * row, *v = (const uint8_t *)t->v + place * row;
    if (kind == F16 && (rows <= EL_ROWS || d > EL_CONVERTED_MAX)) {
        blocks_f16(s, rows, d, first, t->scale, k, v);
        return;
    }
    if (kind == F32) {
        blocks_f32(s, rows, d, first, t->scale, k, v);
        return;
    }
    if (kind == F16) {
        widen_f16(tiles * EL_KEYS * d, k, room.k);
        widen_f16(count * d, v, room.v);
    } else {
        widen_q8_keys(tiles, d, k, room.k);
        widen_q8_values(count, d, v, room.v);
    }
    blocks_f32(s, rows, d, first, t->scale, room.k, room.v);
}

EL_INLINE void attention(kind kind, const task *t, size_t rows, const size_t *offset, const size_t *last,
                         room room)
{
    assert(t->d % 8 == 0 && t->d <= EL_HEAD_MAX && t->ring % EL_KEY_BLOCK == 0 && t->window > 0);
    state s;
    const size_t many = t->d > 128 ? EL_MANY / 2 : EL_MANY;
    for (size_t r = 0; r < rows; r += many) {
        const size_t some = rows - r < many ? rows - r : many;
        size_t first;
        const size_t keys = begin(&s, t, some, offset + r, last + r, &first);
        for (size_t place = first % t->ring; first < keys; first += EL_KEY_BLOCK) {
            const size_t count = keys - first < EL_KEY_BLOCK ? keys - first : EL_KEY_BLOCK;
            any_block(kind, t, &s, some, first, place, count, room);
            place = place + EL_KEY_BLOCK == t->ring ? 0 : place + EL_KEY_BLOCK;
        }
        end(&s, t, some, offset + r);
    }
}

void el_attention_f16__avx512vnni(size_t rows, size_t d, const float *q, const size_t *offset,
                                  const size_t *last, size_t window, size_t ring, float scale,
                                  const void *k_cache, const void *v_cache, float *y)
{
    float k[EL_KEY_BLOCK * EL_CONVERTED_MAX + 16], v[EL_KEY_BLOCK * EL_CONVERTED_MAX + 16];
    const task t = {d, window, ring, q, scale, k_cache, v_cache, y};
    attention(F16, &t, rows, offset, last, (room){k, v});
}

void el_attention_f32__avx512vnni(size_t rows, size_t d, const float *q, const size_t *offset,
                                  const size_t *last, size_t window, size_t ring, float scale,
                                  const void *k_cache, const void *v_cache, float *y)
{
    const task t = {d, window, ring, q, scale, k_cache, v_cache, y};
    attention(F32, &t, rows, offset, last, (room){NULL, NULL});
}

void el_attention_q8_0__avx512vnni(size_t rows, size_t d, const float *q, const size_t *offset,
                                   const size_t *last, size_t window, size_t ring, float scale,
                                   const void *k_cache, const void *v_cache, float *y)
{
    float k[EL_KEY_BLOCK * EL_HEAD_MAX + 16], v[EL_KEY_BLOCK * EL_HEAD_MAX + 16];
    const task t = {d, window, ring, q, scale, k_cache, v_cache, y};
    attention(Q8, &t, rows, offset, last, (room){k, v});
}
