/* attention_f16, attention_f32 and attention_q8_0: one body for a cache of float16 and of float32; `half` is a
 * constant of the caller. A cache of q8_0 is turned into float32 block by block.
 *
 * Up to four query rows share each key and value that is loaded and converted. Scores: lanes are keys, so each
 * is one fma chain; a tile of 16 keys times four rows is sixteen accumulators, and q comes four values at a
 * time to be multiplied by element, so that a step of four values is 16 loads to 64 fma. Values:
 * lanes are the head's values, keys follow in order, sixteen values times four rows; the weights are again
 * taken by element. Both loops are bound by the fma pipes (two on A72 and A76) at four rows, by loads at one.
 *
 * Keys past a row's last, or before its window, are computed with whatever the cache holds there and then
 * dropped: their weight is set to zero and their value is never touched. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

enum { EL_ROWS = 4 };

/// What a group of rows carries from one block of keys to the next.
typedef struct group {
    const float *q[EL_ROWS];
    size_t from[EL_ROWS], to[EL_ROWS];  // visible positions
    size_t skip[EL_ROWS], count[EL_ROWS];  // and those of this block: `skip` to `count` - 1
    float max[EL_ROWS], c[EL_ROWS];
    float32x4_t sums[EL_ROWS][4];
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
    float
        *wide;  // for a cache of q8_0: (EL_KEY_BLOCK, d) of the keys, or of the values, of a block; else NULL
} task;

/// Four values of a cache from index i on.
EL_INLINE float32x4_t cache4(bool half, const void *cache, size_t i)
{
    return half ? el_f16x4((const uint16_t *)cache + i) : vld1q_f32((const float *)cache + i);
}

EL_INLINE const void *cache_at(bool half, const void *cache, size_t i)
{
    return (const uint8_t *)cache + i * (half ? sizeof(uint16_t) : sizeof(float));
}

/// Sixteen lanes at index i of a cache times element `lane` (a constant) of each row's x.
EL_INLINE void fma_lane(bool half, size_t rows, float32x4_t acc[EL_ROWS][4], const void *cache, size_t i,
                        const float32x4_t x[EL_ROWS], int lane)
{
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++) {
        const float32x4_t v = cache4(half, cache, i + t * 4);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) acc[r][t] = vfmaq_f32(acc[r][t], v, vdupq_n_f32(x[r][lane]));
    }
}

/// Scores of one tile of keys; `rows` is a constant.
EL_INLINE void score_tile(bool half, group *g, size_t rows, size_t d, size_t tile, float scale, const void *k)
{
    float32x4_t acc[EL_ROWS][4], q[EL_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 4; t++) acc[r][t] = vdupq_n_f32(0.0f);
    }
    const size_t at = tile * d * EL_KEYS;
    for (size_t i = 0; i < d; i += 4) {
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) q[r] = vld1q_f32(g->q[r] + i);
        fma_lane(half, rows, acc, k, at + (i + 0) * EL_KEYS, q, 0);
        fma_lane(half, rows, acc, k, at + (i + 1) * EL_KEYS, q, 1);
        fma_lane(half, rows, acc, k, at + (i + 2) * EL_KEYS, q, 2);
        fma_lane(half, rows, acc, k, at + (i + 3) * EL_KEYS, q, 3);
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
EL_INLINE void weigh(group *g, size_t r)
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
EL_INLINE void add_values(bool half, group *g, size_t r0, size_t rows, size_t regs, size_t d, size_t i,
                          size_t from, size_t to, const void *v)
{
    float32x4_t acc[EL_ROWS][4];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        const float32x4_t c = vdupq_n_f32(g->c[r0 + r]);
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) acc[r][t] = vmulq_f32(vld1q_f32(g->acc[r0 + r] + i + t * 4), c);
    }
    size_t j = from;
    for (; regs == 4 && to - j >= 4; j += 4) {
        float32x4_t p[EL_ROWS];
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) p[r] = vld1q_f32(g->p[r0 + r] + j);
        fma_lane(half, rows, acc, v, (j + 0) * d + i, p, 0);
        fma_lane(half, rows, acc, v, (j + 1) * d + i, p, 1);
        fma_lane(half, rows, acc, v, (j + 2) * d + i, p, 2);
        fma_lane(half, rows, acc, v, (j + 3) * d + i, p, 3);
    }
    for (; j < to; j++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < regs; t++) {
            const float32x4_t values = cache4(half, v, j * d + i + t * 4);
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

EL_INLINE void add_rows(bool half, group *g, size_t r0, size_t rows, size_t d, size_t from, size_t to,
                        const void *v)
{
    size_t i = 0;
    for (; d - i >= 16; i += 16) add_values(half, g, r0, rows, 4, d, i, from, to, v);
    for (; i < d; i += 8) add_values(half, g, r0, rows, 2, d, i, from, to, v);
}

/// Keys from .. to - 1 of row r alone. What c there is has then been applied.
static void add_row(bool half, group *g, size_t r, size_t d, size_t from, size_t to, const void *v)
{
    if (from >= to) return;
    if (half) {
        add_rows(true, g, r, 1, d, from, to, v);
    } else {
        add_rows(false, g, r, 1, d, from, to, v);
    }
    g->c[r] = 1.0f;
}

/// Four values of q8_0.
EL_INLINE float32x4_t scaled4(int16x4_t q, float32x4_t scale)
{
    return vmulq_f32(vcvtq_f32_s32(vmovl_s16(q)), scale);
}

/// Sixteen keys, or eight values, of a block of q8_0 become float32.
static void widen_keys(size_t tiles, size_t d, const uint8_t *k, float *out)
{
    for (size_t t = 0; t < tiles; t++, k += EL_KEYS * el_q8_row_bytes(d)) {
        const int8_t *q = (const int8_t *)k + el_head_blocks(d) * EL_KEYS * sizeof(uint16_t);
        for (size_t i = 0; i < d; i++, out += EL_KEYS) {
            const uint8_t *scale = k + i / EL_BLOCK * EL_KEYS * sizeof(uint16_t);
            const int8x16_t bytes = vld1q_s8(q + i * EL_KEYS);
            const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_s8(vget_high_s8(bytes));
            vst1q_f32(out, scaled4(vget_low_s16(lo), el_f16x4(scale)));
            vst1q_f32(out + 4, scaled4(vget_high_s16(lo), el_f16x4(scale + 8)));
            vst1q_f32(out + 8, scaled4(vget_low_s16(hi), el_f16x4(scale + 16)));
            vst1q_f32(out + 12, scaled4(vget_high_s16(hi), el_f16x4(scale + 24)));
        }
    }
}

static void widen_values(size_t count, size_t d, const uint8_t *v, float *out)
{
    for (size_t j = 0; j < count; j++) {
        const uint8_t *row = v + j * el_q8_row_bytes(d);
        const int8_t *q = (const int8_t *)row + el_head_blocks(d) * sizeof(uint16_t);
        for (size_t i = 0; i < d; i += 8, out += 8) {
            const float scale = el_f16_to_f32(el_load_u16(row + i / EL_BLOCK * sizeof(uint16_t)));
            const int16x8_t x = vmovl_s8(vld1_s8(q + i));
            vst1q_f32(out, scaled4(vget_low_s16(x), vdupq_n_f32(scale)));
            vst1q_f32(out + 4, scaled4(vget_high_s16(x), vdupq_n_f32(scale)));
        }
    }
}

/// Weights of one block of keys for a group of `rows` rows, a constant.
EL_INLINE void score_block(bool half, group *g, size_t rows, size_t d, size_t most, float scale,
                           const void *k)
{
    for (size_t tile = 0; tile * EL_KEYS < most; tile++) score_tile(half, g, rows, d, tile, scale, k);
    for (size_t r = 0; r < rows; r++) {
        g->c[r] = 1.0f;  // a row that sees none of this block keeps its result
        for (size_t j = 0; j < g->skip[r]; j++) g->p[r][j] = -EL_INF;  // a weight of 0 changes no sum
        if (g->count[r] > 0) weigh(g, r);
    }
}

/// The values of one block. Keys that all rows see are taken for all at once, the others row by row.
EL_INLINE void add_block(bool half, group *g, size_t rows, size_t d, size_t skip, size_t least, const void *v)
{
    const size_t to = skip < least ? least : skip;
    for (size_t r = 0; r < rows && skip > 0; r++) {
        add_row(half, g, r, d, g->skip[r], g->count[r] < skip ? g->count[r] : skip, v);
    }
    add_rows(half, g, 0, rows, d, skip, to, v);
    for (size_t r = 0; r < rows && rows > 1; r++) {
        g->c[r] = 1.0f;
        add_row(half, g, r, d, to, g->count[r], v);
    }
}

/// The block of keys from position `first` on, at a place of the cache, for a group of `rows` rows, a constant.
EL_INLINE void block(bool half, const task *t, group *g, size_t rows, size_t first, size_t place)
{
    const size_t d = t->d;
    size_t most = 0, least = EL_KEY_BLOCK, skip = 0;
    for (size_t r = 0; r < rows; r++) {
        const size_t left = g->to[r] > first ? g->to[r] - first : 0;
        g->count[r] = left < EL_KEY_BLOCK ? left : EL_KEY_BLOCK;
        g->skip[r] = g->from[r] > first ? g->from[r] - first : 0;
        if (g->skip[r] >= g->count[r]) g->skip[r] = g->count[r] = 0;
        most = g->count[r] > most ? g->count[r] : most;
        least = g->count[r] < least ? g->count[r] : least;
        skip = g->skip[r] > skip ? g->skip[r] : skip;
    }
    if (most == 0) return;
    if (half || t->wide == NULL) {
        score_block(half, g, rows, d, most, t->scale, cache_at(half, t->k, place * d));
        add_block(half, g, rows, d, skip, least, cache_at(half, t->v, place * d));
        return;
    }
    const size_t at = place * el_q8_row_bytes(d);
    widen_keys((most + EL_KEYS - 1) / EL_KEYS, d, (const uint8_t *)t->k + at, t->wide);
    score_block(half, g, rows, d, most, t->scale, t->wide);
    widen_values(most, d, (const uint8_t *)t->v + at, t->wide);
    add_block(half, g, rows, d, skip, least, t->wide);
}

/// Attention of `rows` rows, a constant.
EL_INLINE void attend(bool half, const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    group g;
    size_t begin = SIZE_MAX, end = 0;
    for (size_t r = 0; r < rows; r++) {
        g.q[r] = t->q + offset[r];
        g.to[r] = last[r] + 1;
        g.from[r] = g.to[r] > t->window ? g.to[r] - t->window : 0;
        g.max[r] = -EL_INF;
        for (size_t i = 0; i < 4; i++) g.sums[r][i] = vdupq_n_f32(0.0f);
        for (size_t i = 0; i < t->d; i += 4) vst1q_f32(g.acc[r] + i, vdupq_n_f32(0.0f));
        begin = g.from[r] < begin ? g.from[r] : begin;
        end = g.to[r] > end ? g.to[r] : end;
    }
    size_t first = begin / EL_KEY_BLOCK * EL_KEY_BLOCK;
    for (size_t place = first % t->ring; first < end; first += EL_KEY_BLOCK) {
        block(half, t, &g, rows, first, place);
        place = place + EL_KEY_BLOCK == t->ring ? 0 : place + EL_KEY_BLOCK;
    }
    for (size_t r = 0; r < rows; r++) {
        const float32x4_t inverse = vdupq_n_f32(1.0f / el_tree_x4(g.sums[r]));
        for (size_t i = 0; i < t->d; i += 4) {
            vst1q_f32(t->y + offset[r] + i, vmulq_f32(vld1q_f32(g.acc[r] + i), inverse));
        }
    }
}

EL_INLINE void attention_rows(bool half, const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    size_t r = 0;
    for (; rows - r >= 4; r += 4) attend(half, t, 4, offset + r, last + r);
    offset += r;
    last += r;
    if (rows - r == 3) attend(half, t, 3, offset, last);
    if (rows - r == 2) attend(half, t, 2, offset, last);
    if (rows - r == 1) attend(half, t, 1, offset, last);
}

void el_attention_f16__neon(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                            float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX && ring % EL_KEY_BLOCK == 0 && window > 0);
    const task t = {d, window, ring, q, scale, k_cache, v_cache, y, NULL};
    attention_rows(true, &t, rows, offset, last);
}

static void attention_wide(const task *t, size_t rows, const size_t *offset, const size_t *last)
{
    assert(t->d % 8 == 0 && t->d <= EL_HEAD_MAX && t->ring % EL_KEY_BLOCK == 0 && t->window > 0);
    attention_rows(false, t, rows, offset, last);
}

void el_attention_f32__neon(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                            float *y)
{
    attention_wide(&(task){d, window, ring, q, scale, k_cache, v_cache, y, NULL}, rows, offset, last);
}

void el_attention_q8_0__neon(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                             size_t window, size_t ring, float scale, const void *k_cache,
                             const void *v_cache, float *y)
{
    float wide[EL_KEY_BLOCK * EL_HEAD_MAX];
    attention_wide(&(task){d, window, ring, q, scale, k_cache, v_cache, y, wide}, rows, offset, last);
}
