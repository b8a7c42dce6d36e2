/* The packed layouts by name, and where the parts of a tile are. el_blocks.h draws them. */
#ifndef EL_LAYOUT_H
#define EL_LAYOUT_H

#include <stdbool.h>

#include "kernels/el_blocks.h"

typedef enum el_layout {
    EL_LAYOUT_F32X16,
    EL_LAYOUT_F16X16,
    EL_LAYOUT_BF16X16,
    EL_LAYOUT_Q4_0X16,  // from here on with 8-bit activations
    EL_LAYOUT_Q4_1X16,
    EL_LAYOUT_Q8_0X16,
    EL_LAYOUT_Q5_0X16,
    EL_LAYOUT_Q5_1X16,
    EL_LAYOUT_IQ4_NLX16,
    EL_LAYOUT_Q4_KX16,
    EL_LAYOUT_Q5_KX16,
    EL_LAYOUT_Q2_KX16,
    EL_LAYOUT_Q3_KX16,
    EL_LAYOUT_Q6_KX16,
    EL_LAYOUT_TQ2_0X16,
    EL_LAYOUTS
} el_layout;

static inline bool el_layout_is_q8(el_layout layout) { return layout >= EL_LAYOUT_Q4_0X16; }

/// How a quantized layout stores a block of 32 values of EL_LANES rows.
typedef struct el_shape {
    uint16_t q;     ///< bytes of the planes
    uint8_t low;    ///< bits per value in the first plane: 8 (bytes), 4 (nibbles) or 2 (crumbs)
    uint8_t high;   ///< bits per value in the second plane: 2 (crumbs), 1 (bits) or 0 (none)
    uint8_t s, n;   ///< bytes of sub-scales and of sub-minima
    bool minima;    ///< has f16 m beside f16 d
    bool super;     ///< f16 d and m are per super-block
} el_shape;

static inline el_shape el_shape_of(el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_Q4_0X16: return (el_shape){256, 4, 0, 0, 0, false, false};
    case EL_LAYOUT_Q4_1X16: return (el_shape){256, 4, 0, 0, 0, true, false};
    case EL_LAYOUT_Q8_0X16: return (el_shape){512, 8, 0, 0, 0, false, false};
    case EL_LAYOUT_Q5_0X16: return (el_shape){320, 4, 1, 0, 0, false, false};
    case EL_LAYOUT_Q5_1X16: return (el_shape){320, 4, 1, 0, 0, true, false};
    case EL_LAYOUT_IQ4_NLX16: return (el_shape){256, 4, 0, 0, 0, false, false};
    case EL_LAYOUT_Q4_KX16: return (el_shape){256, 4, 0, 16, 16, true, true};
    case EL_LAYOUT_Q5_KX16: return (el_shape){320, 4, 1, 16, 16, true, true};
    case EL_LAYOUT_Q2_KX16: return (el_shape){128, 2, 0, 32, 0, true, true};
    case EL_LAYOUT_Q3_KX16: return (el_shape){192, 2, 1, 32, 0, false, true};
    case EL_LAYOUT_Q6_KX16: return (el_shape){384, 4, 2, 32, 0, false, true};
    case EL_LAYOUT_TQ2_0X16: return (el_shape){128, 2, 0, 0, 0, false, true};
    default: return (el_shape){0, 0, 0, 0, 0, false, false};
    }
}

/// Byte offsets of the parts of a tile of a quantized layout; d is at 0. Parts that the layout lacks are
/// empty: they start where the next one does.
typedef struct el_parts {
    size_t m, s, n, q, bytes;
} el_parts;

static inline el_parts el_parts_of(el_shape shape, size_t k)
{
    const size_t blocks = k / EL_BLOCK, heads = shape.super ? k / EL_SUPER : blocks;
    const size_t d_bytes = el_round_up(heads * 32, 64);
    el_parts p;
    p.m = d_bytes;
    p.s = p.m + (shape.minima ? d_bytes : 0);
    p.n = p.s + el_round_up(blocks * shape.s, 64);
    p.q = p.n + el_round_up(blocks * shape.n, 64);
    p.bytes = p.q + blocks * shape.q;
    return p;
}

#endif
