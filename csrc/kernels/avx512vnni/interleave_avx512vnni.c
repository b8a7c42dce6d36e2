/* interleave: four words of sixteen rows are four registers of four rows each; with rows j, j + 4, j + 8,
 * j + 12 in the quarters of register j, the transpositions stay inside quarters. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

/// Sixteen bytes of each of four rows.
EL_INLINE __m512i four_rows(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)a));
    v = _mm512_mask_broadcast_i32x4(v, 0x00F0, _mm_loadu_si128((const __m128i *)b));
    v = _mm512_mask_broadcast_i32x4(v, 0x0F00, _mm_loadu_si128((const __m128i *)c));
    return _mm512_mask_broadcast_i32x4(v, 0xF000, _mm_loadu_si128((const __m128i *)d));
}

EL_INLINE void four_words(const uint8_t *const row[EL_LANES], size_t at, __m512i flip, uint8_t *y)
{
    __m512i v[4], t[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        v[j] = four_rows(row[j] + at, row[j + 4] + at, row[j + 8] + at, row[j + 12] + at);
        v[j] = _mm512_xor_si512(v[j], flip);
    }
    // Within quarters a lane's row is 4 * quarter + j: transpose 4 x 4.
    t[0] = _mm512_unpacklo_epi32(v[0], v[1]);
    t[1] = _mm512_unpackhi_epi32(v[0], v[1]);
    t[2] = _mm512_unpacklo_epi32(v[2], v[3]);
    t[3] = _mm512_unpackhi_epi32(v[2], v[3]);
    _mm512_storeu_si512(y, _mm512_unpacklo_epi64(t[0], t[2]));
    _mm512_storeu_si512(y + 64, _mm512_unpackhi_epi64(t[0], t[2]));
    _mm512_storeu_si512(y + 128, _mm512_unpacklo_epi64(t[1], t[3]));
    _mm512_storeu_si512(y + 192, _mm512_unpackhi_epi64(t[1], t[3]));
}

void el_interleave__avx512vnni(size_t rows, size_t blocks, size_t words, const uint8_t *x, size_t row_bytes,
                               size_t x_step, uint32_t flip, uint8_t *y, size_t y_step)
{
    const __m512i flips = _mm512_set1_epi32((int32_t)flip);
    const uint8_t *row[EL_LANES];
    for (size_t r = 0; r < EL_LANES; r++) row[r] = x + (r < rows ? r : rows - 1) * row_bytes;

    for (size_t b = 0; b < blocks; b++, y += y_step) {
        size_t i = 0;
        for (; i + 4 <= words; i += 4) four_words(row, b * x_step + i * 4, flips, y + i * 64);
        for (; i < words; i++) {
#pragma GCC unroll 8
            for (size_t r = 0; r < EL_LANES; r++) {
                uint32_t word;
                memcpy(&word, row[r] + b * x_step + i * 4, sizeof word);
                word ^= flip;
                memcpy(y + (i * EL_LANES + r) * 4, &word, sizeof word);
            }
        }
    }
}
