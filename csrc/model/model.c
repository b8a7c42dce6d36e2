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
    if (st == EL_OK) st = el_session_plan(&plan, &m.config, context, kv, micro_batch, err);
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
    m->block_tiles = m->head_tiles;
    while (m->block_tiles * EL_LANES % c->head_dim != 0 &&
           (c->head_dim % EL_BLOCK != 0 || m->block_tiles % 2 != 0))
        m->block_tiles++;
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
    st = el_check_addressable(el_plan_model_bytes(&plan), err);
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
