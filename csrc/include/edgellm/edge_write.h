/* Making an edge image from a GGUF. The core writes no files and knows no hashes: the caller streams what
 * this packs, fills in SHA-256 where it is told to, signs, and writes the head last. */
#ifndef EDGELLM_EDGE_WRITE_H
#define EDGELLM_EDGE_WRITE_H

#include "edgellm/api.h"
#include "edgellm/edge.h"
#include "edgellm/gguf.h"

EL_API_BEGIN

typedef struct el_edge_writer el_edge_writer;

/// A part of the image and where its hash stands: a section before the weights, or a tensor.
typedef struct el_edge_piece {
    el_view name;
    uint32_t type;  ///< of a tensor
    uint64_t offset, bytes;
    uint64_t hash_offset;
    uint64_t tiles, tile_bytes;  ///< of a tensor: what el_edge_writer_pack counts; a norm is one tile
} el_edge_piece;

/// Lay an image out. The bytes are the same for the same GGUF, machine and version, on every machine
/// whose pointers have 64 bits; elsewhere the figures for people differ (el_edge_figures), and their hash.
/// The GGUF outlives the writer. Errors as el_model_plan and el_tokenizer_from_gguf.
el_status el_edge_writer_new(el_edge_writer **out, const el_gguf *gguf, const el_source *source,
                             el_machine machine, uint32_t version, bool is_signed, el_error *err);

/// Accepts NULL.
void el_edge_writer_free(el_edge_writer *writer);

/// Everything before the weights: complete but for hashes, signature and, until el_edge_writer_seal, the
/// fingerprint. The caller writes hashes and signature into it.
uint8_t *el_edge_writer_head(el_edge_writer *writer, uint64_t *bytes);

size_t el_edge_writer_tensors(const el_edge_writer *writer);

/// Tensor i, or with i counted from 0 to EL_EDGE_SECTIONS - 1 a section (the last is the weights).
void el_edge_writer_tensor(const el_edge_writer *writer, size_t i, el_edge_piece *out);
void el_edge_writer_section(const el_edge_writer *writer, size_t i, el_edge_piece *out);

/// Pack tiles [first, first + tiles) of tensor i; each tile of the image once, in any order.
///
/// @param[out] dst  tiles * tile_bytes bytes, 64-byte aligned
el_status el_edge_writer_pack(el_edge_writer *writer, size_t i, uint64_t first, uint64_t tiles, uint8_t *dst,
                              el_error *err);

/// All tiles are packed: write the fingerprint. Hash the config section after it.
void el_edge_writer_seal(el_edge_writer *writer);

EL_API_END

#endif
