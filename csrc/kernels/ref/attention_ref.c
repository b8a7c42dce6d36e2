/* The specification of attention_f16, attention_f32 and attention_q8_0, which differ only in how a cached value
 * is read. Keys are walked in blocks of EL_KEY_BLOCK absolute positions with a running maximum; a masked key
 * takes no part in any operation. So the result of a query depends on its own position and on what it sees
 * alone: not on how queries were batched, nor on where in a ring the cache keeps a position. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

typedef enum kind { F16, F32, Q8 } kind;

/// The cache of one head.
typedef struct cache {
    kind kind;
    size_t d;
    size_t ring;
    const uint8_t *k, *v;
} cache;

static inline float scaled(const uint8_t *scale, uint8_t q)
{
    // a scale of 11 bits times an integer of 7: exact
    return el_f16_to_f32(el_load_u16(scale)) * (float)(int8_t)q;
}

/// Value i of the key at a position.
static inline float key(const cache *c, size_t position, size_t i)
{
    const size_t place = position % c->ring, tile = place / EL_KEYS, lane = place % EL_KEYS;
    if (c->kind == Q8) {
        const uint8_t *at = c->k + tile * EL_KEYS * el_q8_row_bytes(c->d);
        const uint8_t *q = at + el_head_blocks(c->d) * EL_KEYS * sizeof(uint16_t);
        return scaled(at + (i / EL_BLOCK * EL_KEYS + lane) * sizeof(uint16_t), q[i * EL_KEYS + lane]);
    }
    const size_t at = (tile * c->d + i) * EL_KEYS + lane;
    return c->kind == F16 ? el_f16_to_f32(((const uint16_t *)(const void *)c->k)[at])
                          : ((const float *)(const void *)c->k)[at];
}

/// Value i of the value at a position.
static inline float value(const cache *c, size_t position, size_t i)
{
    const size_t place = position % c->ring;
    if (c->kind == Q8) {
        const uint8_t *at = c->v + place * el_q8_row_bytes(c->d);
        const uint8_t *q = at + el_head_blocks(c->d) * sizeof(uint16_t);
        return scaled(at + i / EL_BLOCK * sizeof(uint16_t), q[i]);
    }
    const size_t at = place * c->d + i;
    return c->kind == F16 ? el_f16_to_f32(((const uint16_t *)(const void *)c->v)[at])
                          : ((const float *)(const void *)c->v)[at];
}

static inline float score(const cache *c, const float *q, size_t position)
{
    float acc = 0.0f;
    for (size_t i = 0; i < c->d; i++) acc = el_fmaf(q[i], key(c, position, i), acc);
    return acc;
}

/// One query over positions from .. to - 1.
static inline void attend(const cache *c, const float *q, size_t from, size_t to, float scale, float *y)
{
    const size_t d = c->d;
    float max = -EL_INF;
    float sums[16] = {0.0f};
    for (size_t i = 0; i < d; i++) y[i] = 0.0f;

    for (size_t first = from, end; first < to; first = end) {
        end = first / EL_KEY_BLOCK * EL_KEY_BLOCK + EL_KEY_BLOCK;
        if (end > to) end = to;
        float p[EL_KEY_BLOCK];

        float new_max = max;
        for (size_t j = first; j < end; j++) {
            const float s = score(c, q, j) * scale;
            p[j - first] = s;
            new_max = s > new_max ? s : new_max;
        }

        // In the first block sums and y are zero, so its factor does not matter: 0, never NaN.
        const float factor = first == from ? 0.0f : el_expf(max - new_max);
        max = new_max;
        for (size_t i = 0; i < 16; i++) sums[i] *= factor;
        for (size_t i = 0; i < d; i++) y[i] *= factor;

        for (size_t j = first; j < end; j++) {
            const float weight = el_expf(p[j - first] - max);
            sums[j % 16] += weight;
            for (size_t i = 0; i < d; i++) y[i] = el_fmaf(weight, value(c, j, i), y[i]);
        }
    }

    const float inverse = 1.0f / el_tree16(sums);
    for (size_t i = 0; i < d; i++) y[i] *= inverse;
}

static inline void attend_rows(const cache *c, size_t rows, const float *q, const size_t *offset,
                               const size_t *last, size_t window, float scale, float *y)
{
    assert(c->d % 8 == 0 && c->d <= 256 && c->ring % EL_KEY_BLOCK == 0 && window > 0);
    for (size_t r = 0; r < rows; r++) {
        const size_t to = last[r] + 1, from = to > window ? to - window : 0;
        attend(c, q + offset[r], from, to, scale, y + offset[r]);
    }
}

void el_attention_f16__ref(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                           size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                           float *y)
{
    const cache c = {F16, d, ring, k_cache, v_cache};
    attend_rows(&c, rows, q, offset, last, window, scale, y);
}

void el_attention_f32__ref(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                           size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                           float *y)
{
    const cache c = {F32, d, ring, k_cache, v_cache};
    attend_rows(&c, rows, q, offset, last, window, scale, y);
}

void el_attention_q8_0__ref(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            size_t window, size_t ring, float scale, const void *k_cache, const void *v_cache,
                            float *y)
{
    const cache c = {Q8, d, ring, k_cache, v_cache};
    attend_rows(&c, rows, q, offset, last, window, scale, y);
}
