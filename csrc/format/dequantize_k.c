/* Values of the types with blocks of 256, rounded as gguf/quants.py rounds them: the scale of a
 * group is a rounded product, then one product and, where there is a minimum, one difference. */
#include "format/dequantize.h"
#include "format/format.h"

void el_dequantize_q2_k(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 84, dst += 256) {
        const uint8_t *scales = src;  // (16,): low nibble scale, high nibble minimum
        const uint8_t *q = src + 16;  // (2, 32): 2 bits of 4 runs of 32 values each
        const float d = el_read_f16(src + 80);
        const float dmin = el_read_f16(src + 82);
        for (int i = 0; i < 256; i++) {
            const int value = q[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3;
            const float scale = d * (float)(scales[i / 16] & 15);
            const float minimum = dmin * (float)(scales[i / 16] >> 4);
            dst[i] = scale * (float)value - minimum;
        }
    }
}

void el_dequantize_q3_k(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 110, dst += 256) {
        const uint8_t *mask = src;  // (32,): bit i / 32 of byte i % 32 is set where 4 is not taken off
        const uint8_t *q = src + 32;  // (2, 32): the low 2 bits
        const uint8_t *scales = src + 96;  // (12,): low 4 bits of 16 scales, then the high 2
        const float d = el_read_f16(src + 108);
        for (int i = 0; i < 256; i++) {
            const int g = i / 16;
            const int low = scales[g % 8] >> 4 * (g / 8) & 15;
            const int high = scales[8 + g % 4] >> 2 * (g / 4) & 3;
            const float scale = d * (float)((low | high << 4) - 32);
            const int bit = mask[i % 32] >> i / 32 & 1;
            const int value = (q[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) - (bit ? 0 : 4);
            dst[i] = scale * (float)value;
        }
    }
}

/// Scale and minimum number g (0 to 7) of a Q4_K or Q5_K block: 6 bits each, in 12 bytes.
static void scale_min(const uint8_t *s, int g, int *scale, int *minimum)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *minimum = s[4 + g] & 63;
    } else {
        *scale = (s[4 + g] & 15) | (s[g - 4] >> 2 & 0x30);
        *minimum = s[4 + g] >> 4 | (s[g] >> 2 & 0x30);
    }
}

void el_dequantize_q4_k(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 144, dst += 256) {
        const float d = el_read_f16(src);
        const float dmin = el_read_f16(src + 2);
        for (int g = 0; g < 8; g++) {
            int scale = 0;
            int minimum = 0;
            scale_min(src + 4, g, &scale, &minimum);
            const float dg = d * (float)scale;
            const float mg = dmin * (float)minimum;
            const uint8_t *q = src + 16 + g / 2 * 32;  // (32,): even groups in the low nibbles
            for (int l = 0; l < 32; l++) dst[32 * g + l] = dg * (float)(q[l] >> 4 * (g % 2) & 15) - mg;
        }
    }
}

void el_dequantize_q5_k(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 176, dst += 256) {
        const float d = el_read_f16(src);
        const float dmin = el_read_f16(src + 2);
        const uint8_t *fifth = src + 16;  // (32,): bit g of byte l is bit 4 of value 32 g + l
        for (int g = 0; g < 8; g++) {
            int scale = 0;
            int minimum = 0;
            scale_min(src + 4, g, &scale, &minimum);
            const float dg = d * (float)scale;
            const float mg = dmin * (float)minimum;
            const uint8_t *q = src + 48 + g / 2 * 32;
            for (int l = 0; l < 32; l++) {
                const int value = (q[l] >> 4 * (g % 2) & 15) | (fifth[l] >> g & 1) << 4;
                dst[32 * g + l] = dg * (float)value - mg;
            }
        }
    }
}

void el_dequantize_q6_k(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 210, dst += 256) {
        const uint8_t *low = src;  // (2, 64): 4 bits of 2 runs of 64 values
        const uint8_t *high = src + 128;  // (2, 32): 2 bits of 4 runs of 32 values
        const int8_t *scales = (const int8_t *)src + 192;  // (16,)
        const float d = el_read_f16(src + 208);
        for (int i = 0; i < 256; i++) {
            const int bits = (low[i / 128 * 64 + i % 64] >> 4 * (i / 64 % 2) & 15) |
                             (high[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) << 4;
            const float scale = d * (float)scales[i / 16];
            dst[i] = scale * (float)(bits - 32);
        }
    }
}

/// One of the base-3 digits of a byte: multiplying by a power of 3 (mod 256) brings digit `power`
/// to the top, and the top digit of b / 256 is 3 b >> 8.
static float trit(uint8_t byte, int power)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    const uint8_t turned = (uint8_t)(byte * powers[power]);
    return (float)((turned * 3 >> 8) - 1);
}

void el_dequantize_tq1_0(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 54, dst += 256) {
        const float d = el_read_f16(src + 52);
        for (int i = 0; i < 160; i++) dst[i] = d * trit(src[i % 32], i / 32);
        for (int i = 0; i < 80; i++) dst[160 + i] = d * trit(src[32 + i % 16], i / 16);
        for (int i = 0; i < 16; i++) dst[240 + i] = d * trit(src[48 + i % 4], i / 4);
    }
}

void el_dequantize_tq2_0(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 66, dst += 256) {
        const float d = el_read_f16(src + 64);
        for (int i = 0; i < 256; i++) {
            dst[i] = d * (float)((src[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
        }
    }
}
