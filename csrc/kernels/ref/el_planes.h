/* One lane of a packed tile, read slowly: shared by the specification of the products and by unpacking. */
#ifndef EL_PLANES_H
#define EL_PLANES_H

#include "kernels/el_layout.h"
#include "kernels/el_math.h"

static inline float el_lane_f16(const uint8_t *part, size_t at, size_t lane)
{
    return el_f16_to_f32(el_load_u16(part + (at * EL_LANES + lane) * 2));
}

/// The stored integers of one block, four at a time: `q` is the planes of the block.
static inline void el_lane_stored(el_shape shape, const uint8_t *q, size_t lane, uint8_t v[EL_BLOCK])
{
    uint32_t low[8], high[2] = {0};  // this lane's word of each group of a plane
    for (size_t g = 0; g < shape.low; g++) memcpy(&low[g], q + g * 64 + lane * 4, 4);
    for (size_t g = 0; g < shape.high; g++) memcpy(&high[g], q + (shape.low + g) * 64u + lane * 4, 4);

    for (size_t g = 0; g < 8; g++) {  // values 4g .. 4g + 3
        uint32_t word = low[g % shape.low];
        if (shape.low == 4) word = word >> (g / 4 * 4) & 0x0F0F0F0F;
        if (shape.low == 2) word = word >> (g / 2 * 2) & 0x03030303;
        if (shape.high == 2) word |= (high[g % 2] >> (g / 2 * 2) & 0x03030303) << shape.low;
        if (shape.high == 1) word |= (high[0] >> g & 0x01010101) << shape.low;
        memcpy(v + g * 4, &word, 4);
    }
}

/// The integers of one block as the weight's formula has them (el_blocks.h).
static inline void el_lane_values(el_layout layout, const uint8_t *q, size_t lane, int8_t v[EL_BLOCK])
{
    static const int8_t iq4_nl[16] = EL_IQ4_NL_VALUES;
    uint8_t stored[EL_BLOCK];
    el_lane_stored(el_shape_of(layout), q, lane, stored);
    const int zero = layout == EL_LAYOUT_Q4_0X16    ? 8
                     : layout == EL_LAYOUT_Q8_0X16  ? 128
                     : layout == EL_LAYOUT_Q5_0X16  ? 16
                     : layout == EL_LAYOUT_Q3_KX16  ? 4
                     : layout == EL_LAYOUT_Q6_KX16  ? 32
                     : layout == EL_LAYOUT_TQ2_0X16 ? 1
                                                    : 0;
    for (size_t j = 0; j < EL_BLOCK; j++) {
        v[j] = layout == EL_LAYOUT_IQ4_NLX16 ? iq4_nl[stored[j]] : (int8_t)(stored[j] - zero);
    }
}

#endif
