/* What the files of this room share. */
#ifndef EL_MODEL_MODEL_H
#define EL_MODEL_MODEL_H

#include "core/pool.h"
#include "core/select.h"
#include "edgellm/edge.h"
#include "edgellm/model.h"
#include "kernels/el_pack.h"
#include "model/family.h"

enum { EL_ALIGN = 64, EL_MAX_MICRO_BATCH = 512, EL_MAX_HEAD_DIM = EL_HEAD_MAX };

/// The gated part of the feed-forward is done in panels of columns; EL_PANEL_TILES for a whole micro-batch,
/// more for fewer rows. Shares of threads end with a block of activations.
enum { EL_PANEL_TILES = 12, EL_PANEL_GRAIN = EL_BLOCK / EL_LANES };

/// Bytes of a file that a loading thread reads at once: enough that the call costs nothing beside the copy,
/// little enough to stay in L2.
enum { EL_READ_BYTES = 1 << 17 };

/// The largest shape that is taken from a file.
enum {
    EL_MAX_LAYERS = 1024,
    EL_MAX_EXTENT = 1 << 20,
    EL_MAX_VOCAB = 1 << 24,
    EL_MAX_CONTEXT = 1 << 24,
    EL_MAX_HEADS = 4096
};

/// A packed weight matrix: n rows (outputs) of k values.
typedef struct el_matrix {
    size_t n;
    size_t k;
    uint32_t type;  ///< GGUF type of the rows it was packed from
    el_layout layout;
    size_t tile_bytes;
    uint8_t *tiles;  ///< (ceil(n / EL_LANES), tile_bytes)
    float *bias;     ///< (n,) added to a product; NULL for none
} el_matrix;

/// Weights of a norm over the width, with those of layer_norm where there is a bias.
typedef struct el_norm {
    float *w, *b;  ///< (width,); b may be NULL
} el_norm;

typedef struct el_layer {
    el_norm attn_norm, ffn_norm;
    float *q_norm, *k_norm;        ///< (head_values,) of the family's head norms; else NULL
    float *attn_post, *ffn_post;   ///< (width,) of its post norms; else NULL
    el_matrix q, k, v, o, gate, up,
        down;  ///< without a gate, `gate` is what the file calls up, and `up` empty
    size_t window;  ///< positions that a token sees, its own included; 0 for all
    size_t rope;    ///< which of a session's tables of frequencies
} el_layer;

/// One token of a step.
typedef struct el_row {
    el_session *session;
    size_t position;
    int32_t id;
    float *hidden;  ///< (width,) of the caller; NULL where it is not wanted
} el_row;

/// Activations of one micro-batch. Rows are tokens.
typedef struct el_scratch {
    el_row *row;                ///< (rows,)
    size_t *logit_row;          ///< (rows,) rows whose logits are wanted
    float *x;                   ///< (rows, width) residual stream
    float *norm;                ///< (rows, width); a product before the residual, too
    float *q, *k, *v;           ///< (rows, heads d), (rows, kv_heads d) twice
    float *att;                 ///< (rows, heads d)
    float *gate;  ///< (rows, ffn) where `down` wants floats; shares memory with q, k, v and att
    float *panel;  ///< (threads, 2, rows * EL_PANEL_TILES * EL_LANES)
    el_act_q8 *act;  ///< (rows, act_stride)
    el_act_q8 *ffn_act;  ///< (rows, ffn_stride)
    el_act_q8 *own_act;  ///< (threads, act_stride) for a single token
    float *own_norm;  ///< (threads, width)
    float *cs;  ///< (rows, el_rope_kinds, rope_dims / 2, 2)
    size_t *offset;  ///< (rows * group,) of the attention kernel
    size_t *last;  ///< (rows * group,)
    uint8_t *staging;  ///< (threads, staging_bytes) while loading; shares memory with all above
} el_scratch;

struct el_model {
    el_config config;
    const el_family *family;
    el_kernels kernels;
    el_kernels many;       ///< for products of EL_MANY_ROWS rows or more
    el_pool *pool;
    size_t micro_batch;
    size_t act_stride;  ///< activation blocks per row of scratch.act
    size_t ffn_stride;  ///< and of scratch.ffn_act
    size_t head_tiles;  ///< fewest tiles of q and k with whole heads where heads are normalised; else 1
    size_t block_tiles;  ///< a multiple that cuts no block of a cache of q8_0 either
    size_t staging_bytes;  ///< of one loading thread; at least the widest sixteen rows of the file
    uint64_t fingerprint;  ///< of shape and weights, for saved sessions
    const double *inv_freq;  ///< (el_rope_tables, rope_dims / 2) radians per position
    el_layer *layers;  ///< (config.layers,)
    el_norm out_norm;
    el_matrix embed;
    el_matrix positions;  ///< (context, width) of a family that learns them; else empty
    el_matrix head;  ///< the same tiles as `embed` when tied
    el_scratch scratch;
};

/// The cache of a layer: position p is at place p mod `ring` of each head.
typedef struct el_cache {
    uint8_t *keys;  ///< (kv_heads, keys then values, half_bytes)
    size_t ring;  ///< a multiple of EL_KEY_BLOCK
    size_t half_bytes;  ///< of the keys, or of the values, of one head
} el_cache;

struct el_session {
    el_model *model;
    size_t capacity;  ///< positions asked for
    size_t position;
    size_t oldest;  ///< the least that it can be truncated to and go on from, but 0: below, windows are gone
    size_t rope;  ///< its first table of frequencies: 1 where the context is longer than rope_original
    el_kv_type type;
    el_cache cache[];  ///< (config.layers,)
};

/// What is needed can be addressed: on a machine of 32 bits a plan may be more than there are addresses,
/// whatever memory the caller says to have.
el_status el_check_addressable(uint64_t needed, el_error *err);

/// Bytes of one position's keys, or values, of one head.
size_t el_kv_row_bytes(const el_config *config, el_kv_type type);

/// n positions were appended.
void el_session_advance(el_session *session, size_t n);

/// Lays out all parts of a model one after the other. With base NULL it only counts.
/// On the second pass the pointers of `model` are set. docs: plan and load use this one
/// function, so that what was planned is what is used. One of gguf and edge is set; the weights
/// of an edge image stay where they are.
el_status el_model_layout(el_model *model, const el_gguf *gguf, const el_edge *edge, size_t threads,
                          uint8_t *base, el_plan *plan, el_error *err);

/// Read and pack every tensor of a model whose layout is done, in `bytes` of memory that start with it;
/// meanwhile build the tokenizer where `tokenizer` is not NULL.
el_status el_weights_load(el_model *model, const el_gguf *gguf, const el_source *source,
                          el_tokenizer **tokenizer, uint64_t bytes, el_error *err);

/// The part of a model's fingerprint that one packed tile adds (a sum, so that the order of threads does
/// not matter), and the fingerprint that a sum and a shape make.
uint64_t el_fingerprint_tile(size_t tile, const uint8_t *packed, size_t tile_bytes);
uint64_t el_fingerprint(const el_config *config, uint64_t sum);

/// Values of a head with zeros up to what kernels take.
static inline uint32_t el_head_dim(uint32_t values) { return (values + 7) / 8 * 8; }

/// One tensor of a model: what it is called, how large it must be, and where it goes.
/// Exactly one of matrix and vector is set.
typedef struct el_part {
    const char *name;
    size_t n;  ///< rows (outputs) of a matrix; 1 of a vector
    size_t k;  ///< values per row
    el_matrix *matrix;
    float **vector;
    el_need need;
    const char *fused;  ///< tensor that holds it where a GGUF has none of its name, or always if it is that
    size_t first;  ///< its first row there (value of a vector)
    size_t fused_n;  ///< rows there
    size_t head;  ///< rows of a head (columns where `across`) when packed; 0: all stay as they are
    size_t values;  ///< of them, those that a file has; the others are zero
    size_t rotated;  ///< leading rows of a head of which a file has two halves, which become neighbours
    bool across;  ///< heads are made of columns
} el_part;

/// Call `visit` for every tensor of the model in execution order; stops at the first failure. Visits also
/// tensors that may be missing.
typedef el_status el_part_fn(void *arg, const el_part *part, el_error *err);
el_status el_model_visit(el_model *model, el_part_fn *visit, void *arg, el_error *err);

/// Whether a model of this shape may have a tensor of this name.
bool el_part_known(const el_config *config, el_view name);

/// Where a GGUF has a part.
typedef struct el_found {
    const el_gguf_tensor *tensor;  ///< NULL if the file has none
    size_t first;  ///< row (value of a vector) where the part begins
    size_t row_bytes;  ///< of a matrix, with the zeros between heads; of a whole vector in the file
    size_t read_bytes;  ///< of a row of a matrix in the file
} el_found;

/// Find a part and check its shape and type. EL_ERR_FORMAT names a tensor that is missing and must not be.
el_status el_part_find(el_found *out, const el_gguf *gguf, const el_part *part, el_error *err);

/// Read rows [row, row + n) of a matrix as packing wants them, or a whole vector; false if the file ended.
///
/// @param[in]  staging  row_bytes bytes
bool el_part_read_rows(const el_found *found, const el_part *part, const el_source *source, size_t row,
                       size_t n, uint8_t *rows);
bool el_part_read_vector(const el_found *found, const el_part *part, const el_source *source,
                         uint8_t *staging, float *values);

/// Check tensor number *i of an image against the part that it must be, and point the part at it. *next is
/// where it must start. Both move on, unless the part may be missing and is.
el_status el_edge_place(const el_edge *edge, size_t *i, const el_part *part, uint64_t *next, el_error *err);

/// Name of the packed layout of a tensor type ("q4_0x16"), with zeros after it.
void el_layout_name(uint32_t type, char out[12]);

/// Keys of one head of one layer; the values follow at + cache[layer].half_bytes.
static inline uint8_t *el_session_keys(const el_session *s, size_t layer, size_t head)
{
    return s->cache[layer].keys + head * 2 * s->cache[layer].half_bytes;
}

#endif
