/* Between the three products of attention and the one after it: cache and attention. Every thread stores
 * the columns it has just computed, so that nobody waits; then query rows are shared out by what they
 * cost, whatever segments they come from. */
#include <string.h>

#include "model/step.h"

/// Keys that a query row costs beyond those it sees.
enum { EL_ROW_COST = 32 };

static size_t group_of(const el_config *c) { return c->heads / c->kv_heads; }

/// Cost of a segment's query rows of one key-value head and one head of its group.
static uint64_t segment_cost(const el_segment *g)
{
    const uint64_t n = g->n, first = g->session->position + 1 + EL_ROW_COST;
    return n * first + n * (n - 1) / 2;
}

el_place el_attend_share(const el_step *step, size_t thread, size_t threads)
{
    const el_config *c = &step->m->config;
    const size_t units = step->count * c->kv_heads, group = group_of(c);
    uint64_t total = 0;
    for (size_t i = 0; i < step->count; i++) total += segment_cost(&step->segments[i]);

    // Below 2^24 positions, 2^9 rows, 2^12 heads and 2^8 threads, so the product is below 2^53.
    uint64_t left = total * group * c->kv_heads * thread / threads;
    for (size_t u = 0; u < units; u++) {
        const el_segment *g = &step->segments[u / c->kv_heads];
        const uint64_t cost = segment_cost(g) * group;
        if (left >= cost) {
            left -= cost;
            continue;
        }
        uint64_t row = g->session->position + 1 + EL_ROW_COST;
        size_t token = 0;
        for (; left >= row * group; token++) left -= row++ * group;
        return (el_place){u, token * group + (size_t)(left / row)};
    }
    return (el_place){units, 0};
}

/// One token's keys from value `in` of a head on: lanes of a tile are positions.
static void store_key(const el_model *m, el_session *s, uint8_t *keys, size_t position, size_t in, size_t n,
                      const float *x)
{
    const size_t base = position / EL_KEYS * m->config.head_dim * EL_KEYS + position % EL_KEYS;
    if (s->type == EL_KV_F32) {
        float *k = (float *)(void *)keys + base + in * EL_KEYS;
        for (size_t i = 0; i < n; i++) k[i * EL_KEYS] = x[i];
        return;
    }
    uint16_t half[EL_MAX_HEAD_DIM], *k = (uint16_t *)(void *)keys + base + in * EL_KEYS;
    m->kernels.f32_to_f16(n, x, half);
    for (size_t i = 0; i < n; i++) k[i * EL_KEYS] = half[i];
}

void el_store_keys(const el_lane *at, size_t layer, size_t first, size_t last)
{
    const el_model *m = at->step->m;
    const size_t d = m->config.head_dim, width = m->config.kv_heads * d;
    for (size_t r = 0; r < at->step->rows; r++) {
        const el_row *row = &m->scratch.row[r];
        for (size_t i = first, n; i < last; i += n) {
            const size_t in = i % d;
            n = last - i < d - in ? last - i : d - in;
            store_key(m, row->session, el_session_keys(row->session, layer, i / d), row->position, in, n,
                      m->scratch.k + r * width + i);
        }
    }
}

void el_store_values(const el_lane *at, size_t layer, size_t first, size_t last)
{
    const el_model *m = at->step->m;
    const size_t d = m->config.head_dim, width = m->config.kv_heads * d;
    for (size_t r = 0; r < at->step->rows; r++) {
        const el_row *row = &m->scratch.row[r];
        for (size_t i = first, n; i < last; i += n) {
            const size_t in = i % d, to = row->position * d + in;
            const float *x = m->scratch.v + r * width + i;
            uint8_t *values = el_session_keys(row->session, layer, i / d) + row->session->half_bytes;
            n = last - i < d - in ? last - i : d - in;
            if (row->session->type == EL_KV_F32) {
                memcpy((float *)(void *)values + to, x, n * sizeof *x);
            } else {
                m->kernels.f32_to_f16(n, x, (uint16_t *)(void *)values + to);
            }
        }
    }
}

/// Query rows [from, to) of segment g, whose first row is `first`, for key-value head h.
static void attend_rows(const el_lane *at, size_t layer, const el_segment *g, size_t first, size_t h,
                        size_t from, size_t to, bool q8)
{
    const el_model *m = at->step->m;
    const el_scratch *s = &m->scratch;
    const size_t d = m->config.head_dim, group = group_of(&m->config);
    const uint8_t *keys = el_session_keys(g->session, layer, h), *values = keys + g->session->half_bytes;
    const size_t *offset = s->offset + first * group + from, *last = s->last + first * group + from;
    const float *q = s->q + h * group * d;
    float *y = s->att + h * group * d;

    if (g->session->type == EL_KV_F32) {
        m->kernels.attention_f32(to - from, d, q, offset, last, SIZE_MAX, g->session->context,
                                 m->config.attention_scale, keys, values, y);
    } else {
        m->kernels.attention_f16(to - from, d, q, offset, last, SIZE_MAX, g->session->context,
                                 m->config.attention_scale, keys, values, y);
    }
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
    size_t first = 0;
    for (size_t i = 0; i < step->count; i++) {
        const el_segment *g = &step->segments[i];
        for (size_t h = 0; h < heads; h++) {
            const size_t unit = i * heads + h;
            const size_t from = unit < at->from.unit ? SIZE_MAX : unit == at->from.unit ? at->from.row : 0;
            const size_t to = unit > at->to.unit ? 0 : unit == at->to.unit ? at->to.row : g->n * group;
            if (from < to) attend_rows(at, layer, g, first, h, from, to, q8);
        }
        first += g->n;
    }
}
