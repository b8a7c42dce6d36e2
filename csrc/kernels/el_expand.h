/* The integers of GGUF blocks that are packed as q8_sx16. Private to el_pack.c. */
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

/// One file block: `bytes` long, holding `blocks` times 32 values.
typedef struct el_expander {
    uint32_t type;
    size_t blocks, bytes;
    void (*expand)(const uint8_t *src, el_expanded *out);
} el_expander;

/// NULL if the type has none.
const el_expander *el_expand_find(uint32_t type);

#endif
