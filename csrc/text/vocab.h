/* What a built tokenizer holds. Private to csrc/text. */
#ifndef EL_TEXT_VOCAB_H
#define EL_TEXT_VOCAB_H

#include "edgellm/tokenizer.h"
#include "text/pretokenize.h"

#define EL_NO_RANK 0xFFFFFFFFu
#define EL_TYPE_MASK 0x0Fu  ///< type in `kinds`
#define EL_KIND_END 0x80u    ///< generation ends at this token
#define EL_KIND_STRIP 0x40u  ///< spaces that follow this token in a text are part of it

/// How a vocabulary makes tokens of plain text. The numbers are part of the image format.
typedef enum el_vocab_kind {
    EL_VOCAB_BPE = 1,  ///< byte-level BPE: merges by rank, inside the pieces of a pre-tokenizer
    EL_VOCAB_SPM = 2,  ///< SentencePiece BPE: merges by score
    EL_VOCAB_UNIGRAM = 3,  ///< SentencePiece unigram: the spelling of the highest sum of scores
} el_vocab_kind;

/// Ids and ranks fit in 32 bits with room to spare.
#define EL_MAX_TOKENS (1u << 24)
#define EL_MAX_MERGES (1u << 26)
#define EL_MAX_NODES (1u << 26)

/// Merge of rank i, by ids.
typedef struct el_merge {
    int32_t left, right, result;
} el_merge;

/// One partner of a left token.
typedef struct el_partner {
    int32_t right;
    uint32_t rank;
} el_partner;

/// Tree of the texts that may be tokens (trie.h). Children of node v: nodes first[v] to first[v + 1].
typedef struct el_trie {
    const uint32_t *first;  ///< (n_nodes + 1,)
    const uint8_t *labels;  ///< (n_nodes,) byte that leads to a node
    const int32_t *ids;     ///< (n_nodes,) token that ends there, or -1
} el_trie;

/// Views of one block of tables (tables.h), which the tokenizer owns if el_tokenizer_new made it.
struct el_tokenizer {
    el_vocab_kind kind;
    const el_pre *pre;  // NULL unless BPE
    el_tokenizer_info info;
    const uint8_t *block;

    const char *pool;         // bytes of all tokens, one after the other
    const uint32_t *starts;   // starts[id]: (n_tokens + 1,) offsets into pool
    const uint8_t *kinds;     // kinds[id]: EL_TOKEN_* | EL_KIND_END
    const int32_t *byte_ids;  // (256,) token of each single byte, or -1

    const float *scores;   // scores[id]: (n_tokens,); NULL if BPE, as
    el_trie trie;          // these
    el_view charsmap;      // the normaliser; empty if there is none
    float unknown_score;   // unigram: of a character that is no token
    const uint8_t *joins;  // (65536 bits) whether a token has byte b after byte a: bit 256 a + b

    const el_merge *merges;      // merges[rank]: (n_merges,)
    const uint32_t *rows;        // rows[left]: (n_tokens + 1,) offsets into partners
    const el_partner *partners;  // (n_merges,) by left, right, rank

    const int32_t *specials;  // (n_specials,) special tokens by text
    size_t n_specials;
    const uint32_t *special_rows;  // (257,) specials of first byte b: [special_rows[b], special_rows[b + 1])

    const int32_t *by_bytes;  // (n_by_bytes,) tokens by their bytes; only where a whole piece is looked up
    size_t n_by_bytes;
};

/// Bytes of a token; `id` is in range.
static inline el_view el_vocab_bytes(const el_tokenizer *tok, int32_t id)
{
    const uint32_t start = tok->starts[id];
    return (el_view){tok->pool + start, tok->starts[id + 1] - start};
}

/// Byte order, a prefix first.
int el_vocab_compare(el_view a, el_view b);

/// The last of the ids, sorted by their bytes, that have these bytes, or -1.
int32_t el_vocab_find(const el_tokenizer *tok, const int32_t *ids, size_t n, el_view bytes);

/// Rank of a pair of tokens, or EL_NO_RANK.
uint32_t el_vocab_rank(const el_tokenizer *tok, int32_t left, int32_t right);

/// Longest special token that s[0, n) starts with, or -1. Control tokens only with `parse_control`.
int32_t el_vocab_special_at(const el_tokenizer *tok, const uint8_t *s, size_t n, int parse_control);

#endif
