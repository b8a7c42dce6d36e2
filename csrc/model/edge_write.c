/* An edge image, laid out from a GGUF and packed piece by piece. */
#include "edgellm/edge_write.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "edgellm/vocab.h"
#include "format/edge_file.h"
#include "model/model.h"
#include "model/rope.h"
#include "text/tables.h"

enum { EL_EDGE_MICRO_BATCH = 128 };  // what the figures are for

/// What packing asks of a tensor; its strings are not kept.
typedef struct el_edge_origin {
    el_found found;
    el_part part;
} el_edge_origin;

struct el_edge_writer {
    const el_gguf *gguf;
    el_source source;
    el_config config;
    uint8_t *head;  ///< (head_bytes,)
    uint64_t head_bytes;
    el_edge_section_entry *sections;  ///< in head
    el_edge_tensor_entry *entries;    ///< in head: (n_tensors,)
    el_edge_origin *origins;          ///< (n_tensors,)
    size_t n_tensors;
    uint64_t weights_bytes;
    uint64_t sum;  ///< of el_fingerprint_tile
    bool counting;
    el_kernels kernels;
};

static uint64_t tile_bytes_of(const el_edge_tensor_entry *t)
{
    return memcmp(t->layout, "f32\0", 4) == 0 ? t->bytes
                                              : el_pack_tile_bytes((el_layout)el_pack_layout(t->type), t->k);
}

/// First count the tensors, then describe each. el_model_plan has checked types and shapes.
static el_status describe(void *arg, const el_part *part, el_error *err)
{
    el_edge_writer *w = arg;
    el_found found;
    const el_status st = el_part_find(&found, w->gguf, part, err);
    if (st != EL_OK || found.tensor == NULL) return st;
    const size_t i = w->n_tensors++;
    if (w->counting) return EL_OK;

    el_edge_tensor_entry *t = &w->entries[i];
    const size_t length = strlen(part->name);
    if (length >= sizeof t->name)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s: the name is too long", part->name);
    memcpy(t->name, part->name, length);
    w->origins[i] = (el_edge_origin){found, *part};
    w->origins[i].part.name = w->origins[i].part.fused = NULL;
    t->type = found.tensor->type;
    t->n = (uint32_t)part->n;
    t->k = (uint32_t)part->k;
    t->offset = w->head_bytes + w->weights_bytes;
    if (part->matrix != NULL) {
        el_layout_name(t->type, t->layout);
        t->bytes = (part->n + EL_LANES - 1) / EL_LANES * tile_bytes_of(t);
    } else {
        memcpy(t->layout, "f32", 3);
        t->bytes = el_edge_align(part->k * sizeof(float), EL_EDGE_ALIGN);
    }
    w->weights_bytes += t->bytes;
    return EL_OK;
}

static el_status visit(el_edge_writer *w, bool counting, el_error *err)
{
    el_model m = {.config = w->config};
    w->counting = counting;
    w->n_tensors = 0;
    return el_model_visit(&m, describe, w, err);
}

/// The strings of the info section, in the order of its slots.
static void find_info(const el_gguf *gguf, el_view out[4])
{
    static const char *const keys[] = {"general.name", "general.license", "tokenizer.chat_template",
                                       "edgellm.requantized_from"};
    for (size_t i = 0; i < 4; i++) {
        if (el_gguf_find(gguf, keys[i]) == NULL || el_gguf_get_string(gguf, keys[i], &out[i], NULL) != EL_OK)
            out[i] = (el_view){"", 0};
    }
}

static uint64_t info_bytes(const el_view info[4])
{
    return sizeof(el_edge_info_entry) + info[0].size + info[1].size + info[2].size + info[3].size;
}

/// Offsets of all sections for the bytes of each; takes the head.
static el_status place_sections(el_edge_writer *w, const uint64_t bytes[EL_EDGE_WEIGHTS])
{
    uint64_t offsets[EL_EDGE_SECTIONS], at = EL_EDGE_FIRST_SECTION;
    for (size_t i = 0; i < EL_EDGE_WEIGHTS; i++) {
        offsets[i] = at;
        at = el_edge_align(at + bytes[i], EL_EDGE_ALIGN);
    }
    w->head_bytes = offsets[EL_EDGE_WEIGHTS] = el_edge_align(at, EL_EDGE_WEIGHTS_ALIGN);
    w->head = w->head_bytes <= SIZE_MAX ? calloc(1, (size_t)w->head_bytes) : NULL;
    w->origins = calloc(w->n_tensors, sizeof *w->origins);
    if (w->head == NULL || w->origins == NULL) return EL_ERR_NOMEM;
    w->sections = (void *)(w->head + sizeof(el_edge_header));
    for (size_t i = 0; i < EL_EDGE_SECTIONS; i++) {
        w->sections[i].kind = (uint32_t)i + 1;
        w->sections[i].offset = offsets[i];
        if (i < EL_EDGE_WEIGHTS) w->sections[i].bytes = bytes[i];
    }
    w->entries = (void *)(w->head + offsets[EL_EDGE_TENSORS]);
    return EL_OK;
}

static void *section(const el_edge_writer *w, size_t i) { return w->head + w->sections[i].offset; }

static void write_config(el_edge_writer *w)
{
    const el_config *c = &w->config;
    el_edge_config_entry *out = section(w, EL_EDGE_CONFIG);
    *out = (el_edge_config_entry){
        .layers = c->layers,
        .width = c->width,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_values = c->head_values,
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
        .tied = c->tied,
    };
    memcpy(out->architecture, c->architecture, strlen(c->architecture));
}

static void write_info(el_edge_writer *w, const el_view info[4])
{
    el_edge_info_entry *out = section(w, EL_EDGE_INFO);
    uint32_t at = sizeof *out;
    for (size_t i = 0; i < 4; i++) {
        out->slots[i].offset = at;
        out->slots[i].bytes = (uint32_t)info[i].size;
        if (info[i].size > 0) memcpy((uint8_t *)out + at, info[i].data, info[i].size);
        at += (uint32_t)info[i].size;
    }
}

static void write_figures(el_edge_writer *w, const el_plan *plan)
{
    const el_config *c = &w->config;
    const uint64_t values = (uint64_t)c->layers * c->kv_heads * 2 * c->head_dim;
    *(el_edge_figures_entry *)section(w, EL_EDGE_PLAN) = (el_edge_figures_entry){
        .weights = w->weights_bytes,
        .scratch = plan->scratch,
        .tables = plan->tables,
        .session = plan->session,
        .kv_f16 = values * 2,
        .kv_f32 = values * 4,
        .micro_batch = EL_EDGE_MICRO_BATCH,
    };
}

static void write_header(el_edge_writer *w, el_machine machine, uint32_t version, bool is_signed)
{
    el_edge_header *out = (void *)w->head;
    *out = (el_edge_header){
        .format = EL_EDGE_FORMAT,
        .header_bytes = sizeof *out,
        .file_bytes = w->head_bytes + w->weights_bytes,
        .machine = machine,
        .numerics = EL_NUMERICS,
        .version = version,
        .flags = is_signed ? EL_EDGE_SIGNED : 0,
        .sections = EL_EDGE_SECTIONS,
    };
    memcpy(out->magic, EL_EDGE_MAGIC, sizeof out->magic);
}

static el_status write_head(el_edge_writer *w, const el_tokenizer *tok, const el_plan *plan, el_error *err)
{
    el_view info[4];
    const el_view tables = el_tables_of(tok);
    find_info(w->gguf, info);
    if (info_bytes(info) > UINT32_MAX)
        return el_fail(err, EL_ERR_UNSUPPORTED, "the file's texts are too long");
    el_status st = visit(w, true, err);
    if (st != EL_OK) return st;
    const uint64_t bytes[EL_EDGE_WEIGHTS] = {
        [EL_EDGE_CONFIG] = sizeof(el_edge_config_entry),
        [EL_EDGE_INFO] = info_bytes(info),
        [EL_EDGE_PLAN] = sizeof(el_edge_figures_entry),
        [EL_EDGE_ROPE] = el_rope_tables(&w->config) * (w->config.rope_dims / 2) * sizeof(double),
        [EL_EDGE_TOKENIZER] = tables.size,
        [EL_EDGE_TENSORS] = w->n_tensors * sizeof(el_edge_tensor_entry),
    };
    st = place_sections(w, bytes);
    if (st != EL_OK) return el_fail(err, st, "no memory for the head of an image");
    st = visit(w, false, err);
    if (st == EL_OK) st = el_rope_load(&w->config, w->gguf, &w->source, section(w, EL_EDGE_ROPE), err);
    w->sections[EL_EDGE_WEIGHTS].bytes = w->weights_bytes;
    memcpy(section(w, EL_EDGE_TOKENIZER), tables.data, tables.size);
    write_config(w);
    write_info(w, info);
    write_figures(w, plan);
    return st;
}

el_status el_edge_writer_new(el_edge_writer **out, const el_gguf *gguf, const el_source *source,
                             el_machine machine, uint32_t version, bool is_signed, el_error *err)
{
    *out = NULL;
    el_plan plan;
    el_tokenizer *tok = NULL;
    if (el_machine_name(machine) == NULL)
        return el_fail(err, EL_ERR_ARG, "there is no machine %d", (int)machine);
    el_edge_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a writer");
    w->gguf = gguf;
    w->source = *source;
    el_kernels_select(&w->kernels, el_isa_best(el_cpu_features()), el_cpu_features(), 1);

    el_status st = el_model_plan(&plan, gguf, 1, EL_KV_F16, EL_EDGE_MICRO_BATCH, 1, err);
    if (st == EL_OK) st = el_config_from_gguf(&w->config, gguf, err);
    if (st == EL_OK) st = el_tokenizer_from_gguf(&tok, gguf, err);
    if (st == EL_OK) st = write_head(w, tok, &plan, err);
    if (st == EL_OK) write_header(w, machine, version, is_signed);
    el_tokenizer_free(tok);
    if (st == EL_OK) {
        *out = w;
    } else {
        el_edge_writer_free(w);
    }
    return st;
}

void el_edge_writer_free(el_edge_writer *w)
{
    if (w == NULL) return;
    free(w->head);
    free(w->origins);
    free(w);
}

uint8_t *el_edge_writer_head(el_edge_writer *w, uint64_t *bytes)
{
    *bytes = w->head_bytes;
    return w->head;
}

size_t el_edge_writer_tensors(const el_edge_writer *w) { return w->n_tensors; }

void el_edge_writer_tensor(const el_edge_writer *w, size_t i, el_edge_piece *out)
{
    const el_edge_tensor_entry *t = &w->entries[i];
    *out = (el_edge_piece){
        .name = {t->name, strlen(t->name)},
        .type = t->type,
        .offset = t->offset,
        .bytes = t->bytes,
        .hash_offset = (uint64_t)(t->sha256 - w->head),
        .tile_bytes = tile_bytes_of(t),
    };
    out->tiles = out->bytes / out->tile_bytes;
}

void el_edge_writer_section(const el_edge_writer *w, size_t i, el_edge_piece *out)
{
    const el_edge_section_entry *s = &w->sections[i];
    *out = (el_edge_piece){.offset = s->offset, .bytes = s->bytes};
    if (i < EL_EDGE_WEIGHTS) out->bytes = s[1].offset - s->offset;
    out->hash_offset = (uint64_t)(s->sha256 - w->head);
}

el_status el_edge_writer_pack(el_edge_writer *w, size_t i, uint64_t first, uint64_t tiles, uint8_t *dst,
                              el_error *err)
{
    el_edge_piece piece;
    if (i >= w->n_tensors) return el_fail(err, EL_ERR_ARG, "there is no tensor %zu", i);
    el_edge_writer_tensor(w, i, &piece);
    if (first > piece.tiles || tiles > piece.tiles - first)
        return el_fail(err, EL_ERR_ARG, "%s does not have so many tiles", w->entries[i].name);

    const el_edge_tensor_entry *t = &w->entries[i];
    const el_edge_origin *from = &w->origins[i];
    const bool vector = from->part.vector != NULL;
    const size_t most = from->found.row_bytes * (vector ? 1 : EL_LANES);
    uint8_t *staging = malloc(most);
    el_status st = staging != NULL ? EL_OK : el_fail(err, EL_ERR_NOMEM, "no memory for rows of %s", t->name);
    for (uint64_t tile = first; tile < first + tiles && st == EL_OK; tile++, dst += piece.tile_bytes) {
        const uint64_t row = tile * EL_LANES;
        const size_t rows = t->n - row < EL_LANES ? (size_t)(t->n - row) : EL_LANES;
        if (vector || rows < EL_LANES)
            memset(dst, 0, (size_t)piece.tile_bytes);  // as loading finds its memory
        const bool read =
            vector ? el_part_read_vector(&from->found, &from->part, &w->source, staging, (float *)(void *)dst)
                   : el_part_read_rows(&from->found, &from->part, &w->source, (size_t)row, rows, staging);
        if (!read) {
            st = el_fail(err, EL_ERR_IO, "%s: the file ended or failed while it was read", t->name);
        } else if (!vector) {
            el_pack_tile_by(w->kernels.interleave, t->type, rows, t->k, staging, dst);
            w->sum += el_fingerprint_tile((size_t)tile, dst, (size_t)piece.tile_bytes);
        }
    }
    free(staging);
    return st;
}

void el_edge_writer_seal(el_edge_writer *w)
{
    el_edge_config_entry *c = section(w, EL_EDGE_CONFIG);
    c->fingerprint = el_fingerprint(&w->config, w->sum);
}
