/* The shape of a model, read from a GGUF and checked before anything is sized by it. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "model/family.h"
#include "model/keys.h"
#include "model/model.h"
#include "model/rope.h"

uint32_t el_config_window(const el_config *c, uint32_t layer)
{
    const uint32_t pattern = c->window_pattern;
    return pattern > 0 && layer % pattern == pattern - 1 ? 0 : c->window;
}

/// Parts that models of a known family may state and that are not computed here.
static el_status check_unsupported(const el_gguf *g, const char *arch, el_error *err)
{
    static const char *const numbers[] = {"expert_count", "final_logit_softcapping",
                                          "attn_logit_softcapping"};
    uint32_t experts = 0;
    float cap = 0.0f;
    el_status st = el_key_u32_or(g, arch, numbers[0], 0, UINT32_MAX, &experts, err);
    if (st == EL_OK && experts > 0)
        return el_fail(err, EL_ERR_UNSUPPORTED, "mixture of experts (%u) is not supported", experts);
    for (size_t i = 1; i < sizeof numbers / sizeof *numbers && st == EL_OK; i++) {
        st = el_key_f32_or(g, arch, numbers[i], &cap, err);
        if (st == EL_OK && cap > 0.0f)
            return el_fail(err, EL_ERR_UNSUPPORTED, "%s.%s is not supported", arch, numbers[i]);
    }
    const el_gguf_kv *causal = el_key_find(g, arch, "attention.causal");
    if (st == EL_OK && causal != NULL && causal->type == EL_GGUF_BOOL && causal->value[0] == 0)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s: attention that is not causal is not supported", arch);
    return st;
}

/// A pattern may also be an array of flags, one for each layer: true where it has a window.
static el_status read_flags(el_config *c, const el_gguf_kv *kv, el_error *err)
{
    if (kv->element != EL_GGUF_BOOL || kv->count < c->layers)
        return el_fail(err, EL_ERR_FORMAT, "sliding_window_pattern does not state all %u layers", c->layers);
    uint32_t first = 0;  // layer that sees all positions
    while (first < c->layers && kv->value[first] != 0) first++;
    c->window_pattern = first == c->layers ? 0 : first + 1;
    for (uint32_t i = 0; i < c->layers; i++) {
        if ((el_config_window(c, i) != 0) != (kv->value[i] != 0))
            return el_fail(err, EL_ERR_UNSUPPORTED, "layer %u breaks the pattern of sliding windows", i);
    }
    return EL_OK;
}

static el_status read_window(el_config *c, const el_family *f, const el_gguf *g, el_error *err)
{
    static const char pattern[] = "attention.sliding_window_pattern";
    el_status st = el_key_u32_or(g, f->name, "attention.sliding_window", 0, UINT32_MAX, &c->window, err);
    if (st != EL_OK || c->window == 0) return st;
    c->window_pattern = f->window_pattern;
    const el_gguf_kv *kv = el_key_find(g, f->name, pattern);
    if (kv != NULL && kv->type == EL_GGUF_ARRAY)
        st = read_flags(c, kv, err);
    else
        st = el_key_u32_or(g, f->name, pattern, 0, EL_MAX_LAYERS, &c->window_pattern, err);
    if (st != EL_OK) return st;
    if (c->window_pattern == 1) c->window = c->window_pattern = 0;  // every layer sees all
    return EL_OK;
}

static el_status read_attention(el_config *c, const el_family *f, const el_gguf *g, el_error *err)
{
    const char *arch = f->name;
    el_status st = el_key_u32(g, arch, "attention.head_count", 1, EL_MAX_HEADS, &c->heads, err);
    if (st != EL_OK) return st;
    c->kv_heads = c->heads;
    st = el_key_u32_or(g, arch, "attention.head_count_kv", 1, c->heads, &c->kv_heads, err);
    if (st != EL_OK) return st;
    if (c->heads % c->kv_heads != 0) {
        return el_fail(err, EL_ERR_FORMAT, "%u heads are no multiple of %u key-value heads", c->heads,
                       c->kv_heads);
    }
    c->head_values = c->width / c->heads;
    st = el_key_u32_or(g, arch, "attention.key_length", 1, EL_MAX_EXTENT, &c->head_values, err);
    if (st != EL_OK) return st;
    uint32_t value_length = c->head_values;
    st = el_key_u32_or(g, arch, "attention.value_length", 1, EL_MAX_EXTENT, &value_length, err);
    if (st != EL_OK) return st;
    if (value_length != c->head_values) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "keys of %u and values of %u per head are not supported",
                       c->head_values, value_length);
    }
    if (c->head_values == 0 || c->head_values > EL_MAX_HEAD_DIM) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "head size %u is not supported (1 to %d)", c->head_values,
                       EL_MAX_HEAD_DIM);
    }
    c->head_dim = el_head_dim(c->head_values);
    const bool by_width = f->width_scale_layers == c->layers && c->width >= c->heads;
    c->attention_scale = 1.0f / sqrtf((float)(by_width ? c->width / c->heads : c->head_values));
    return el_key_f32_or(g, arch, "attention.scale", &c->attention_scale, err);
}

static el_status read_vocab(el_config *c, const el_gguf *g, el_error *err)
{
    const el_gguf_tensor *embed = el_gguf_tensor_find(g, "token_embd.weight");
    if (embed == NULL) return el_fail(err, EL_ERR_FORMAT, "tensor token_embd.weight is missing");
    if (embed->dims != 2 || embed->shape[0] != c->width || embed->shape[1] < 1 ||
        embed->shape[1] > EL_MAX_VOCAB) {
        return el_fail(err, EL_ERR_FORMAT,
                       "token_embd.weight has shape (%llu, %llu), expected (%u, vocabulary)",
                       (unsigned long long)embed->shape[0], (unsigned long long)embed->shape[1], c->width);
    }
    c->vocab = (uint32_t)embed->shape[1];
    c->tied = el_gguf_tensor_find(g, "output.weight") == NULL;
    return EL_OK;
}

el_status el_config_from_gguf(el_config *out, const el_gguf *g, el_error *err)
{
    el_config c = {.norm_eps = 1e-5f, .embed_scale = 1.0f};
    el_view name;
    el_status st = el_gguf_get_string(g, "general.architecture", &name, err);
    if (st != EL_OK) return st;
    const el_family *f = el_family_find(name.data, name.size);
    if (f == NULL) return el_family_unknown(name.data, name.size, err);
    memcpy(c.architecture, f->name, name.size);

    st = check_unsupported(g, f->name, err);
    if (st == EL_OK) st = el_key_u32(g, f->name, "block_count", 1, EL_MAX_LAYERS, &c.layers, err);
    if (st == EL_OK) st = el_key_u32(g, f->name, "embedding_length", 1, EL_MAX_EXTENT, &c.width, err);
    if (st == EL_OK) st = el_key_u32(g, f->name, "feed_forward_length", 1, EL_MAX_EXTENT, &c.ffn, err);
    if (st == EL_OK) st = el_key_u32(g, f->name, "context_length", 1, EL_MAX_CONTEXT, &c.context, err);
    if (st == EL_OK) st = el_key_f32_or(g, f->name, f->norm_eps, &c.norm_eps, err);
    if (st == EL_OK) st = read_attention(&c, f, g, err);
    if (st == EL_OK) st = el_rope_config(&c, f, g, err);
    if (st == EL_OK) st = read_window(&c, f, g, err);
    if (st == EL_OK) st = read_vocab(&c, g, err);
    if (st != EL_OK) return st;
    if (f->scaled_embedding) c.embed_scale = sqrtf((float)c.width);
    if (c.window > 0) c.rope_local_base = f->local_base;
    if (c.rope_local_base > 0.0f)
        st = el_key_f32_or(g, f->name, "rope.freq_base_swa", &c.rope_local_base, err);
    if (st == EL_OK && c.rope_local_base > 0.0f && c.rope_original > 0)
        st = el_fail(err, EL_ERR_UNSUPPORTED, "windows and LongRoPE in one model are not supported");
    if (st != EL_OK) return st;

    *out = c;
    return EL_OK;
}
