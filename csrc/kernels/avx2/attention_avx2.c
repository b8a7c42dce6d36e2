/* attention_f16. Up to three query rows share each key and value that is converted from f16. Scores:
 * lanes are keys, so each is one fma chain. Values: lanes are the head's values, keys follow in order.
 * Keys past a row's last are computed with whatever the cache holds there and then dropped: their weight
 * is set to zero and their value is never touched. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 3, EL_CHUNK = 4, EL_HEAD_MAX = 256 };  // a chunk is four registers of values

/// What a group of rows carries from one block of keys to the next.
typedef struct group {
    const float *q[EL_ROWS];
    size_t keys[EL_ROWS];   // visible ones in all
    size_t count[EL_ROWS];  // visible ones in this block
    float max[EL_ROWS], c[EL_ROWS];
    __m256 sums[EL_ROWS][2];
    float p[EL_ROWS][EL_KEY_BLOCK];
    float acc[EL_ROWS][EL_HEAD_MAX];
} group;

// Scores of `tiles` tiles of keys from `tile` of this block on; `rows` and `tiles` are constants.
EL_INLINE void score_tiles(group *g, size_t rows, size_t tiles, size_t d, size_t tile, float scale,
                           const uint16_t *k)
{
    __m256 acc[EL_ROWS][4];
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles; t++) acc[r][t] = _mm256_setzero_ps();
    }
    k += tile * d * EL_KEYS;
    for (size_t i = 0; i < d; i++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles; t++) {
            const __m256 keys = el_f16x8(k + (t / 2 * d + i) * EL_KEYS + t % 2 * 8);
#pragma GCC unroll 3
            for (size_t r = 0; r < rows; r++) {
                acc[r][t] = _mm256_fmadd_ps(_mm256_set1_ps(g->q[r][i]), keys, acc[r][t]);
            }
        }
    }
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles; t++) {
            _mm256_storeu_ps(g->p[r] + tile * EL_KEYS + t * 8,
                             _mm256_mul_ps(acc[r][t], _mm256_set1_ps(scale)));
        }
    }
}

// Turn a row's scores into weights, and move its maximum and sums on.
EL_INLINE void weigh(group *g, size_t r)
{
    const size_t count = g->count[r];
    float new_max = g->max[r];
    for (size_t j = 0; j < count; j++) new_max = g->p[r][j] > new_max ? g->p[r][j] : new_max;
    const __m256 max = _mm256_set1_ps(new_max);

    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const __m256 c = el_exp_neg_x8(_mm256_sub_ps(_mm256_set1_ps(g->max[r]), max));
    g->c[r] = _mm256_cvtss_f32(c);
    g->max[r] = new_max;
    g->sums[r][0] = _mm256_mul_ps(g->sums[r][0], c);
    g->sums[r][1] = _mm256_mul_ps(g->sums[r][1], c);
    for (size_t j = 0; j < count; j += 8) {
        const __m256 p = el_exp_neg_x8(_mm256_sub_ps(_mm256_loadu_ps(g->p[r] + j), max));
        const __m256 visible = _mm256_and_ps(p, _mm256_castsi256_ps(el_mask8(count - j)));
        g->sums[r][j / 8 % 2] = _mm256_add_ps(g->sums[r][j / 8 % 2], visible);
        _mm256_storeu_ps(g->p[r] + j, visible);
    }
}

// acc = acc * c, then fma with keys from .. to - 1, for `rows` rows from row r0 on and `regs` registers
// of values from i on. `rows` and `regs` are constants.
EL_INLINE void add_values(group *g, size_t r0, size_t rows, size_t regs, size_t d, size_t i, size_t from,
                          size_t to, const uint16_t *v)
{
    __m256 acc[EL_ROWS][EL_CHUNK];
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
        const __m256 c = _mm256_set1_ps(from == 0 ? g->c[r0 + r] : 1.0f);
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) {
            acc[r][t] = _mm256_mul_ps(_mm256_loadu_ps(g->acc[r0 + r] + i + t * 8), c);
        }
    }
    for (size_t j = from; j < to; j++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) {
            const __m256 values = el_f16x8(v + j * d + i + t * 8);
#pragma GCC unroll 3
            for (size_t r = 0; r < rows; r++) {
                acc[r][t] = _mm256_fmadd_ps(_mm256_set1_ps(g->p[r0 + r][j]), values, acc[r][t]);
            }
        }
    }
#pragma GCC unroll 3
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) _mm256_storeu_ps(g->acc[r0 + r] + i + t * 8, acc[r][t]);
    }
}

EL_INLINE void add_rows(group *g, size_t r0, size_t rows, size_t d, size_t from, size_t to, const uint16_t *v)
{
    size_t i = 0;
    for (; d - i >= EL_CHUNK * 8; i += EL_CHUNK * 8) add_values(g, r0, rows, EL_CHUNK, d, i, from, to, v);
    for (; i < d; i += 8) add_values(g, r0, rows, 1, d, i, from, to, v);
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
    size_t tile = 0;
    for (; tiles - tile >= 2; tile += 2) score_tiles(g, rows, 2, d, tile, scale, k);
    if (tile < tiles) score_tiles(g, rows, 1, d, tile, scale, k);

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
        g.sums[r][0] = g.sums[r][1] = _mm256_setzero_ps();
        for (size_t i = 0; i < d; i += 8) _mm256_storeu_ps(g.acc[r] + i, _mm256_setzero_ps());
        keys = g.keys[r] > keys ? g.keys[r] : keys;
    }
    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        block(&g, rows, d, first, scale, k_cache, v_cache);
    }
    for (size_t r = 0; r < rows; r++) {
        const __m256 inverse = _mm256_set1_ps(1.0f / el_tree_x8(g.sums[r][0], g.sums[r][1]));
        for (size_t i = 0; i < d; i += 8) {
            _mm256_storeu_ps(y + offset[r] + i, _mm256_mul_ps(_mm256_loadu_ps(g.acc[r] + i), inverse));
        }
    }
}

void el_attention_f16__avx2(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            float scale, const uint16_t *k_cache, const uint16_t *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    size_t r = 0;
    for (; rows - r >= EL_ROWS; r += EL_ROWS) {
        attend(EL_ROWS, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
    }
    for (; r < rows; r++) attend(1, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
}
