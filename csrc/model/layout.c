/* Where every part of a model lies. Counting and placing are one function, so that
 * the bytes planned are the bytes used. */
#include <string.h>

#include "core/error.h"
#include "model/model.h"
#include "model/rope.h"

/// Hands out aligned parts of one block of memory; with base NULL it only counts.
typedef struct el_cursor {
    uint8_t *base;
    uint64_t used;
    bool overflow;
} el_cursor;

static const uint64_t EL_MEMORY_LIMIT = UINT64_C(1) << 46;  // far above any machine

static void *take(el_cursor *at, uint64_t count, uint64_t size)
{
    if (size != 0 && count > EL_MEMORY_LIMIT / size) at->overflow = true;
    if (at->overflow) return NULL;
    uint8_t *part = at->base == NULL ? NULL : at->base + at->used;
    at->used += (count * size + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
    if (at->used > EL_MEMORY_LIMIT) at->overflow = true;
    return part;
}

typedef struct el_placing {
    const el_gguf *gguf;
    const el_edge *edge;  ///< instead of a GGUF
    uint64_t edge_next;   ///< where its next tensor starts
    el_cursor at;
    size_t visited;          ///< tensors used, to find those that nobody reads
    uint64_t staging_bytes;  ///< widest EL_LANES rows of the file
} el_placing;

static el_status place_matrix(const el_found *found, const el_part *part, el_placing *p, el_error *err)
{
    el_matrix *m = part->matrix;
    m->n = part->n;
    m->k = part->k;
    m->type = found->tensor->type;
    m->layout = (el_layout)el_pack_layout(m->type);
    m->tile_bytes = el_pack_tile_bytes(m->layout, m->k);
    m->bias = NULL;  // comes after its matrix
    if (m->tile_bytes == 0) return el_fail(err, EL_ERR_FORMAT, "%s is too large", part->name);
    m->tiles = take(&p->at, (m->n + EL_LANES - 1) / EL_LANES, m->tile_bytes);
    return EL_OK;
}

static el_status place(void *arg, const el_part *part, el_error *err)
{
    el_placing *p = arg;
    if (p->edge != NULL) return el_edge_place(p->edge, &p->visited, part, &p->edge_next, err);

    el_found found;
    const el_status st = el_part_find(&found, p->gguf, part, err);
    if (part->vector != NULL) *part->vector = NULL;
    if (st != EL_OK || found.tensor == NULL) return st;
    if (found.first == 0) p->visited++;  // other parts of a fused tensor count with the first
    const uint64_t rows = part->n < EL_LANES ? part->n : EL_LANES;
    if (found.row_bytes * rows > p->staging_bytes) p->staging_bytes = found.row_bytes * rows;
    if (part->matrix != NULL) return place_matrix(&found, part, p, err);
    *part->vector = take(&p->at, part->k, sizeof **part->vector);
    return EL_OK;
}

/// Every tensor of the file must be one that is used: a bias that nobody adds is a wrong answer.
static el_status check_unused(const el_placing *p, const el_config *c, el_error *err)
{
    if (p->edge != NULL) {
        if (p->visited == p->edge->n_tensors && p->edge_next == p->edge->bytes) return EL_OK;
        return el_fail(err, EL_ERR_FORMAT, "the image has %zu tensors, of which %s uses %zu",
                       p->edge->n_tensors, c->architecture, p->visited);
    }
    size_t extra = 0;
    for (size_t i = 0; i < p->gguf->n_tensors; i++) extra += el_rope_owns(c, p->gguf->tensors[i].name);
    if (p->visited + extra == p->gguf->n_tensors) return EL_OK;

    for (size_t i = 0; i < p->gguf->n_tensors; i++) {
        const el_view name = p->gguf->tensors[i].name;
        if (!el_rope_owns(c, name) && !el_part_known(c, name)) {
            return el_fail(err, EL_ERR_UNSUPPORTED, "tensor %.*s is not one that %s uses",
                           (int)(name.size > 80 ? 80 : name.size), name.data, c->architecture);
        }
    }
    return el_fail(err, EL_ERR_UNSUPPORTED, "the file has %zu tensors, of which %s uses %zu",
                   p->gguf->n_tensors, c->architecture, p->visited + extra);
}

static void place_scratch(el_model *m, size_t threads, el_cursor *at)
{
    const el_config *c = &m->config;
    const uint64_t rows = m->micro_batch, d = c->head_dim, group = c->heads / c->kv_heads;
    const uint64_t heads = c->heads * d, kv = c->kv_heads * d;
    const uint64_t widest = heads > c->width ? heads : c->width;
    m->act_stride = (size_t)(widest + EL_BLOCK - 1) / EL_BLOCK;
    m->ffn_stride = (c->ffn + EL_BLOCK - 1) / EL_BLOCK;

    el_scratch *s = &m->scratch;
    const uint64_t begin = at->used;
    s->staging = at->base == NULL ? NULL : at->base + begin;
    s->row = take(at, rows, sizeof *s->row);
    s->logit_row = take(at, rows, sizeof *s->logit_row);
    s->x = take(at, rows * c->width, sizeof(float));
    s->norm = take(at, rows * c->width, sizeof(float));

    el_cursor gate = *at;  // nobody needs these four any more when the gated part begins
    s->q = take(at, rows * heads, sizeof(float));
    s->k = take(at, rows * kv, sizeof(float));
    s->v = take(at, rows * kv, sizeof(float));
    s->att = take(at, rows * heads, sizeof(float));
    s->gate = take(&gate, rows * c->ffn, sizeof(float));
    if (gate.used > at->used || gate.overflow) *at = gate;

    s->panel = take(at, threads * rows, 2 * EL_PANEL_TILES * EL_LANES * sizeof(float));
    s->act = take(at, rows * m->act_stride, sizeof(el_act_q8));
    s->ffn_act = take(at, rows * m->ffn_stride, sizeof(el_act_q8));
    s->own_act = take(at, threads * m->act_stride, sizeof(el_act_q8));
    s->own_norm = take(at, threads * c->width, sizeof(float));
    s->cs = take(at, rows * el_rope_kinds(c), c->rope_dims * sizeof(float));
    s->offset = take(at, rows * group, sizeof(size_t));
    s->last = take(at, rows * group, sizeof(size_t));

    m->staging_bytes = el_round_up(m->staging_bytes, EL_ALIGN);
    const uint64_t staging = threads * (uint64_t)m->staging_bytes;
    if (at->used - begin < staging) (void)take(at, staging - (at->used - begin), 1);

    // what the scratch holds anyway lets a thread read more at once
    const uint64_t share = (at->used - begin) / threads / EL_ALIGN * EL_ALIGN;
    const uint64_t most = share < EL_READ_BYTES ? share : EL_READ_BYTES;
    if (most > m->staging_bytes) m->staging_bytes = (size_t)most;
}

el_status el_model_layout(el_model *m, const el_gguf *gguf, const el_edge *edge, size_t threads,
                          uint8_t *base, el_plan *plan, el_error *err)
{
    const el_config *c = &m->config;
    el_placing p = {.gguf = gguf, .edge = edge, .at = {.base = base}};
    if (edge != NULL) p.edge_next = edge->sections[EL_EDGE_WEIGHTS].offset;

    (void)take(&p.at, 1, sizeof *m);  // el_model_init puts the model itself first
    m->layers = take(&p.at, c->layers, sizeof *m->layers);
    const uint64_t pairs = el_rope_tables(c) * (c->rope_dims / 2);
    m->inv_freq = edge != NULL ? edge->inv_freq : take(&p.at, pairs, sizeof *m->inv_freq);
    plan->tables = p.at.used;

    const el_status st = el_model_visit(m, place, &p, err);
    if (st != EL_OK) return st;
    if (c->tied) m->head = m->embed;
    plan->weights = p.at.used - plan->tables;
    plan->image = edge != NULL ? edge->bytes : 0;
    m->staging_bytes = (size_t)p.staging_bytes;

    place_scratch(m, threads, &p.at);
    plan->scratch = p.at.used - plan->weights - plan->tables;
    if (p.at.overflow)
        return el_fail(err, EL_ERR_FORMAT, "the model needs more memory than a machine can have");
    return check_unused(&p, c, err);
}
