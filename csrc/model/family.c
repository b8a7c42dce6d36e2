/* The table of families. Sources: the conversion scripts and model files of llama.cpp for names and keys,
 * the modeling files of transformers for the arithmetic. */
#include "model/family.h"

#include <string.h>

#include "core/error.h"

static const char rms_eps[] = "attention.layer_norm_rms_epsilon";
static const char layer_eps[] = "attention.layer_norm_epsilon";

static const el_family families[] = {
    {
        .name = "llama",
        .norm_eps = rms_eps,
        .qkv_bias = EL_MAYBE,
        .out_bias = EL_MAYBE,
        .ffn_bias = EL_MAYBE,
    },
    {.name = "qwen2", .norm_eps = rms_eps, .halves = true, .qkv_bias = EL_ALWAYS},
    {
        .name = "qwen3",
        .norm_eps = rms_eps,
        .qkv_bias = EL_MAYBE,
        .out_bias = EL_MAYBE,
        .halves = true,
        .head_norm = true,
    },
    {
        .name = "gemma3",
        .norm_eps = rms_eps,
        .ffn = EL_FFN_GEGLU,
        .qkv_bias = EL_MAYBE,
        .out_bias = EL_MAYBE,
        .halves = true,
        .head_norm = true,
        .post_norm = true,
        .scaled_embedding = true,
        .window_pattern = 6,
        .local_base = 10000.0f,
        .width_scale_layers = 62,  // of 27B, which files do not tell from the others otherwise
    },
    {.name = "phi3", .norm_eps = rms_eps, .halves = true, .fused_gate = true},
    {
        .name = "gpt2",
        .norm_eps = layer_eps,
        .ffn = EL_FFN_GELU,
        .layer_norm = true,
        .positions = true,
        .qkv_bias = EL_ALWAYS,
        .out_bias = EL_ALWAYS,
        .ffn_bias = EL_ALWAYS,
    },
};
enum { FAMILIES = sizeof families / sizeof *families };

const el_family *el_family_find(const char *name, size_t size)
{
    for (size_t i = 0; i < FAMILIES; i++) {
        if (strlen(families[i].name) == size && memcmp(families[i].name, name, size) == 0)
            return &families[i];
    }
    return NULL;
}

el_status el_family_unknown(const char *name, size_t size, el_error *err)
{
    char known[96] = "";
    for (size_t i = 0; i < FAMILIES; i++) el_list_name(known, sizeof known, families[i].name);
    return el_fail(err, EL_ERR_UNSUPPORTED, "architecture '%.*s' is not supported (known: %s)",
                   (int)(size > 40 ? 40 : size), name, known);
}
