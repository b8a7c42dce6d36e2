/* Packing: rows of a GGUF file into tiles of 16 interleaved rows, and a tile's lane back into
 * float32. The block formats are those of the `gguf` package (gguf/quants.py) and ggml. */
#include "kernels/el_pack.h"

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_expand.h"
#include "kernels/ref/el_planes.h"

enum { F32 = 0, F16 = 1, BF16 = 30 };

/// A type with blocks of 32: d is at 0 of a block, the rest at these bytes; 0 where there is none.
typedef struct small_type {
    uint8_t bytes, m, bits, q;
    el_layout layout;
} small_type;

static small_type small_type_of(uint32_t type)
{
    switch (type) {
    case 2: return (small_type){18, 0, 0, 2, EL_LAYOUT_Q4_0X16};
    case 3: return (small_type){20, 2, 0, 4, EL_LAYOUT_Q4_1X16};
    case 6: return (small_type){22, 0, 2, 6, EL_LAYOUT_Q5_0X16};
    case 7: return (small_type){24, 2, 4, 8, EL_LAYOUT_Q5_1X16};
    case 8: return (small_type){34, 0, 0, 2, EL_LAYOUT_Q8_0X16};
    case 20: return (small_type){18, 0, 0, 2, EL_LAYOUT_IQ4_NLX16};
    default: return (small_type){0, 0, 0, 0, EL_LAYOUTS};
    }
}

int el_pack_layout(uint32_t type)
{
    switch (type) {
    case F32: return EL_LAYOUT_F32X16;
    case F16: return EL_LAYOUT_F16X16;
    case BF16: return EL_LAYOUT_BF16X16;
    default: break;
    }
    if (small_type_of(type).bytes != 0) return (int)small_type_of(type).layout;
    return el_expand_get_size(type).bytes != 0 ? (int)el_expand_get_size(type).layout : -1;
}

size_t el_pack_row_bytes(uint32_t type, size_t k)
{
    size_t values = EL_BLOCK, bytes = small_type_of(type).bytes;
    if (type == F32 || type == F16 || type == BF16) {
        values = 1;
        bytes = type == F32 ? 4 : 2;
    } else if (bytes == 0) {
        values = EL_SUPER;
        bytes = el_expand_get_size(type).bytes;
    }
    if (bytes == 0 || k % values != 0 || k / values > SIZE_MAX / bytes) return 0;
    return k / values * bytes;
}

size_t el_pack_tile_bytes(el_layout layout, size_t k)
{
    if (k > SIZE_MAX / 1024) return 0;
    if (el_layout_is_q8(layout)) return el_parts_of(el_shape_of(layout), k).bytes;
    return el_round_up(k * (layout == EL_LAYOUT_F32X16 ? 64 : 32), 64);
}

// w[k][16] of 2-byte values: pairs are interleaved as words, then parted.
static void pack_halves(el_interleave_fn *interleave, size_t rows, size_t k, const uint8_t *src,
                        uint8_t *tile)
{
    enum { WORDS = 16 };
    uint32_t pairs[WORDS * EL_LANES];
    uint16_t w[2 * EL_LANES];
    for (size_t i = 0; i + 1 < k; i += 2 * WORDS) {
        const size_t words = (k - i) / 2 < WORDS ? (k - i) / 2 : WORDS;
        interleave(rows, 1, words, src + i * 2, k * 2, 0, 0, (uint8_t *)pairs, 0);
        for (size_t j = 0; j < words; j++) {
            for (size_t r = 0; r < EL_LANES; r++) {
                w[r] = (uint16_t)pairs[j * EL_LANES + r];
                w[EL_LANES + r] = (uint16_t)(pairs[j * EL_LANES + r] >> 16);
            }
            memcpy(tile + (i + 2 * j) * EL_LANES * 2, w, sizeof w);
        }
    }
    for (size_t r = 0; r < EL_LANES && k % 2 != 0; r++)
        memcpy(tile + ((k - 1) * EL_LANES + r) * 2, src + ((r < rows ? r : rows - 1) * k + k - 1) * 2, 2);
}

static void pack_floats(el_interleave_fn *interleave, uint32_t type, size_t rows, size_t k,
                        const uint8_t *src, uint8_t *tile)
{
    const size_t size = type == F32 ? 4 : 2;
    if (type == F32)
        interleave(rows, 1, k, src, k * 4, 0, 0, tile, 0);
    else
        pack_halves(interleave, rows, k, src, tile);
    for (size_t i = 0; i < k && rows < EL_LANES; i++)
        memset(tile + (i * EL_LANES + rows) * size, 0, (EL_LANES - rows) * size);
    memset(tile + k * EL_LANES * size, 0, el_round_up(k * EL_LANES * size, 64) - k * EL_LANES * size);
}

// The f16 at the start of every block; 0 for missing rows and in the padding.
static void pack_scales(size_t rows, size_t blocks, const uint8_t *src, size_t row_bytes, size_t step,
                        uint8_t *part)
{
    for (size_t b = 0; b < blocks; b++, src += step, part += EL_LANES * 2) {
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) memcpy(part + r * 2, src + r * row_bytes, 2);
        memset(part + rows * 2, 0, (EL_LANES - rows) * 2);
    }
    memset(part, 0, blocks % 2 * EL_LANES * 2);
}

// Bit 4g + j of a file's 32 bits is bit g of byte j in a tile. In the index of a bit, that rotates the
// five digits by two: four exchanges of two digits, for all lanes at once.
static uint32_t exchange(uint32_t x, unsigned shift, uint32_t mask)
{
    const uint32_t t = (x >> shift ^ x) & mask;
    return x ^ t ^ t << shift;
}

static void spread_bits(size_t blocks, uint8_t *q, size_t step)
{
    uint32_t x[EL_LANES];
    for (size_t b = 0; b < blocks; b++, q += step) {
        memcpy(x, q, sizeof x);
        for (size_t r = 0; r < EL_LANES; r++) {
            uint32_t v = exchange(x[r], 14, 0x0000CCCC);
            v = exchange(v, 7, 0x00AA00AA);
            v = exchange(v, 2, 0x0C0C0C0C);
            x[r] = exchange(v, 1, 0x22222222);
        }
        memcpy(q, x, sizeof x);
    }
}

static void pack_small(el_interleave_fn *interleave, small_type type, size_t rows, size_t k,
                       const uint8_t *src, uint8_t *tile)
{
    const el_shape shape = el_shape_of(type.layout);
    const el_parts at = el_parts_of(shape, k);
    const size_t blocks = k / EL_BLOCK, row_bytes = blocks * type.bytes;

    pack_scales(rows, blocks, src, row_bytes, type.bytes, tile);
    if (type.m != 0) pack_scales(rows, blocks, src + type.m, row_bytes, type.bytes, tile + at.m);
    interleave(rows, blocks, shape.low, src + type.q, row_bytes, type.bytes, shape.low == 8 ? 0x80808080 : 0,
               tile + at.q, shape.q);  // + 128 of each byte
    if (type.bits != 0) {
        uint8_t *bits = tile + at.q + 4 * 64;
        interleave(rows, blocks, 1, src + type.bits, row_bytes, type.bytes, 0, bits, shape.q);
        spread_bits(blocks, bits, shape.q);
    }
}

static void pack_super(el_interleave_fn *interleave, uint32_t type, size_t rows, size_t k, const uint8_t *src,
                       uint8_t *tile)
{
    enum { BLOCKS = EL_SUPER / EL_BLOCK };
    const el_expand_size file = el_expand_get_size(type);
    const el_shape shape = el_shape_of(file.layout);
    const el_parts at = el_parts_of(shape, k);
    const size_t supers = k / EL_SUPER;
    el_expanded e[EL_LANES][BLOCKS];

    memset(tile, 0, at.q);  // padding, and the scales of missing rows
    for (size_t i = 0; i < supers; i++) {
        for (size_t r = 0; r < rows; r++) {
            el_expand(type, src + (r * supers + i) * file.bytes, e[r]);
            memcpy(tile + (i * EL_LANES + r) * 2, &e[r][0].d, 2);
            if (shape.minima) memcpy(tile + at.m + (i * EL_LANES + r) * 2, &e[r][0].m, 2);
        }
        uint8_t *s = tile + at.s + i * BLOCKS * shape.s, *n = tile + at.n + i * BLOCKS * shape.n;
        for (size_t b = 0; b < BLOCKS; b++, s += shape.s, n += shape.n) {
            for (size_t r = 0; r < rows && shape.s != 0; r++) s[r] = e[r][b].s[0];
            for (size_t r = 0; r < rows && shape.s == 32; r++) s[EL_LANES + r] = e[r][b].s[1];
            for (size_t r = 0; r < rows && shape.n != 0; r++) n[r] = e[r][b].n;
        }
        interleave(rows, BLOCKS, shape.q / 64u, (const uint8_t *)e, sizeof e[0], sizeof e[0][0], 0,
                   tile + at.q + i * BLOCKS * shape.q, shape.q);
    }
}

void el_pack_tile_by(el_interleave_fn *interleave, uint32_t type, size_t rows, size_t k, const uint8_t *src,
                     uint8_t *tile)
{
    assert(rows >= 1 && rows <= EL_LANES && el_pack_layout(type) >= 0);
    const small_type small = small_type_of(type);
    if (small.bytes != 0)
        pack_small(interleave, small, rows, k, src, tile);
    else if (el_expand_get_size(type).bytes != 0)
        pack_super(interleave, type, rows, k, src, tile);
    else
        pack_floats(interleave, type, rows, k, src, tile);
}

void el_pack_tile(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile)
{
    el_pack_tile_by(el_interleave__ref, type, rows, k, src, tile);
}

// Weights of one block, rounded as gguf/quants.py rounds them.
static void unpack_block(el_layout layout, const uint8_t *tile, const el_parts *at, size_t b, size_t lane,
                         float *y)
{
    const el_shape shape = el_shape_of(layout);
    const size_t head = shape.super ? b / (EL_SUPER / EL_BLOCK) : b;
    const float d = el_lane_f16(tile, head, lane);
    const float m = shape.minima ? el_lane_f16(tile + at->m, head, lane) : 0.0f;
    const uint8_t *s = tile + at->s + b * shape.s + lane, *n = tile + at->n + b * shape.n + lane;
    int8_t v[EL_BLOCK];
    el_lane_values(layout, tile + at->q + b * shape.q, lane, v);

    for (size_t j = 0; j < EL_BLOCK; j++) {
        const uint8_t sub = shape.s != 0 ? s[j / 16 * (shape.s - 16u)] : 0;
        switch (layout) {
        case EL_LAYOUT_Q4_1X16:
        case EL_LAYOUT_Q5_1X16: y[j] = d * v[j] + m; break;
        case EL_LAYOUT_Q4_KX16:
        case EL_LAYOUT_Q5_KX16: y[j] = d * sub * v[j] - m * n[0]; break;
        case EL_LAYOUT_Q2_KX16: y[j] = d * (sub & 15) * v[j] - m * (sub >> 4); break;
        case EL_LAYOUT_Q3_KX16:
        case EL_LAYOUT_Q6_KX16: y[j] = d * (int8_t)sub * v[j]; break;
        default: y[j] = d * v[j]; break;
        }
    }
}

void el_unpack_lane(uint32_t type, size_t k, const uint8_t *tile, size_t lane, float *y)
{
    const int layout = el_pack_layout(type);
    assert(lane < EL_LANES && layout >= 0);
    if (el_layout_is_q8((el_layout)layout)) {
        const el_parts at = el_parts_of(el_shape_of((el_layout)layout), k);
        for (size_t b = 0; b < k / EL_BLOCK; b++)
            unpack_block((el_layout)layout, tile, &at, b, lane, y + b * EL_BLOCK);
        return;
    }
    for (size_t i = 0; i < k; i++) {
        const uint8_t *w = tile + (i * EL_LANES + lane) * (layout == EL_LAYOUT_F32X16 ? 4 : 2);
        if (layout == EL_LAYOUT_F32X16) memcpy(&y[i], w, 4);
        if (layout == EL_LAYOUT_F16X16) y[i] = el_f16_to_f32(el_load_u16(w));
        if (layout == EL_LAYOUT_BF16X16) y[i] = el_bf16_to_f32(el_load_u16(w));
    }
}
