/* What building a tokenizer needs, shared by the kinds of vocabulary. Private to csrc/text. */
#ifndef EL_TEXT_BUILD_H
#define EL_TEXT_BUILD_H

#include "text/index.h"
#include "text/tables.h"

/// The tables are written through these pointers; the tokenizer reads them.
typedef struct el_builder {
    const el_vocab_source *source;
    el_vocab_kind kind;
    const el_pre *pre;
    el_tables_head head;
    int32_t *listed;  // (head.n_specials,)

    el_text_index index;  // BPE only
    el_view *keys;        // (n_tokens,) texts as the tree has them; only other kinds, as
    char *key_bytes;      // their bytes and
    int32_t *order;       // (n_order,) ids in the tree by their keys
    size_t n_order;

    el_tokenizer *tok;
    uint8_t *block;
    int32_t *byte_ids;
    uint32_t *special_rows, *starts, *rows;
    el_merge *merges;
    el_partner *partners;
    int32_t *specials, *by_bytes;
    float *scores;
    uint32_t *first;
    int32_t *node_ids;
    uint8_t *labels, *joins, *charsmap, *kinds;
    char *pool;
} el_builder;

/// EL_TOKEN_* of a token.
unsigned el_build_type(const el_builder *b, size_t id);

/// Value of "<0x41>" and the like, or -1.
int el_build_byte(el_view text);

/// Bytes that a token stands for, at most text.size of them, written to `out` where that is not NULL. A text that
/// is not spelt as its kind does, and any special one, stands for itself. `*spelt` is 1 if it was spelt so.
size_t el_build_spell_bpe(el_view text, unsigned type, char *out, int *spelt);
size_t el_build_spell_spm(el_view text, unsigned type, char *out);

/// Before the block is there: what decides its size. After: its tables.
el_status el_build_measure_tree(el_builder *b, el_error *err);
void el_build_fill_tree(el_builder *b);
el_status el_build_fill_bpe(el_builder *b, el_error *err);

#endif
