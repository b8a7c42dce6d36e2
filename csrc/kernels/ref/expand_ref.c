/* Block formats of ggml, read from gguf/quants.py: q5_1, the K-quants, tq1_0 and tq2_0.
 * Every field that these functions do not set is zero already. */
#include "kernels/el_expand.h"

#include "kernels/el_math.h"

static float f16(const uint8_t *p) { return el_f16_to_f32(el_load_u16(p)); }

static void expand_q5_1(const uint8_t *src, el_expanded *e)
{
    e->d = f16(src);
    e->m = -f16(src + 2);  // the file adds its minimum
    e->s[0] = e->s[1] = 1;
    e->n[0] = e->n[1] = 1;
    for (size_t j = 0; j < 16; j++) {
        const int high_0 = (src[4 + j / 8] >> (j % 8)) & 1, high_1 = (src[6 + j / 8] >> (j % 8)) & 1;
        e->q[j] = (int8_t)((src[8 + j] & 15) | high_0 << 4);
        e->q[j + 16] = (int8_t)((src[8 + j] >> 4) | high_1 << 4);
    }
}

static void expand_q2_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *qs = src + 16;
    for (size_t i = 0; i < 8; i++) {
        e[i].d = f16(src + 80);
        e[i].m = f16(src + 82);
        for (size_t h = 0; h < 2; h++) {
            e[i].s[h] = (int8_t)(src[i * 2 + h] & 15);
            e[i].n[h] = src[i * 2 + h] >> 4;
        }
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (int8_t)((qs[i / 4 * 32 + j] >> (i % 4 * 2)) & 3);
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
        e[i].d = f16(src + 108);
        for (size_t h = 0; h < 2; h++) e[i].s[h] = (int8_t)scales[i * 2 + h];
        for (size_t j = 0; j < 32; j++) {
            const int low = (qs[i / 4 * 32 + j] >> (i % 4 * 2)) & 3;
            e[i].q[j] = (int8_t)(low - ((high[j] >> i & 1) != 0 ? 0 : 4));
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
    e->s[0] = e->s[1] = (int8_t)s;
    e->n[0] = e->n[1] = (uint8_t)n;
}

static void expand_q4_k(const uint8_t *src, el_expanded *e)
{
    for (size_t i = 0; i < 8; i++) {
        e[i].d = f16(src);
        e[i].m = f16(src + 2);
        scale_min(src + 4, i, &e[i]);
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (int8_t)((src[16 + i / 2 * 32 + j] >> (i % 2 * 4)) & 15);
    }
}

static void expand_q5_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *high = src + 16, *qs = src + 48;
    for (size_t i = 0; i < 8; i++) {
        e[i].d = f16(src);
        e[i].m = f16(src + 2);
        scale_min(src + 4, i, &e[i]);
        for (size_t j = 0; j < 32; j++) {
            const int low = (qs[i / 2 * 32 + j] >> (i % 2 * 4)) & 15;
            e[i].q[j] = (int8_t)(low | (high[j] >> i & 1) << 4);
        }
    }
}

static void expand_q6_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *scales = src + 192;
    for (size_t i = 0; i < 8; i++) {
        const uint8_t *low = src + i / 4 * 64 + i % 2 * 32, *high = src + 128 + i / 4 * 32;
        e[i].d = f16(src + 208);
        for (size_t h = 0; h < 2; h++) e[i].s[h] = (int8_t)scales[i * 2 + h];
        for (size_t j = 0; j < 32; j++) {
            const int nibble = (low[j] >> (i % 4 / 2 * 4)) & 15;
            e[i].q[j] = (int8_t)((nibble | ((high[j] >> (i % 4 * 2)) & 3) << 4) - 32);
        }
    }
}

static void ternary_heads(float d, el_expanded *e)
{
    for (size_t i = 0; i < 8; i++) {
        e[i].d = d;
        e[i].s[0] = e[i].s[1] = 1;
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

    ternary_heads(f16(src + 52), e);
    for (size_t run = 0; run < 3; run++) {
        for (size_t i = 0; i < runs[run].digits; i++) {
            for (size_t j = 0; j < runs[run].bytes; j++, at++) {
                const uint8_t rest = (uint8_t)(src[runs[run].first + j] * power[i]);
                e[at / 32].q[at % 32] = (int8_t)((rest * 3 >> 8) - 1);
            }
        }
    }
}

static void expand_tq2_0(const uint8_t *src, el_expanded *e)
{
    ternary_heads(f16(src + 64), e);
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 32; j++) e[i].q[j] = (int8_t)(((src[i / 4 * 32 + j] >> (i % 4 * 2)) & 3) - 1);
    }
}

el_expand_size el_expand_get_size(uint32_t type)
{
    switch (type) {
    case 7: return (el_expand_size){1, 24};
    case 10: return (el_expand_size){8, 84};
    case 11: return (el_expand_size){8, 110};
    case 12: return (el_expand_size){8, 144};
    case 13: return (el_expand_size){8, 176};
    case 14: return (el_expand_size){8, 210};
    case 34: return (el_expand_size){8, 54};
    case 35: return (el_expand_size){8, 66};
    default: return (el_expand_size){0, 0};
    }
}

void el_expand(uint32_t type, const uint8_t *src, el_expanded *out)
{
    switch (type) {
    case 7: expand_q5_1(src, out); break;
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
