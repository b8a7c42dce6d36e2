/* The fields of GGUF blocks, one block of 32 values at a time. Private to packing. */
#ifndef EL_EXPAND_H
#define EL_EXPAND_H

#include "kernels/el_layout.h"

/// 32 values as el_blocks.h stores them: scales as in the layout, integers unsigned.
typedef struct el_expanded {
    uint16_t d, m;    ///< bits of the f16
    uint8_t s[2];     ///< sub-scales of the two halves (i8 of q3_k and q6_k), or sn of q2_k
    uint8_t n;        ///< sub-minimum
    uint8_t q[EL_BLOCK];
} el_expanded;

/// What a GGUF type's blocks are: `bytes` long, holding `blocks` times 32 values, packed into `layout`.
/// bytes is 0 if the type has no quantized layout.
typedef struct el_expand_size {
    size_t blocks, bytes;
    el_layout layout;
} el_expand_size;

el_expand_size el_expand_get_size(uint32_t type);

/// Expand one block of the file into `blocks` entries, which the caller has zeroed.
void el_expand(uint32_t type, const uint8_t *src, el_expanded *out);

#endif
