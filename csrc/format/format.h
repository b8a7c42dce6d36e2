/* What the files of this room share. */
#ifndef EL_FORMAT_H
#define EL_FORMAT_H

#include "edgellm/gguf.h"
#include "edgellm/quant.h"

/// Name of a tensor type that GGUF files may hold and we cannot read ("IQ2_XXS"); NULL if the
/// number means nothing to us.
const char *el_type_foreign_name(uint32_t type);

/// A parsed header with its indices. The public part comes first, so that one pointer serves both.
typedef struct el_gguf_whole {
    el_gguf gguf;
    el_gguf_kv *kv;
    el_gguf_tensor *tensors;
    const el_view **by_key;   ///< the kv entries by key; each pointer is also an el_gguf_kv's
    const el_view **by_name;  ///< the tensors by name
} el_gguf_whole;

/// Order of two views: memcmp, then length.
int el_view_compare(const el_view *a, const el_view *b);

/// True if the view is well-formed UTF-8 without control characters (so without NUL).
bool el_view_is_text(el_view view);

/// Sort pointers in O(n log n) whatever the order (heapsort: hostile files choose the input).
typedef int el_compare_fn(const el_view *a, const el_view *b);
void el_sort_views(const el_view **items, size_t n, el_compare_fn *compare);

/// Little-endian reads from any address.
static inline uint32_t el_read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t el_read_u64(const uint8_t *p)
{
    return (uint64_t)el_read_u32(p) | (uint64_t)el_read_u32(p + 4) << 32;
}

#endif
