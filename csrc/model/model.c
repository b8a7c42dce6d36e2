/* A model's life: plan, then placed and filled in the caller's memory. */
#include <string.h>

#include "core/error.h"
#include "model/model.h"
#include "model/rope.h"

static el_status check_batch(size_t micro_batch, size_t threads, el_error *err)
{
    if (micro_batch < 1 || micro_batch > EL_MAX_MICRO_BATCH) {
        return el_fail(err, EL_ERR_ARG, "micro_batch is %zu, outside 1 to %d", micro_batch,
                       EL_MAX_MICRO_BATCH);
    }
    if (threads < 1 || threads > 256)
        return el_fail(err, EL_ERR_ARG, "threads is %zu, outside 1 to 256", threads);
    return EL_OK;
}

/// On a machine of 32 bits a plan may be more than there are addresses, whatever memory the caller says to have.
static el_status check_addressable(uint64_t needed, el_error *err)
{
    if (needed <= SIZE_MAX) return EL_OK;
    return el_fail(err, EL_ERR_NOMEM, "%llu bytes are needed, more than this machine can address",
                   (unsigned long long)needed);
}

static size_t value_size(el_kv_type kv) { return kv == EL_KV_F32 ? sizeof(float) : sizeof(uint16_t); }

static uint64_t half_bytes(const el_config *c, size_t context, el_kv_type kv)
{
    return (uint64_t)el_round_up(context, EL_KEY_BLOCK) * c->head_dim * value_size(kv);
}

static uint64_t kv_bytes(const el_config *c, size_t context, el_kv_type kv)
{
    // layers <= 2^10, kv_heads <= 2^12, head_dim <= 2^8, context <= 2^25: below 2^59
    return (uint64_t)c->layers * c->kv_heads * 2 * half_bytes(c, context, kv);
}

static el_status check_session(const el_config *c, size_t context, el_kv_type kv, el_error *err)
{
    if (kv != EL_KV_F16 && kv != EL_KV_F32)
        return el_fail(err, EL_ERR_ARG, "there is no cache type %d", (int)kv);
    if (context < 1 || context > c->context) {
        return el_fail(err, EL_ERR_ARG, "context is %zu, outside 1 to %u (what the model was trained for)",
                       context, c->context);
    }
    return EL_OK;
}

static uint64_t session_struct_bytes(void) { return el_round_up(sizeof(el_session), EL_ALIGN); }

el_status el_session_plan(el_plan *plan, const el_config *config, size_t context, el_kv_type kv,
                          el_error *err)
{
    const el_status st = check_session(config, context, kv, err);
    if (st != EL_OK) return st;
    plan->kv = kv_bytes(config, context, kv);
    plan->session = session_struct_bytes();
    return EL_OK;
}

/// The plan of a model of either file; exactly one of gguf and edge is set.
static el_status make_plan(el_plan *out, const el_gguf *gguf, const el_edge *edge, size_t context,
                           el_kv_type kv, size_t micro_batch, size_t threads, el_error *err)
{
    el_model m = {.micro_batch = micro_batch};
    el_plan plan = {0};
    el_status st = check_batch(micro_batch, threads, err);
    if (edge != NULL)
        m.config = edge->config;
    else if (st == EL_OK)
        st = el_config_from_gguf(&m.config, gguf, err);
    if (st == EL_OK) st = el_session_plan(&plan, &m.config, context, kv, err);
    if (st == EL_OK) st = el_model_layout(&m, gguf, edge, threads, NULL, &plan, err);
    if (st != EL_OK) return st;

    *out = plan;
    return EL_OK;
}

el_status el_model_plan(el_plan *out, const el_gguf *gguf, size_t context, el_kv_type kv, size_t micro_batch,
                        size_t threads, el_error *err)
{
    return make_plan(out, gguf, NULL, context, kv, micro_batch, threads, err);
}

el_status el_edge_plan(el_plan *out, const el_edge *edge, size_t context, el_kv_type kv, size_t micro_batch,
                       size_t threads, el_error *err)
{
    return make_plan(out, NULL, edge, context, kv, micro_batch, threads, err);
}

uint64_t el_plan_model_bytes(const el_plan *plan) { return plan->tables + plan->weights + plan->scratch; }

uint64_t el_plan_session_bytes(const el_plan *plan) { return plan->kv + plan->session; }

/// What follows from the configuration alone.
static void set_facts(el_model *m)
{
    const el_config *c = &m->config;
    m->family = el_family_find(c->architecture, strlen(c->architecture));
    m->head_tiles = 1;
    while (m->family->head_norm && m->head_tiles * EL_LANES % c->head_dim != 0) m->head_tiles++;
}

/// A model without weights yet, in the caller's memory.
static el_status place_model(el_model **out, const el_gguf *gguf, const el_edge *edge, size_t isa,
                             size_t micro_batch, el_pool *pool, void *memory, uint64_t bytes, el_error *err)
{
    *out = NULL;
    const size_t threads = el_pool_threads(pool);
    el_plan plan;
    el_status st = make_plan(&plan, gguf, edge, 1, EL_KV_F16, micro_batch, threads, err);
    if (st != EL_OK) return st;
    st = check_addressable(el_plan_model_bytes(&plan), err);
    if (st != EL_OK) return st;
    if (bytes < el_plan_model_bytes(&plan) || (uintptr_t)memory % EL_ALIGN != 0) {
        return el_fail(err, EL_ERR_ARG, "the model needs %llu bytes at a multiple of 64, got %llu",
                       (unsigned long long)el_plan_model_bytes(&plan), (unsigned long long)bytes);
    }

    el_model *m = memory;
    m->pool = pool;
    m->micro_batch = micro_batch;
    el_kernels_select(&m->kernels, isa, el_cpu_features(), 1);
    el_kernels_select(&m->many, isa, el_cpu_features(), EL_MANY_ROWS);
    if (edge != NULL)
        m->config = edge->config;
    else
        st = el_config_from_gguf(&m->config, gguf, err);
    if (st == EL_OK) st = el_model_layout(m, gguf, edge, threads, memory, &plan, err);
    if (st != EL_OK) return st;
    set_facts(m);
    for (uint32_t i = 0; i < m->config.layers; i++) {
        m->layers[i].window = el_config_window(&m->config, i);
        m->layers[i].rope = m->config.rope_local_base > 0.0f && m->layers[i].window > 0 ? 1 : 0;
    }
    *out = m;
    return EL_OK;
}

el_status el_model_load(el_model **out, el_tokenizer **tokenizer, const el_gguf *gguf,
                        const el_source *source, size_t isa, size_t micro_batch, el_pool *pool, void *memory,
                        uint64_t bytes, el_error *err)
{
    el_model *m;
    *out = NULL;
    if (tokenizer != NULL) *tokenizer = NULL;
    el_status st = place_model(&m, gguf, NULL, isa, micro_batch, pool, memory, bytes, err);
    if (st == EL_OK) st = el_weights_load(m, gguf, source, tokenizer, bytes, err);
    if (st == EL_OK) {
        *out = m;
    } else if (tokenizer != NULL) {
        el_tokenizer_free(*tokenizer);
        *tokenizer = NULL;
    }
    return st;
}

el_status el_model_init(el_model **out, const el_gguf *gguf, const el_source *source, size_t isa,
                        size_t micro_batch, el_pool *pool, void *memory, uint64_t bytes, el_error *err)
{
    return el_model_load(out, NULL, gguf, source, isa, micro_batch, pool, memory, bytes, err);
}

el_status el_model_from_edge(el_model **out, const el_edge *edge, size_t isa, size_t micro_batch,
                             el_pool *pool, void *memory, uint64_t bytes, el_error *err)
{
    *out = NULL;
    const el_status st = el_edge_check_isa(edge, isa, err);
    if (st != EL_OK) return st;
    el_model *m;
    const el_status placed = place_model(&m, NULL, edge, isa, micro_batch, pool, memory, bytes, err);
    if (placed != EL_OK) return placed;
    m->fingerprint = edge->fingerprint;
    *out = m;
    return EL_OK;
}

void el_model_allow_inexact(el_model *model, size_t isa)
{
    el_kernels_select(&model->many, el_isa_inexact(isa), el_cpu_features(), EL_MANY_ROWS);
}

const el_config *el_model_config(const el_model *model) { return &model->config; }

size_t el_model_micro_batch(const el_model *model) { return model->micro_batch; }

el_status el_session_init(el_session **out, el_model *model, size_t context, el_kv_type kv, void *memory,
                          uint64_t bytes, el_error *err)
{
    *out = NULL;
    el_plan plan = {0};
    el_status st = el_session_plan(&plan, &model->config, context, kv, err);
    if (st != EL_OK) return st;
    const uint64_t needed = el_plan_session_bytes(&plan);
    st = check_addressable(needed, err);
    if (st != EL_OK) return st;
    if (bytes < needed || (uintptr_t)memory % EL_ALIGN != 0) {
        return el_fail(err, EL_ERR_ARG, "the session needs %llu bytes at a multiple of 64, got %llu",
                       (unsigned long long)needed, (unsigned long long)bytes);
    }
    el_session *s = memory;
    *s = (el_session){
        .model = model,
        .context = el_round_up(context, EL_KEY_BLOCK),
        .capacity = context,
        .rope = model->config.rope_original > 0 && context > model->config.rope_original ? 1 : 0,
        .type = kv,
        .half_bytes = half_bytes(&model->config, context, kv),
        .kv = (uint8_t *)memory + session_struct_bytes(),
    };
    *out = s;
    return EL_OK;
}

size_t el_session_position(const el_session *session) { return session->position; }

size_t el_session_context(const el_session *session) { return session->capacity; }

el_status el_session_truncate(el_session *session, size_t length, el_error *err)
{
    if (length > session->position) {
        return el_fail(err, EL_ERR_ARG, "truncate to %zu, but the session holds %zu tokens", length,
                       session->position);
    }
    session->position = length;
    return EL_OK;
}

/// What stands before the cache in a saved session.
typedef struct el_state_head {
    char magic[8];
    uint64_t fingerprint;
    uint64_t position;
    uint64_t type;  ///< an el_kv_type
} el_state_head;

static const char EL_STATE_MAGIC[8] = "edgeses2";

static size_t key_bytes(const el_session *s, size_t position)
{
    return el_round_up(position, EL_KEYS) * s->model->config.head_dim * value_size(s->type);
}

static size_t value_bytes(const el_session *s, size_t position)
{
    return position * s->model->config.head_dim * value_size(s->type);
}

static uint64_t state_bytes(const el_session *s, size_t position)
{
    const el_config *c = &s->model->config;
    return sizeof(el_state_head) +
           (uint64_t)c->layers * c->kv_heads * (key_bytes(s, position) + value_bytes(s, position));
}

uint64_t el_session_state_bytes(const el_session *session) { return state_bytes(session, session->position); }

/// Copy the cache of all heads between a session and a flat buffer.
static void copy_cache(const el_session *s, size_t position, uint8_t *flat, bool out)
{
    const el_config *c = &s->model->config;
    for (size_t i = 0; i < (size_t)c->layers * c->kv_heads; i++) {
        uint8_t *keys = el_session_keys(s, i / c->kv_heads, i % c->kv_heads);
        uint8_t *values = keys + s->half_bytes;
        const size_t nk = key_bytes(s, position), nv = value_bytes(s, position);
        if (nk == 0) continue;
        memcpy(out ? flat : keys, out ? keys : flat, nk);
        memcpy(out ? flat + nk : values, out ? values : flat + nk, nv);
        flat += nk + nv;
    }
}

/// A cache means nothing to another model, nor to a session whose keys are turned by other frequencies.
static uint64_t state_fingerprint(const el_session *s) { return s->model->fingerprint + s->rope; }

void el_session_export(const el_session *session, uint8_t *dst)
{
    el_state_head head = {
        .fingerprint = state_fingerprint(session),
        .position = session->position,
        .type = session->type,
    };
    memcpy(head.magic, EL_STATE_MAGIC, sizeof head.magic);
    memcpy(dst, &head, sizeof head);
    copy_cache(session, session->position, dst + sizeof head, true);
}

el_status el_session_import(el_session *session, const uint8_t *src, uint64_t bytes, el_error *err)
{
    el_state_head head;
    if (bytes < sizeof head)
        return el_fail(err, EL_ERR_FORMAT, "a saved session has at least %zu bytes", sizeof head);
    memcpy(&head, src, sizeof head);
    if (memcmp(head.magic, EL_STATE_MAGIC, sizeof head.magic) != 0) {
        return el_fail(err, EL_ERR_FORMAT, "these bytes are no saved session");
    }
    if (head.fingerprint != state_fingerprint(session)) {
        return el_fail(err, EL_ERR_FORMAT, "the saved session belongs to another model");
    }
    if (head.type != (uint64_t)session->type)
        return el_fail(err, EL_ERR_ARG, "the saved session has a cache of another type");
    if (head.position > session->capacity) {
        return el_fail(err, EL_ERR_CONTEXT, "the saved session holds %llu tokens, the context is %zu",
                       (unsigned long long)head.position, session->capacity);
    }
    if (bytes != state_bytes(session, (size_t)head.position)) {
        return el_fail(err, EL_ERR_FORMAT, "a saved session of %llu tokens has %llu bytes, not %llu",
                       (unsigned long long)head.position,
                       (unsigned long long)state_bytes(session, (size_t)head.position),
                       (unsigned long long)bytes);
    }
    // The copy is read only: copy_cache writes to `flat` only when it copies out.
    copy_cache(session, (size_t)head.position, (uint8_t *)(uintptr_t)src + sizeof head, false);
    session->position = (size_t)head.position;
    return EL_OK;
}
