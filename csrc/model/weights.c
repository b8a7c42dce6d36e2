/* Reading tensors from the file and packing them. Packed memory is cut into pieces of one huge page, which
 * threads take in order as they come free: no two threads fault in the same page, and one that does something
 * else first (thread 0 builds the tokenizer) packs less. */
#include <stdatomic.h>
#include <string.h>

#include "core/error.h"
#include "edgellm/vocab.h"
#include "model/model.h"
#include "model/rope.h"

enum { EL_PIECE_BYTES = 1 << 21, EL_LEAST_PIECE_BYTES = 1 << 16, EL_PIECES_PER_THREAD = 4 };

typedef struct el_loading {
    el_model *model;
    const el_gguf *gguf;
    const el_source *source;
    el_tokenizer **tokenizer;  ///< where thread 0 builds one; NULL for none
    el_status tokenizer_status;
    el_error tokenizer_error;
    uintptr_t first;      ///< address of the first piece
    size_t piece_bytes;
    atomic_size_t taken;  ///< pieces
    _Atomic uint64_t sum; ///< of el_fingerprint_tile
    _Atomic(const el_gguf_tensor *) failed;  ///< a tensor that could not be read
    atomic_bool stop;
} el_loading;

/// One thread's share of loading.
typedef struct el_loader {
    el_loading *job;
    uint8_t *staging;
    uintptr_t begin, end;  ///< the piece of memory to be filled
    uint64_t sum;
} el_loader;

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

uint64_t el_fingerprint_tile(size_t tile, const uint8_t *packed, size_t tile_bytes)
{
    // A sample is enough to tell models apart; a full hash would cost as much as packing.
    return hash_bytes(tile + 1, packed, tile_bytes < 256 ? tile_bytes : 256);
}

uint64_t el_fingerprint(const el_config *c, uint64_t sum)
{
    uint64_t shape[] = {c->layers,
                        c->width,
                        c->heads,
                        c->kv_heads,
                        c->head_values,
                        c->ffn,
                        c->vocab,
                        EL_NUMERICS,
                        c->rope_dims,
                        c->rope_original,
                        c->window,
                        c->window_pattern,
                        0,
                        0,
                        0,
                        0};
    const float numbers[] = {c->rope_base,      c->rope_local_base, c->rope_scale,
                             c->rope_magnitude, c->attention_scale, c->embed_scale};
    memcpy(&shape[12], numbers, sizeof numbers);
    return hash_bytes(sum, (const uint8_t *)shape, sizeof shape);
}

static void take_piece(el_loader *at)
{
    const size_t piece = atomic_fetch_add(&at->job->taken, 1);
    at->begin = at->job->first + piece * at->job->piece_bytes;
    at->end = at->begin + at->job->piece_bytes;
}

/// Pack tiles [begin, end) of one matrix, as many at once as staging holds.
static bool pack_tiles(el_loader *at, const el_found *found, const el_part *part, size_t begin, size_t end)
{
    const el_matrix *m = part->matrix;
    size_t batch = at->job->model->staging_bytes / (found->row_bytes * EL_LANES);
    if (batch == 0) batch = 1;  // staging holds the widest tile of the file

    for (size_t tile = begin; tile < end; tile += batch) {
        const size_t first = tile * EL_LANES, tiles = end - tile < batch ? end - tile : batch;
        const size_t rows = m->n - first < tiles * EL_LANES ? m->n - first : tiles * EL_LANES;
        if (!el_part_read_rows(found, part, at->job->source, first, rows, at->staging)) return false;
        for (size_t i = 0; i < tiles; i++) {
            const size_t row = i * EL_LANES, left = rows - row;
            uint8_t *packed = m->tiles + (tile + i) * m->tile_bytes;
            el_pack_tile_by(at->job->model->kernels.interleave, m->type, left < EL_LANES ? left : EL_LANES,
                            m->k, at->staging + row * found->row_bytes, packed);
            at->sum += el_fingerprint_tile(tile + i, packed, m->tile_bytes);
        }
    }
    return true;
}

/// Fill what of a part starts inside this thread's pieces.
static el_status load_part(void *arg, const el_part *part, el_error *err)
{
    el_loader *at = arg;
    const el_matrix *m = part->matrix;
    el_found found;
    const el_status st = el_part_find(&found, at->job->gguf, part, err);  // as when it was placed
    if (st != EL_OK || found.tensor == NULL) return st;
    const uintptr_t start = m != NULL ? (uintptr_t)m->tiles : (uintptr_t)*part->vector;
    const size_t tiles = m != NULL ? (m->n + EL_LANES - 1) / EL_LANES : 1;
    const size_t step = m != NULL ? m->tile_bytes : part->k * sizeof(float);

    for (size_t tile = 0; tile < tiles; take_piece(at)) {
        // the first tile at or after an address, and of the next piece
        const size_t from = at->begin > start ? (at->begin - start + step - 1) / step : 0;
        const size_t to = at->end > start ? (at->end - start + step - 1) / step : 0;
        const size_t begin = from < tiles ? from : tiles, end = to < tiles ? to : tiles;
        bool read = true;
        if (begin < end && m != NULL) {
            read = pack_tiles(at, &found, part, begin, end);
        } else if (begin < end) {
            read = el_part_read_vector(&found, part, at->job->source, at->staging, *part->vector);
        }
        if (!read) {
            atomic_store(&at->job->failed, found.tensor);
            atomic_store(&at->job->stop, true);
        }
        if (atomic_load_explicit(&at->job->stop, memory_order_relaxed)) return EL_ERR_IO;  // ends the visit
        if (to >= tiles && at->end > start) break;  // what is left of the piece is the next part's
        tile = end;
    }
    return EL_OK;
}

static void load_parts(void *arg, size_t thread, size_t threads)
{
    (void)threads;
    el_loading *job = arg;
    if (thread == 0 && job->tokenizer != NULL) {
        job->tokenizer_status = el_tokenizer_from_gguf(job->tokenizer, job->gguf, &job->tokenizer_error);
        if (job->tokenizer_status != EL_OK) atomic_store(&job->stop, true);
    }
    el_loader at = {.job = job, .staging = job->model->scratch.staging + thread * job->model->staging_bytes};
    take_piece(&at);
    (void)el_model_visit(job->model, load_part, &at, NULL);
    atomic_fetch_add(&job->sum, at.sum);
}

/// How memory is cut: huge pages for a large model, something for every thread of a small one.
static void cut_pieces(el_loading *job, const uint8_t *memory, uint64_t bytes, size_t threads)
{
    const uint64_t even = bytes / (threads * EL_PIECES_PER_THREAD);
    job->piece_bytes = even > EL_PIECE_BYTES         ? EL_PIECE_BYTES
                       : even > EL_LEAST_PIECE_BYTES ? (size_t)even
                                                     : EL_LEAST_PIECE_BYTES;
    job->first = (uintptr_t)memory;
    if (job->piece_bytes == EL_PIECE_BYTES) job->first -= job->first % EL_PIECE_BYTES;
}

el_status el_weights_load(el_model *model, const el_gguf *gguf, const el_source *source,
                          el_tokenizer **tokenizer, uint64_t bytes, el_error *err)
{
    el_loading job = {.model = model, .gguf = gguf, .source = source, .tokenizer = tokenizer};
    // el_model_layout took these from the caller's memory
    el_status st = el_rope_load(&model->config, gguf, source, (double *)(uintptr_t)model->inv_freq, err);
    if (st != EL_OK) return st;
    cut_pieces(&job, (const uint8_t *)model, bytes, el_pool_threads(model->pool));
    el_pool_run(model->pool, load_parts, &job);

    if (job.tokenizer_status != EL_OK) {
        if (err != NULL) *err = job.tokenizer_error;
        return job.tokenizer_status;
    }
    const el_gguf_tensor *failed = atomic_load(&job.failed);
    if (failed != NULL) {
        return el_fail(err, EL_ERR_IO, "%.*s: the file ended or failed while it was read",
                       (int)(failed->name.size > 80 ? 80 : failed->name.size), failed->name.data);
    }
    model->fingerprint = el_fingerprint(&model->config, atomic_load(&job.sum));
    return EL_OK;
}
