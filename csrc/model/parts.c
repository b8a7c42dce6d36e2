/* Which tensors a model has, in execution order, and where a GGUF keeps each of them. */
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "model/keys.h"
#include "model/model.h"

enum { EL_NAME_BYTES = 64 };

/// Visits the parts of one layer, whose names all start alike.
typedef struct el_visitor {
    el_part_fn *visit;
    void *arg;
    el_error *err;
    uint32_t layer;
    el_status status;  ///< of the first visit that failed
} el_visitor;

static void visit_part(el_visitor *v, const char *name, el_part part)
{
    char own[EL_NAME_BYTES], fused[EL_NAME_BYTES];
    if (part.need == EL_NEVER || v->status != EL_OK) return;
    snprintf(own, sizeof own, "blk.%u.%s", v->layer, name);
    part.name = own;
    if (part.fused != NULL) {
        snprintf(fused, sizeof fused, "blk.%u.%s", v->layer, part.fused);
        part.fused = fused;
    }
    v->status = v->visit(v->arg, &part, v->err);
}

static void visit_matrix(el_visitor *v, const char *name, size_t n, size_t k, el_matrix *matrix)
{
    visit_part(v, name, (el_part){.n = n, .k = k, .matrix = matrix, .need = EL_ALWAYS});
}

static void visit_vector(el_visitor *v, const char *name, size_t k, float **vector, el_need need)
{
    visit_part(v, name, (el_part){.n = 1, .k = k, .vector = vector, .need = need});
}

static void visit_norm(el_visitor *v, const char *const names[2], size_t k, el_norm *norm, const el_family *f)
{
    visit_vector(v, names[0], k, &norm->w, EL_ALWAYS);
    visit_vector(v, names[1], k, &norm->b, f->layer_norm ? EL_ALWAYS : EL_NEVER);
}

/// The products of attention, which a file may hold as one tensor.
static void visit_qkv(el_visitor *v, const el_config *c, const el_family *f, el_layer *l)
{
    static const char *const names[3][2] = {
        {"attn_q.weight", "attn_q.bias"}, {"attn_k.weight", "attn_k.bias"}, {"attn_v.weight", "attn_v.bias"}};
    const size_t d = c->head_dim, values = c->head_values, all = c->heads + 2 * (size_t)c->kv_heads;
    const size_t rows[] = {c->heads * d, c->kv_heads * d, c->kv_heads * d};
    const size_t first[] = {0, c->heads * values, (c->heads + (size_t)c->kv_heads) * values};
    el_matrix *const matrices[] = {&l->q, &l->k, &l->v};

    for (size_t i = 0; i < 3; i++) {
        el_part part = {.fused_n = all * values, .first = first[i], .values = values};
        part.rotated = f->halves && i < 2 ? c->rope_dims : 0;
        part.head = part.rotated > 0 || values < d ? d : 0;
        part.n = rows[i];
        part.k = c->width;
        part.matrix = matrices[i];
        part.need = EL_ALWAYS;
        part.fused = "attn_qkv.weight";
        visit_part(v, names[i][0], part);
        part.n = 1;
        part.k = rows[i];
        part.matrix = NULL;
        part.vector = &matrices[i]->bias;
        part.need = f->qkv_bias;
        part.fused = "attn_qkv.bias";
        visit_part(v, names[i][1], part);
    }
    const el_need need = f->head_norm ? EL_ALWAYS : EL_NEVER;
    el_part part = {.n = 1, .k = values, .need = need, .values = values};
    part.rotated = f->halves ? c->rope_dims : 0;
    part.head = f->halves ? values : 0;
    part.vector = &l->q_norm;
    visit_part(v, "attn_q_norm.weight", part);
    part.vector = &l->k_norm;
    visit_part(v, "attn_k_norm.weight", part);
}

static void visit_ffn(el_visitor *v, const el_config *c, const el_family *f, el_layer *l)
{
    if (f->ffn == EL_FFN_GELU) {
        visit_matrix(v, "ffn_up.weight", c->ffn, c->width, &l->gate);
        visit_vector(v, "ffn_up.bias", c->ffn, &l->gate.bias, f->ffn_bias);
    } else {
        el_part part = {.n = c->ffn, .k = c->width, .matrix = &l->gate, .need = EL_ALWAYS};
        part.fused = f->fused_gate ? "ffn_up.weight" : NULL;
        part.fused_n = 2 * (size_t)c->ffn;
        visit_part(v, "ffn_gate.weight", part);
        visit_vector(v, "ffn_gate.bias", c->ffn, &l->gate.bias, f->ffn_bias);
        part.matrix = &l->up;
        part.first = c->ffn;
        visit_part(v, "ffn_up.weight", part);
        visit_vector(v, "ffn_up.bias", c->ffn, &l->up.bias, f->ffn_bias);
    }
    visit_matrix(v, "ffn_down.weight", c->width, c->ffn, &l->down);
    visit_vector(v, "ffn_down.bias", c->width, &l->down.bias, f->ffn_bias);
}

static void visit_layer(el_visitor *v, const el_config *c, const el_family *f, el_layer *l)
{
    static const char *const attn[] = {"attn_norm.weight", "attn_norm.bias"};
    static const char *const ffn[] = {"ffn_norm.weight", "ffn_norm.bias"};
    const el_need post = f->post_norm ? EL_ALWAYS : EL_NEVER;

    visit_norm(v, attn, c->width, &l->attn_norm, f);
    visit_qkv(v, c, f, l);
    el_part out = {.n = c->width, .k = (size_t)c->heads * c->head_dim, .matrix = &l->o, .need = EL_ALWAYS};
    out.head = c->head_values < c->head_dim ? c->head_dim : 0;
    out.values = c->head_values;
    out.across = true;
    visit_part(v, "attn_output.weight", out);
    visit_vector(v, "attn_output.bias", c->width, &l->o.bias, f->out_bias);
    visit_vector(v, "post_attention_norm.weight", c->width, &l->attn_post, post);
    visit_norm(v, ffn, c->width, &l->ffn_norm, f);
    visit_ffn(v, c, f, l);
    visit_vector(v, "post_ffw_norm.weight", c->width, &l->ffn_post, post);
}

static const el_family *family_of(const el_config *c)
{
    return el_family_find(c->architecture, strlen(c->architecture));
}

/// What follows the layers.
static void visit_rest(el_visitor *v, el_model *m, const el_family *f)
{
    const el_config *c = &m->config;
    const el_need bias = f->layer_norm ? EL_ALWAYS : EL_NEVER;
    const el_need head = c->tied ? EL_NEVER : EL_ALWAYS, learned = f->positions ? EL_ALWAYS : EL_NEVER;
    const el_part parts[] = {
        {.name = "output_norm.weight", .n = 1, .k = c->width, .vector = &m->out_norm.w, .need = EL_ALWAYS},
        {.name = "output_norm.bias", .n = 1, .k = c->width, .vector = &m->out_norm.b, .need = bias},
        {.name = "output.weight", .n = c->vocab, .k = c->width, .matrix = &m->head, .need = head},
        {.name = "token_embd.weight", .n = c->vocab, .k = c->width, .matrix = &m->embed, .need = EL_ALWAYS},
        {.name = "position_embd.weight",
         .n = c->context,
         .k = c->width,
         .matrix = &m->positions,
         .need = learned},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts && v->status == EL_OK; i++) {
        if (parts[i].need != EL_NEVER) v->status = v->visit(v->arg, &parts[i], v->err);
    }
}

el_status el_model_visit(el_model *model, el_part_fn *visit, void *arg, el_error *err)
{
    const el_config *c = &model->config;
    const el_family *f = family_of(c);
    el_visitor v = {.visit = visit, .arg = arg, .err = err};
    el_layer none;  // while counting there are no layers yet: each is placed into this one

    for (; v.layer < c->layers && v.status == EL_OK; v.layer++) {
        visit_layer(&v, c, f, model->layers != NULL ? &model->layers[v.layer] : &none);
    }
    visit_rest(&v, model, f);
    return v.status;
}

/// Ends the visit at the part of this name.
static el_status match(void *arg, const el_part *part, el_error *err)
{
    (void)err;
    const el_view *name = arg;
    const bool same =
        el_view_equals(*name, part->name) || (part->fused != NULL && el_view_equals(*name, part->fused));
    return same ? EL_ERR_ARG : EL_OK;
}

bool el_part_known(const el_config *c, el_view name)
{
    el_model m = {.config = *c};
    el_layer none;
    el_visitor v = {.visit = match, .arg = &name};
    size_t i = 4;  // of what follows "blk."
    for (; i < name.size && name.data[i] >= '0' && name.data[i] <= '9' && v.layer < c->layers; i++) {
        v.layer = v.layer * 10 + (uint32_t)(name.data[i] - '0');
    }
    if (name.size > i && i > 4 && memcmp(name.data, "blk.", 4) == 0 && v.layer < c->layers)
        visit_layer(&v, c, family_of(c), &none);
    else
        visit_rest(&v, &m, family_of(c));
    return v.status != EL_OK;
}

static el_status check_type(const el_gguf_tensor *t, const el_part *part, el_error *err)
{
    const char *type = el_type_get(t->type)->name;
    if (part->matrix != NULL && el_pack_layout(t->type) < 0)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s is of type %s, which matrices do not support", part->name,
                       type);
    const bool floats = t->type == EL_TYPE_F32 || t->type == EL_TYPE_F16 || t->type == EL_TYPE_BF16;
    if (part->across && part->head > 0 && !floats)
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "%s is of type %s: with heads of %zu it must be f32, f16 or bf16", part->name, type,
                       part->values);
    if (part->vector != NULL && !floats)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s is of type %s; a vector is f32, f16 or bf16", part->name,
                       type);
    return EL_OK;
}

/// How many of `count` packed rows or columns of a part a file has.
static size_t in_file(const el_part *part, size_t count)
{
    return part->head == 0 ? count : count / part->head * part->values;
}

el_status el_part_find(el_found *out, const el_gguf *gguf, const el_part *part, el_error *err)
{
    const el_gguf_tensor *t = el_gguf_tensor_find(gguf, part->name);
    const bool fused = part->fused != NULL && (t == NULL || strcmp(part->name, part->fused) == 0);
    *out = (el_found){.tensor = NULL};
    if (fused) t = el_gguf_tensor_find(gguf, part->fused);
    if (t == NULL && part->need == EL_MAYBE) return EL_OK;
    if (t == NULL) return el_fail(err, EL_ERR_FORMAT, "tensor %s is missing", part->name);

    const bool matrix = part->matrix != NULL, columns = part->across || !matrix;
    const size_t rows = fused ? part->fused_n : columns ? part->n : in_file(part, part->n);
    const size_t n = matrix ? rows : 1;
    const size_t k = !columns ? part->k : fused ? part->fused_n : in_file(part, part->k);
    if (t->shape[0] != k || t->shape[1] != n || t->shape[2] != 1 || t->shape[3] != 1) {
        return el_fail(err, EL_ERR_FORMAT, "%s has shape (%llu, %llu), expected (%zu, %zu)",
                       fused ? part->fused : part->name, (unsigned long long)t->shape[0],
                       (unsigned long long)t->shape[1], k, n);
    }
    out->tensor = t;
    out->first = fused ? part->first : 0;
    out->read_bytes = (size_t)(matrix ? t->bytes / n : t->bytes / k * in_file(part, part->k));
    out->row_bytes = matrix && k != part->k ? out->read_bytes / k * part->k : out->read_bytes;
    return check_type(t, part, err);
}

/// Row of the part in the file that becomes row i, SIZE_MAX for a row of zeros: heads are filled up, and
/// the halves of a head's rotated rows become neighbours.
static size_t source_row(const el_part *part, size_t i)
{
    if (part->head == 0) return i;
    const size_t in = i % part->head, first = i / part->head * part->values;
    if (in >= part->values) return SIZE_MAX;
    return first + (in >= part->rotated ? in : in % 2 * (part->rotated / 2) + in / 2);
}

static bool read_exactly(const el_source *source, uint64_t offset, void *dst, size_t bytes)
{
    return source->read(source->context, offset, dst, bytes) == bytes;
}

/// Put zeros between the heads of a row of floats that stands at the end of its place.
static void spread(const el_found *found, const el_part *part, uint8_t *row)
{
    const size_t size = found->row_bytes / part->k, to = part->head * size, from = part->values * size;
    const uint8_t *read = row + found->row_bytes - found->read_bytes;
    for (size_t h = 0; h < part->k / part->head; h++) {  // what a head overwrites was read before it
        memmove(row + h * to, read + h * from, from);
        memset(row + h * to + from, 0, to - from);
    }
}

bool el_part_read_rows(const el_found *found, const el_part *part, const el_source *source, size_t row,
                       size_t n, uint8_t *rows)
{
    const uint64_t begin = found->tensor->offset + (uint64_t)found->first * found->read_bytes;
    const size_t step = part->head == 0 ? n : 1, skip = found->row_bytes - found->read_bytes;
    for (size_t i = 0; i < n; i += step) {
        const size_t from = part->across ? row + i : source_row(part, row + i);
        uint8_t *to = rows + i * found->row_bytes;
        if (from == SIZE_MAX) {
            memset(to, 0, found->row_bytes);
            continue;
        }
        const uint64_t at = begin + (uint64_t)from * found->read_bytes;
        if (!read_exactly(source, at, to + skip, step * found->read_bytes)) return false;
        if (skip > 0) spread(found, part, to);
    }
    return true;
}

bool el_part_read_vector(const el_found *found, const el_part *part, const el_source *source,
                         uint8_t *staging, float *values)
{
    const size_t size = found->row_bytes / in_file(part, part->k);
    const uint64_t at = found->tensor->offset + (uint64_t)found->first * size;
    if (!read_exactly(source, at, staging, found->row_bytes)) return false;
    for (size_t i = 0; i < part->k; i++) {
        const size_t from = source_row(part, i);
        values[i] = 0.0f;
        if (from != SIZE_MAX) el_dequantize(found->tensor->type, staging + from * size, 1, values + i);
    }
    return true;
}
