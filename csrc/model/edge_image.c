/* From an edge image to a model: its shape and tensors checked against each other, then used in place. */
#include <string.h>

#include "core/error.h"
#include "edgellm/cpu.h"
#include "format/edge_file.h"
#include "model/model.h"
#include "model/rope.h"
#include "text/tables.h"

void el_layout_name(uint32_t type, char out[12])
{
    // el_blocks.h: every type has a layout of its own name, but that both ternary types share one
    const el_type_info *info = el_type_get(type == EL_TYPE_TQ1_0 ? EL_TYPE_TQ2_0 : type);
    memset(out, 0, 12);
    const size_t length = strlen(info->name);  // at most 6
    memcpy(out, info->name, length);
    memcpy(out + length, "x16", 3);
}

static bool positive(float x) { return x > 0.0f && x < 1e30f; }

static const el_family *family_of(const el_edge_config_entry *c)
{
    const char *end = memchr(c->architecture, 0, sizeof c->architecture);
    const size_t size = end != NULL ? (size_t)(end - c->architecture) : sizeof c->architecture;
    for (size_t i = size; i < sizeof c->architecture; i++) {
        if (c->architecture[i] != 0) return NULL;
    }
    return end != NULL ? el_family_find(c->architecture, size) : NULL;
}

static bool rope_fits(const el_edge_config_entry *c, const el_family *f)
{
    const bool dims = f->positions
                          ? c->rope_dims == 0
                          : c->rope_dims >= 2 && c->rope_dims <= c->head_values && c->rope_dims % 2 == 0;
    const bool windows = c->window > 0 ? c->window_pattern != 1 && c->window_pattern <= EL_MAX_LAYERS
                                       : c->window_pattern == 0 && c->rope_local_base == 0.0f;
    const bool local = c->rope_local_base == 0.0f || (positive(c->rope_local_base) && c->rope_original == 0);
    const bool tables = c->rope_dims > 0 || (c->rope_local_base == 0.0f && c->rope_original == 0);
    return dims && windows && local && tables && c->rope_original < c->context && positive(c->rope_base) &&
           positive(c->rope_scale) && positive(c->rope_magnitude);
}

static el_status check_config(const el_edge_config_entry *c, el_error *err)
{
    const el_family *f = family_of(c);
    if (f == NULL) return el_family_unknown(c->architecture, sizeof c->architecture, err);
    const bool extents = c->layers >= 1 && c->layers <= EL_MAX_LAYERS && c->width >= 1 &&
                         c->width <= EL_MAX_EXTENT && c->ffn >= 1 && c->ffn <= EL_MAX_EXTENT &&
                         c->vocab >= 1 && c->vocab <= EL_MAX_VOCAB && c->context >= 1 &&
                         c->context <= EL_MAX_CONTEXT && c->tied <= 1;
    const bool heads = c->heads >= 1 && c->heads <= EL_MAX_HEADS && c->kv_heads >= 1 &&
                       c->kv_heads <= c->heads && c->heads % c->kv_heads == 0 && c->head_values >= 1 &&
                       c->head_values <= EL_MAX_HEAD_DIM;
    const bool numbers = positive(c->norm_eps) && positive(c->attention_scale) && positive(c->embed_scale);
    if (!extents || !heads || !numbers || !rope_fits(c, f))
        return el_fail(err, EL_ERR_FORMAT, "the image's config contradicts itself");
    for (size_t i = 0; i < sizeof c->reserved / sizeof *c->reserved; i++) {
        if (c->reserved[i] != 0)
            return el_fail(err, EL_ERR_FORMAT, "reserved bytes of the config are not zero");
    }
    return EL_OK;
}

static el_status read_config(el_edge *e, el_error *err)
{
    const el_edge_section s = e->sections[EL_EDGE_CONFIG];
    const el_edge_config_entry *c = (const void *)(e->image + s.offset);
    if (s.used != sizeof *c) return el_fail(err, EL_ERR_FORMAT, "the image's config is damaged");
    const el_status st = check_config(c, err);
    if (st != EL_OK) return st;
    e->config = (el_config){
        .layers = c->layers,
        .width = c->width,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_values = c->head_values,
        .head_dim = el_head_dim(c->head_values),
        .ffn = c->ffn,
        .vocab = c->vocab,
        .context = c->context,
        .rope_dims = c->rope_dims,
        .rope_original = c->rope_original,
        .window = c->window,
        .window_pattern = c->window_pattern,
        .rope_base = c->rope_base,
        .rope_local_base = c->rope_local_base,
        .rope_scale = c->rope_scale,
        .rope_magnitude = c->rope_magnitude,
        .norm_eps = c->norm_eps,
        .attention_scale = c->attention_scale,
        .embed_scale = c->embed_scale,
        .tied = c->tied == 1,
    };
    memcpy(e->config.architecture, c->architecture, sizeof e->config.architecture);
    e->fingerprint = c->fingerprint;
    return EL_OK;
}

static el_status read_rope(el_edge *e, el_error *err)
{
    const el_edge_section s = e->sections[EL_EDGE_ROPE];
    const size_t pairs = el_rope_tables(&e->config) * (e->config.rope_dims / 2);
    e->inv_freq = (const void *)(e->image + s.offset);
    bool sound = s.used == pairs * sizeof *e->inv_freq;
    for (size_t i = 0; i < pairs && sound; i++) sound = el_rope_frequency_ok(e->inv_freq[i]);
    return sound ? EL_OK : el_fail(err, EL_ERR_FORMAT, "the image's frequencies are damaged");
}

el_status el_edge_place(const el_edge *e, size_t *i, const el_part *part, uint64_t *next, el_error *err)
{
    const el_edge_tensor_entry *t = el_edge_tensor_entries(e) + *i;
    char name[sizeof t->name] = "", layout[sizeof t->layout] = "f32";
    strncpy(name, part->name, sizeof name - 1);
    const bool named = *i < e->n_tensors && memcmp(t->name, name, sizeof name) == 0;
    if (part->vector != NULL) *part->vector = NULL;
    if (!named && part->need == EL_MAYBE) return EL_OK;
    if (*i >= e->n_tensors) return el_fail(err, EL_ERR_FORMAT, "the image has no %s", part->name);
    const el_type_info *info = el_type_get(t->type);
    if (!named || t->n != part->n || t->k != part->k || info == NULL || t->offset != *next ||
        t->reserved != 0) {
        return el_fail(err, EL_ERR_FORMAT, "tensor %zu of the image is damaged, or not %s", *i, part->name);
    }

    // n < 2^25 and k <= 2^20 values: no product below overflows 64 bits
    uint64_t bytes = el_edge_align(part->k * sizeof(float), EL_EDGE_ALIGN);
    uint8_t *data = (uint8_t *)(uintptr_t)e->image + t->offset;  // only ever read
    if (part->matrix != NULL) {
        const int packed = el_pack_layout(t->type);
        if (packed < 0 || el_pack_row_bytes(t->type, part->k) == 0)
            return el_fail(err, EL_ERR_UNSUPPORTED, "%s is of type %s, which its rows do not support",
                           part->name, info->name);
        el_layout_name(t->type, layout);
        const size_t tile_bytes = el_pack_tile_bytes((el_layout)packed, part->k);
        bytes = (part->n + EL_LANES - 1) / EL_LANES * (uint64_t)tile_bytes;
        *part->matrix = (el_matrix){part->n, part->k, t->type, (el_layout)packed, tile_bytes, data, NULL};
    } else {
        *part->vector = (float *)(void *)data;
    }
    if (memcmp(t->layout, layout, sizeof layout) != 0)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s is packed as %.12s, not %s", part->name, t->layout,
                       layout);
    if (bytes == 0 || t->bytes != bytes || bytes > e->bytes - t->offset)
        return el_fail(err, EL_ERR_FORMAT, "%s does not have %llu bytes", part->name,
                       (unsigned long long)t->bytes);
    *next += bytes;
    ++*i;
    return EL_OK;
}

el_status el_edge_parse(el_edge *out, const void *image, uint64_t bytes, el_error *err)
{
    el_edge e;
    el_plan plan;
    el_status st = el_edge_read(&e, image, bytes, err);
    if (st == EL_OK) st = read_config(&e, err);
    if (st == EL_OK) st = read_rope(&e, err);
    if (st == EL_OK) st = el_edge_plan(&plan, &e, 1, EL_KV_F16, 1, 1, err);  // walks the tensors
    if (st == EL_OK) *out = e;
    return st;
}

el_status el_edge_check_isa(const el_edge *edge, size_t isa, el_error *err)
{
    const char *machine = el_machine_name(edge->machine), *needed = el_machine_isa(edge->machine);
    size_t index;
    if (el_isa_find(needed, el_cpu_features(), &index, NULL) != EL_OK) {
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "the image is for %s, which needs %s; this machine's best is %s", machine, needed,
                       el_isa_name(el_isa_best(el_cpu_features())));
    }
    if (index > isa) {
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "the image is for %s, which needs %s, but isa is capped at %s", machine, needed,
                       el_isa_name(isa));
    }
    return EL_OK;
}

el_status el_edge_tokenizer(const el_tokenizer **out, const el_edge *edge, el_tokenizer_place *place,
                            el_error *err)
{
    const el_edge_section s = edge->sections[EL_EDGE_TOKENIZER];
    return el_tables_open(out, edge->image + s.offset, s.used, place, err);
}
