/* The tables of a tokenizer as one block of bytes: what building makes on the heap and what an edge
 * image holds are the same, so that an image's tokenizer is used where it lies. docs/formats.md. */
#ifndef EL_TEXT_TABLES_H
#define EL_TEXT_TABLES_H

#include "text/vocab.h"

/// First bytes of the block; little-endian, as all of it.
typedef struct el_tables_head {
    uint32_t n_tokens, n_merges, n_specials, n_by_bytes, pool_bytes;
    int32_t bos, eos, eot, unk, pad;  ///< -1 where absent
    uint32_t add_bos, add_eos;        ///< 0 or 1
    char pre[32];                     ///< name of the pre-tokenizer, zeros after it; all zeros unless BPE
    uint32_t kind;                    ///< el_vocab_kind
    uint32_t n_nodes;                 ///< 0 if BPE
    uint32_t add_space_prefix;        ///< 0 or 1
    uint32_t remove_extra_whitespaces;  ///< 0 or 1
    uint32_t charsmap_bytes;          ///< 0 if there is no normaliser
    float unknown_score;              ///< 0 unless unigram
    uint32_t reserved[6];             ///< zero
} el_tables_head;

/// Where each table starts, in bytes; all are multiples of 64. Order and extents:
/// byte_ids i32[256], special_rows u32[257], starts u32[n_tokens + 1], merges i32[n_merges][3],
/// rows u32[n_tokens + 1], partners (i32, u32)[n_merges], specials i32[n_specials],
/// by_bytes i32[n_by_bytes], scores f32[n_tokens], first u32[n_nodes + 1], node_ids i32[n_nodes],
/// labels u8[n_nodes], joins u8[8192], charsmap u8[charsmap_bytes], kinds u8[n_tokens], pool u8[pool_bytes].
/// Only BPE has rows, only the other kinds have the six from scores to charsmap.
typedef struct el_tables_map {
    uint64_t byte_ids, special_rows, starts, merges, rows, partners, specials, by_bytes;
    uint64_t scores, first, node_ids, labels, joins, charsmap, kinds, pool, end;
} el_tables_map;

/// Counts are below 2^32, so nothing overflows.
el_tables_map el_tables_place(const el_tables_head *head);

/// Point a tokenizer at the block, whose head is sound. Nothing is read but the head.
void el_tables_attach(el_tokenizer *tok, const uint8_t *block, const el_pre *pre);

/// A tokenizer over a block from outside, in the caller's memory. Every count, offset and index is
/// checked first. `tables` is a multiple of 4 (64 in an image).
el_status el_tables_open(const el_tokenizer **out, const uint8_t *tables, uint64_t bytes,
                         el_tokenizer_place *place, el_error *err);

/// The block of a tokenizer.
el_view el_tables_of(const el_tokenizer *tok);

#endif
