/* Block formats of ggml, read from gguf/quants.py. Integers are stored unsigned, as in the file or with
 * an offset (el_blocks.h). Every field that these functions do not set is zero already. */
#include "kernels/el_expand.h"

#include "kernels/el_math.h"

static uint16_t bit(const uint8_t *bits, size_t j) { return (bits[j / 8] >> (j % 8)) & 1; }

// Blocks of 32: f16 d, f16 m where there are minima, fifth bits where there are, nibbles.
static void expand_nibbles(const uint8_t *src, bool minima, bool bits, el_expanded *e)
{
    const uint8_t *fifth = src + (minima ? 4 : 2), *nibbles = fifth + (bits ? 4 : 0);
    e->d = el_load_u16(src);
    if (minima) e->m = el_load_u16(src + 2);
    for (size_t j = 0; j < 16; j++) {
        e->q[j] = (uint8_t)((nibbles[j] & 15) | (bits ? bit(fifth, j) << 4 : 0));
        e->q[j + 16] = (uint8_t)(nibbles[j] >> 4 | (bits ? bit(fifth, j + 16) << 4 : 0));
    }
}

static void expand_q8_0(const uint8_t *src, el_expanded *e)
{
    e->d = el_load_u16(src);
    for (size_t j = 0; j < EL_BLOCK; j++) e->q[j] = src[2 + j] ^ 0x80;  // + 128
}

static void expand_q2_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *qs = src + 16;
    for (size_t i = 0; i < 8; i++) {
        e[i].d = el_load_u16(src + 80);
        e[i].m = el_load_u16(src + 82);
        for (size_t h = 0; h < 2; h++) e[i].s[h] = src[i * 2 + h];  // scale and minimum
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (qs[i / 4 * 32 + j] >> (i % 4 * 2)) & 3;
    }
}

static void expand_q3_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *high = src, *qs = src + 32, *packed = src + 96;
    int scales[16];  // six bits each: four in the first eight bytes, two in the last four
    for (size_t i = 0; i < 16; i++) {
        const int low = (packed[i % 8] >> (i / 8 * 4)) & 15;
        scales[i] = (low | ((packed[8 + i % 4] >> (i / 4 * 2)) & 3) << 4) - 32;
    }
    for (size_t i = 0; i < 8; i++) {
        e[i].d = el_load_u16(src + 108);
        for (size_t h = 0; h < 2; h++) e[i].s[h] = (uint8_t)scales[i * 2 + h];
        for (size_t j = 0; j < 32; j++) {
            const int low = (qs[i / 4 * 32 + j] >> (i % 4 * 2)) & 3;
            e[i].q[j] = (uint8_t)(low | (high[j] >> i & 1) << 2);
        }
    }
}

// Six-bit scale and minimum of sub-block i of q4_k and q5_k.
static void scale_min(const uint8_t *packed, size_t i, el_expanded *e)
{
    int s, n;
    if (i < 4) {
        s = packed[i] & 63;
        n = packed[i + 4] & 63;
    } else {
        s = (packed[i + 4] & 15) | packed[i - 4] >> 6 << 4;
        n = packed[i + 4] >> 4 | packed[i] >> 6 << 4;
    }
    e->s[0] = (uint8_t)s;
    e->n = (uint8_t)n;
}

static void expand_q4_k(const uint8_t *src, el_expanded *e)
{
    for (size_t i = 0; i < 8; i++) {
        e[i].d = el_load_u16(src);
        e[i].m = el_load_u16(src + 2);
        scale_min(src + 4, i, &e[i]);
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (src[16 + i / 2 * 32 + j] >> (i % 2 * 4)) & 15;
    }
}

static void expand_q5_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *high = src + 16, *qs = src + 48;
    for (size_t i = 0; i < 8; i++) {
        e[i].d = el_load_u16(src);
        e[i].m = el_load_u16(src + 2);
        scale_min(src + 4, i, &e[i]);
        for (size_t j = 0; j < 32; j++) {
            const int low = (qs[i / 2 * 32 + j] >> (i % 2 * 4)) & 15;
            e[i].q[j] = (uint8_t)(low | (high[j] >> i & 1) << 4);
        }
    }
}

static void expand_q6_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *scales = src + 192;
    for (size_t i = 0; i < 8; i++) {
        const uint8_t *low = src + i / 4 * 64 + i % 2 * 32, *high = src + 128 + i / 4 * 32;
        e[i].d = el_load_u16(src + 208);
        for (size_t h = 0; h < 2; h++) e[i].s[h] = scales[i * 2 + h];
        for (size_t j = 0; j < 32; j++) {
            const int nibble = (low[j] >> (i % 4 / 2 * 4)) & 15;
            e[i].q[j] = (uint8_t)(nibble | ((high[j] >> (i % 4 * 2)) & 3) << 4);
        }
    }
}

static void expand_tq1_0(const uint8_t *src, el_expanded *e)
{
    // Five base-3 digits a byte, as a fraction of 256: times 3^i drops i of them, times 3 gives the next.
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    static const struct {
        uint8_t first, bytes, digits;
    } runs[3] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    size_t at = 0;

    for (size_t i = 0; i < 8; i++) e[i].d = el_load_u16(src + 52);
    for (size_t run = 0; run < 3; run++) {
        for (size_t i = 0; i < runs[run].digits; i++) {
            for (size_t j = 0; j < runs[run].bytes; j++, at++) {
                const uint8_t rest = (uint8_t)(src[runs[run].first + j] * power[i]);
                e[at / 32].q[at % 32] = (uint8_t)(rest * 3 >> 8);
            }
        }
    }
}

static void expand_tq2_0(const uint8_t *src, el_expanded *e)
{
    for (size_t i = 0; i < 8; i++) {
        e[i].d = el_load_u16(src + 64);
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (src[i / 4 * 32 + j] >> (i % 4 * 2)) & 3;
    }
}

el_expand_size el_expand_get_size(uint32_t type)
{
    switch (type) {
    case 2: return (el_expand_size){1, 18, EL_LAYOUT_Q4_0X16};
    case 3: return (el_expand_size){1, 20, EL_LAYOUT_Q4_1X16};
    case 6: return (el_expand_size){1, 22, EL_LAYOUT_Q5_0X16};
    case 7: return (el_expand_size){1, 24, EL_LAYOUT_Q5_1X16};
    case 8: return (el_expand_size){1, 34, EL_LAYOUT_Q8_0X16};
    case 10: return (el_expand_size){8, 84, EL_LAYOUT_Q2_KX16};
    case 11: return (el_expand_size){8, 110, EL_LAYOUT_Q3_KX16};
    case 12: return (el_expand_size){8, 144, EL_LAYOUT_Q4_KX16};
    case 13: return (el_expand_size){8, 176, EL_LAYOUT_Q5_KX16};
    case 14: return (el_expand_size){8, 210, EL_LAYOUT_Q6_KX16};
    case 20: return (el_expand_size){1, 18, EL_LAYOUT_IQ4_NLX16};
    case 34: return (el_expand_size){8, 54, EL_LAYOUT_TQ2_0X16};
    case 35: return (el_expand_size){8, 66, EL_LAYOUT_TQ2_0X16};
    default: return (el_expand_size){0, 0, EL_LAYOUTS};
    }
}

void el_expand(uint32_t type, const uint8_t *src, el_expanded *out)
{
    switch (type) {
    case 2:
    case 20: expand_nibbles(src, false, false, out); break;
    case 3: expand_nibbles(src, true, false, out); break;
    case 6: expand_nibbles(src, false, true, out); break;
    case 7: expand_nibbles(src, true, true, out); break;
    case 8: expand_q8_0(src, out); break;
    case 10: expand_q2_k(src, out); break;
    case 11: expand_q3_k(src, out); break;
    case 12: expand_q4_k(src, out); break;
    case 13: expand_q5_k(src, out); break;
    case 14: expand_q6_k(src, out); break;
    case 34: expand_tq1_0(src, out); break;
    case 35: expand_tq2_0(src, out); break;
    default: break;
    }
}
