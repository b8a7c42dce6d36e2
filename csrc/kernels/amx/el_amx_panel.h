/* A chunk of k of one tile of packed weights, decoded to what the tile unit and the scale pass want. */
#ifndef EL_AMX_PANEL_H
#define EL_AMX_PANEL_H

#include "kernels/amx/el_amx.h"
#include "kernels/el_layout.h"

enum {
    EL_CHUNK = 24,      ///< blocks of k in a panel
    EL_CHUNK_HALVES = 16  ///< the same where a block takes two tiles
};

/// What a block adds to the result, after decoding (docs/numerics.md, gemm_q8).
typedef enum el_form {
    EL_PLAIN,    ///< d dot
    EL_MIN,      ///< d dot + m sum
    EL_SUB_MIN,  ///< d (s dot) + m (n sum); m is stored negated
    EL_MIN_2,    ///< d dot + m (n0 sum_lo + n1 sum_hi); m is stored negated
    EL_HALVES    ///< d (s0 dot_lo + s1 dot_hi)
} el_form;

/// B tiles of signed bytes, [8][16][4] each: row g, lane r holds values 4g .. 4g + 3. A block is one tile;
/// for EL_HALVES it is two, each with zeros for the other half.
/// Scales are one float per block and lane, whatever the file's granularity.
typedef struct el_panel {
    _Alignas(64) int8_t q[2 * EL_CHUNK_HALVES][512];
    _Alignas(64) float d[EL_CHUNK][EL_LANES];
    float m[EL_CHUNK][EL_LANES];
    float s[EL_CHUNK][EL_LANES];  ///< EL_SUB_MIN: s; EL_HALVES: s0; EL_MIN_2: n0
    float n[EL_CHUNK][EL_LANES];  ///< EL_SUB_MIN: n; EL_HALVES: s1; EL_MIN_2: n1
} el_panel;

EL_INLINE el_form el_form_of(el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_Q4_1X16:
    case EL_LAYOUT_Q5_1X16: return EL_MIN;
    case EL_LAYOUT_Q4_KX16:
    case EL_LAYOUT_Q5_KX16: return EL_SUB_MIN;
    case EL_LAYOUT_Q2_KX16: return EL_MIN_2;
    case EL_LAYOUT_Q6_KX16: return EL_HALVES;
    default: return EL_PLAIN;  // q3_k too: its sub-scales are multiplied into the bytes
    }
}

/// Every byte shifted left by `by` (right where negative), then masked.
EL_INLINE __m512i el_bits_at(__m512i x, int by, char mask)
{
    __m512i y = x;
    switch (by) {  // bits that cross into a neighbouring byte are masked off
    case 4: y = _mm512_slli_epi16(x, 4); break;
    case 3: y = _mm512_slli_epi16(x, 3); break;
    case 2: y = _mm512_slli_epi16(x, 2); break;
    case 1: y = _mm512_slli_epi16(x, 1); break;
    case -1: y = _mm512_srli_epi16(x, 1); break;
    case -2: y = _mm512_srli_epi16(x, 2); break;
    case -3: y = _mm512_srli_epi16(x, 3); break;
    case -4: y = _mm512_srli_epi16(x, 4); break;
    case -5: y = _mm512_srli_epi16(x, 5); break;
    case -6: y = _mm512_srli_epi16(x, 6); break;
    default: break;
    }
    return _mm512_and_si512(y, _mm512_set1_epi8(mask));
}

/// The unsigned integers of one block, value 4g + j in byte j of w[g].
EL_INLINE void el_decode_bits(el_shape shape, const uint8_t *q, __m512i w[8])
{
    const __m512i *plane = (const __m512i *)q;
    const __m512i bits = shape.high == 1 ? plane[shape.low] : plane[0];  // of 4 nibble or 2 crumb vectors
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        if (shape.low == 8) w[g] = plane[g];
        if (shape.low == 4) w[g] = el_bits_at(plane[g & 3], g < 4 ? 0 : -4, 15);
        if (shape.low == 2) w[g] = el_bits_at(plane[g & 1], -(g & 6), 3);
        const int to = shape.low == 4 ? 4 : 2;  // where the second plane's bits belong
        if (shape.high == 1) w[g] = _mm512_or_si512(w[g], el_bits_at(bits, to - g, (char)(1 << to)));
        if (shape.high == 2) w[g] = _mm512_or_si512(w[g], el_bits_at(plane[4 + (g & 1)], 4 - (g & 6), 0x30));
    }
}

/// Bytes times a 16-bit factor that both halves of a lane of `s` hold; the low 8 bits of each product.
EL_INLINE __m512i el_mul_bytes(__m512i u, __m512i s)
{
    const __m512i high = _mm512_set1_epi16((short)0xFF00);
    const __m512i even = _mm512_mullo_epi16(u, s), odd = _mm512_mullo_epi16(_mm512_and_si512(u, high), s);
    return _mm512_ternarylogic_epi32(high, odd, even, 0xCA);  // high ? odd : even
}

EL_INLINE __m512i el_twice_i16(__m512i x)
{
    return _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi32(0xFFFF)), _mm512_slli_epi32(x, 16));
}

EL_INLINE __m512i el_load_i8x16(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}

EL_INLINE __m512i el_load_u8x16(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/// q2_k: |s q| <= 15 * 3. q3_k: -s (q - 4) = 4 s - s q lies in -128 .. 124, but its negative may be 128; so
/// the bytes are the negatives, and so is d.
EL_INLINE void el_multiply_scales(el_layout layout, const uint8_t *scales, __m512i w[8])
{
    for (int half = 0; half < 2; half++) {
        __m512i s = el_load_i8x16(scales + half * EL_LANES), offset = _mm512_setzero_si512();
        if (layout == EL_LAYOUT_Q2_KX16) s = _mm512_and_si512(s, _mm512_set1_epi32(15));
        if (layout == EL_LAYOUT_Q3_KX16) {
            const __m512i first = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
            offset = _mm512_shuffle_epi8(_mm512_slli_epi32(s, 2), first);
        }
        s = el_twice_i16(s);
#pragma GCC unroll 4
        for (int g = 4 * half; g < 4 * half + 4; g++) {
            w[g] = el_mul_bytes(w[g], s);
            if (layout == EL_LAYOUT_Q3_KX16) w[g] = _mm512_sub_epi8(offset, w[g]);
        }
    }
}

EL_INLINE void el_make_signed(el_layout layout, const uint8_t *scales, __m512i w[8])
{
    static const int8_t values[16] = EL_IQ4_NL_VALUES;
    const int offset = layout == EL_LAYOUT_Q4_0X16   ? 8
                       : layout == EL_LAYOUT_Q5_0X16 ? 16
                       : layout == EL_LAYOUT_Q8_0X16 ? 128
                       : layout == EL_LAYOUT_Q6_KX16 ? 32
                                                     : layout == EL_LAYOUT_TQ2_0X16;
    if (layout == EL_LAYOUT_IQ4_NLX16) {
        const __m512i codebook = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)values));
        for (size_t g = 0; g < 8; g++) w[g] = _mm512_shuffle_epi8(codebook, w[g]);
    } else if (layout == EL_LAYOUT_Q2_KX16 || layout == EL_LAYOUT_Q3_KX16) {
        el_multiply_scales(layout, scales, w);
    } else if (offset != 0) {
        for (size_t g = 0; g < 8; g++) w[g] = _mm512_sub_epi8(w[g], _mm512_set1_epi8((char)offset));
    }
}

/// The floats of block b of the tile, block i of the panel.
EL_INLINE void el_decode_scales(el_layout layout, const uint8_t *tile, el_parts at, size_t b, size_t i,
                                el_panel *out)
{
    const el_shape shape = el_shape_of(layout);
    const el_form form = el_form_of(layout);
    const size_t head = (shape.super ? b / (EL_SUPER / EL_BLOCK) : b) * 32;
    const __m512 minus = _mm512_set1_ps(-0.0f);
    __m512 d = el_f16x16(tile + head);
    if (layout == EL_LAYOUT_Q3_KX16) d = _mm512_xor_ps(d, minus);
    _mm512_store_ps(out->d[i], d);
    if (shape.minima) {
        const __m512 m = el_f16x16(tile + at.m + head);
        _mm512_store_ps(out->m[i], form == EL_MIN ? m : _mm512_xor_ps(m, minus));
    }
    const uint8_t *s = tile + at.s + b * shape.s;
    if (form == EL_SUB_MIN) {
        _mm512_store_ps(out->s[i], _mm512_cvtepi32_ps(el_load_u8x16(s)));
        _mm512_store_ps(out->n[i], _mm512_cvtepi32_ps(el_load_u8x16(tile + at.n + b * shape.n)));
    } else if (form == EL_HALVES) {
        _mm512_store_ps(out->s[i], _mm512_cvtepi32_ps(el_load_i8x16(s)));
        _mm512_store_ps(out->n[i], _mm512_cvtepi32_ps(el_load_i8x16(s + EL_LANES)));
    } else if (form == EL_MIN_2) {
        _mm512_store_ps(out->s[i], _mm512_cvtepi32_ps(_mm512_srli_epi32(el_load_u8x16(s), 4)));
        _mm512_store_ps(out->n[i], _mm512_cvtepi32_ps(_mm512_srli_epi32(el_load_u8x16(s + EL_LANES), 4)));
    }
}

/// Blocks first .. first + count - 1 of a tile. `layout` is a constant after inlining.
EL_INLINE void el_decode(el_layout layout, const uint8_t *tile, el_parts at, size_t first, size_t count,
                         el_panel *out)
{
    const el_shape shape = el_shape_of(layout);
    const bool halves = el_form_of(layout) == EL_HALVES;
    for (size_t i = 0; i < count; i++) {
        const size_t b = first + i;
        __m512i w[8];
        el_decode_bits(shape, tile + at.q + b * shape.q, w);
        el_make_signed(layout, tile + at.s + b * shape.s, w);
        int8_t *q = out->q[halves ? 2 * i : i];
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) {
            if (halves) _mm512_store_si512(q + (g < 4 ? 512 : 0) + g * 64, _mm512_setzero_si512());
            _mm512_store_si512(q + (halves && g >= 4 ? 512 : 0) + g * 64, w[g]);
        }
        el_decode_scales(layout, tile, at, b, i, out);
    }
}

#define EL_DECODE(layout)                                                                                    \
    case layout: el_decode(layout, tile, at, first, count, out); break;

/// el_decode for a layout that is no constant. One per file that includes this.
static __attribute__((noinline)) void el_decode_any(el_layout layout, const uint8_t *tile, el_parts at,
                                                    size_t first, size_t count, el_panel *out)
{
    switch (layout) {
        EL_DECODE(EL_LAYOUT_Q4_0X16)
        EL_DECODE(EL_LAYOUT_Q4_1X16)
        EL_DECODE(EL_LAYOUT_Q8_0X16)
        EL_DECODE(EL_LAYOUT_Q5_0X16)
        EL_DECODE(EL_LAYOUT_Q5_1X16)
        EL_DECODE(EL_LAYOUT_IQ4_NLX16)
        EL_DECODE(EL_LAYOUT_Q4_KX16)
        EL_DECODE(EL_LAYOUT_Q5_KX16)
        EL_DECODE(EL_LAYOUT_Q2_KX16)
        EL_DECODE(EL_LAYOUT_Q3_KX16)
        EL_DECODE(EL_LAYOUT_Q6_KX16)
        EL_DECODE(EL_LAYOUT_TQ2_0X16)
    default: break;
    }
}
#undef EL_DECODE

/// A block of zeros: what it adds is zero, and acc + 0 is acc, since acc is never -0 (numerics.md).
EL_INLINE void el_decode_nothing(size_t i, el_panel *out)
{
    memset(out->q[i], 0, sizeof out->q[i]);
    memset(out->d[i], 0, sizeof out->d[i]);
    memset(out->m[i], 0, sizeof out->m[i]);
    memset(out->s[i], 0, sizeof out->s[i]);
    memset(out->n[i], 0, sizeof out->n[i]);
}

#endif
