#ifndef EDGELLM_MODEL_H
#define EDGELLM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/gguf.h"
#include "edgellm/pool.h"
#include "edgellm/status.h"
#include "edgellm/tokenizer.h"

EL_API_BEGIN

/// Version of the arithmetic contract (docs/numerics.md): it changes when any bit of a result may.
enum { EL_NUMERICS = 1 };

/// Shape of a decoder. Extents are values, not bytes.
typedef struct el_config {
    char architecture[16];  ///< as GGUF files name the family
    uint32_t layers;
    uint32_t width;         ///< of the residual stream
    uint32_t heads;         ///< query heads
    uint32_t kv_heads;      ///< key-value heads; divides `heads`
    uint32_t head_values;   ///< values of a head, at most 256
    uint32_t head_dim;      ///< the same with zeros up to a multiple of 8: what kernels and caches see
    uint32_t ffn;           ///< width of the feed-forward part
    uint32_t vocab;
    uint32_t context;       ///< positions the model was trained for
    uint32_t rope_dims;     ///< leading values of a head that are rotated; 0 where positions are learned
    uint32_t
        rope_original;  ///< sessions of more positions use the frequencies for long ones; 0: the same for all
    uint32_t window;  ///< positions that a layer with a window sees, its own included; 0: no layer has one
    uint32_t
        window_pattern;  ///< the last of so many layers sees all positions; 0: every layer has the window
    float rope_base;
    float rope_local_base;  ///< that of the layers with a window; 0 where all have the same
    float rope_scale;  ///< factor of linear or YaRN scaling; 1 for none
    float rope_magnitude;  ///< times the cosines and sines (YaRN, LongRoPE); 1 for none
    float norm_eps;
    float attention_scale;  ///< times the scores
    float embed_scale;  ///< times the token embedding; 1 for none
    bool tied;  ///< the head is the token embedding
} el_config;

/// Positions that a layer sees, its own included; 0 for all.
uint32_t el_config_window(const el_config *config, uint32_t layer);

/// Where the bytes of a file come from. `read` copies `n` bytes at `offset` and returns how many
/// it could; fewer is an error. It is called from several threads at once.
typedef struct el_source {
    size_t (*read)(void *context, uint64_t offset, void *dst, size_t n);
    void *context;
} el_source;

/// Memory by part, in bytes. Nothing else is allocated by the core for a model and its sessions.
typedef struct el_plan {
    uint64_t weights;  ///< packed weights and norms
    uint64_t scratch;  ///< activations of one micro-batch, shared by all sessions
    uint64_t tables;  ///< the model's own structures
    uint64_t kv;  ///< cache of one session
    uint64_t session;  ///< a session's own structure
    uint64_t image;  ///< of an edge image, used in place: nobody allocates it; 0 otherwise
} el_plan;

typedef struct el_model el_model;
typedef struct el_session el_session;

/// Read and check the shape. EL_ERR_UNSUPPORTED names an architecture or feature we do not have.
el_status el_config_from_gguf(el_config *out, const el_gguf *gguf, el_error *err);

/// What keys and values are rounded to in the cache.
typedef enum el_kv_type { EL_KV_F16 = 0, EL_KV_F32 = 1, EL_KV_Q8_0 = 2 } el_kv_type;

/// Exact bytes for a model and one session of `context` positions.
///
/// @param[in] micro_batch  tokens evaluated together, 1 to 512
/// @param[in] threads      threads of the pool that will run it
el_status el_model_plan(el_plan *out, const el_gguf *gguf, size_t context, el_kv_type kv, size_t micro_batch,
                        size_t threads, el_error *err);

/// Fill in only the parts of a session of `context` positions of a model of this shape. A layer with a window
/// keeps the last positions only: window + micro_batch of them, rounded up.
el_status el_session_plan(el_plan *plan, const el_config *config, size_t context, el_kv_type kv,
                          size_t micro_batch, el_error *err);

/// Bytes that el_model_init and el_session_init need; sums of the plan's parts.
uint64_t el_plan_model_bytes(const el_plan *plan);
uint64_t el_plan_session_bytes(const el_plan *plan);

/// Read, check and pack a model into caller-provided memory.
///
/// @param[in] isa     index from el_isa_find: no kernel above it is used
/// @param[in] pool    used for packing now and for every evaluation; outlives the model. NULL for none
/// @param[in] memory  el_plan_model_bytes(plan) zeroed bytes, 64-byte aligned; owned by the caller,
///                    and to be kept until the last session is gone. There is nothing to free.
el_status el_model_init(el_model **out, const el_gguf *gguf, const el_source *source, size_t isa,
                        size_t micro_batch, el_pool *pool, void *memory, uint64_t bytes, el_error *err);

/// As el_model_init, and el_tokenizer_from_gguf at the same time: the pool's first thread builds the
/// tokenizer while the others pack. `*tokenizer` is for el_tokenizer_free; NULL on failure.
el_status el_model_load(el_model **out, el_tokenizer **tokenizer, const el_gguf *gguf,
                        const el_source *source, size_t isa, size_t micro_batch, el_pool *pool, void *memory,
                        uint64_t bytes, el_error *err);

/// Allow kernels outside the arithmetic contract, where this machine has any (el_isa_inexact): faster
/// prefill, other bits. `isa` as given to el_model_init.
void el_model_allow_inexact(el_model *model, size_t isa);

const el_config *el_model_config(const el_model *model);
size_t el_model_micro_batch(const el_model *model);

/// A conversation with a cache of `context` positions, in caller-provided zeroed memory
/// (el_plan_session_bytes of a plan for this context and type), 64-byte aligned.
el_status el_session_init(el_session **out, el_model *model, size_t context, el_kv_type kv, void *memory,
                          uint64_t bytes, el_error *err);

size_t el_session_position(const el_session *session);
size_t el_session_context(const el_session *session);

/// Forget everything from position `length` on. EL_ERR_ARG if it is beyond the position, or if layers with a
/// window have given up what the token after `length` sees. What the last call of el_session_eval appended can
/// always be taken back, and everything can.
el_status el_session_truncate(el_session *session, size_t length, el_error *err);

/// Append tokens and compute logits.
///
/// @param[in]  ids     (n,) each below the vocabulary, 1 <= n <= el_model_micro_batch
/// @param[in]  rows    logits wanted for the last `rows` tokens, 0 <= rows <= n
/// @param[out] logits  (rows, vocab); may be NULL when rows is 0
///
/// EL_ERR_CONTEXT, with nothing changed, if the context would overflow. Bits depend on the tokens
/// and weights only: not on chunks, threads, ISA or other sessions.
el_status el_session_eval(el_session *session, const int32_t *ids, size_t n, size_t rows, float *logits,
                          el_error *err);

/// Tokens of one session in a step of several.
typedef struct el_segment {
    el_session *session;  ///< no two segments of a step have the same
    const int32_t *ids;  ///< (n,) each below the vocabulary
    size_t n;  ///< at least 1
    size_t rows;  ///< logits wanted for the last `rows` tokens, at most n
    float *hidden;  ///< (n, width) all tokens after the final norm, as the head gets them; NULL for none
} el_segment;

/// Append tokens to several sessions of one model at once: weights are read once for all of them.
///
/// @param[in]  segments  (count,) with at most el_model_micro_batch tokens in all
/// @param[out] logits    (sum of rows, vocab), segment after segment; may be NULL when the sum is 0
///
/// On an error nothing has changed in any session. Each session's bits are those it gets alone.
el_status el_batch_eval(el_model *model, const el_segment *segments, size_t count, float *logits,
                        el_error *err);

/// Log-probability of one token per row, and the most likely token (the lowest id of equals).
///
/// @param[in]  logits   (rows, vocab); overwritten with probabilities
/// @param[in]  targets  (rows,) each below the vocabulary
/// @param[out] logprob  (rows,) natural logarithm
/// @param[out] top      (rows,)
/// @param[out] top_prob (rows,) probability of `top`
void el_score(el_model *model, size_t rows, float *logits, const int32_t *targets, double *logprob,
              int32_t *top, float *top_prob);

/// Bytes of a session's state at its position, and copies of it out and in (little-endian machines). Equal
/// states give equal bytes, whatever the contexts. el_session_import checks that the bytes come from this
/// model and a cache of this type, and fit the context; the session then has them and nothing else.
uint64_t el_session_state_bytes(const el_session *session);
void el_session_export(const el_session *session, uint8_t *dst);
el_status el_session_import(el_session *session, const uint8_t *src, uint64_t bytes, el_error *err);

/// What saved bytes say of themselves, before any session is made for them.
typedef struct el_state_facts {
    el_kv_type type;
    uint64_t position;
} el_state_facts;
el_status el_state_read(el_state_facts *out, const uint8_t *src, uint64_t bytes, el_error *err);

/// Make `dst` hold what `src` holds. Both are of one model and one type.
el_status el_session_copy(el_session *dst, const el_session *src, el_error *err);

/// Parts of a state in blocks of EL_STATE_BLOCK positions, so that sessions with a common beginning can share
/// them. Layers with a window (EL_PART_WINDOW) and the others (EL_PART_ALL) are parts of their own.
enum { EL_STATE_BLOCK = 64 };
typedef enum el_state_part { EL_PART_ALL, EL_PART_WINDOW } el_state_part;

/// Bytes of one block's part; 0 where no layer belongs to it.
uint64_t el_session_block_bytes(const el_session *session, el_state_part part);

/// Copy one block out: positions block * EL_STATE_BLOCK and so on. False, with nothing written, where the
/// session has not come so far, or windows have given some of it up.
bool el_session_block_out(const el_session *session, size_t block, el_state_part part, uint8_t *dst);

/// Fill an empty session from blocks: parts EL_PART_ALL of all of `count` blocks, and EL_PART_WINDOW of
/// those that el_session_first_window names and later.
///
/// @param[in] all, window  (count,) of bytes as el_session_block_out gave them for a session of this model and
///                         type that began with the same tokens
///
/// EL_ERR_ARG if the session is not empty, EL_ERR_CONTEXT if they do not fit.
el_status el_session_fill(el_session *session, size_t count, const uint8_t *const *all,
                          const uint8_t *const *window, el_error *err);

/// First block whose window part a session needs to go on after `count` blocks; `count` if it needs none.
size_t el_session_first_window(const el_session *session, size_t count);

EL_API_END

#endif
