/* The body of gemm_q8_*: lanes are rows of W, so nothing is added across lanes. vpdpbusd multiplies
 * unsigned by signed bytes without saturation: weights are stored unsigned, and a type's offset is repaid
 * by minus the offset times the exact sum(x), which starts the dot product.
 *
 * The activation operand is four bytes broadcast from memory inside the instruction, so it costs no vector
 * port. vpdpbusd takes five cycles and two start in each: the sums of a block walk over its eight groups
 * side by side, one sum per row of X, since the core's window is too short to find that order by itself.
 * Each function's `kind` and `rows` are constants after inlining. */
#ifndef EL_GEMM_Q8_AVX512VNNI_H
#define EL_GEMM_Q8_AVX512VNNI_H

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"
#include "kernels/el_layout.h"

enum { EL_ROWS = 12, EL_AHEAD = 8192 };  // rows of X per pass; bytes of weights prefetched ahead

/// Scales of one block, or of its super-block.
typedef struct el_scales {
    __m512 d, m;
    __m512 s[2];  // sub-scales of the halves; s[0] alone where they share one
    __m512i n;    // sub-minima: of the halves as pairs of 16 bits, or one of 32 bits
} el_scales;

/// What unsigned storage added to the values of a layout.
EL_INLINE int32_t offset_of(el_layout kind)
{
    switch (kind) {
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

/// Shift bits to the left (or right, where `by` is negative); what crosses bytes is masked later.
EL_INLINE __m512i shift(__m512i v, int by)
{
    return by > 0 ? _mm512_slli_epi16(v, (unsigned)by) : by < 0 ? _mm512_srli_epi16(v, (unsigned)-by) : v;
}

/// The stored integers 4g .. 4g + 3 of all lanes (of iq4_nl, codebook + 128).
EL_INLINE __m512i unpack(el_layout kind, const uint8_t *q, int g)
{
    const el_shape shape = el_shape_of(kind);
    const __m512i low = _mm512_set1_epi8((char)((1 << shape.low) - 1));
    const __m512i all = _mm512_set1_epi8((char)((1 << (shape.low + shape.high)) - 1));
    const uint8_t *high = q + shape.low * 64;
    if (shape.low == 8) return _mm512_load_si512(q + g * 64);

    __m512i w = shape.low == 4 ? shift(_mm512_load_si512(q + g % 4 * 64), -(g / 4 * 4))
                               : shift(_mm512_load_si512(q + g % 2 * 64), -(g / 2 * 2));
    if (shape.high != 0) {
        const __m512i h = shape.high == 1
                              ? shift(_mm512_load_si512(high), shape.low - g)
                              : shift(_mm512_load_si512(high + g % 2 * 64), shape.low - g / 2 * 2);
        w = _mm512_ternarylogic_epi32(low, w, h, 0xCA);  // low ? w : h
    }
    w = _mm512_and_si512(w, all);
    if (kind == EL_LAYOUT_IQ4_NLX16) {
        static const int8_t values[16] = EL_IQ4_NL_VALUES;
        const __m512i codebook = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)values));
        w = _mm512_shuffle_epi8(_mm512_xor_si512(codebook, _mm512_set1_epi8(-128)), w);
    }
    return w;
}

EL_INLINE __m512i load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

EL_INLINE __m512 load_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

EL_INLINE void load_scales(el_layout kind, const uint8_t *tile, el_parts at, size_t b, el_scales *w)
{
    const el_shape shape = el_shape_of(kind);
    const uint8_t *s = tile + at.s + b * shape.s;
    if (!shape.super || b % (EL_SUPER / EL_BLOCK) == 0) {
        const size_t head = (shape.super ? b / (EL_SUPER / EL_BLOCK) : b) * 32;
        w->d = el_f16x16(tile + head);
        if (shape.minima) w->m = el_f16x16(tile + at.m + head);
    }
    if (kind == EL_LAYOUT_Q4_KX16 || kind == EL_LAYOUT_Q5_KX16) {
        w->s[0] = _mm512_cvtepi32_ps(load_u8(s));
        w->n = load_u8(tile + at.n + b * shape.n);
    }
    if (kind == EL_LAYOUT_Q3_KX16 || kind == EL_LAYOUT_Q6_KX16) {
        w->s[0] = load_i8(s);
        w->s[1] = load_i8(s + 16);
    }
    if (kind == EL_LAYOUT_Q2_KX16) {
        const __m512i low = _mm512_set1_epi32(15), first = load_u8(s), second = load_u8(s + 16);
        w->s[0] = _mm512_cvtepi32_ps(_mm512_and_si512(first, low));
        w->s[1] = _mm512_cvtepi32_ps(_mm512_and_si512(second, low));
        w->n =
            _mm512_or_si512(_mm512_srli_epi32(first, 4), _mm512_slli_epi32(_mm512_srli_epi32(second, 4), 16));
    }
}

/// vpdpbusd with its operand broadcast from memory, which gcc 12 does not make of the intrinsics.
EL_INLINE __m512i dot4(__m512i acc, __m512i w, const int8_t *x)
{
    typedef int32_t __attribute__((may_alias, aligned(1))) four;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const four *)x));
    return acc;
}

/// acc plus `factor` times the sum in memory, whose low half is all of it: both are products of 16 bits.
EL_INLINE __m512i add_sum(__m512i acc, int32_t factor, const int32_t *sum)
{
    if (factor == 0) return acc;
    const __m512i factors = _mm512_set1_epi32((uint16_t)factor);
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(factors), "m"(*sum));
    return acc;
}

/// acc + scale dx v with the contract's two roundings.
EL_INLINE __m512 scaled(__m512 acc, __m512 scale, float dx, __m512 v)
{
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(dx)), v, acc);
}

/// acc - m dx v
EL_INLINE __m512 unscaled(__m512 acc, __m512 m, float dx, __m512i v)
{
    return _mm512_fnmadd_ps(_mm512_mul_ps(m, _mm512_set1_ps(dx)), _mm512_cvtepi32_ps(v), acc);
}

/// Row r of a pass. Twelve rows are addressed by four pointers and the stride: all fit in registers.
EL_INLINE const el_act_q8 *row_of(const uint8_t *const x[4], size_t stride_bytes, size_t r)
{
    return (const el_act_q8 *)(x[r / 3] + r % 3 * stride_bytes);
}

/// One block of layouts whose halves share their scales. Products and sums of integers in float are exact:
/// they stay below 2^24 (numerics.md).
EL_INLINE void block_whole(el_layout kind, size_t rows, const uint8_t *q, const el_scales *c,
                           const uint8_t *const x[4], size_t stride_bytes, __m512 acc[EL_ROWS])
{
    __m512i dot[EL_ROWS];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        dot[r] = add_sum(_mm512_setzero_si512(), -offset_of(kind), &row_of(x, stride_bytes, r)->sum);
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        const __m512i w = unpack(kind, q, g);
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) dot[r] = dot4(dot[r], w, row_of(x, stride_bytes, r)->q + g * 4);
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        const el_act_q8 *xr = row_of(x, stride_bytes, r);
        const __m512i sum = _mm512_set1_epi32(xr->sum);
        const __m512 v = _mm512_cvtepi32_ps(dot[r]);
        if (kind == EL_LAYOUT_Q4_KX16 || kind == EL_LAYOUT_Q5_KX16) {
            acc[r] = scaled(acc[r], c->d, xr->scale, _mm512_mul_ps(v, c->s[0]));
            acc[r] = unscaled(acc[r], c->m, xr->scale, _mm512_madd_epi16(c->n, sum));  // |sum| < 2^15
            continue;
        }
        acc[r] = scaled(acc[r], c->d, xr->scale, v);
        if (kind == EL_LAYOUT_Q4_1X16 || kind == EL_LAYOUT_Q5_1X16)
            acc[r] = scaled(acc[r], c->m, xr->scale, _mm512_cvtepi32_ps(sum));
    }
}

/// One block of layouts with a sub-scale per half.
EL_INLINE void block_halves(el_layout kind, size_t rows, const uint8_t *q, const el_scales *c,
                            const uint8_t *const x[4], size_t stride_bytes, __m512 acc[EL_ROWS])
{
    __m512i dot[EL_ROWS];
    __m512 v[EL_ROWS];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            const el_act_q8 *xr = row_of(x, stride_bytes, r);
            dot[r] = _mm512_set1_epi32(-offset_of(kind) * (h == 0 ? xr->sum_lo : xr->sum - xr->sum_lo));
        }
#pragma GCC unroll 4
        for (int g = h * 4; g < h * 4 + 4; g++) {
            const __m512i w = unpack(kind, q, g);
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) dot[r] = dot4(dot[r], w, row_of(x, stride_bytes, r)->q + g * 4);
        }
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            const __m512 half = _mm512_cvtepi32_ps(dot[r]);
            v[r] = h == 0 ? _mm512_mul_ps(half, c->s[0]) : _mm512_fmadd_ps(half, c->s[1], v[r]);
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        const el_act_q8 *xr = row_of(x, stride_bytes, r);
        acc[r] = scaled(acc[r], c->d, xr->scale, v[r]);
        if (kind == EL_LAYOUT_Q2_KX16) {
            const uint32_t sums = (uint32_t)(xr->sum - xr->sum_lo) << 16 | (uint16_t)xr->sum_lo;
            acc[r] =
                unscaled(acc[r], c->m, xr->scale, _mm512_madd_epi16(c->n, _mm512_set1_epi32((int32_t)sums)));
        }
    }
}

/// One tile times `live` rows of X in a pass for `rows`. Where rows are missing, the last threes begin
/// earlier and some rows are done twice. `ahead` is where this tile's share of the prefetch starts, or NULL.
EL_INLINE void tile_rows(el_layout kind, size_t rows, size_t live, size_t blocks, const uint8_t *tile,
                         const uint8_t *ahead, const el_act_q8 *x, size_t x_stride, float *y, size_t y_stride,
                         __mmask16 mask)
{
    const el_shape shape = el_shape_of(kind);
    const el_parts at = el_parts_of(shape, blocks * EL_BLOCK);
    const size_t heads = shape.minima ? 64 : 32, stride_bytes = x_stride * sizeof *x;
    const size_t step = shape.q + shape.s + shape.n + (shape.super ? heads / 8 : heads);
    const uint8_t *xs[4];
    size_t first[4];
    __m512 acc[EL_ROWS];
    el_scales c = {0};
#pragma GCC unroll 4
    for (size_t i = 0; i * 3 < rows; i++) {
        const size_t latest = live - (rows - i * 3 < 3 ? rows - i * 3 : 3);
        first[i] = i * 3 < latest ? i * 3 : latest;
        xs[i] = (const uint8_t *)x + first[i] * stride_bytes;
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) acc[r] = _mm512_setzero_ps();

    for (size_t b = 0; b < blocks; b++) {
        const uint8_t *q = tile + at.q + b * shape.q;
        if (ahead != NULL) {
#pragma GCC unroll 10
            for (size_t i = 0; i < step; i += 64)
                _mm_prefetch((const char *)ahead + b * step + i, _MM_HINT_T0);
        }
        load_scales(kind, tile, at, b, &c);
        if (shape.s == 32)
            block_halves(kind, rows, q, &c, xs, stride_bytes, acc);
        else
            block_whole(kind, rows, q, &c, xs, stride_bytes, acc);
#pragma GCC unroll 4
        for (size_t i = 0; i * 3 < rows; i++) xs[i] += sizeof *x;
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        _mm512_mask_storeu_ps(y + (first[r / 3] + r % 3) * y_stride, mask, acc[r]);
    }
}

EL_INLINE void gemm(el_layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    assert(k % EL_BLOCK == 0);
    const size_t blocks = k / EL_BLOCK, tile_bytes = el_parts_of(el_shape_of(kind), k).bytes;

    for (size_t row = 0; row < n; row += EL_LANES, w += tile_bytes) {
        const __mmask16 mask = el_mask16(n - row);
        const uint8_t *ahead = w + EL_AHEAD;  // only the first pass over a tile meets cold weights
        for (size_t done = 0; done < m; done += EL_ROWS, ahead = NULL) {
            const size_t live = m - done < EL_ROWS ? m - done : EL_ROWS;
            const el_act_q8 *xr = x + done * x_stride;
            float *yr = y + done * y_stride + row;
            if (live == 1)
                tile_rows(kind, 1, 1, blocks, w, ahead, xr, x_stride, yr, y_stride, mask);
            else if (live == 2)
                tile_rows(kind, 2, 2, blocks, w, ahead, xr, x_stride, yr, y_stride, mask);
            else if (live <= 4)
                tile_rows(kind, 4, live, blocks, w, ahead, xr, x_stride, yr, y_stride, mask);
            else if (live <= 8)
                tile_rows(kind, 8, live, blocks, w, ahead, xr, x_stride, yr, y_stride, mask);
            else
                tile_rows(kind, EL_ROWS, live, blocks, w, ahead, xr, x_stride, yr, y_stride, mask);
        }
    }
}

#endif
