/* The fields of GGUF super-blocks, a lane of a block at a time. Private to packing. */
#ifndef EL_EXPAND_H
#define EL_EXPAND_H

#include "kernels/el_layout.h"

/// One row's share of one block of a tile, as el_blocks.h stores it.
typedef struct el_expanded {
    uint32_t
        q[6];  ///< its words of the planes: bytes j = 0..3 of the groups of the first, then of the second
    uint16_t d, m;  ///< bits of the f16
    uint8_t s[2];   ///< sub-scales of the two halves (i8 of q3_k and q6_k), or sn of q2_k
    uint8_t n;      ///< sub-minimum
} el_expanded;

/// Super-blocks of a GGUF type: bytes of one in the file (0 if the type has none), and its layout.
typedef struct el_expand_size {
    size_t bytes;
    el_layout layout;
} el_expand_size;

el_expand_size el_expand_get_size(uint32_t type);

/// Expand one super-block of the file. Fields that the layout lacks are not written.
void el_expand(uint32_t type, const uint8_t *src, el_expanded out[EL_SUPER / EL_BLOCK]);

#endif
