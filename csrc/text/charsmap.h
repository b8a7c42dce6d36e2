/* The normaliser that sentencepiece compiles into a model: what stands for which characters. Private to csrc/text. */
#ifndef EL_TEXT_CHARSMAP_H
#define EL_TEXT_CHARSMAP_H

#include <stdbool.h>

#include "text/vocab.h"

/// A replacement has at most this many times the bytes that it replaces (Unicode's longest, of U+FDFA, has 11 times);
/// a longer one is not applied.
#define EL_CHARSMAP_GROWTH 12u

#define EL_MAX_CHARSMAP_BYTES ((size_t)1 << 28)

/// Whether the bytes can be used: a length and so many bytes of trie, then texts, each ended by a zero. What the trie
/// says is checked when it is followed.
bool el_charsmap_sound(el_view map);

/// Longest start of s[0, n), n > 0, that the map replaces: its length, or 0. `*out` is what stands for it.
size_t el_charsmap_match(el_view map, const uint8_t *s, size_t n, el_view *out);

#endif
