/* Finding a token by its text, and sorting by text, while a tokenizer is built. */
#ifndef EL_TEXT_INDEX_H
#define EL_TEXT_INDEX_H

#include <stdbool.h>

#include "text/vocab.h"

/// A hash table of texts, or sorted ids where a file's texts crowd the table: chosen collisions cost
/// no more than sorting does.
typedef struct el_text_index {
    const el_view *texts;
    size_t n;
    uint64_t *slots;   ///< (mask + 1,) upper 32 bits of the hash, then id + 1; 0 is free
    size_t mask;
    int32_t *sorted;   ///< (n,) instead of slots; NULL if the table serves
    bool distinct;     ///< no text occurs twice
} el_text_index;

/// EL_ERR_NOMEM; then, too, el_text_index_free releases what was taken.
el_status el_text_index_build(el_text_index *index, const el_view *texts, size_t n);
void el_text_index_free(el_text_index *index);

/// Hash of a text, and of a text that goes on: el_text_hash(el_text_hash(0, a), b) is that of a followed by b.
uint64_t el_text_hash(uint64_t before, el_view text);

/// The last id whose text is a followed by b, or -1; `hash` is that of the whole.
int32_t el_text_find(const el_text_index *index, el_view a, el_view b, uint64_t hash);

/// Sort ids by texts[id], stably, in O(n log n) comparisons. EL_ERR_NOMEM.
el_status el_text_sort(const el_view *texts, int32_t *ids, size_t n);

/// Whether `id` is the one that el_text_find would find for a followed by b; false if it cannot tell.
bool el_text_is(const el_text_index *index, int32_t id, el_view a, el_view b);

#endif
