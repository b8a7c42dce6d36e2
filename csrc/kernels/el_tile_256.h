/* Tiles of packed weights for kernels with 256-bit registers: eight rows, half a tile, to a register. */
#ifndef EL_TILE_256_H
#define EL_TILE_256_H

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_layout.h"

/// What a block adds to the result (docs/numerics.md, gemm_q8).
typedef enum el_form {
    EL_PLAIN,      ///< d dot
    EL_MIN,        ///< d dot + m sum
    EL_SUB_MIN,    ///< d s dot - m n sum
    EL_HALVES,     ///< d (s0 dot_lo + s1 dot_hi)
    EL_HALVES_MIN  ///< d (s0 dot_lo + s1 dot_hi) - m (n0 sum_lo + n1 sum_hi)
} el_form;

EL_INLINE el_form el_form_of(el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_Q4_1X16:
    case EL_LAYOUT_Q5_1X16: return EL_MIN;
    case EL_LAYOUT_Q4_KX16:
    case EL_LAYOUT_Q5_KX16: return EL_SUB_MIN;
    case EL_LAYOUT_Q3_KX16:
    case EL_LAYOUT_Q6_KX16: return EL_HALVES;
    case EL_LAYOUT_Q2_KX16: return EL_HALVES_MIN;
    default: return EL_PLAIN;
    }
}

/// What the tile's unsigned integers have on top of the values that numerics.md speaks of.
EL_INLINE int el_bias_of(el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_Q4_0X16: return 8;
    case EL_LAYOUT_Q5_0X16: return 16;
    case EL_LAYOUT_Q8_0X16:
    case EL_LAYOUT_IQ4_NLX16: return 128;
    case EL_LAYOUT_Q3_KX16: return 4;
    case EL_LAYOUT_Q6_KX16: return 32;
    case EL_LAYOUT_TQ2_0X16: return 1;
    default: return 0;
    }
}

/// Where the parts of one tile are. `s` are sub-scales (q2_k: and sub-minima), `n` sub-minima.
typedef struct el_tile {
    const uint8_t *d, *m, *s, *n, *q;
} el_tile;

/// The parts of a tile, and its size.
EL_INLINE el_tile el_view_tile(el_layout layout, size_t k, const uint8_t *tile, size_t *bytes)
{
    const el_parts p = el_parts_of(el_shape_of(layout), k);
    *bytes = p.bytes;
    return (el_tile){tile, tile + p.m, tile + p.s, tile + p.n, tile + p.q};
}

/// Bytes of a tile for each of its blocks.
EL_INLINE size_t el_block_bytes_of(el_layout layout)
{
    const el_shape shape = el_shape_of(layout);
    const size_t scales = (shape.minima ? 64 : 32) / (shape.super ? EL_SUPER / EL_BLOCK : 1);
    return shape.q + scales + shape.s + shape.n;
}

/// One block of eight rows, unpacked.
typedef struct el_half {
    __m256i w[8];  ///< integers plus a bias; value 4g + j of row r is byte 4r + j of w[g]
    __m256 d, m;
    __m256 s[2];  ///< SUB_MIN: s and n; HALVES: s0 and s1
    __m256i n;    ///< HALVES_MIN: 16-bit pairs n0, n1
} el_half;

EL_INLINE __m256i el_load_256(const uint8_t *p) { return _mm256_load_si256((const __m256i *)p); }

EL_INLINE __m256i el_u8x8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

EL_INLINE __m256 el_i8x8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

// Move bits of every byte left by `by` (right where negative), a constant; `mask` says which are wanted.
EL_INLINE __m256i el_shifted(__m256i bytes, int by, int mask)
{
    const __m256i moved = by >= 0 ? _mm256_slli_epi16(bytes, by) : _mm256_srli_epi16(bytes, -by);
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

EL_INLINE void el_unpack_nibbles(const uint8_t *q, __m256i w[8])
{
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        const __m256i pair = el_load_256(q + g * 64);
        w[g] = _mm256_and_si256(pair, _mm256_set1_epi8(15));
        w[g + 4] = el_shifted(pair, -4, 15);
    }
}

// w = crumbs << at, or added to what is there.
EL_INLINE void el_unpack_crumbs(const uint8_t *q, int at, bool add, __m256i w[8])
{
#pragma GCC unroll 2
    for (size_t c = 0; c < 2; c++) {
        const __m256i four = el_load_256(q + c * 64);
#pragma GCC unroll 4
        for (size_t s = 0; s < 4; s++) {
            const __m256i crumb = el_shifted(four, at - 2 * (int)s, 3 << at);
            w[2 * s + c] = add ? _mm256_or_si256(w[2 * s + c], crumb) : crumb;
        }
    }
}

// w += bit << at
EL_INLINE void el_add_bits(const uint8_t *q, int at, __m256i w[8])
{
    const __m256i bits = el_load_256(q);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) w[g] = _mm256_or_si256(w[g], el_shifted(bits, at - g, 1 << at));
}

/// IQ4_NL's values plus a bias, twice.
EL_INLINE __m256i el_codebook(int bias)
{
    static const int8_t values[16] = EL_IQ4_NL_VALUES;
    const __m128i v = _mm_loadu_si128((const __m128i *)values);
    return _mm256_add_epi8(_mm256_broadcastsi128_si256(v), _mm256_set1_epi8((char)bias));
}

/// The integers of rows 8 * half .. 8 * half + 7 of block b, plus `bias` modulo 256.
EL_INLINE void el_unpack_w(el_layout layout, int bias, const el_tile *t, size_t b, size_t half, __m256i w[8])
{
    const uint8_t *q = t->q + b * el_shape_of(layout).q + half * 32;
    const int add = bias - el_bias_of(layout);
    switch (layout) {
    case EL_LAYOUT_Q8_0X16:
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) w[g] = el_load_256(q + g * 64);
        break;
    case EL_LAYOUT_Q2_KX16:
    case EL_LAYOUT_TQ2_0X16: el_unpack_crumbs(q, 0, false, w); break;
    case EL_LAYOUT_Q3_KX16:
        el_unpack_crumbs(q, 0, false, w);
        el_add_bits(q + 128, 2, w);
        break;
    default: el_unpack_nibbles(q, w); break;
    }
    if (layout == EL_LAYOUT_Q5_0X16 || layout == EL_LAYOUT_Q5_1X16 || layout == EL_LAYOUT_Q5_KX16)
        el_add_bits(q + 256, 4, w);
    if (layout == EL_LAYOUT_Q6_KX16) el_unpack_crumbs(q + 256, 4, true, w);
    if (layout == EL_LAYOUT_IQ4_NLX16) {
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) w[g] = _mm256_shuffle_epi8(el_codebook(bias), w[g]);
    } else if (add != 0) {
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) w[g] = _mm256_add_epi8(w[g], _mm256_set1_epi8((char)add));
    }
}

/// The scales of the same rows and block.
EL_INLINE void el_unpack_scales(el_layout layout, const el_tile *t, size_t b, size_t half, el_half *h)
{
    const el_shape shape = el_shape_of(layout);
    const size_t at = (shape.super ? b / (EL_SUPER / EL_BLOCK) : b) * 32 + half * 16;
    const uint8_t *s = t->s + b * shape.s + half * 8, *n = t->n + b * shape.n + half * 8;
    h->d = el_f16x8(t->d + at);
    if (shape.minima) h->m = el_f16x8(t->m + at);
    switch (el_form_of(layout)) {
    case EL_SUB_MIN:
        h->s[0] = _mm256_cvtepi32_ps(el_u8x8(s));
        h->s[1] = _mm256_cvtepi32_ps(el_u8x8(n));
        break;
    case EL_HALVES:
        h->s[0] = el_i8x8(s);
        h->s[1] = el_i8x8(s + 16);
        break;
    case EL_HALVES_MIN: {
        const __m256i lo = el_u8x8(s), hi = el_u8x8(s + 16), low = _mm256_set1_epi32(15);
        h->s[0] = _mm256_cvtepi32_ps(_mm256_and_si256(lo, low));
        h->s[1] = _mm256_cvtepi32_ps(_mm256_and_si256(hi, low));
        h->n = _mm256_or_si256(_mm256_srli_epi32(lo, 4), _mm256_slli_epi32(_mm256_srli_epi32(hi, 4), 16));
        break;
    }
    default: break;
    }
}

#endif
