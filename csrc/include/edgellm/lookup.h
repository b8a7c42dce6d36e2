/* Guessing what a text goes on with from where it has been before: drafts for speculative decoding. */
#ifndef EDGELLM_LOOKUP_H
#define EDGELLM_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"

EL_API_BEGIN

/// A text of tokens, indexed by its pairs of neighbours.
typedef struct el_lookup el_lookup;

/// Bytes that el_lookup_init needs for a text of up to `capacity` tokens, aligned to 8; 0 if that is absurd
/// (more than 2^30).
size_t el_lookup_bytes(size_t capacity);

/// An empty text in caller-provided memory.
el_lookup *el_lookup_init(void *memory, size_t capacity);

/// Append tokens, those beyond the capacity left out.
void el_lookup_push(el_lookup *lookup, const int32_t *ids, size_t n);

/// Guess the next tokens: those that followed the longest earlier occurrence of the text's end, the latest
/// one of equals.
///
/// @param[in]  limit   most tokens to guess
/// @param[out] out     (limit,)
/// @param[out] length  tokens of the end that were found, at least 2; 0 if nothing is guessed
/// @return             tokens guessed: `limit`, or 0. A guess that reaches the end of the text repeats itself.
///
/// Time is bounded: of occurrences only the latest few dozen are looked at.
size_t el_lookup_guess(const el_lookup *lookup, size_t limit, int32_t *out, size_t *length);

EL_API_END

#endif
