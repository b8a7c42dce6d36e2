/* interleave: four words of four rows are four registers, transposed by two rounds of trn (words, then pairs). */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include "kernels/el_declare.h"
#include "kernels/neon/el_neon.h"

// Words at .. at + 3 of rows 4 c .. 4 c + 3 to y, 64 bytes from word to word.
EL_INLINE void four_words(const uint8_t *const row[4], size_t at, uint32x4_t flip, uint8_t *y)
{
    uint32x4_t v[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) v[j] = veorq_u32(vreinterpretq_u32_u8(vld1q_u8(row[j] + at)), flip);
    const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1]));  // words 0 and 2 of rows 0 and 1
    const uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1]));  // words 1 and 3
    const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3]));
    const uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
    vst1q_u8(y, vreinterpretq_u8_u64(vtrn1q_u64(a, c)));
    vst1q_u8(y + 64, vreinterpretq_u8_u64(vtrn1q_u64(b, d)));
    vst1q_u8(y + 128, vreinterpretq_u8_u64(vtrn2q_u64(a, c)));
    vst1q_u8(y + 192, vreinterpretq_u8_u64(vtrn2q_u64(b, d)));
}

void el_interleave__neon(size_t rows, size_t blocks, size_t words, const uint8_t *x, size_t row_bytes,
                         size_t x_step, uint32_t flip, uint8_t *y, size_t y_step)
{
    const uint32x4_t flips = vdupq_n_u32(flip);
    const uint8_t *row[EL_LANES];
    for (size_t r = 0; r < EL_LANES; r++) row[r] = x + (r < rows ? r : rows - 1) * row_bytes;

    for (size_t b = 0; b < blocks; b++, y += y_step) {
        size_t i = 0;
        for (; words - i >= 4; i += 4) {
            for (size_t c = 0; c < EL_LANES; c += 4) {
                four_words(row + c, b * x_step + i * 4, flips, y + i * 64 + c * 4);
            }
        }
        for (; i < words; i++) {
            for (size_t r = 0; r < EL_LANES; r++) {
                uint32_t word;
                memcpy(&word, row[r] + b * x_step + i * 4, sizeof word);
                word ^= flip;
                memcpy(y + (i * EL_LANES + r) * 4, &word, sizeof word);
            }
        }
    }
}
