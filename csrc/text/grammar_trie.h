/* The tokens of a vocabulary as a tree of bytes. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_TRIE_H
#define EL_TEXT_GRAMMAR_TRIE_H

#include <stdbool.h>

#include "edgellm/grammar.h"

/// Nodes stand in the order of a walk: a node, then all below it. Node 0 is the root, of no bytes.
struct el_token_trie {
    const el_tokenizer *tok;
    size_t n_tokens;       // of the vocabulary
    size_t n_nodes;
    const uint8_t *bytes;  // (n_nodes,) last byte of a node
    const uint8_t *depths; // (n_nodes,) bytes of a node
    const uint32_t *ends;  // (n_nodes,) first node that is not below
    const uint32_t *rows;  // (n_nodes + 1,) ids[rows[i], rows[i + 1]): tokens of exactly these bytes
    const int32_t *ids;
    const int32_t *end_ids;  // (n_ends,) where a text ends
    size_t n_ends;
    uint64_t single[4];    // bytes that a token has by itself
    size_t memory_bytes;
};

/// Whether a token is text: neither control, unknown, unused or an end, nor empty or too long.
bool el_trie_has(const el_token_trie *trie, int32_t id);

#endif
