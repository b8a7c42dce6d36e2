/* The forward pass. All threads of the pool walk this file together and meet at barriers, five in a layer
 * for one token; who computes what never shows in a bit, since every output is made by one thread in the
 * canonical order. Rows are tokens, of one session or of several. */
#include "core/error.h"
#include "model/rope.h"
#include "model/step.h"

enum {
    EL_AHEAD_BYTES = 4096,  // of the next matrix, asked for before a barrier
    EL_AHEAD_ROWS = 8       // beyond which a product is bound by arithmetic
};

/// Activations ready for a product: as floats and, where a weight wants them, as 8-bit blocks.
typedef struct el_input {
    const float *f32;
    size_t f32_stride;
    const el_act_q8 *q8;
    size_t q8_stride;
} el_input;

static void meet(const el_lane *at) { el_pool_barrier(at->step->m->pool); }

static void share(const el_lane *at, size_t items, size_t grain, size_t *begin, size_t *end)
{
    el_partition(items, grain, at->thread, at->threads, begin, end);
}

static bool wants_q8(const el_matrix *w) { return el_layout_is_q8(w->layout); }

static void normalise(const el_model *m, const el_norm *norm, const float *x, float *y)
{
    if (norm->b != NULL)
        m->kernels.layer_norm(m->config.width, x, norm->w, norm->b, m->config.norm_eps, y);
    else
        m->kernels.rms_norm(m->config.width, x, norm->w, m->config.norm_eps, y);
}

/// Normalise rows and round them for the products that follow. A single row is done by every thread
/// for itself, which is cheaper than a barrier; its bits are the same. With `index`, row r of the
/// result comes from row index[r].
static el_input prepare(const el_lane *at, const size_t *index, size_t rows, const el_norm *norm, bool f32,
                        bool q8)
{
    const el_model *m = at->step->m;
    const el_scratch *s = &m->scratch;
    const size_t k = m->config.width;
    const bool own = rows == 1;
    size_t begin = 0, end = 1;
    if (!own) share(at, rows, 1, &begin, &end);

    float *own_norm = s->own_norm + at->thread * k;
    el_act_q8 *act = own ? s->own_act + at->thread * m->act_stride : s->act;
    for (size_t r = begin; r < end; r++) {
        float *normed = f32 && !own ? s->norm + r * k : own_norm;
        normalise(m, norm, s->x + (index != NULL ? index[r] : r) * k, normed);
        if (q8) m->kernels.quantize_act_q8(k, normed, act + r * m->act_stride);
    }
    if (!own) meet(at);
    return (el_input){own ? own_norm : s->norm, k, act, m->act_stride};
}

/// Round the result of attention where its heads did not end with a block.
static void round_attention(const el_lane *at)
{
    const el_model *m = at->step->m;
    const size_t k = (size_t)m->config.heads * m->config.head_dim;
    size_t begin, end;
    share(at, at->step->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        m->kernels.quantize_act_q8(k, m->scratch.att + r * k, m->scratch.act + r * m->act_stride);
    }
    meet(at);
}

static size_t tiles_of(const el_matrix *w) { return (w->n + EL_LANES - 1) / EL_LANES; }

static size_t columns(const el_matrix *w, size_t tile)
{
    return tile * EL_LANES < w->n ? tile * EL_LANES : w->n;
}

/// Y = X W[tiles]^T + bias for tiles [begin, end) of W; column 0 of y is the first of them.
static void multiply(const el_model *m, const el_matrix *w, size_t rows, size_t begin, size_t end,
                     const el_input *x, float *y, size_t y_stride)
{
    if (begin >= end) return;
    const size_t n = columns(w, end) - begin * EL_LANES;
    const uint8_t *tiles = w->tiles + begin * w->tile_bytes;
    const el_kernels *op = rows < EL_MANY_ROWS ? &m->kernels : &m->many;

    if (wants_q8(w)) {
        el_kernels_gemm_q8(op, w->layout)(rows, n, w->k, tiles, x->q8, x->q8_stride, y, y_stride);
    } else {
        el_kernels_gemm_f32(op, w->layout)(rows, n, w->k, tiles, x->f32, x->f32_stride, y, y_stride);
    }
    for (size_t r = 0; r < rows && w->bias != NULL; r++) {
        m->kernels.add(n, w->bias + begin * EL_LANES, y + r * y_stride);
    }
}

/// Ask for the weights that this thread reads first after the barrier.
static void look_ahead(const el_lane *at, const el_matrix *w, size_t grain)
{
    if (at->step->rows > EL_AHEAD_ROWS) return;
    size_t begin, end;
    share(at, tiles_of(w), grain, &begin, &end);
    const uint8_t *p = w->tiles + begin * w->tile_bytes;
    for (size_t i = 0; i < EL_AHEAD_BYTES && begin < end; i += 64) __builtin_prefetch(p + i, 0, 2);
}

/// x += W input, for this thread's columns; with a norm after the product only the product, for `settle`.
static void multiply_residual(const el_lane *at, const el_matrix *w, const el_input *input, bool settled)
{
    const el_model *m = at->step->m;
    size_t begin, end;
    share(at, tiles_of(w), 1, &begin, &end);
    const size_t first = begin * EL_LANES, n = columns(w, end) - first;
    if (begin >= end) return;

    float *out = m->scratch.norm + first;  // whoever read the normalised rows is done
    multiply(m, w, at->step->rows, begin, end, input, out, w->n);
    for (size_t r = 0; r < at->step->rows && !settled; r++) {
        m->kernels.add(n, out + r * w->n, m->scratch.x + r * w->n + first);
    }
}

/// x += norm(product) of whole rows, in the families that normalise once more.
static void settle(const el_lane *at, const float *norm)
{
    const el_model *m = at->step->m;
    const size_t k = m->config.width;
    if (norm == NULL) return;
    size_t begin, end;
    share(at, at->step->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *row = m->scratch.norm + r * k;
        m->kernels.rms_norm(k, row, norm, m->config.norm_eps, row);
        m->kernels.add(k, row, m->scratch.x + r * k);
    }
    meet(at);
}

/// Normalise this thread's columns [first, last) of every row, which are whole heads.
static void normalise_heads(const el_lane *at, float *x, size_t width, const float *norm, size_t first,
                            size_t last)
{
    const el_model *m = at->step->m;
    const size_t d = m->config.head_dim, values = m->config.head_values;
    for (size_t r = 0; r < at->step->rows && norm != NULL; r++) {
        for (size_t i = first; i < last; i += d) {
            float *head = x + r * width + i;
            m->kernels.rms_norm(values, head, norm, m->config.norm_eps, head);
        }
    }
}

/// The three products of attention as one list of tiles, each followed by what its columns need. Threads
/// share it by units of tiles, none of which cuts a head that is normalised.
static void multiply_qkv(const el_lane *at, size_t layer, const el_input *x)
{
    const el_model *m = at->step->m;
    const el_layer *l = &m->layers[layer];
    const el_matrix *w[] = {&l->q, &l->k, &l->v};
    const float *norm[] = {l->q_norm, l->k_norm};
    float *y[] = {m->scratch.q, m->scratch.k, m->scratch.v};
    const size_t unit = at->step->unit;
    size_t units[3], begin, end, base = 0;
    for (size_t i = 0; i < 3; i++) units[i] = (tiles_of(w[i]) + unit - 1) / unit;
    share(at, units[0] + units[1] + units[2], 1, &begin, &end);

    for (size_t i = 0; i < 3; i++) {
        const size_t tiles = tiles_of(w[i]);
        const size_t from = begin > base ? (begin - base) * unit : 0;
        size_t to = end > base ? (end - base) * unit : 0;
        if (to > tiles) to = tiles;
        base += units[i];
        if (from >= to) continue;
        const size_t first = from * EL_LANES, last = columns(w[i], to);
        multiply(m, w[i], at->step->rows, from, to, x, y[i] + first, w[i]->n);
        if (i < 2) {
            normalise_heads(at, y[i], w[i]->n, norm[i], first, last);
            el_rotate(at, layer, y[i], i == 0 ? m->config.heads : m->config.kv_heads, first, last);
        }
        if (i == 1) el_store_keys(at, layer, first, last);
        if (i == 2) el_store_values(at, layer, first, last);
    }
}

/// What stands between the first products of the feed-forward part and the last.
static void activate(const el_model *m, size_t n, float *gate, const float *up)
{
    switch (m->family->ffn) {
    case EL_FFN_SWIGLU: m->kernels.swiglu(n, gate, up, gate); break;
    case EL_FFN_GEGLU: m->kernels.geglu_tanh(n, gate, up, gate); break;
    case EL_FFN_GELU: m->kernels.gelu_tanh(n, gate, gate); break;
    }
}

/// gate = silu(W_gate x) * W_up x, or as the family has it, as floats or rounded, whichever W_down wants. A
/// thread takes a panel of columns through all of it while they are in its cache.
static void multiply_gated(const el_lane *at, const el_layer *l, const el_input *x)
{
    const el_model *m = at->step->m;
    const el_scratch *s = &m->scratch;
    const size_t rows = at->step->rows, ffn = m->config.ffn;
    const bool q8 = wants_q8(&l->down), gated = l->up.n > 0;
    size_t begin, end;
    share(at, tiles_of(&l->gate), EL_PANEL_GRAIN, &begin, &end);
    const size_t panel = m->micro_batch / rows * EL_PANEL_TILES;  // tiles
    const size_t room = m->micro_batch * EL_PANEL_TILES * EL_LANES;
    float *own = s->panel + at->thread * 2 * room, *up = own + room;

    for (size_t tile = begin, to; tile < end; tile = to) {
        to = end - tile < panel ? end : tile + panel;
        const size_t first = tile * EL_LANES, n = columns(&l->gate, to) - first;
        float *gate = q8 ? own : s->gate + first;
        const size_t stride = q8 ? n : ffn;
        multiply(m, &l->gate, rows, tile, to, x, gate, stride);
        if (gated) multiply(m, &l->up, rows, tile, to, x, up, n);
        for (size_t r = 0; r < rows; r++) {
            float *row = gate + r * stride;
            activate(m, n, row, up + r * n);
            if (q8) m->kernels.quantize_act_q8(n, row, s->ffn_act + r * m->ffn_stride + first / EL_BLOCK);
        }
    }
}

/// x of one token, in the canonical order: the embedding, times the scale, plus the position's.
static void embed_row(const el_model *m, size_t r)
{
    const el_config *c = &m->config;
    const size_t id = (size_t)m->scratch.row[r].id, position = m->scratch.row[r].position;
    float *x = m->scratch.x + r * c->width, *learned = m->scratch.norm + r * c->width;
    el_unpack_lane(m->embed.type, c->width, m->embed.tiles + id / EL_LANES * m->embed.tile_bytes,
                   id % EL_LANES, x);
    for (size_t i = 0; i < c->width && c->embed_scale != 1.0f; i++) x[i] *= c->embed_scale;
    if (m->positions.n == 0) return;
    el_unpack_lane(m->positions.type, c->width,
                   m->positions.tiles + position / EL_LANES * m->positions.tile_bytes, position % EL_LANES,
                   learned);
    m->kernels.add(c->width, learned, x);
}

static void embed(const el_lane *at)
{
    const el_step *step = at->step;
    const el_model *m = step->m;
    const el_config *c = &m->config;
    const size_t group = c->heads / c->kv_heads, stride = (size_t)c->heads * c->head_dim;
    size_t begin, end;
    share(at, step->rows, 1, &begin, &end);

    for (size_t r = begin; r < end; r++) {
        embed_row(m, r);
        el_rope_angles(m, r);
        for (size_t j = 0; j < group; j++) {
            m->scratch.offset[r * group + j] = r * stride + j * c->head_dim;
            m->scratch.last[r * group + j] = m->scratch.row[r].position;
        }
    }
    meet(at);
}

static void run_layer(const el_lane *at, size_t layer)
{
    const el_model *m = at->step->m;
    const el_layer *l = &m->layers[layer];
    const el_scratch *s = &m->scratch;
    const size_t rows = at->step->rows, heads = (size_t)m->config.heads * m->config.head_dim;
    const bool q8 = wants_q8(&l->q) || wants_q8(&l->k) || wants_q8(&l->v);
    const bool f32 = !wants_q8(&l->q) || !wants_q8(&l->k) || !wants_q8(&l->v);
    const el_matrix *up = l->up.n > 0 ? &l->up : &l->gate;
    const bool gated_q8 = wants_q8(&l->gate) || wants_q8(up);
    const bool gated_f32 = !wants_q8(&l->gate) || !wants_q8(up);

    el_input x = prepare(at, NULL, rows, &l->attn_norm, f32, q8);
    multiply_qkv(at, layer, &x);
    look_ahead(at, &l->o, 1);
    meet(at);

    const bool in_blocks = m->config.head_dim % EL_BLOCK == 0;
    el_attend(at, layer, in_blocks && wants_q8(&l->o));
    meet(at);
    if (!in_blocks && wants_q8(&l->o)) round_attention(at);

    multiply_residual(at, &l->o, &(el_input){s->att, heads, s->act, m->act_stride}, l->attn_post != NULL);
    look_ahead(at, &l->gate, EL_PANEL_GRAIN);
    meet(at);
    settle(at, l->attn_post);

    x = prepare(at, NULL, rows, &l->ffn_norm, gated_f32, gated_q8);
    multiply_gated(at, l, &x);
    look_ahead(at, &l->down, 1);
    meet(at);

    const el_input gated = {s->gate, m->config.ffn, s->ffn_act, m->ffn_stride};
    multiply_residual(at, &l->down, &gated, l->ffn_post != NULL);
    look_ahead(at, layer + 1 < m->config.layers ? &m->layers[layer + 1].q : &m->head, 1);
    meet(at);
    settle(at, l->ffn_post);
}

/// The final norm of the rows that the caller wants it of.
static void keep_hidden(const el_lane *at)
{
    const el_model *m = at->step->m;
    size_t begin, end;
    share(at, at->step->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *hidden = m->scratch.row[r].hidden;
        if (hidden != NULL) normalise(m, &m->out_norm, m->scratch.x + r * m->config.width, hidden);
    }
}

static void run_step(void *arg, size_t thread, size_t threads)
{
    const el_step *step = arg;
    const el_model *m = step->m;
    el_lane lane = {step, thread, threads, el_attend_share(step, SIZE_MAX, thread, threads), {{0}, {0}}};
    if (m->config.window > 0) lane.windowed = el_attend_share(step, m->config.window, thread, threads);

    embed(&lane);
    for (size_t i = 0; i < m->config.layers; i++) run_layer(&lane, i);
    if (step->hidden) keep_hidden(&lane);
    if (step->logit_rows == 0) return;

    const bool q8 = wants_q8(&m->head);
    const el_input x = prepare(&lane, m->scratch.logit_row, step->logit_rows, &m->out_norm, !q8, q8);
    size_t begin, end;
    share(&lane, tiles_of(&m->head), 1, &begin, &end);
    multiply(m, &m->head, step->logit_rows, begin, end, &x, step->logits + begin * EL_LANES, m->head.n);
}

static el_status check_segment(const el_model *m, const el_segment *g, el_error *err)
{
    if (g->session->model != m) return el_fail(err, EL_ERR_ARG, "the session belongs to another model");
    if (g->n < 1 || g->n > m->micro_batch || g->rows > g->n) {
        return el_fail(err, EL_ERR_ARG, "%zu tokens and %zu rows of logits; at most %zu tokens at once", g->n,
                       g->rows, m->micro_batch);
    }
    for (size_t i = 0; i < g->n; i++) {
        if (g->ids[i] < 0 || (uint32_t)g->ids[i] >= m->config.vocab) {
            return el_fail(err, EL_ERR_ARG, "token %d at index %zu is outside the vocabulary of %u",
                           g->ids[i], i, m->config.vocab);
        }
    }
    if (g->n > g->session->capacity - g->session->position) {
        return el_fail(err, EL_ERR_CONTEXT, "%zu tokens do not fit: %zu of the context's %zu are used", g->n,
                       g->session->position, g->session->capacity);
    }
    return EL_OK;
}

/// Check all segments before anything is written, and count their rows.
static el_status check_step(el_step *step, el_error *err)
{
    const size_t most = step->m->micro_batch;
    if (step->count < 1 || step->count > most)
        return el_fail(err, EL_ERR_ARG, "%zu segments, outside 1 to %zu", step->count, most);
    for (size_t i = 0; i < step->count; i++) {
        const el_segment *g = &step->segments[i];
        const el_status st = check_segment(step->m, g, err);
        if (st != EL_OK) return st;
        for (size_t j = 0; j < i; j++) {
            if (step->segments[j].session == g->session)
                return el_fail(err, EL_ERR_ARG, "segments %zu and %zu are of one session", j, i);
        }
        step->rows += g->n;
        step->logit_rows += g->rows;
        if (g->session->type == EL_KV_Q8_0) step->unit = step->m->block_tiles;
        step->hidden |= g->hidden != NULL;
    }
    if (step->rows > most) {
        return el_fail(err, EL_ERR_ARG, "%zu tokens in %zu segments; at most %zu at once", step->rows,
                       step->count, most);
    }
    return EL_OK;
}

el_status el_batch_eval(el_model *model, const el_segment *segments, size_t count, float *logits,
                        el_error *err)
{
    el_step step = {.m = model, .segments = segments, .count = count, .logits = logits};
    step.unit = model->head_tiles;
    const el_status st = check_step(&step, err);
    if (st != EL_OK) return st;

    size_t row = 0, wanted = 0;
    for (size_t i = 0; i < count; i++) {
        const el_segment *g = &segments[i];
        for (size_t j = 0; j < g->n; j++, row++) {
            float *hidden = g->hidden != NULL ? g->hidden + j * model->config.width : NULL;
            model->scratch.row[row] = (el_row){g->session, g->session->position + j, g->ids[j], hidden};
            if (j + g->rows >= g->n) model->scratch.logit_row[wanted++] = row;
        }
    }
    el_pool_run(model->pool, run_step, &step);
    for (size_t i = 0; i < count; i++) el_session_advance(segments[i].session, segments[i].n);
    return EL_OK;
}

el_status el_session_eval(el_session *session, const int32_t *ids, size_t n, size_t rows, float *logits,
                          el_error *err)
{
    const el_segment segment = {session, ids, n, rows, NULL};
    return el_batch_eval(session->model, &segment, 1, logits, err);
}
