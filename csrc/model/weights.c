/* Reading tensors from the file and packing them, every thread its own tiles. */
#include <stdatomic.h>
#include <string.h>

#include "core/error.h"
#include "core/trig.h"
#include "model/model.h"

typedef struct el_loading {
    el_model *model;
    const el_gguf *gguf;
    const el_source *source;
    el_part part;
    const el_gguf_tensor *tensor;
    _Atomic uint64_t hash;  ///< sum over tiles, so that the order of threads does not matter
    atomic_bool failed;
} el_loading;

/// FNV-1a over 8-byte words; sizes are multiples of 8.
static uint64_t hash_bytes(uint64_t seed, const uint8_t *bytes, size_t size)
{
    uint64_t h = seed ^ UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        h = (h ^ word) * UINT64_C(0x100000001b3);
    }
    return h;
}

static bool read_exactly(const el_loading *job, uint64_t offset, uint8_t *dst, size_t bytes)
{
    return job->source->read(job->source->context, offset, dst, bytes) == bytes;
}

/// Pack this thread's share of the tiles of one matrix.
static void pack_tiles(void *arg, size_t thread, size_t threads)
{
    el_loading *job = arg;
    const el_matrix *m = job->part.matrix;
    uint8_t *staging =
        job->model->scratch.staging + thread * el_round_up(job->model->staging_bytes, EL_ALIGN);
    const size_t row_bytes = (size_t)(job->tensor->bytes / m->n);
    size_t begin, end;
    el_partition((m->n + EL_LANES - 1) / EL_LANES, 1, thread, threads, &begin, &end);

    for (size_t tile = begin; tile < end && !atomic_load(&job->failed); tile++) {
        const size_t first = tile * EL_LANES;
        const size_t rows = m->n - first < EL_LANES ? m->n - first : EL_LANES;
        if (!read_exactly(job, job->tensor->offset + first * row_bytes, staging, rows * row_bytes)) {
            atomic_store(&job->failed, true);
            return;
        }
        uint8_t *packed = m->tiles + tile * m->tile_bytes;
        el_pack_tile_by(job->model->kernels.interleave, m->type, rows, m->k, staging, packed);
        // A sample is enough to tell models apart; a full hash would cost as much as packing.
        const size_t sample = m->tile_bytes < 256 ? m->tile_bytes : 256;
        atomic_fetch_add(&job->hash, hash_bytes(tile + 1, packed, sample));
    }
}

static el_status load_part(void *arg, const el_part *part, el_error *err)
{
    el_loading *job = arg;
    job->part = *part;
    job->tensor = el_gguf_tensor_find(job->gguf, part->name);

    if (part->matrix != NULL) {
        el_pool_run(job->model->pool, pack_tiles, job);
    } else {
        uint8_t *staging = job->model->scratch.staging;
        if (read_exactly(job, job->tensor->offset, staging, (size_t)job->tensor->bytes)) {
            el_dequantize(job->tensor->type, staging, part->k, *part->norm);
        } else {
            atomic_store(&job->failed, true);
        }
    }
    if (atomic_load(&job->failed)) {
        return el_fail(err, EL_ERR_IO, "%s: the file ended or failed while it was read", part->name);
    }
    return EL_OK;
}

/// Frequencies base^(-2i/d) / scale, divided by the file's factors where it has them.
static el_status load_rope(el_loading *job, el_error *err)
{
    el_model *m = job->model;
    const size_t pairs = m->config.rope_dims / 2;
    for (size_t i = 0; i < pairs; i++) {
        const double exponent = -2.0 * (double)i / (double)m->config.rope_dims;
        m->inv_freq[i] = el_pow(m->config.rope_base, exponent) / (double)m->config.rope_scale;
    }
    const el_gguf_tensor *t = el_gguf_tensor_find(job->gguf, "rope_freqs.weight");
    if (t == NULL) return EL_OK;
    if (t->type != EL_TYPE_F32 || t->shape[0] != pairs || t->bytes != pairs * sizeof(float)) {
        return el_fail(err, EL_ERR_FORMAT, "rope_freqs.weight is not %zu values of f32", pairs);
    }
    for (size_t i = 0; i < pairs; i++) {
        float factor;
        if (!read_exactly(job, t->offset + i * sizeof factor, (uint8_t *)&factor, sizeof factor)) {
            return el_fail(err, EL_ERR_IO, "rope_freqs.weight: the file ended while it was read");
        }
        if (!(factor > 0.0f && factor < 1e30f))
            return el_fail(err, EL_ERR_FORMAT, "rope_freqs.weight[%zu] is not positive", i);
        m->inv_freq[i] /= (double)factor;
    }
    return EL_OK;
}

el_status el_weights_load(el_model *model, const el_gguf *gguf, const el_source *source, el_error *err)
{
    el_loading job = {.model = model, .gguf = gguf, .source = source};
    el_status st = el_model_visit(model, load_part, &job, err);
    if (st == EL_OK) st = load_rope(&job, err);
    if (st != EL_OK) return st;

    if (model->config.tied) model->head = model->embed;
    const el_config *c = &model->config;
    const uint64_t shape[] = {c->layers,   c->width, c->heads, c->kv_heads,
                              c->head_dim, c->ffn,   c->vocab, EL_NUMERICS};
    model->fingerprint = hash_bytes(atomic_load(&job.hash), (const uint8_t *)shape, sizeof shape);
    return EL_OK;
}
