/* The edge image: a model packed for a family of machines, used where it lies (a map, flash, RAM).
 * docs/formats.md has every field. Nothing here allocates, and an image is only ever read.
 *
 * A C program: el_edge_parse, el_edge_plan, memory for el_plan_model_bytes(plan) and
 * el_plan_session_bytes(plan), el_model_from_edge, el_edge_tokenizer, el_session_init; then
 * el_tokenizer_encode_into and el_session_eval. Hashes and the signature are for the program that
 * installs images: parsing checks structure, so that any bytes are safe to use, not that they are
 * the bytes somebody made. */
#ifndef EDGELLM_EDGE_H
#define EDGELLM_EDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/model.h"
#include "edgellm/pool.h"
#include "edgellm/status.h"
#include "edgellm/tokenizer.h"
#include "edgellm/view.h"

EL_API_BEGIN

enum {
    EL_EDGE_MAGIC_BYTES = 8,
    EL_EDGE_FORMAT = 1,      ///< version of the format that this build reads and writes
    EL_EDGE_ALIGN = 64,      ///< of an image in memory, of its sections and of its tensors
    EL_EDGE_SECTIONS = 7,
    EL_EDGE_HASH_BYTES = 32,      ///< SHA-256
    EL_EDGE_SIGNATURE_BYTES = 64  ///< Ed25519
};

/// Machines an image may be made for. The packed bytes are the same for all; the tag says which
/// kernels must be there, so that an image is refused where it would be slow beyond its purpose.
typedef enum el_machine {
    EL_MACHINE_PORTABLE = 0,    ///< "portable": needs no more than `ref`
    EL_MACHINE_X86_AVX2 = 1,    ///< "x86-avx2": needs `avx2`
    EL_MACHINE_X86_AVX512 = 2,  ///< "x86-avx512": needs `avx512vnni`
    EL_MACHINE_AARCH64 = 3      ///< "aarch64": needs `neon`
} el_machine;

/// Name of a machine, and the instruction set it needs; NULL if `machine` is none of el_machine's.
const char *el_machine_name(uint32_t machine);
const char *el_machine_isa(uint32_t machine);

/// Find a machine by name. EL_ERR_ARG names the known ones.
el_status el_machine_find(const char *name, el_machine *out, el_error *err);

/// A stretch of the image and the SHA-256 of all its bytes, the zeros up to the next included.
/// The weights' hash is that of their tensors' hashes, one after the other.
typedef struct el_edge_section {
    uint64_t offset;
    uint64_t bytes;  ///< up to the next section, or to the end of the file
    uint64_t used;   ///< without the zeros at its end
    const uint8_t *sha256;
} el_edge_section;

/// The sections, in the order of the file.
enum {
    EL_EDGE_CONFIG,
    EL_EDGE_INFO,
    EL_EDGE_PLAN,
    EL_EDGE_ROPE,
    EL_EDGE_TOKENIZER,
    EL_EDGE_TENSORS,
    EL_EDGE_WEIGHTS
};

/// Bytes by part, as they were for the program that wrote the image (64 bits, one thread); for
/// people and for planning a fleet. el_edge_plan says what holds here.
typedef struct el_edge_figures {
    uint64_t weights, scratch, tables, session;
    uint64_t kv_f16, kv_f32;  ///< cache of one position
    uint32_t micro_batch;     ///< that `scratch` is for
} el_edge_figures;

/// A parsed image: facts, and views of the caller's bytes, which must outlive it.
typedef struct el_edge {
    const uint8_t *image;
    uint64_t bytes;
    el_machine machine;
    uint32_t numerics;     ///< el_numerics version it was made under; equal to EL_NUMERICS
    uint32_t version;      ///< of the image, chosen by its maker
    bool is_signed;
    size_t manifest_bytes;     ///< image[0, manifest_bytes) is what the signature signs
    const uint8_t *signature;  ///< (EL_EDGE_SIGNATURE_BYTES,) zeros where there is none
    el_edge_section sections[EL_EDGE_SECTIONS];
    el_config config;
    uint64_t fingerprint;  ///< of shape and weights, for saved sessions
    el_edge_figures figures;
    el_view name, licence, chat_template, requantized_from;  ///< UTF-8; size 0 where absent
    const double *inv_freq;    ///< (tables, rope_dims / 2) radians per position: docs/formats.md
    size_t n_tensors;
} el_edge;

/// One tensor: n rows of k values, packed from a GGUF type; a norm has n = 1.
typedef struct el_edge_tensor {
    el_view name;
    uint32_t type;
    uint32_t n, k;
    uint64_t offset;  ///< from the start of the image
    uint64_t bytes;   ///< a multiple of EL_EDGE_ALIGN
    const uint8_t *sha256;
} el_edge_tensor;

/// Whether a file that starts with these bytes means to be an edge image.
bool el_edge_is_image(const uint8_t first[EL_EDGE_MAGIC_BYTES]);

/// Bytes of the image that starts here, for flash that knows no file sizes; `bytes` are readable, 1024 are
/// enough. EL_ERR_FORMAT if it is none. Pass *file_bytes on to el_edge_parse only if so many are there.
el_status el_edge_size(const void *image, uint64_t bytes, uint64_t *file_bytes, el_error *err);

/// Check the structure of an image of `bytes` bytes: every count, offset, size, shape and tensor, against
/// each other and against the bytes that are there. Weights and tokenizer tables are not read.
///
/// @param[in] image  a multiple of EL_EDGE_ALIGN; little-endian machines only
///
/// EL_ERR_FORMAT says what is wrong; EL_ERR_UNSUPPORTED names a version, layout or architecture
/// that this build lacks. Allocates nothing; O(sections + tensors).
el_status el_edge_parse(el_edge *out, const void *image, uint64_t bytes, el_error *err);

/// Tensor number `i` in execution order; EL_ERR_ARG beyond n_tensors.
el_status el_edge_tensor_get(const el_edge *edge, size_t i, el_edge_tensor *out, el_error *err);

/// EL_OK if the kernels that the image asks for may be used: built, run by this CPU, not above `isa`.
/// Otherwise EL_ERR_UNSUPPORTED names machine, need and cap.
el_status el_edge_check_isa(const el_edge *edge, size_t isa, el_error *err);

/// Exact bytes for the model and one session of `context` positions; `image` is what is used in place,
/// and `weights` is 0.
///
/// @param[in] micro_batch  tokens evaluated together, 1 to 512
/// @param[in] threads      threads of the pool that will run it; 1 without a pool
el_status el_edge_plan(el_plan *out, const el_edge *edge, size_t context, el_kv_type kv, size_t micro_batch,
                       size_t threads, el_error *err);

/// A model that uses the image's weights where they are. The image outlives the model and is never written.
///
/// @param[in] isa     index from el_isa_find: no kernel above it is used; checked as el_edge_check_isa
/// @param[in] pool    used for every evaluation; outlives the model. NULL: the calling thread alone
/// @param[in] memory  el_plan_model_bytes(plan) zeroed bytes, 64-byte aligned; owned by the caller and
///                    kept until the last session is gone. There is nothing to free.
el_status el_model_from_edge(el_model **out, const el_edge *edge, size_t isa, size_t micro_batch,
                             el_pool *pool, void *memory, uint64_t bytes, el_error *err);

/// The image's tokenizer, whose tables are used in place. Every index in them is checked first, O(tables).
///
/// @param[out] place  caller's memory, which the tokenizer needs as long as it is used. There is nothing to
///                    free: never call el_tokenizer_free on it.
el_status el_edge_tokenizer(const el_tokenizer **out, const el_edge *edge, el_tokenizer_place *place,
                            el_error *err);

EL_API_END

#endif
