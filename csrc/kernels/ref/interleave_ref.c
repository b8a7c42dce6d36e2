/* The specification of interleave. */
#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_interleave__ref(size_t rows, size_t blocks, size_t words, const uint8_t *x, size_t row_bytes,
                        size_t x_step, uint32_t flip, uint8_t *y, size_t y_step)
{
    for (size_t b = 0; b < blocks; b++, x += x_step, y += y_step) {
        for (size_t r = 0; r < EL_LANES; r++) {
            const uint8_t *row = x + (r < rows ? r : rows - 1) * row_bytes;
            for (size_t i = 0; i < words; i++) {
                uint32_t word;
                memcpy(&word, row + i * 4, sizeof word);
                word ^= flip;
                memcpy(y + (i * EL_LANES + r) * 4, &word, sizeof word);
            }
        }
    }
}
