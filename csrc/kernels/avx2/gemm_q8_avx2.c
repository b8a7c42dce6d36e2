/* gemm_q8_*: lanes are rows of W, eight to a register, so a tile is two halves. vpmaddubsw adds two
 * products of an unsigned and a signed byte and saturates at 16 bits, so the operands are kept where it
 * cannot:
 *
 * Nibbles are 0..15 and unsigned as stored: a pair is at most 2 * 15 * 127 = 3810, and the eight
 * of a block add up to 30480, so they may even be summed in 16 bits.
 * Bytes: w x = |w| * (x with the sign of w). |w| <= 128 is unsigned, and a pair is at most
 * 2 * 128 * 127 = 32512; each is widened at once. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

enum { EL_ROWS = 4, EL_AHEAD = 4096 };  // rows of X per pass; bytes of weights prefetched ahead

typedef enum layout { Q4_0, Q4_1, Q8_0, Q8_SX } layout;

/// Where the parts of one tile are.
typedef struct tile_view {
    const uint8_t *d, *m, *s, *n, *q;
} tile_view;

/// One block's weights of eight rows.
typedef struct half_block {
    __m256i w[8];  ///< nibbles, or signed bytes
    __m256 d, m, s_lo, s_hi;
    __m256i n;  ///< pairs of 16-bit sub-minima
} half_block;

EL_INLINE __m256i four(const int8_t *x)
{
    int32_t u;
    memcpy(&u, x, sizeof u);
    return _mm256_set1_epi32(u);
}

EL_INLINE __m256i dot_nibbles(const __m256i w[8], const int8_t *x)
{
    __m256i sum = _mm256_maddubs_epi16(w[0], four(x));
#pragma GCC unroll 8
    for (size_t g = 1; g < 8; g++) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[g], four(x + g * 4)));
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

EL_INLINE __m256i dot_bytes(const __m256i w[4], const int8_t *x)
{
    __m256i dot = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        const __m256i pair =
            _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), _mm256_sign_epi8(four(x + g * 4), w[g]));
        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pair, _mm256_set1_epi16(1)));
    }
    return dot;
}

EL_INLINE __m256 scaled(__m256 acc, __m256 d, float dx, __m256i dot)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(dx)), _mm256_cvtepi32_ps(dot), acc);
}

EL_INLINE __m256 block_plain(layout kind, const half_block *h, const el_act_q8 *x, __m256 acc)
{
    const __m256i sum = _mm256_set1_epi32(x->sum);
    if (kind == Q8_0) {
        return scaled(acc, h->d, x->scale,
                      _mm256_add_epi32(dot_bytes(h->w, x->q), dot_bytes(h->w + 4, x->q + 16)));
    }
    __m256i dot = dot_nibbles(h->w, x->q);
    if (kind == Q4_0) dot = _mm256_sub_epi32(dot, _mm256_slli_epi32(sum, 3));
    acc = scaled(acc, h->d, x->scale, dot);
    if (kind == Q4_1) acc = scaled(acc, h->m, x->scale, sum);
    return acc;
}

// Integers here stay below 2^24 (el_blocks.h), so float products and sums of them are exact.
EL_INLINE __m256 block_sub(const half_block *h, const el_act_q8 *x, __m256 acc)
{
    const int32_t sum_hi = x->sum - x->sum_lo;
    const __m256 lo = _mm256_cvtepi32_ps(dot_bytes(h->w, x->q));
    const __m256 hi = _mm256_cvtepi32_ps(dot_bytes(h->w + 4, x->q + 16));
    const __m256 dot = _mm256_fmadd_ps(hi, h->s_hi, _mm256_mul_ps(lo, h->s_lo));
    acc = _mm256_fmadd_ps(_mm256_mul_ps(h->d, _mm256_set1_ps(x->scale)), dot, acc);

    const uint32_t sums = (uint32_t)sum_hi << 16 | (uint16_t)x->sum_lo;
    const __m256i minimum = _mm256_madd_epi16(h->n, _mm256_set1_epi32((int32_t)sums));
    return _mm256_fnmadd_ps(_mm256_mul_ps(h->m, _mm256_set1_ps(x->scale)), _mm256_cvtepi32_ps(minimum), acc);
}

EL_INLINE __m256i load_8_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

EL_INLINE __m256 load_i8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

// Rows 8 * half .. 8 * half + 7 of block b.
EL_INLINE void load_half(layout kind, const tile_view *t, size_t b, size_t half, half_block *h)
{
    const bool nibbles = kind == Q4_0 || kind == Q4_1;
    const uint8_t *q = t->q + b * (nibbles ? 256 : 512) + half * 32;
    if (nibbles) {
        const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
        for (size_t g = 0; g < 4; g++) {
            const __m256i pair = _mm256_load_si256((const __m256i *)(q + g * 64));
            h->w[g] = _mm256_and_si256(pair, low);
            h->w[g + 4] = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
        }
    } else {
        const __m256i flip = _mm256_set1_epi8(-128);  // stored as value + 128
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) {
            h->w[g] = _mm256_xor_si256(_mm256_load_si256((const __m256i *)(q + g * 64)), flip);
        }
    }
    if (kind != Q8_SX) {
        h->d = el_f16x8(t->d + b * 32 + half * 16);
        if (kind == Q4_1) h->m = el_f16x8(t->m + b * 32 + half * 16);
        return;
    }
    h->d = _mm256_loadu_ps((const float *)(t->d + b * 64 + half * 32));
    h->m = _mm256_loadu_ps((const float *)(t->m + b * 64 + half * 32));
    h->s_lo = load_i8(t->s + b * 32 + half * 8);
    h->s_hi = load_i8(t->s + b * 32 + 16 + half * 8);
    h->n = _mm256_or_si256(load_8_bytes(t->n + b * 32 + half * 8),
                           _mm256_slli_epi32(load_8_bytes(t->n + b * 32 + 16 + half * 8), 16));
}

// One tile times `rows` rows of X; `rows` and `kind` are constants after inlining.
EL_INLINE void tile_rows(layout kind, size_t rows, size_t blocks, const tile_view *t, const uint8_t *ahead,
                         const el_act_q8 *x, size_t x_stride, float *y, size_t y_stride, size_t n)
{
    const size_t step = kind == Q4_0 ? 288 : kind == Q4_1 ? 320 : kind == Q8_0 ? 544 : 704;
    __m256 acc[2][EL_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) acc[0][r] = acc[1][r] = _mm256_setzero_ps();

    for (size_t b = 0; b < blocks; b++) {
        if (ahead != NULL) {
#pragma GCC unroll 11
            for (size_t i = 0; i < step; i += 64)
                _mm_prefetch((const char *)ahead + b * step + i, _MM_HINT_T0);
        }
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            half_block h;
            load_half(kind, t, b, half, &h);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                const el_act_q8 *xb = x + r * x_stride + b;
                acc[half][r] =
                    kind == Q8_SX ? block_sub(&h, xb, acc[half][r]) : block_plain(kind, &h, xb, acc[half][r]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        el_store8(y + r * y_stride, n, acc[0][r]);
        if (n > 8) el_store8(y + r * y_stride + 8, n - 8, acc[1][r]);
    }
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
        size_t bytes = 0, done = 0;
        const tile_view t = view_tile(kind, blocks, w, &bytes);
        const uint8_t *ahead = w + EL_AHEAD;  // only the first pass over a tile meets cold weights
        w += bytes;

        for (; m - done >= EL_ROWS; done += EL_ROWS, ahead = NULL) {
            tile_rows(kind, EL_ROWS, blocks, &t, ahead, x + done * x_stride, x_stride, y + done * y_stride,
                      y_stride, n - row);
        }
        const el_act_q8 *xr = x + done * x_stride;
        float *yr = y + done * y_stride;
        switch (m - done) {
        case 3: tile_rows(kind, 3, blocks, &t, ahead, xr, x_stride, yr, y_stride, n - row); break;
        case 2: tile_rows(kind, 2, blocks, &t, ahead, xr, x_stride, yr, y_stride, n - row); break;
        case 1: tile_rows(kind, 1, blocks, &t, ahead, xr, x_stride, yr, y_stride, n - row); break;
        default: break;
        }
    }
}

void el_gemm_q8_q4_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q4_0, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q4_1x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q4_1, m, n, k, w, x, x_stride, y, y_stride);
}

void el_gemm_q8_q8_0x16__avx2(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                              size_t x_stride, float *y, size_t y_stride)
{
    gemm(Q8_0, m, n, k, w, x, x_stride, y, y_stride);
}
