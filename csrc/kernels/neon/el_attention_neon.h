/* One body for attention over a cache of float16 and of float32; `half` is a constant of the caller.
 *
 * Up to four query rows share each key and value that is loaded and converted. Scores: lanes are keys, so each
 * is one fma chain; a tile of 16 keys times four rows is sixteen accumulators, and q comes four values at a
 * time to be multiplied by element, so that a step of four values is 16 loads to 64 fma. Values:
 * lanes are the head's values, keys follow in order, sixteen values times four rows; the weights are again
 * taken by element. Both loops are bound by the fma pipes (two on A72 and A76) at four rows, by loads at one.
 *
 * Keys past a row's last are computed with whatever the cache holds there and then dropped: their weight
 * is set to zero and their value is never touched. */
#ifndef EL_ATTENTION_NEON_H
#define EL_ATTENTION_NEON_H

#include "kernels/neon/el_neon.h"

enum { EL_ATTENTION_ROWS = 4, EL_HEAD_MAX = 256 };

/// What a group of rows carries from one block of keys to the next.
typedef struct el_attention_group {
    const float *q[EL_ATTENTION_ROWS];
    size_t keys[EL_ATTENTION_ROWS];   // visible ones in all
    size_t count[EL_ATTENTION_ROWS];  // visible ones in this block
    float max[EL_ATTENTION_ROWS], c[EL_ATTENTION_ROWS];
    float32x4_t sums[EL_ATTENTION_ROWS][4];
    float p[EL_ATTENTION_ROWS][EL_KEY_BLOCK];
    float acc[EL_ATTENTION_ROWS][EL_HEAD_MAX];
} el_attention_group;

/// Four values of a cache from index i on.
EL_INLINE float32x4_t el_cache4(bool half, const void *cache, size_t i)
{
    return half ? el_f16x4((const uint16_t *)cache + i) : vld1q_f32((const float *)cache + i);
}

EL_INLINE const void *el_cache_at(bool half, const void *cache, size_t i)
{
    return (const uint8_t *)cache + i * (half ? sizeof(uint16_t) : sizeof(float));
}

/// Sixteen lanes at index i of a cache times element `lane` (a constant) of each row's x.
EL_INLINE void el_fma_lane(bool half, size_t rows, float32x4_t acc[EL_ATTENTION_ROWS][4], const void *cache,
                           size_t i, const float32x4_t x[EL_ATTENTION_ROWS], int lane)
{
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++) {
        const float32x4_t v = el_cache4(half, cache, i + t * 4);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) acc[r][t] = vfmaq_f32(acc[r][t], v, vdupq_n_f32(x[r][lane]));
    }
}

/// Scores of one tile of keys; `rows` is a constant.
EL_INLINE void el_score_tile(bool half, el_attention_group *g, size_t rows, size_t d, size_t tile,
                             float scale, const void *k)
{
    float32x4_t acc[EL_ATTENTION_ROWS][4], q[EL_ATTENTION_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) acc[r][t] = vdupq_n_f32(0.0f);
    }
    const size_t at = tile * d * EL_KEYS;
    for (size_t i = 0; i < d; i += 4) {
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) q[r] = vld1q_f32(g->q[r] + i);
        el_fma_lane(half, rows, acc, k, at + (i + 0) * EL_KEYS, q, 0);
        el_fma_lane(half, rows, acc, k, at + (i + 1) * EL_KEYS, q, 1);
        el_fma_lane(half, rows, acc, k, at + (i + 2) * EL_KEYS, q, 2);
        el_fma_lane(half, rows, acc, k, at + (i + 3) * EL_KEYS, q, 3);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) {
            vst1q_f32(g->p[r] + tile * EL_KEYS + t * 4, vmulq_f32(acc[r][t], vdupq_n_f32(scale)));
        }
    }
}

/// Turn a row's scores into weights, and move its maximum and sums on.
EL_INLINE void el_weigh(el_attention_group *g, size_t r)
{
    const size_t count = g->count[r];
    float new_max = g->max[r];
    for (size_t j = 0; j < count; j++) new_max = g->p[r][j] > new_max ? g->p[r][j] : new_max;
    const float32x4_t max = vdupq_n_f32(new_max);

    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const float32x4_t c = el_exp_neg_x4(vsubq_f32(vdupq_n_f32(g->max[r]), max));
    g->c[r] = vgetq_lane_f32(c, 0);
    g->max[r] = new_max;
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++) g->sums[r][t] = vmulq_f32(g->sums[r][t], c);
    for (size_t j = 0; j < count; j += 4) {
        const float32x4_t p = el_exp_neg_x4(vsubq_f32(vld1q_f32(g->p[r] + j), max));
        const float32x4_t visible = el_keep4(p, el_mask4(count - j));
        g->sums[r][j / 4 % 4] = vaddq_f32(g->sums[r][j / 4 % 4], visible);
        vst1q_f32(g->p[r] + j, visible);
    }
}

/// acc = acc * c, then fma with keys from .. to - 1, for `rows` rows from row r0 on and `regs` registers of
/// values from i on. `rows` and `regs` are constants.
EL_INLINE void el_add_values(bool half, el_attention_group *g, size_t r0, size_t rows, size_t regs, size_t d,
                             size_t i, size_t from, size_t to, const void *v)
{
    float32x4_t acc[EL_ATTENTION_ROWS][4];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        const float32x4_t c = vdupq_n_f32(from == 0 ? g->c[r0 + r] : 1.0f);
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) acc[r][t] = vmulq_f32(vld1q_f32(g->acc[r0 + r] + i + t * 4), c);
    }
    size_t j = from;
    for (; regs == 4 && to - j >= 4; j += 4) {
        float32x4_t p[EL_ATTENTION_ROWS];
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) p[r] = vld1q_f32(g->p[r0 + r] + j);
        el_fma_lane(half, rows, acc, v, (j + 0) * d + i, p, 0);
        el_fma_lane(half, rows, acc, v, (j + 1) * d + i, p, 1);
        el_fma_lane(half, rows, acc, v, (j + 2) * d + i, p, 2);
        el_fma_lane(half, rows, acc, v, (j + 3) * d + i, p, 3);
    }
    for (; j < to; j++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) {
            const float32x4_t values = el_cache4(half, v, j * d + i + t * 4);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                acc[r][t] = vfmaq_f32(acc[r][t], values, vdupq_n_f32(g->p[r0 + r][j]));
            }
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) vst1q_f32(g->acc[r0 + r] + i + t * 4, acc[r][t]);
    }
}

EL_INLINE void el_add_rows(bool half, el_attention_group *g, size_t r0, size_t rows, size_t d, size_t from,
                           size_t to, const void *v)
{
    size_t i = 0;
    for (; d - i >= 16; i += 16) el_add_values(half, g, r0, rows, 4, d, i, from, to, v);
    for (; i < d; i += 8) el_add_values(half, g, r0, rows, 2, d, i, from, to, v);
}

/// One block of keys for a group of `rows` rows, a constant.
EL_INLINE void el_attention_block(bool half, el_attention_group *g, size_t rows, size_t d, size_t first,
                                  float scale, const void *k_cache, const void *v_cache)
{
    size_t most = 0, least = EL_KEY_BLOCK;
    for (size_t r = 0; r < rows; r++) {
        const size_t left = g->keys[r] > first ? g->keys[r] - first : 0;
        g->count[r] = left < EL_KEY_BLOCK ? left : EL_KEY_BLOCK;
        most = g->count[r] > most ? g->count[r] : most;
        least = g->count[r] < least ? g->count[r] : least;
    }

    const void *k = el_cache_at(half, k_cache, first * d), *v = el_cache_at(half, v_cache, first * d);
    for (size_t tile = 0; tile * EL_KEYS < most; tile++) el_score_tile(half, g, rows, d, tile, scale, k);

    for (size_t r = 0; r < rows; r++) {
        g->c[r] = 1.0f;  // a row that sees none of this block keeps its result
        if (g->count[r] > 0) el_weigh(g, r);
    }
    el_add_rows(half, g, 0, rows, d, 0, least, v);
    for (size_t r = 0; r < rows && most > least; r++) {
        if (least == 0) g->c[r] = 1.0f;  // the factor has been applied above
        if (g->count[r] > least) el_add_rows(half, g, r, 1, d, least, g->count[r], v);
    }
}

/// Attention of `rows` rows, a constant.
EL_INLINE void el_attend(bool half, size_t rows, size_t d, const float *q, const size_t *offset,
                         const size_t *last, float scale, const void *k_cache, const void *v_cache, float *y)
{
    el_attention_group g;
    size_t keys = 0;
    for (size_t r = 0; r < rows; r++) {
        g.q[r] = q + offset[r];
        g.keys[r] = last[r] + 1;
        g.max[r] = -EL_INF;
        for (size_t t = 0; t < 4; t++) g.sums[r][t] = vdupq_n_f32(0.0f);
        for (size_t i = 0; i < d; i += 4) vst1q_f32(g.acc[r] + i, vdupq_n_f32(0.0f));
        keys = g.keys[r] > keys ? g.keys[r] : keys;
    }
    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        el_attention_block(half, &g, rows, d, first, scale, k_cache, v_cache);
    }
    for (size_t r = 0; r < rows; r++) {
        const float32x4_t inverse = vdupq_n_f32(1.0f / el_tree_x4(g.sums[r]));
        for (size_t i = 0; i < d; i += 4) {
            vst1q_f32(y + offset[r] + i, vmulq_f32(vld1q_f32(g.acc[r] + i), inverse));
        }
    }
}

EL_INLINE void el_attention_rows(bool half, size_t rows, size_t d, const float *q, const size_t *offset,
                                 const size_t *last, float scale, const void *k_cache, const void *v_cache,
                                 float *y)
{
    size_t r = 0;
    for (; rows - r >= 4; r += 4) {
        el_attend(half, 4, d, q, offset + r, last + r, scale, k_cache, v_cache, y);
    }
    offset += r;
    last += r;
    if (rows - r == 3) el_attend(half, 3, d, q, offset, last, scale, k_cache, v_cache, y);
    if (rows - r == 2) el_attend(half, 2, d, q, offset, last, scale, k_cache, v_cache, y);
    if (rows - r == 1) el_attend(half, 1, d, q, offset, last, scale, k_cache, v_cache, y);
}

#endif
