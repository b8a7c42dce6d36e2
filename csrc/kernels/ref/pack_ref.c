/* Packing: rows of a GGUF file into tiles of 16 interleaved rows, and a tile's lane back into
 * float32. The block formats are those of the `gguf` package (gguf/quants.py) and ggml. */
#include "kernels/el_pack.h"

#include <assert.h>

#include "kernels/el_expand.h"
#include "kernels/el_math.h"

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q8_0 = 8, IQ4_NL = 20, BF16 = 30 };

static const int8_t IQ4_NL_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

int el_pack_layout(uint32_t type)
{
    switch (type) {
    case F32: return EL_LAYOUT_F32X16;
    case F16: return EL_LAYOUT_F16X16;
    case BF16: return EL_LAYOUT_BF16X16;
    case Q4_0: return EL_LAYOUT_Q4_0X16;
    case Q4_1: return EL_LAYOUT_Q4_1X16;
    case Q5_0:
    case Q8_0:
    case IQ4_NL: return EL_LAYOUT_Q8_0X16;
    default: return el_expand_get_size(type).bytes != 0 ? EL_LAYOUT_Q8_SX16 : -1;
    }
}

size_t el_pack_row_bytes(uint32_t type, size_t k)
{
    size_t values = EL_BLOCK, bytes = 0;
    switch (type) {
    case F32: values = 1, bytes = 4; break;
    case F16:
    case BF16: values = 1, bytes = 2; break;
    case Q4_0:
    case IQ4_NL: bytes = 18; break;
    case Q4_1: bytes = 20; break;
    case Q5_0: bytes = 22; break;
    case Q8_0: bytes = 34; break;
    default:
        bytes = el_expand_get_size(type).bytes;
        values = el_expand_get_size(type).blocks * EL_BLOCK;
        break;
    }
    if (bytes == 0 || k % values != 0 || k / values > SIZE_MAX / bytes) return 0;
    return k / values * bytes;
}

size_t el_pack_tile_bytes(el_layout layout, size_t k)
{
    if (k > SIZE_MAX / 1024) return 0;
    const size_t blocks = k / EL_BLOCK, per_16 = el_round_up(blocks * 32, 64);
    switch (layout) {
    case EL_LAYOUT_F32X16: return k * 64;
    case EL_LAYOUT_F16X16:
    case EL_LAYOUT_BF16X16: return el_round_up(k * 32, 64);
    case EL_LAYOUT_Q4_0X16: return per_16 + blocks * 256;
    case EL_LAYOUT_Q4_1X16: return 2 * per_16 + blocks * 256;
    case EL_LAYOUT_Q8_0X16: return per_16 + blocks * 512;
    case EL_LAYOUT_Q8_SX16: return blocks * 640 + 2 * per_16;
    }
    return 0;
}

// Interleave rows of 4-byte or 2-byte values: w[k][16].
static void pack_values(size_t rows, size_t k, size_t bytes, const uint8_t *src, uint8_t *tile)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *row = src + r * k * bytes;
        for (size_t i = 0; i < k; i++) memcpy(tile + (i * EL_LANES + r) * bytes, row + i * bytes, bytes);
    }
}

// q4_0 and q4_1: the file's nibble pairs are those of the tile, four bytes at a time.
static void pack_q4(size_t rows, size_t k, bool minima, const uint8_t *src, uint8_t *tile)
{
    const size_t blocks = k / EL_BLOCK, part = el_round_up(blocks * 32, 64), head = minima ? 4 : 2;
    uint8_t *q = tile + (minima ? 2 : 1) * part;

    for (size_t r = 0; r < rows; r++) {
        for (size_t b = 0; b < blocks; b++, src += head + 16) {
            memcpy(tile + (b * EL_LANES + r) * 2, src, 2);
            if (minima) memcpy(tile + part + (b * EL_LANES + r) * 2, src + 2, 2);
            for (size_t g = 0; g < 4; g++)
                memcpy(q + ((b * 4 + g) * EL_LANES + r) * 4, src + head + g * 4, 4);
        }
    }
    // A missing row must be zero weights: d is 0, and 0 * (0 - 8) would be -0, so the nibble is 8.
    for (size_t r = rows; r < EL_LANES && !minima; r++) {
        for (size_t i = 0; i < blocks * 4; i++) memset(q + (i * EL_LANES + r) * 4, 0x88, 4);
    }
}

// The 32 integers of one block of a type that goes to q8_0x16.
static size_t expand_q8_0(uint32_t type, const uint8_t *src, int8_t q[EL_BLOCK])
{
    if (type == Q8_0) {
        memcpy(q, src + 2, EL_BLOCK);
        return 34;
    }
    if (type == IQ4_NL) {
        for (size_t j = 0; j < 16; j++) {
            q[j] = IQ4_NL_VALUES[src[2 + j] & 15];
            q[j + 16] = IQ4_NL_VALUES[src[2 + j] >> 4];
        }
        return 18;
    }
    for (size_t j = 0; j < 16; j++) {  // q5_0: the fifth bits come first
        const int high_0 = (src[2 + j / 8] >> (j % 8)) & 1, high_1 = (src[4 + j / 8] >> (j % 8)) & 1;
        q[j] = (int8_t)(((src[6 + j] & 15) | high_0 << 4) - 16);
        q[j + 16] = (int8_t)(((src[6 + j] >> 4) | high_1 << 4) - 16);
    }
    return 22;
}

// q[8][16][4] of one block and lane, stored as value + 128.
static void put_bytes(uint8_t *q, size_t lane, const int8_t values[EL_BLOCK])
{
    for (size_t g = 0; g < 8; g++) {
        uint32_t u;
        memcpy(&u, values + g * 4, 4);
        u ^= 0x80808080u;
        memcpy(q + (g * EL_LANES + lane) * 4, &u, 4);
    }
}

static void pack_q8_0(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile)
{
    const size_t blocks = k / EL_BLOCK;
    uint8_t *q = tile + el_round_up(blocks * 32, 64);
    int8_t values[EL_BLOCK] = {0};

    for (size_t r = 0; r < rows; r++) {
        for (size_t b = 0; b < blocks; b++) {
            memcpy(tile + (b * EL_LANES + r) * 2, src, 2);
            src += expand_q8_0(type, src, values);
            put_bytes(q + b * 512, r, values);
        }
    }
    memset(values, 0, sizeof values);
    for (size_t r = rows; r < EL_LANES; r++) {
        for (size_t b = 0; b < blocks; b++) put_bytes(q + b * 512, r, values);
    }
}

static void pack_q8_sx(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile)
{
    const el_expand_size file = el_expand_get_size(type);
    const size_t blocks = k / EL_BLOCK, part = el_round_up(blocks * 32, 64);
    uint8_t *scales = tile + blocks * 128, *minima = scales + part, *q = minima + part;
    el_expanded e[EL_SUPER / EL_BLOCK];

    for (size_t r = 0; r < EL_LANES; r++) {
        memset(e, 0, sizeof e);
        for (size_t b = 0; b < blocks; b++) {
            const size_t i = b % file.blocks;
            if (i == 0 && r < rows) {
                el_expand(type, src, e);
                src += file.bytes;
            }
            memcpy(tile + (b * EL_LANES + r) * 4, &e[i].d, 4);
            memcpy(tile + blocks * 64 + (b * EL_LANES + r) * 4, &e[i].m, 4);
            for (size_t h = 0; h < 2; h++) {
                scales[b * 32 + h * EL_LANES + r] = (uint8_t)e[i].s[h];
                minima[b * 32 + h * EL_LANES + r] = e[i].n[h];
            }
            put_bytes(q + b * 512, r, e[i].q);
        }
    }
}

void el_pack_tile(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile)
{
    const int layout = el_pack_layout(type);
    assert(rows >= 1 && rows <= EL_LANES && layout >= 0);
    memset(tile, 0, el_pack_tile_bytes((el_layout)layout, k));

    switch (layout) {
    case EL_LAYOUT_F32X16: pack_values(rows, k, 4, src, tile); break;
    case EL_LAYOUT_F16X16:
    case EL_LAYOUT_BF16X16: pack_values(rows, k, 2, src, tile); break;
    case EL_LAYOUT_Q4_0X16: pack_q4(rows, k, false, src, tile); break;
    case EL_LAYOUT_Q4_1X16: pack_q4(rows, k, true, src, tile); break;
    case EL_LAYOUT_Q8_0X16: pack_q8_0(type, rows, k, src, tile); break;
    case EL_LAYOUT_Q8_SX16: pack_q8_sx(type, rows, k, src, tile); break;
    default: break;
    }
}

static float f16_at(const uint8_t *part, size_t b, size_t lane)
{
    return el_f16_to_f32(el_load_u16(part + (b * EL_LANES + lane) * 2));
}

static void unpack_q4(size_t k, bool minima, const uint8_t *tile, size_t lane, float *y)
{
    const size_t blocks = k / EL_BLOCK, part = el_round_up(blocks * 32, 64);
    const uint8_t *q = tile + (minima ? 2 : 1) * part;

    for (size_t b = 0; b < blocks; b++, y += EL_BLOCK) {
        const float d = f16_at(tile, b, lane), m = minima ? f16_at(tile + part, b, lane) : 0.0f;
        for (size_t j = 0; j < 16; j++) {
            const uint8_t pair = q[((b * 4 + j / 4) * EL_LANES + lane) * 4 + j % 4];
            const int lo = pair & 15, hi = pair >> 4;
            y[j] = minima ? d * (float)lo + m : d * (float)(lo - 8);
            y[j + 16] = minima ? d * (float)hi + m : d * (float)(hi - 8);
        }
    }
}

static void unpack_q8(size_t k, bool sub, const uint8_t *tile, size_t lane, float *y)
{
    const size_t blocks = k / EL_BLOCK, part = el_round_up(blocks * 32, 64);
    const uint8_t *scales = tile + blocks * 128, *minima = scales + part;
    const uint8_t *q = sub ? minima + part : tile + part;

    for (size_t b = 0; b < blocks; b++) {
        for (size_t j = 0; j < EL_BLOCK; j++) {
            const float v = (float)(q[(b * 128 + j / 4 * EL_LANES + lane) * 4 + j % 4] - 128);
            float *out = &y[b * EL_BLOCK + j];
            if (!sub) {
                *out = f16_at(tile, b, lane) * v;
                continue;
            }
            float d, m;
            memcpy(&d, tile + (b * EL_LANES + lane) * 4, 4);
            memcpy(&m, tile + blocks * 64 + (b * EL_LANES + lane) * 4, 4);
            const size_t at = b * 32 + j / 16 * EL_LANES + lane;
            *out = d * (float)(int8_t)scales[at] * v - m * (float)minima[at];
        }
    }
}

void el_unpack_lane(uint32_t type, size_t k, const uint8_t *tile, size_t lane, float *y)
{
    assert(lane < EL_LANES && el_pack_layout(type) >= 0);

    switch (el_pack_layout(type)) {
    case EL_LAYOUT_F32X16:
        for (size_t i = 0; i < k; i++) memcpy(&y[i], tile + (i * EL_LANES + lane) * 4, 4);
        break;
    case EL_LAYOUT_F16X16:
        for (size_t i = 0; i < k; i++) y[i] = f16_at(tile, i, lane);
        break;
    case EL_LAYOUT_BF16X16:
        for (size_t i = 0; i < k; i++) y[i] = el_bf16_to_f32(el_load_u16(tile + (i * EL_LANES + lane) * 2));
        break;
    case EL_LAYOUT_Q4_0X16: unpack_q4(k, false, tile, lane, y); break;
    case EL_LAYOUT_Q4_1X16: unpack_q4(k, true, tile, lane, y); break;
    case EL_LAYOUT_Q8_0X16: unpack_q8(k, false, tile, lane, y); break;
    case EL_LAYOUT_Q8_SX16: unpack_q8(k, true, tile, lane, y); break;
    default: break;
    }
}
