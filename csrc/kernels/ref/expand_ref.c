/* Super-blocks of ggml, read from gguf/quants.py. Eight values are moved at once, as bytes of a 64-bit
 * integer: run s of a block is its values 8s .. 8s + 7. */
#include "kernels/el_expand.h"

#include "kernels/el_math.h"

enum { RUNS = 4 };  // of a block

static const uint64_t EACH = UINT64_C(0x0101010101010101);

static void load_runs(const uint8_t *src, uint64_t runs[RUNS]) { memcpy(runs, src, RUNS * sizeof *runs); }

// Nibbles from `bit` on of four runs to the plane N: 16 values low, 16 high.
static void put_nibbles(const uint64_t runs[RUNS], unsigned bit, uint32_t q[4])
{
    uint64_t n[2];
    for (size_t i = 0; i < 2; i++)
        n[i] = (runs[i] >> bit & 15 * EACH) | (runs[i + 2] >> bit & 15 * EACH) << 4;
    memcpy(q, n, sizeof n);
}

// Pairs of bits to the plane C.
static void put_crumbs(const uint64_t runs[RUNS], unsigned bit, uint32_t q[2])
{
    uint64_t c = 0;
    for (size_t s = 0; s < RUNS; s++) c |= (runs[s] >> bit & 3 * EACH) << 2 * s;
    memcpy(q, &c, sizeof c);
}

// Single bits to the plane B: those of a run's first four values are even, of its others odd.
static void put_bits(const uint64_t runs[RUNS], unsigned bit, uint32_t q[1])
{
    uint64_t b = 0;
    for (size_t s = 0; s < RUNS; s++) b |= (runs[s] >> bit & EACH) << 2 * s;
    q[0] = (uint32_t)b | (uint32_t)(b >> 32) << 1;
}

static void expand_q2_k(const uint8_t *src, el_expanded *e)
{
    uint64_t runs[RUNS];
    e[0].d = el_load_u16(src + 80);
    e[0].m = el_load_u16(src + 82);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(e[i].s, src + i * 2, 2);  // scale and minimum of each half
        load_runs(src + 16 + i / 4 * 32, runs);
        put_crumbs(runs, i % 4 * 2, e[i].q);
    }
}

static void expand_q3_k(const uint8_t *src, el_expanded *e)
{
    const uint8_t *packed = src + 96;  // six bits each: four in the first eight bytes, two in the last four
    uint64_t runs[RUNS], high[RUNS];
    e[0].d = el_load_u16(src + 108);
    load_runs(src, high);
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned h = 0; h < 2; h++) {
            const unsigned at = i * 2 + h, low = packed[at % 8] >> (at / 8 * 4) & 15;
            e[i].s[h] = (uint8_t)((low | (packed[8 + at % 4] >> (at / 4 * 2) & 3) << 4) - 32);
        }
        load_runs(src + 32 + i / 4 * 32, runs);
        put_crumbs(runs, i % 4 * 2, e[i].q);
        put_bits(high, i, e[i].q + 2);
    }
}

// Six-bit scale and minimum of sub-block i of q4_k and q5_k.
static void scale_min(const uint8_t *packed, size_t i, el_expanded *e)
{
    if (i < 4) {
        e->s[0] = packed[i] & 63;
        e->n = packed[i + 4] & 63;
    } else {
        e->s[0] = (uint8_t)((packed[i + 4] & 15) | packed[i - 4] >> 6 << 4);
        e->n = (uint8_t)(packed[i + 4] >> 4 | packed[i] >> 6 << 4);
    }
}

static void expand_q4_k(const uint8_t *src, el_expanded *e)
{
    uint64_t runs[RUNS];
    e[0].d = el_load_u16(src);
    e[0].m = el_load_u16(src + 2);
    for (unsigned i = 0; i < 8; i++) {
        scale_min(src + 4, i, &e[i]);
        load_runs(src + 16 + i / 2 * 32, runs);
        put_nibbles(runs, i % 2 * 4, e[i].q);
    }
}

static void expand_q5_k(const uint8_t *src, el_expanded *e)
{
    uint64_t runs[RUNS], high[RUNS];
    e[0].d = el_load_u16(src);
    e[0].m = el_load_u16(src + 2);
    load_runs(src + 16, high);
    for (unsigned i = 0; i < 8; i++) {
        scale_min(src + 4, i, &e[i]);
        load_runs(src + 48 + i / 2 * 32, runs);
        put_nibbles(runs, i % 2 * 4, e[i].q);
        put_bits(high, i, e[i].q + 4);
    }
}

static void expand_q6_k(const uint8_t *src, el_expanded *e)
{
    uint64_t runs[RUNS], high[RUNS];
    e[0].d = el_load_u16(src + 208);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(e[i].s, src + 192 + i * 2, 2);
        load_runs(src + i / 4 * 64 + i % 2 * 32, runs);
        load_runs(src + 128 + i / 4 * 32, high);
        put_nibbles(runs, i % 4 / 2 * 4, e[i].q);
        put_crumbs(high, i % 4 * 2, e[i].q + 4);
    }
}

static void expand_tq1_0(const uint8_t *src, el_expanded *e)
{
    // Five base-3 digits a byte, as a fraction of 256: times 3^i drops i of them, times 3 gives the next.
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    static const struct {
        uint8_t first, bytes, digits;
    } parts[3] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    uint8_t trits[EL_SUPER], *out = trits;
    uint64_t runs[RUNS];

    for (size_t part = 0; part < 3; part++) {
        for (size_t i = 0; i < parts[part].digits; i++) {
            for (size_t j = 0; j < parts[part].bytes; j++) {
                const uint8_t rest = (uint8_t)(src[parts[part].first + j] * power[i]);
                *out++ = (uint8_t)(rest * 3 >> 8);
            }
        }
    }
    e[0].d = el_load_u16(src + 52);
    for (size_t i = 0; i < 8; i++) {
        load_runs(trits + i * EL_BLOCK, runs);
        put_crumbs(runs, 0, e[i].q);
    }
}

static void expand_tq2_0(const uint8_t *src, el_expanded *e)
{
    uint64_t runs[RUNS];
    e[0].d = el_load_u16(src + 64);
    for (unsigned i = 0; i < 8; i++) {
        load_runs(src + i / 4 * 32, runs);
        put_crumbs(runs, i % 4 * 2, e[i].q);
    }
}

el_expand_size el_expand_get_size(uint32_t type)
{
    switch (type) {
    case 10: return (el_expand_size){84, EL_LAYOUT_Q2_KX16};
    case 11: return (el_expand_size){110, EL_LAYOUT_Q3_KX16};
    case 12: return (el_expand_size){144, EL_LAYOUT_Q4_KX16};
    case 13: return (el_expand_size){176, EL_LAYOUT_Q5_KX16};
    case 14: return (el_expand_size){210, EL_LAYOUT_Q6_KX16};
    case 34: return (el_expand_size){54, EL_LAYOUT_TQ2_0X16};
    case 35: return (el_expand_size){66, EL_LAYOUT_TQ2_0X16};
    default: return (el_expand_size){0, EL_LAYOUTS};
    }
}

void el_expand(uint32_t type, const uint8_t *src, el_expanded out[EL_SUPER / EL_BLOCK])
{
    switch (type) {
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
