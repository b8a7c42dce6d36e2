/* Packing: rows of a GGUF file into tiles of 16 interleaved rows, and a tile's lane back into
 * float32. The block formats are those of the `gguf` package (gguf/quants.py) and ggml. */
#include "kernels/el_pack.h"

#include <assert.h>

#include "kernels/el_expand.h"
#include "kernels/ref/el_planes.h"

enum { F32 = 0, F16 = 1, BF16 = 30 };

int el_pack_layout(uint32_t type)
{
    switch (type) {
    case F32: return EL_LAYOUT_F32X16;
    case F16: return EL_LAYOUT_F16X16;
    case BF16: return EL_LAYOUT_BF16X16;
    default: return el_expand_get_size(type).bytes != 0 ? (int)el_expand_get_size(type).layout : -1;
    }
}

size_t el_pack_row_bytes(uint32_t type, size_t k)
{
    size_t values = 1, bytes = type == F32 ? 4 : 2;
    if (type != F32 && type != F16 && type != BF16) {
        bytes = el_expand_get_size(type).bytes;
        values = el_expand_get_size(type).blocks * EL_BLOCK;
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

// Interleave rows of 4-byte or 2-byte values: w[k][16].
static void pack_values(size_t rows, size_t k, size_t bytes, const uint8_t *src, uint8_t *tile)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *row = src + r * k * bytes;
        for (size_t i = 0; i < k; i++) memcpy(tile + (i * EL_LANES + r) * bytes, row + i * bytes, bytes);
    }
}

// Write the integers of one block and lane into its planes, which are zero before.
static void put_planes(el_shape shape, const uint8_t v[EL_BLOCK], size_t lane, uint8_t *q)
{
    uint8_t *high = q + shape.low * 64u;
    for (size_t j = 0; j < EL_BLOCK; j++) {
        const size_t g = j / 4, at = lane * 4 + j % 4;
        const unsigned low = v[j] & ((1u << shape.low) - 1u), rest = (unsigned)v[j] >> shape.low;
        if (shape.low == 8) q[g * 64 + at] = v[j];
        if (shape.low == 4) q[g % 4 * 64 + at] |= (uint8_t)(low << (g / 4 * 4));
        if (shape.low == 2) q[g % 2 * 64 + at] |= (uint8_t)(low << (g / 2 * 2));
        if (shape.high == 2) high[g % 2 * 64 + at] |= (uint8_t)(rest << (g / 2 * 2));
        if (shape.high == 1) high[at] |= (uint8_t)(rest << g);
    }
}

static void put_u16(uint8_t *part, size_t at, size_t lane, uint16_t bits)
{
    memcpy(part + (at * EL_LANES + lane) * 2, &bits, 2);
}

static void pack_row(uint32_t type, size_t k, const uint8_t *src, size_t lane, uint8_t *tile)
{
    const el_expand_size file = el_expand_get_size(type);
    const el_shape shape = el_shape_of(file.layout);
    const el_parts at = el_parts_of(shape, k);
    el_expanded e[EL_SUPER / EL_BLOCK];

    for (size_t b = 0; b < k / EL_BLOCK; b++) {
        const size_t i = b % file.blocks, head = shape.super ? b / file.blocks : b;
        if (i == 0) {
            memset(e, 0, sizeof e);
            el_expand(type, src, e);
            src += file.bytes;
            put_u16(tile, head, lane, e[0].d);
            if (shape.minima) put_u16(tile + at.m, head, lane, e[0].m);
        }
        for (size_t h = 0; h < shape.s / 16u; h++) tile[at.s + b * shape.s + h * EL_LANES + lane] = e[i].s[h];
        if (shape.n != 0) tile[at.n + b * shape.n + lane] = e[i].n;
        put_planes(shape, e[i].q, lane, tile + at.q + b * shape.q);
    }
}

void el_pack_tile(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile)
{
    const int layout = el_pack_layout(type);
    assert(rows >= 1 && rows <= EL_LANES && layout >= 0);
    memset(tile, 0, el_pack_tile_bytes((el_layout)layout, k));

    if (!el_layout_is_q8((el_layout)layout)) {
        pack_values(rows, k, layout == EL_LAYOUT_F32X16 ? 4 : 2, src, tile);
        return;
    }
    const size_t row_bytes = el_pack_row_bytes(type, k);
    for (size_t r = 0; r < rows; r++) pack_row(type, k, src + r * row_bytes, r, tile);
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
