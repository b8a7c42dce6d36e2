/* attention_f16. Up to six query rows share each key and value that is converted from f16. Scores: lanes
 * are keys, so each is one fma chain; several tiles and rows hide its latency. Values: lanes are the
 * head's values, keys follow in order. Keys past a row's last are computed with whatever the cache
 * holds there and then dropped: their weight is set to zero and their value is never touched. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 6, EL_CHUNK = 4, EL_HEAD_MAX = 256 };  // a chunk is four registers of values

/// What a group of rows carries from one block of keys to the next.
typedef struct group {
    const float *q[EL_ROWS];
    size_t keys[EL_ROWS];   // visible ones in all
    size_t count[EL_ROWS];  // visible ones in this block
    float max[EL_ROWS], c[EL_ROWS];
    __m512 sums[EL_ROWS];
    float p[EL_ROWS][EL_KEY_BLOCK];
    float acc[EL_ROWS][EL_HEAD_MAX];
} group;

// Scores of `tiles` tiles of keys from `tile` of this block on; `rows` and `tiles` are constants.
EL_INLINE void score_tiles(group *g, size_t rows, size_t tiles, size_t d, size_t tile, float scale,
                           const uint16_t *k)
{
    __m512 acc[EL_ROWS][4];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles; t++) acc[r][t] = _mm512_setzero_ps();
    }
    k += tile * d * EL_KEYS;
    for (size_t i = 0; i < d; i++) {
        __m512 keys[4];
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles; t++) keys[t] = el_f16x16(k + (t * d + i) * EL_KEYS);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            const __m512 q = _mm512_set1_ps(g->q[r][i]);
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

// Turn a row's scores into weights, and move its maximum and sums on.
EL_INLINE void weigh(group *g, size_t r)
{
    const size_t count = g->count[r];
    __m512 max = _mm512_set1_ps(g->max[r]);
    for (size_t j = 0; j < count; j += EL_KEYS) {
        max = _mm512_mask_max_ps(max, el_mask16(count - j), max, _mm512_loadu_ps(g->p[r] + j));
    }
    const float new_max = _mm512_reduce_max_ps(max);
    max = _mm512_set1_ps(new_max);

    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const __m512 c = el_exp_neg_x16(_mm512_sub_ps(_mm512_set1_ps(g->max[r]), max));
    g->c[r] = _mm512_cvtss_f32(c);
    g->max[r] = new_max;
    __m512 sums = _mm512_mul_ps(g->sums[r], c);
    for (size_t j = 0; j < count; j += EL_KEYS) {
        const __m512 p = el_exp_neg_x16(_mm512_sub_ps(_mm512_loadu_ps(g->p[r] + j), max));
        const __m512 visible = _mm512_maskz_mov_ps(el_mask16(count - j), p);
        sums = _mm512_add_ps(sums, visible);
        _mm512_storeu_ps(g->p[r] + j, visible);
    }
    g->sums[r] = sums;
}

// acc = acc * c, then fma with keys from .. to - 1, for `rows` rows from row r0 on and `regs` registers
// of values from i on; the last register holds `mask` lanes. `rows` and `regs` are constants.
EL_INLINE void add_values(group *g, size_t r0, size_t rows, size_t regs, size_t d, size_t i, __mmask16 mask,
                          size_t from, size_t to, const uint16_t *v)
{
    __m512 acc[EL_ROWS][EL_CHUNK];
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        const __m512 c = _mm512_set1_ps(from == 0 ? g->c[r0 + r] : 1.0f);
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) {
            acc[r][t] = _mm512_mul_ps(_mm512_loadu_ps(g->acc[r0 + r] + i + t * 16), c);
        }
    }
    for (size_t j = from; j < to; j++) {
        const uint16_t *vj = v + j * d + i;
        __m512 values[EL_CHUNK];
#pragma GCC unroll 4
        for (size_t t = 0; t + 1 < regs; t++) values[t] = el_f16x16(vj + t * 16);
        values[regs - 1] = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, vj + (regs - 1) * 16));
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
        for (size_t t = 0; t < regs; t++) _mm512_storeu_ps(g->acc[r0 + r] + i + t * 16, acc[r][t]);
    }
}

EL_INLINE void add_rows(group *g, size_t r0, size_t rows, size_t d, size_t from, size_t to, const uint16_t *v)
{
    size_t i = 0;
    for (; d - i >= EL_CHUNK * 16; i += EL_CHUNK * 16) {
        add_values(g, r0, rows, EL_CHUNK, d, i, 0xFFFF, from, to, v);
    }
    for (; i < d; i += 16) add_values(g, r0, rows, 1, d, i, el_mask16(d - i), from, to, v);
}

// One block of keys for a group of `rows` rows, a constant.
EL_INLINE void block(group *g, size_t rows, size_t d, size_t first, float scale, const uint16_t *k_cache,
                     const uint16_t *v_cache)
{
    size_t most = 0, least = EL_KEY_BLOCK;
    for (size_t r = 0; r < rows; r++) {
        const size_t left = g->keys[r] > first ? g->keys[r] - first : 0;
        g->count[r] = left < EL_KEY_BLOCK ? left : EL_KEY_BLOCK;
        most = g->count[r] > most ? g->count[r] : most;
        least = g->count[r] < least ? g->count[r] : least;
    }

    const uint16_t *k = k_cache + first * d, *v = v_cache + first * d;
    const size_t tiles = (most + EL_KEYS - 1) / EL_KEYS;
    if (tiles == 4) {
        score_tiles(g, rows, 4, d, 0, scale, k);
    } else {
        if (tiles >= 2) score_tiles(g, rows, 2, d, 0, scale, k);
        if (tiles % 2 == 1) score_tiles(g, rows, 1, d, tiles - 1, scale, k);
    }

    for (size_t r = 0; r < rows; r++) {
        g->c[r] = 1.0f;  // a row that sees none of this block keeps its result
        if (g->count[r] > 0) weigh(g, r);
    }
    add_rows(g, 0, rows, d, 0, least, v);
    for (size_t r = 0; r < rows; r++) {
        if (least == 0) g->c[r] = 1.0f;  // the factor has been applied above
        if (g->count[r] > least) add_rows(g, r, 1, d, least, g->count[r], v);
    }
}

EL_INLINE void attend(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                      float scale, const uint16_t *k_cache, const uint16_t *v_cache, float *y)
{
    group g;
    size_t keys = 0;
    for (size_t r = 0; r < rows; r++) {
        g.q[r] = q + offset[r];
        g.keys[r] = last[r] + 1;
        g.max[r] = -EL_INF;
        g.sums[r] = _mm512_setzero_ps();
        for (size_t i = 0; i < d; i += 16) _mm512_storeu_ps(g.acc[r] + i, _mm512_setzero_ps());
        keys = g.keys[r] > keys ? g.keys[r] : keys;
    }
    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        block(&g, rows, d, first, scale, k_cache, v_cache);
    }
    for (size_t r = 0; r < rows; r++) {
        const __m512 inverse = _mm512_set1_ps(1.0f / el_tree_x16(g.sums[r]));
        for (size_t i = 0; i < d; i += 16) {
            const __m512 out = _mm512_mul_ps(_mm512_loadu_ps(g.acc[r] + i), inverse);
            _mm512_mask_storeu_ps(y + offset[r] + i, el_mask16(d - i), out);
        }
    }
}

void el_attention_f16__avx512vnni(size_t rows, size_t d, const float *q, const size_t *offset,
                                  const size_t *last, float scale, const uint16_t *k_cache,
                                  const uint16_t *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    size_t r = 0;
    for (; rows - r >= EL_ROWS; r += EL_ROWS) {
        attend(EL_ROWS, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
    }
    for (; rows - r >= 3; r += 3) attend(3, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
    for (; r < rows; r++) attend(1, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
}
