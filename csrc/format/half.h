#ifndef EL_FORMAT_HALF_H
#define EL_FORMAT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float el_bits_to_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t el_f32_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float el_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t rest = h & 0x7FFF;
    if (rest >= 0x7C00) return el_bits_to_f32(sign | 0x7F800000 | (rest & 0x3FF) << 13);
    if (rest >= 0x0400) return el_bits_to_f32(sign | ((rest << 13) + (112u << 23)));
    return el_bits_to_f32(sign | el_f32_to_bits((float)rest * 0x1p-24f));
}

static inline uint16_t el_f32_to_f16(float value)
{
    const uint32_t bits = el_f32_to_bits(value);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (rest >> 13 & 0x1FF));
    if (rest >= 0x477FF000) return (uint16_t)(sign | 0x7C00);
    if (rest >= 0x38800000)
        return (uint16_t)(sign | ((rest - (112u << 23) + 0xFFF + (rest >> 13 & 1)) >> 13));
    const float magic = el_bits_to_f32(rest) + 0.5f;  // rounds to multiples of 2^-24, half to even
    return (uint16_t)(sign | (el_f32_to_bits(magic) - 0x3F000000));
}

#endif
