/* A session's life: planned, placed in the caller's memory, shortened. Its state in bytes is in state.c. */
#include "core/error.h"
#include "model/model.h"

el_status el_check_addressable(uint64_t needed, el_error *err)
{
    if (needed <= SIZE_MAX) return EL_OK;
    return el_fail(err, EL_ERR_NOMEM, "%llu bytes are needed, more than this machine can address",
                   (unsigned long long)needed);
}

size_t el_kv_row_bytes(const el_config *c, el_kv_type type)
{
    if (type == EL_KV_Q8_0) return el_q8_row_bytes(c->head_dim);
    return c->head_dim * (type == EL_KV_F32 ? sizeof(float) : sizeof(uint16_t));
}

/// Places of a head in a layer's cache: all positions, or enough for a window and a whole micro-batch before
/// the first of whose tokens the window still reaches back.
static size_t ring_of(const el_config *c, uint32_t layer, size_t context, size_t micro_batch)
{
    const size_t all = el_round_up(context, EL_KEY_BLOCK), window = el_config_window(c, layer);
    if (window == 0 || window >= context) return all;
    const size_t ring = el_round_up(window + micro_batch, EL_KEY_BLOCK);
    return ring < all ? ring : all;
}

static uint64_t half_bytes(const el_config *c, uint32_t layer, size_t context, el_kv_type kv,
                           size_t micro_batch)
{
    return (uint64_t)ring_of(c, layer, context, micro_batch) * el_kv_row_bytes(c, kv);
}

static uint64_t kv_bytes(const el_config *c, size_t context, el_kv_type kv, size_t micro_batch)
{
    // layers <= 2^10, kv_heads <= 2^12, head_dim <= 2^8, context <= 2^25: below 2^59
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->layers; i++) sum += half_bytes(c, i, context, kv, micro_batch);
    return sum * c->kv_heads * 2;
}

static el_status check_session(const el_config *c, size_t context, el_kv_type kv, el_error *err)
{
    if (kv != EL_KV_F16 && kv != EL_KV_F32 && kv != EL_KV_Q8_0)
        return el_fail(err, EL_ERR_ARG, "there is no cache type %d", (int)kv);
    if (context < 1 || context > c->context) {
        return el_fail(err, EL_ERR_ARG, "context is %zu, outside 1 to %u (what the model was trained for)",
                       context, c->context);
    }
    return EL_OK;
}

static uint64_t struct_bytes(const el_config *c)
{
    return el_round_up(sizeof(el_session) + c->layers * sizeof(el_cache), EL_ALIGN);
}

el_status el_session_plan(el_plan *plan, const el_config *config, size_t context, el_kv_type kv,
                          size_t micro_batch, el_error *err)
{
    const el_status st = check_session(config, context, kv, err);
    if (st != EL_OK) return st;
    plan->kv = kv_bytes(config, context, kv, micro_batch);
    plan->session = struct_bytes(config);
    return EL_OK;
}

el_status el_session_init(el_session **out, el_model *model, size_t context, el_kv_type kv, void *memory,
                          uint64_t bytes, el_error *err)
{
    *out = NULL;
    const el_config *c = &model->config;
    el_plan plan = {0};
    el_status st = el_session_plan(&plan, c, context, kv, model->micro_batch, err);
    if (st != EL_OK) return st;
    const uint64_t needed = el_plan_session_bytes(&plan);
    st = el_check_addressable(needed, err);
    if (st != EL_OK) return st;
    if (bytes < needed || (uintptr_t)memory % EL_ALIGN != 0) {
        return el_fail(err, EL_ERR_ARG, "the session needs %llu bytes at a multiple of 64, got %llu",
                       (unsigned long long)needed, (unsigned long long)bytes);
    }
    el_session *s = memory;
    *s = (el_session){
        .model = model,
        .capacity = context,
        .rope = c->rope_original > 0 && context > c->rope_original ? 1 : 0,
        .type = kv,
    };
    uint8_t *at = (uint8_t *)memory + struct_bytes(c);
    for (uint32_t i = 0; i < c->layers; i++) {
        s->cache[i].keys = at;
        s->cache[i].ring = ring_of(c, i, context, model->micro_batch);
        s->cache[i].half_bytes = (size_t)half_bytes(c, i, context, kv, model->micro_batch);
        at += s->cache[i].half_bytes * c->kv_heads * 2;
    }
    *out = s;
    return EL_OK;
}

size_t el_session_position(const el_session *session) { return session->position; }

size_t el_session_context(const el_session *session) { return session->capacity; }

void el_session_advance(el_session *session, size_t n)
{
    const el_config *c = &session->model->config;
    session->position += n;
    for (uint32_t i = 0; i < c->layers && c->window > 0; i++) {
        // What was before position - ring has been overwritten; the next token at p sees p - window + 1.
        const size_t ring = session->cache[i].ring, window = el_config_window(c, i);
        if (window == 0 || session->position <= ring) continue;
        const size_t oldest = session->position - ring + window - 1;
        if (oldest > session->oldest) session->oldest = oldest;
    }
}

el_status el_session_truncate(el_session *session, size_t length, el_error *err)
{
    if (length > session->position) {
        return el_fail(err, EL_ERR_ARG, "truncate to %zu, but the session holds %zu tokens", length,
                       session->position);
    }
    if (length > 0 && length < session->oldest) {
        return el_fail(err, EL_ERR_ARG,
                       "truncate to %zu: the layers with a sliding window no longer hold what the next token "
                       "would see; from %zu on they do, and 0 empties the session",
                       length, session->oldest);
    }
    session->position = length;
    if (length == 0) session->oldest = 0;
    return EL_OK;
}
