/* Between the three products of attention and the one after it: cache and attention. Every thread stores
 * the columns it has just computed, so that nobody waits; then query rows are shared out by what they
 * cost, whatever segments they come from. */
#include <string.h>

#include "kernels/el_kv_q8.h"
#include "model/step.h"

/// Keys that a query row costs beyond those it sees.
enum { EL_ROW_COST = 32 };

static size_t group_of(const el_config *c) { return c->heads / c->kv_heads; }

/// Cost of one query row at a position.
static uint64_t row_cost(size_t position, size_t window)
{
    return (position < window ? position + 1 : window) + EL_ROW_COST;
}

/// Cost of a segment's query rows of one key-value head and one head of its group.
static uint64_t segment_cost(const el_segment *g, size_t window)
{
    const uint64_t position = g->session->position;
    const uint64_t room = window > position ? window - position : 0, growing = g->n < room ? g->n : room;
    const uint64_t rest = g->n - growing;
    return growing * (position + 1) + growing * (growing - 1) / 2 + (rest > 0 ? rest * window : 0) +
           (uint64_t)g->n * EL_ROW_COST;
}

/// Where the share of a thread begins; `thread` may be `threads`, for the end of the last.
static el_place share_begin(const el_step *step, size_t window, size_t thread, size_t threads)
{
    const el_config *c = &step->m->config;
    const size_t units = step->count * c->kv_heads, group = group_of(c);
    uint64_t total = 0;
    for (size_t i = 0; i < step->count; i++) total += segment_cost(&step->segments[i], window);

    // Below 2^24 positions, 2^9 rows, 2^12 heads and 2^8 threads, so the product is below 2^53.
    uint64_t left = total * group * c->kv_heads * thread / threads;
    for (size_t u = 0; u < units; u++) {
        const el_segment *g = &step->segments[u / c->kv_heads];
        const uint64_t cost = segment_cost(g, window) * group;
        if (left >= cost) {
            left -= cost;
            continue;
        }
        size_t token = 0;
        uint64_t row = row_cost(g->session->position, window);
        while (left >= row * group) {
            left -= row * group;
            row = row_cost(g->session->position + ++token, window);
        }
        return (el_place){u, token * group + (size_t)(left / row)};
    }
    return (el_place){units, 0};
}

el_share el_attend_share(const el_step *step, size_t window, size_t thread, size_t threads)
{
    return (el_share){share_begin(step, window, thread, threads),
                      share_begin(step, window, thread + 1, threads)};
}

/// One token's keys from value `in` of a head on: lanes of a tile are positions.
static void store_key(const el_model *m, el_kv_type type, uint8_t *keys, size_t place, size_t in, size_t n,
                      const float *x)
{
    const size_t base = place / EL_KEYS * m->config.head_dim * EL_KEYS + place % EL_KEYS;
    if (type == EL_KV_Q8_0) {
        el_act_q8 rounded[EL_HEAD_MAX / EL_BLOCK];
        el_round_head(m->kernels.quantize_act_q8, n, x, rounded);
        el_put_key_q8(m->config.head_dim, place, in, n, rounded, keys);
        return;
    }
    if (type == EL_KV_F32) {
        float *k = (float *)(void *)keys + base + in * EL_KEYS;
        for (size_t i = 0; i < n; i++) k[i * EL_KEYS] = x[i];
        return;
    }
    uint16_t half[EL_MAX_HEAD_DIM], *k = (uint16_t *)(void *)keys + base + in * EL_KEYS;
    m->kernels.f32_to_f16(n, x, half);
    for (size_t i = 0; i < n; i++) k[i * EL_KEYS] = half[i];
}

static void store_value(const el_model *m, el_kv_type type, uint8_t *values, size_t place, size_t in,
                        size_t n, const float *x)
{
    const size_t to = place * m->config.head_dim + in;
    if (type == EL_KV_Q8_0) {
        el_act_q8 rounded[EL_HEAD_MAX / EL_BLOCK];
        el_round_head(m->kernels.quantize_act_q8, n, x, rounded);
        el_put_value_q8(m->config.head_dim, place, in, n, rounded, values);
    } else if (type == EL_KV_F32) {
        memcpy((float *)(void *)values + to, x, n * sizeof *x);
    } else {
        m->kernels.f32_to_f16(n, x, (uint16_t *)(void *)values + to);
    }
}

typedef void store_fn(const el_model *m, el_kv_type type, uint8_t *cache, size_t place, size_t in, size_t n,
                      const float *x);

/// Columns [first, last) of every row, head by head; `half` is 1 for values.
static void store(const el_lane *at, size_t layer, size_t first, size_t last, const float *x, size_t half,
                  store_fn *one)
{
    const el_model *m = at->step->m;
    const size_t d = m->config.head_dim, width = m->config.kv_heads * d;
    for (size_t r = 0; r < at->step->rows; r++) {
        const el_row *row = &m->scratch.row[r];
        const el_cache *cache = &row->session->cache[layer];
        const size_t place = row->position % cache->ring;
        for (size_t i = first, n; i < last; i += n) {
            const size_t in = i % d;
            n = last - i < d - in ? last - i : d - in;
            uint8_t *to = el_session_keys(row->session, layer, i / d) + half * cache->half_bytes;
            one(m, row->session->type, to, place, in, n, x + r * width + i);
        }
    }
}

void el_store_keys(const el_lane *at, size_t layer, size_t first, size_t last)
{
    store(at, layer, first, last, at->step->m->scratch.k, 0, store_key);
}

void el_store_values(const el_lane *at, size_t layer, size_t first, size_t last)
{
    store(at, layer, first, last, at->step->m->scratch.v, 1, store_value);
}

static el_attention_fn *attention_of(const el_kernels *kernels, el_kv_type type)
{
    switch (type) {
    case EL_KV_F32: return kernels->attention_f32;
    case EL_KV_Q8_0: return kernels->attention_q8_0;
    default: return kernels->attention_f16;
    }
}

/// Query rows [from, to) of segment g, whose first row is `first`, for key-value head h.
static void attend_rows(const el_lane *at, size_t layer, const el_segment *g, size_t first, size_t h,
                        size_t from, size_t to, bool q8)
{
    const el_model *m = at->step->m;
    const el_scratch *s = &m->scratch;
    const size_t d = m->config.head_dim, group = group_of(&m->config);
    const el_cache *cache = &g->session->cache[layer];
    const uint8_t *keys = el_session_keys(g->session, layer, h);
    const size_t window = m->layers[layer].window > 0 ? m->layers[layer].window : SIZE_MAX;
    const size_t *offset = s->offset + first * group + from, *last = s->last + first * group + from;
    float *y = s->att + h * group * d;

    attention_of(&m->kernels, g->session->type)(to - from, d, s->q + h * group * d, offset, last, window,
                                                cache->ring, m->config.attention_scale, keys,
                                                keys + cache->half_bytes, y);
    for (size_t i = from, n; i < to && q8; i += n) {  // heads of one token are neighbours
        const size_t row = first + i / group, head = h * group + i % group;
        n = group - i % group < to - i ? group - i % group : to - i;
        m->kernels.quantize_act_q8(n * d, y + offset[i - from],
                                   s->act + row * m->act_stride + head * d / EL_BLOCK);
    }
}

void el_attend(const el_lane *at, size_t layer, bool q8)
{
    const el_step *step = at->step;
    const size_t heads = step->m->config.kv_heads, group = group_of(&step->m->config);
    const el_share *own = step->m->layers[layer].window > 0 ? &at->windowed : &at->all;
    size_t first = 0;
    for (size_t i = 0; i < step->count; i++) {
        const el_segment *g = &step->segments[i];
        for (size_t h = 0; h < heads; h++) {
            const size_t unit = i * heads + h;
            const size_t from = unit < own->from.unit ? SIZE_MAX : unit == own->from.unit ? own->from.row : 0;
            const size_t to = unit > own->to.unit ? 0 : unit == own->to.unit ? own->to.row : g->n * group;
            if (from < to) attend_rows(at, layer, g, first, h, from, to, q8);
        }
        first += g->n;
    }
}
