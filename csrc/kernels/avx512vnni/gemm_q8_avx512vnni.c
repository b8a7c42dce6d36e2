/* gemm_q8_*: lanes are rows of W, so nothing is added across lanes. vpdpbusd multiplies unsigned by
 * signed bytes without saturation: weights are stored unsigned, and the offset is repaid once per
 * block with the exact integer 8 * sum(x) or 128 * sum(x).
 *
 * The activation operand is four bytes broadcast from memory inside the instruction, so it costs no
 * port. A block's weights are unpacked into registers once and serve up to EL_ROWS rows of X. The core
 * runs ahead over rows, which hides the chain of eight vpdpbusd. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 12, EL_AHEAD = 8192 };  // rows of X per pass; bytes of weights prefetched ahead

/// Where the parts of one tile are.
typedef struct tile_view {
    const uint8_t *d, *m, *s, *n, *q;
} tile_view;

typedef enum layout { Q4_0, Q4_1, Q8_0, Q8_SX } layout;

EL_INLINE __m512i dot4(__m512i acc, __m512i w, const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
}

EL_INLINE __m512i load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

EL_INLINE __m512 load_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

EL_INLINE void unpack(layout kind, const uint8_t *q, __m512i w[8])
{
    if (kind == Q4_0 || kind == Q4_1) {
        const __m512i low = _mm512_set1_epi8(15);
        for (size_t g = 0; g < 4; g++) {
            const __m512i pair = _mm512_load_si512(q + g * 64);
            w[g] = _mm512_and_si512(pair, low);
            w[g + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
        }
    } else {
        for (size_t g = 0; g < 8; g++) w[g] = _mm512_load_si512(q + g * 64);
    }
}

EL_INLINE __m512 scaled(__m512 acc, __m512 d, float dx, __m512i dot)
{
    return _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(dx)), _mm512_cvtepi32_ps(dot), acc);
}

// One block of types with one scale: the integer dot product and its fma or two.
EL_INLINE __m512 block_plain(layout kind, const __m512i w[8], __m512 d, __m512 m, const el_act_q8 *x,
                             __m512 acc)
{
    __m512i dot = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (size_t g = 0; g < 8; g++) dot = dot4(dot, w[g], x->q + g * 4);

    const __m512i sum = _mm512_set1_epi32(x->sum);
    if (kind == Q4_0) dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(sum, 3));
    if (kind == Q8_0) dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(sum, 7));
    acc = scaled(acc, d, x->scale, dot);
    if (kind == Q4_1) acc = scaled(acc, m, x->scale, sum);
    return acc;
}

// One block of q8_sx: halves of sixteen values with their own sub-scales `s` and sub-minima; `n` holds
// those of both halves as 16-bit pairs. Integers here stay below 2^24 (el_blocks.h), so float products
// and sums of them are exact, and cheaper than vpmulld.
EL_INLINE __m512 block_sub(const __m512i w[8], __m512 d, __m512 m, const __m512 s[2], __m512i n,
                           const el_act_q8 *x, __m512 acc)
{
    const int32_t sum_hi = x->sum - x->sum_lo;
    __m512i lo = _mm512_setzero_si512(), hi = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        lo = dot4(lo, w[g], x->q + g * 4);
        hi = dot4(hi, w[g + 4], x->q + g * 4 + 16);
    }
    lo = _mm512_sub_epi32(lo, _mm512_slli_epi32(_mm512_set1_epi32(x->sum_lo), 7));
    hi = _mm512_sub_epi32(hi, _mm512_slli_epi32(_mm512_set1_epi32(sum_hi), 7));
    const __m512 dot =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(hi), s[1], _mm512_mul_ps(_mm512_cvtepi32_ps(lo), s[0]));
    acc = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(x->scale)), dot, acc);

    const uint32_t sums = (uint32_t)sum_hi << 16 | (uint16_t)x->sum_lo;
    const __m512i minimum = _mm512_madd_epi16(n, _mm512_set1_epi32((int32_t)sums));
    return _mm512_fnmadd_ps(_mm512_mul_ps(m, _mm512_set1_ps(x->scale)), _mm512_cvtepi32_ps(minimum), acc);
}

EL_INLINE void prefetch(const uint8_t *p, size_t bytes)
{
#pragma GCC unroll 12
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

// One tile times `rows` rows of X; `rows` and `kind` are constants after inlining. `ahead` is
// where this tile's share of the prefetch starts, or NULL.
EL_INLINE void tile_rows(layout kind, size_t rows, size_t blocks, const tile_view *t, const uint8_t *ahead,
                         const el_act_q8 *x, size_t x_stride, float *y, size_t y_stride, __mmask16 mask)
{
    const size_t q_bytes = kind == Q4_0 || kind == Q4_1 ? 256 : 512;
    const size_t step = q_bytes + (kind == Q4_1 ? 64 : kind == Q8_SX ? 192 : 32);
    __m512 acc[EL_ROWS];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) acc[r] = _mm512_setzero_ps();

    for (size_t b = 0; b < blocks; b++) {
        __m512i w[8], n = _mm512_setzero_si512();
        __m512 d, m = _mm512_setzero_ps(), s[2];
        if (ahead != NULL) prefetch(ahead + b * step, step);
        unpack(kind, t->q + b * q_bytes, w);
        if (kind == Q8_SX) {
            d = _mm512_loadu_ps(t->d + b * 64);
            m = _mm512_loadu_ps(t->m + b * 64);
            s[0] = load_i8(t->s + b * 32), s[1] = load_i8(t->s + b * 32 + 16);
            n = _mm512_or_si512(load_u8(t->n + b * 32), _mm512_slli_epi32(load_u8(t->n + b * 32 + 16), 16));
        } else {
            d = el_f16x16(t->d + b * 32);
            if (kind == Q4_1) m = el_f16x16(t->m + b * 32);
        }
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            const el_act_q8 *xb = x + r * x_stride + b;
            acc[r] =
                kind == Q8_SX ? block_sub(w, d, m, s, n, xb, acc[r]) : block_plain(kind, w, d, m, xb, acc[r]);
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) _mm512_mask_storeu_ps(y + r * y_stride, mask, acc[r]);
}

EL_INLINE tile_view view_tile(layout kind, size_t blocks, const uint8_t *tile, size_t *bytes)
{
    const size_t part = el_round_up(blocks * 32, 64);
    tile_view t = {tile, NULL, NULL, NULL, NULL};
    switch (kind) {
    case Q4_0:
        t.q = tile + part;
        *bytes = part + blocks * 256;
        break;
    case Q4_1:
        t.m = tile + part;
        t.q = t.m + part;
        *bytes = 2 * part + blocks * 256;
        break;
    case Q8_0:
        t.q = tile + part;
        *bytes = part + blocks * 512;
        break;
    case Q8_SX:
        t.m = tile + blocks * 64;
        t.s = t.m + blocks * 64;
        t.n = t.s + part;
        t.q = t.n + part;
        *bytes = blocks * 640 + 2 * part;
        break;
    }
    return t;
}

EL_INLINE void gemm(layout kind, size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                    size_t x_stride, float *y, size_t y_stride)
{
    assert(k % EL_BLOCK == 0);
    const size_t blocks = k / EL_BLOCK;

    for (size_t row = 0; row < n; row += EL_LANES, y += EL_LANES) {
        size_t bytes = 0;
        const tile_view t = view_tile(kind, blocks, w, &bytes);
        const __mmask16 mask = el_mask16(n - row);
        const uint8_t *ahead = w + EL_AHEAD;  // only the first pass over a tile meets cold weights
        w += bytes;

        size_t done = 0;
        for (; m - done >= EL_ROWS; done += EL_ROWS, ahead = NULL) {
            tile_rows(kind, EL_ROWS, blocks, &t, ahead, x + done * x_stride, x_stride, y + done * y_stride,
                      y_stride, mask);
        }
        const el_act_q8 *xr = x + done * x_stride;
        float *yr = y + done * y_stride;
        switch (m - done) {
        case 1: tile_rows(kind, 1, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 2: tile_rows(kind, 2, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 3: tile_rows(kind, 3, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 4: tile_rows(kind, 4, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 5: tile_rows(kind, 5, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 6: tile_rows(kind, 6, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 7: tile_rows(kind, 7, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 8: tile_rows(kind, 8, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 9: tile_rows(kind, 9, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 10: tile_rows(kind, 10, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        case 11: tile_rows(kind, 11, blocks, &t, ahead, xr, x_stride, yr, y_stride, mask); break;
        default: break;
        }
    }
}

void el_gemm_q8_q4_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q4_0, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q4_1, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__avx512vnni(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                                    size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q8_0, m, n, k, w, x, x_stride, y, y_stride);
}
