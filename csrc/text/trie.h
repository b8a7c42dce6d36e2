/* All texts that may be tokens, as a tree of their bytes, level by level in three arrays. A space is written as a
 * space, whether the file spells it so or as U+2581. Private to csrc/text. */
#ifndef EL_TEXT_TRIE_H
#define EL_TEXT_TRIE_H

#include <stdbool.h>

#include "text/vocab.h"

/// U+2581, which sentencepiece writes for a space.
#define EL_SPACE_MARK "\xE2\x96\x81"
#define EL_SPACE_MARK_BYTES 3

static inline bool el_is_space_mark(const uint8_t *s, size_t n)
{
    return n >= EL_SPACE_MARK_BYTES && s[0] == 0xE2 && s[1] == 0x96 && s[2] == 0x81;
}

/// Child of a node by one byte; 0, which is the root, if it has none.
static inline uint32_t el_trie_child(const el_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t low = trie->first[node];
    uint32_t n = trie->first[node + 1] - low;
    if (n == 0) return 0;
    while (n > 1) {
        const uint32_t half = n / 2;
        low = trie->labels[low + half] <= byte ? low + half : low;
        n -= half;
    }
    return trie->labels[low] == byte ? low : 0;
}

/// Node that s[0, n) leads to from `node`, or 0.
static inline uint32_t el_trie_walk(const el_trie *trie, uint32_t node, const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        node = el_trie_child(trie, node, s[i]);
        if (node == 0) return 0;
    }
    return node;
}

/// Whether some token has the byte `b` after the byte `a`. Where none has, no token reaches across: what is before
/// and what is after can be encoded each by itself.
static inline bool el_joins(const uint8_t *joins, uint8_t a, uint8_t b)
{
    return (joins[a * 32u + b / 8u] >> (b % 8u) & 1u) != 0;
}

#define EL_JOINS_BYTES 8192u

/// Nodes of the tree of texts keys[order[0, n)], which ascend and are not empty. UINT64_MAX: too many.
uint64_t el_trie_count(const el_view *keys, const int32_t *order, size_t n);

/// Fill the arrays of a tree with that many nodes; of equal texts the last in `order` is the token.
void el_trie_fill(const el_view *keys, const int32_t *order, size_t n, uint32_t *first, uint8_t *labels,
                  int32_t *ids);

#endif
