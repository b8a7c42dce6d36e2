/* interleave: four words of eight rows are four registers of two rows each; with rows j and j + 4 in the
 * halves of register j, the transpositions stay inside halves. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

/// Four words of eight rows to the first or second half of four lines of sixteen lanes.
EL_INLINE void four_words(const uint8_t *const row[8], size_t at, __m256i flip, uint8_t *y)
{
    __m256i v[4], t[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        v[j] = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row[j] + at)));
        v[j] = _mm256_inserti128_si256(v[j], _mm_loadu_si128((const __m128i *)(row[j + 4] + at)), 1);
        v[j] = _mm256_xor_si256(v[j], flip);
    }
    t[0] = _mm256_unpacklo_epi32(v[0], v[1]);
    t[1] = _mm256_unpackhi_epi32(v[0], v[1]);
    t[2] = _mm256_unpacklo_epi32(v[2], v[3]);
    t[3] = _mm256_unpackhi_epi32(v[2], v[3]);
    _mm256_storeu_si256((__m256i *)y, _mm256_unpacklo_epi64(t[0], t[2]));
    _mm256_storeu_si256((__m256i *)(y + 64), _mm256_unpackhi_epi64(t[0], t[2]));
    _mm256_storeu_si256((__m256i *)(y + 128), _mm256_unpacklo_epi64(t[1], t[3]));
    _mm256_storeu_si256((__m256i *)(y + 192), _mm256_unpackhi_epi64(t[1], t[3]));
}

void el_interleave__avx2(size_t rows, size_t blocks, size_t words, const uint8_t *x, size_t row_bytes,
                         size_t x_step, uint32_t flip, uint8_t *y, size_t y_step)
{
    const __m256i flips = _mm256_set1_epi32((int32_t)flip);
    const uint8_t *row[EL_LANES];
    for (size_t r = 0; r < EL_LANES; r++) row[r] = x + (r < rows ? r : rows - 1) * row_bytes;

    for (size_t b = 0; b < blocks; b++, y += y_step) {
        size_t i = 0;
        for (; i + 4 <= words; i += 4) {
            four_words(row, b * x_step + i * 4, flips, y + i * 64);
            four_words(row + 8, b * x_step + i * 4, flips, y + i * 64 + 32);
        }
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
