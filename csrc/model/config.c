/* The shape of a model, read from a GGUF and checked before anything is sized by it. */
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "model/model.h"

static el_status get_u32(const el_gguf *g, const char *arch, const char *field, uint32_t min, uint32_t max,
                         uint32_t *out, el_error *err)
{
    char key[96];
    uint64_t value = 0;
    snprintf(key, sizeof key, "%s.%s", arch, field);
    const el_status st = el_gguf_get_u64(g, key, &value, err);
    if (st != EL_OK) return st;
    if (value < min || value > max) {
        return el_fail(err, EL_ERR_FORMAT, "%s is %llu, outside %u to %u", key, (unsigned long long)value,
                       min, max);
    }
    *out = (uint32_t)value;
    return EL_OK;
}

/// As get_u32, but an absent key leaves *out as it is.
static el_status get_u32_or(const el_gguf *g, const char *arch, const char *field, uint32_t min, uint32_t max,
                            uint32_t *out, el_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, field);
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    return get_u32(g, arch, field, min, max, out, err);
}

static el_status get_f32_or(const el_gguf *g, const char *arch, const char *field, float *out, el_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, field);
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    const el_status st = el_gguf_get_f32(g, key, out, err);
    if (st != EL_OK) return st;
    if (!(*out > 0.0f && *out < 1e30f))
        return el_fail(err, EL_ERR_FORMAT, "%s must be positive and finite", key);
    return EL_OK;
}

static bool view_is(el_view v, const char *text)
{
    return v.size == strlen(text) && memcmp(v.data, text, v.size) == 0;
}

static el_status read_rope(el_config *c, const el_gguf *g, const char *arch, el_error *err)
{
    el_status st = get_u32_or(g, arch, "rope.dimension_count", 2, c->head_dim, &c->rope_dims, err);
    if (st == EL_OK) st = get_f32_or(g, arch, "rope.freq_base", &c->rope_base, err);
    if (st != EL_OK) return st;
    if (c->rope_dims % 2 != 0) return el_fail(err, EL_ERR_FORMAT, "%s.rope.dimension_count is odd", arch);

    char key[64];
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    el_view kind;
    st = el_gguf_get_string(g, key, &kind, err);
    if (st != EL_OK) return st;
    if (view_is(kind, "none")) return EL_OK;
    if (view_is(kind, "linear")) return get_f32_or(g, arch, "rope.scaling.factor", &c->rope_scale, err);
    return el_fail(err, EL_ERR_UNSUPPORTED, "rope scaling '%.*s' is not supported (known: none, linear)",
                   (int)(kind.size > 40 ? 40 : kind.size), kind.data);
}

static el_status read_attention(el_config *c, const el_gguf *g, const char *arch, el_error *err)
{
    el_status st = get_u32(g, arch, "attention.head_count", 1, EL_MAX_HEADS, &c->heads, err);
    if (st != EL_OK) return st;
    c->kv_heads = c->heads;
    st = get_u32_or(g, arch, "attention.head_count_kv", 1, c->heads, &c->kv_heads, err);
    if (st != EL_OK) return st;
    if (c->heads % c->kv_heads != 0) {
        return el_fail(err, EL_ERR_FORMAT, "%u heads are no multiple of %u key-value heads", c->heads,
                       c->kv_heads);
    }
    c->head_dim = c->width / c->heads;
    st = get_u32_or(g, arch, "attention.key_length", 1, EL_MAX_EXTENT, &c->head_dim, err);
    if (st != EL_OK) return st;
    uint32_t value_length = c->head_dim;
    st = get_u32_or(g, arch, "attention.value_length", 1, EL_MAX_EXTENT, &value_length, err);
    if (st != EL_OK) return st;
    if (value_length != c->head_dim) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "keys of %u and values of %u per head are not supported",
                       c->head_dim, value_length);
    }
    if (c->head_dim == 0 || c->head_dim % 8 != 0 || c->head_dim > EL_MAX_HEAD_DIM) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "head size %u is not supported (a multiple of 8 up to 256)",
                       c->head_dim);
    }
    // Within its window a sliding-window model is a plain one.
    uint32_t window = c->context;
    st = get_u32_or(g, arch, "attention.sliding_window", 0, UINT32_MAX, &window, err);
    if (st == EL_OK && window > 0 && window < c->context) c->context = window;
    return st;
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
    el_config c = {.rope_base = 10000.0f, .rope_scale = 1.0f, .norm_eps = 1e-5f};
    el_view arch_view;
    el_status st = el_gguf_get_string(g, "general.architecture", &arch_view, err);
    if (st != EL_OK) return st;
    if (!view_is(arch_view, "llama")) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "architecture '%.*s' is not supported (known: llama)",
                       (int)(arch_view.size > 40 ? 40 : arch_view.size), arch_view.data);
    }
    const char *arch = "llama";
    memcpy(c.architecture, arch, strlen(arch) + 1);

    uint32_t experts = 0;
    st = get_u32_or(g, arch, "expert_count", 0, UINT32_MAX, &experts, err);
    if (st == EL_OK && experts > 0) {
        st = el_fail(err, EL_ERR_UNSUPPORTED, "mixture of experts (%u) is not supported", experts);
    }
    if (st == EL_OK) st = get_u32(g, arch, "block_count", 1, EL_MAX_LAYERS, &c.layers, err);
    if (st == EL_OK) st = get_u32(g, arch, "embedding_length", 1, EL_MAX_EXTENT, &c.width, err);
    if (st == EL_OK) st = get_u32(g, arch, "feed_forward_length", 1, EL_MAX_EXTENT, &c.ffn, err);
    if (st == EL_OK) st = get_u32(g, arch, "context_length", 1, EL_MAX_CONTEXT, &c.context, err);
    if (st == EL_OK) st = get_f32_or(g, arch, "attention.layer_norm_rms_epsilon", &c.norm_eps, err);
    if (st == EL_OK) st = read_attention(&c, g, arch, err);
    c.rope_dims = c.head_dim;
    if (st == EL_OK) st = read_rope(&c, g, arch, err);
    if (st == EL_OK) st = read_vocab(&c, g, err);
    if (st != EL_OK) return st;

    *out = c;
    return EL_OK;
}
