/* The integers of GGUF blocks that are packed as q8_sx16. Private to pack_ref.c. */
#ifndef EL_EXPAND_H
#define EL_EXPAND_H

#include "kernels/el_blocks.h"

enum { EL_SUPER = 256 };  ///< values of a K-quant or ternary super-block

/// 32 values: d * s[j / 16] * q[j] - m * n[j / 16].
typedef struct el_expanded {
    float d, m;
    int8_t s[2];
    uint8_t n[2];
    int8_t q[EL_BLOCK];
} el_expanded;

/// One block of the file: `bytes` long, holding `blocks` times 32 values; zeros if the type has none.
typedef struct el_expand_size {
    size_t blocks, bytes;
} el_expand_size;

el_expand_size el_expand_get_size(uint32_t type);

/// Expand one block of the file into `blocks` entries, which the caller has zeroed.
void el_expand(uint32_t type, const uint8_t *src, el_expanded *out);

#endif
