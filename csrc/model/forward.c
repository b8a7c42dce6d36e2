/* The forward pass. All threads of the pool walk this file together and meet at
 * barriers; who computes what never shows in a bit, since every output is made by
 * one thread in the canonical order. Rows are tokens. */
#include <string.h>

#include "core/error.h"
#include "core/trig.h"
#include "model/model.h"

/// One micro-batch on its way through the layers.
typedef struct el_step {
    el_session *session;
    el_model *m;
    const int32_t *ids;
    size_t rows;
    size_t logit_rows;
    float *logits;
} el_step;

/// A thread's place in a step.
typedef struct el_lane {
    const el_step *step;
    size_t thread;
    size_t threads;
} el_lane;

/// Activations ready for a product: as floats and, where a weight wants them, as 8-bit blocks.
typedef struct el_input {
    const float *f32;
    size_t f32_stride;
    const el_act_q8 *q8;
} el_input;

static void meet(const el_lane *at) { el_pool_barrier(at->step->m->pool); }

static void share(const el_lane *at, size_t items, size_t *begin, size_t *end)
{
    el_partition(items, 1, at->thread, at->threads, begin, end);
}

static bool wants_q8(const el_matrix *w) { return el_layout_is_q8(w->layout); }

/// Normalise (where norm is not NULL) and round rows for the products that follow. A single row
/// is done by every thread for itself, which is cheaper than a barrier; its bits are the same.
static el_input prepare(const el_lane *at, const float *src, size_t rows, size_t k, const float *norm,
                        bool q8)
{
    const el_model *m = at->step->m;
    const el_scratch *s = &m->scratch;
    const bool own = rows == 1;
    size_t begin = 0, end = 1;
    if (!own) share(at, rows, &begin, &end);

    float *normed = own ? s->own_norm + at->thread * m->config.width : s->norm;
    el_act_q8 *act = own ? s->own_act + at->thread * m->act_stride : s->act;
    for (size_t r = begin; r < end; r++) {
        const float *x = src + r * k;
        if (norm != NULL) {
            m->kernels.rms_norm(k, x, norm, m->config.norm_eps, normed + r * k);
            x = normed + r * k;
        }
        if (q8) m->kernels.quantize_act_q8(k, x, act + r * m->act_stride);
    }
    if (!own) meet(at);
    return (el_input){.f32 = norm != NULL ? normed : src, .f32_stride = k, .q8 = act};
}

/// Y[:, tiles] = X W[tiles]^T for a range of tiles.
static void multiply(const el_model *m, const el_matrix *w, size_t rows, size_t begin, size_t end,
                     const el_input *x, float *y)
{
    if (begin >= end) return;
    const size_t first = begin * EL_LANES;
    const size_t n = (end * EL_LANES < w->n ? end * EL_LANES : w->n) - first;
    const uint8_t *tiles = w->tiles + begin * w->tile_bytes;
    const el_kernels *op = rows < EL_MANY_ROWS ? &m->kernels : &m->many;
    float *out = y + first;

    if (wants_q8(w)) {
        el_kernels_gemm_q8(op, w->layout)(rows, n, w->k, tiles, x->q8, m->act_stride, out, w->n);
    } else {
        el_kernels_gemm_f32(op, w->layout)(rows, n, w->k, tiles, x->f32, x->f32_stride, out, w->n);
    }
}

static size_t tiles_of(const el_matrix *w) { return (w->n + EL_LANES - 1) / EL_LANES; }

/// One product whose tiles are shared among the threads.
static void multiply_shared(const el_lane *at, const el_matrix *w, size_t rows, const el_input *x, float *y,
                            size_t *first, size_t *last)
{
    size_t begin, end;
    share(at, tiles_of(w), &begin, &end);
    multiply(at->step->m, w, rows, begin, end, x, y);
    *first = begin * EL_LANES;
    *last = end * EL_LANES < w->n ? end * EL_LANES : w->n;
}

/// x += W input, for this thread's columns.
static void multiply_residual(const el_lane *at, const el_matrix *w, const el_input *input)
{
    const el_model *m = at->step->m;
    size_t first, last;
    multiply_shared(at, w, at->step->rows, input, m->scratch.out, &first, &last);
    for (size_t r = 0; r < at->step->rows && first < last; r++) {
        m->kernels.add(last - first, m->scratch.out + r * w->n + first, m->scratch.x + r * w->n + first);
    }
}

/// The three products of attention as one list of tiles.
static void multiply_qkv(const el_lane *at, const el_layer *l, const el_input *x)
{
    const el_model *m = at->step->m;
    const el_matrix *w[] = {&l->q, &l->k, &l->v};
    float *y[] = {m->scratch.q, m->scratch.k, m->scratch.v};
    size_t begin, end, base = 0;
    share(at, tiles_of(w[0]) + tiles_of(w[1]) + tiles_of(w[2]), &begin, &end);

    for (size_t i = 0; i < 3; i++) {
        const size_t tiles = tiles_of(w[i]);
        const size_t from = begin > base ? begin - base : 0;
        const size_t to = end > base ? (end - base < tiles ? end - base : tiles) : 0;
        multiply(m, w[i], at->step->rows, from, to, x, y[i]);
        base += tiles;
    }
}

static void embed(const el_lane *at)
{
    const el_step *step = at->step;
    el_model *m = step->m;
    const el_config *c = &m->config;
    const size_t group = c->heads / c->kv_heads, stride = (size_t)c->heads * c->head_dim;
    size_t begin, end;
    share(at, step->rows, &begin, &end);

    for (size_t r = begin; r < end; r++) {
        const size_t id = (size_t)step->ids[r], position = step->session->position + r;
        el_unpack_lane(m->embed.type, c->width, m->embed.tiles + id / EL_LANES * m->embed.tile_bytes,
                       id % EL_LANES, m->scratch.x + r * c->width);
        for (size_t i = 0; i < c->rope_dims / 2; i++) {
            double sine, cosine;
            el_sincos((double)position * m->inv_freq[i], &sine, &cosine);
            m->scratch.cs[r * c->rope_dims + 2 * i] = (float)cosine;
            m->scratch.cs[r * c->rope_dims + 2 * i + 1] = (float)sine;
        }
        for (size_t j = 0; j < group; j++) {
            m->scratch.offset[r * group + j] = r * stride + j * c->head_dim;
            m->scratch.last[r * group + j] = position;
        }
    }
    meet(at);
}

/// Rotate queries and keys and write the cache; one item is one token of one key-value head.
static void rotate_and_store(const el_lane *at, size_t layer)
{
    const el_step *step = at->step;
    const el_model *m = step->m;
    const el_config *c = &m->config;
    const size_t d = c->head_dim, group = c->heads / c->kv_heads;
    size_t begin, end;
    share(at, step->rows * c->kv_heads, &begin, &end);

    for (size_t item = begin; item < end; item++) {
        const size_t r = item / c->kv_heads, h = item % c->kv_heads;
        const float *cs = m->scratch.cs + r * c->rope_dims;
        float *key = m->scratch.k + (r * c->kv_heads + h) * d;
        const float *value = m->scratch.v + (r * c->kv_heads + h) * d;
        const size_t position = step->session->position + r;
        uint8_t *keys = el_session_keys(step->session, layer, h);
        uint8_t *values = keys + step->session->half_bytes;

        m->kernels.rope(group, d, c->rope_dims, cs, m->scratch.q + (r * c->heads + h * group) * d);
        m->kernels.rope(1, d, c->rope_dims, cs, key);
        if (step->session->type == EL_KV_F32) {
            m->kernels.kv_write_f32(d, position, key, value, (float *)keys, (float *)values);
        } else {
            m->kernels.kv_write_f16(d, position, key, value, (uint16_t *)keys, (uint16_t *)values);
        }
    }
    meet(at);
}

/// Attention over the cache. Query rows are numbered key-value head, token, head of the group,
/// and shared in one contiguous range per thread.
static void attend(const el_lane *at, size_t layer)
{
    const el_step *step = at->step;
    const el_model *m = step->m;
    const el_config *c = &m->config;
    const el_scratch *s = &m->scratch;
    const size_t d = c->head_dim, group = c->heads / c->kv_heads, per_head = step->rows * group;
    const float scale = m->attention_scale;
    size_t begin, end;
    share(at, per_head * c->kv_heads, &begin, &end);

    while (begin < end) {
        const size_t h = begin / per_head, from = begin % per_head;
        const size_t left = per_head - from, count = end - begin < left ? end - begin : left;
        const uint8_t *keys = el_session_keys(step->session, layer, h);
        const uint8_t *values = keys + step->session->half_bytes;
        const size_t *offset = s->offset + from, *last = s->last + from;
        const float *q = s->q + h * group * d;
        float *y = s->att + h * group * d;
        if (step->session->type == EL_KV_F32) {
            m->kernels.attention_f32(count, d, q, offset, last, scale, (const float *)keys,
                                     (const float *)values, y);
        } else {
            m->kernels.attention_f16(count, d, q, offset, last, scale, (const uint16_t *)keys,
                                     (const uint16_t *)values, y);
        }
        begin += count;
    }
    meet(at);
}

static void feed_forward(const el_lane *at, const el_layer *l)
{
    const el_step *step = at->step;
    const el_model *m = step->m;
    const el_scratch *s = &m->scratch;
    const size_t ffn = m->config.ffn;
    size_t first, last;

    el_input x =
        prepare(at, s->x, step->rows, m->config.width, l->ffn_norm, wants_q8(&l->gate) || wants_q8(&l->up));
    multiply_shared(at, &l->gate, step->rows, &x, s->gate, &first, &last);
    multiply_shared(at, &l->up, step->rows, &x, s->up, &first, &last);
    for (size_t r = 0; r < step->rows && first < last; r++) {
        m->kernels.swiglu(last - first, s->gate + r * ffn + first, s->up + r * ffn + first,
                          s->gate + r * ffn + first);
    }
    meet(at);

    x = prepare(at, s->gate, step->rows, ffn, NULL, wants_q8(&l->down));
    multiply_residual(at, &l->down, &x);
    meet(at);
}

static void run_step(void *arg, size_t thread, size_t threads)
{
    const el_step *step = arg;
    const el_lane lane = {step, thread, threads}, *at = &lane;
    const el_model *m = step->m;
    const el_config *c = &m->config;
    const el_scratch *s = &m->scratch;
    const size_t rows = step->rows;

    embed(at);
    for (size_t i = 0; i < c->layers; i++) {
        const el_layer *l = &m->layers[i];
        el_input x = prepare(at, s->x, rows, c->width, l->attn_norm,
                             wants_q8(&l->q) || wants_q8(&l->k) || wants_q8(&l->v));
        multiply_qkv(at, l, &x);
        meet(at);
        rotate_and_store(at, i);
        attend(at, i);
        x = prepare(at, s->att, rows, (size_t)c->heads * c->head_dim, NULL, wants_q8(&l->o));
        multiply_residual(at, &l->o, &x);
        meet(at);
        feed_forward(at, l);
    }
    if (step->logit_rows == 0) return;

    const float *tail = s->x + (rows - step->logit_rows) * c->width;
    const el_input x = prepare(at, tail, step->logit_rows, c->width, m->out_norm, wants_q8(&m->head));
    size_t first, last;
    multiply_shared(at, &m->head, step->logit_rows, &x, step->logits, &first, &last);
}

el_status el_session_eval(el_session *session, const int32_t *ids, size_t n, size_t rows, float *logits,
                          el_error *err)
{
    el_model *m = session->model;
    if (n < 1 || n > m->micro_batch || rows > n) {
        return el_fail(err, EL_ERR_ARG, "%zu tokens and %zu rows of logits; at most %zu tokens at once", n,
                       rows, m->micro_batch);
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= m->config.vocab) {
            return el_fail(err, EL_ERR_ARG, "token %d at index %zu is outside the vocabulary of %u", ids[i],
                           i, m->config.vocab);
        }
    }
    if (n > session->capacity - session->position) {
        return el_fail(err, EL_ERR_CONTEXT, "%zu tokens do not fit: %zu of the context's %zu are used", n,
                       session->position, session->capacity);
    }
    el_step step = {session, m, ids, n, rows, logits};
    el_pool_run(m->pool, run_step, &step);
    session->position += n;
    return EL_OK;
}
