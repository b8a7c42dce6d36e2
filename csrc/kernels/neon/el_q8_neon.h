/* What every gemm_q8 kernel of AArch64 shares: where the parts of a tile are, how four lanes of a block are
 * unpacked, and how a block's integers go into the sum. A register of a group is four lanes of four bytes. */
#ifndef EL_Q8_NEON_H
#define EL_Q8_NEON_H

#include "kernels/el_layout.h"
#include "kernels/neon/el_neon.h"

/// Scales per half of a block.
EL_INLINE bool el_q8_halves(el_layout kind)
{
    return kind == EL_LAYOUT_Q2_KX16 || kind == EL_LAYOUT_Q3_KX16 || kind == EL_LAYOUT_Q6_KX16;
}

/// One scale per block below that of the super-block.
EL_INLINE bool el_q8_scaled(el_layout kind) { return kind == EL_LAYOUT_Q4_KX16 || kind == EL_LAYOUT_Q5_KX16; }

/// Weight d q + m.
EL_INLINE bool el_q8_offset(el_layout kind) { return kind == EL_LAYOUT_Q4_1X16 || kind == EL_LAYOUT_Q5_1X16; }

/// Weight d s q - m n.
EL_INLINE bool el_q8_minima(el_layout kind) { return kind == EL_LAYOUT_Q2_KX16 || el_q8_scaled(kind); }

/// Two products of a byte and an activation fill 16 bits; elsewhere eight fit (EL_LAYOUT_Q6_KX16: four).
EL_INLINE bool el_q8_wide(el_layout kind) { return kind == EL_LAYOUT_Q8_0X16 || kind == EL_LAYOUT_IQ4_NLX16; }

/// What is subtracted from every stored integer: repaid with the sum of the activations.
EL_INLINE int32_t el_q8_bias(el_layout kind)
{
    switch (kind) {
    case EL_LAYOUT_Q4_0X16: return 8;
    case EL_LAYOUT_Q5_0X16: return 16;
    case EL_LAYOUT_Q3_KX16: return 4;
    case EL_LAYOUT_Q6_KX16: return 32;
    case EL_LAYOUT_TQ2_0X16: return 1;
    default: return 0;
    }
}

/// Where the parts of one tile are (el_layout.h).
typedef struct el_q8_tile {
    const uint8_t *d, *m, *s, *n, *q;
} el_q8_tile;

EL_INLINE el_q8_tile el_q8_view(el_layout kind, size_t k, const uint8_t *tile, size_t *bytes)
{
    const el_parts p = el_parts_of(el_shape_of(kind), k);
    *bytes = p.bytes;
    return (el_q8_tile){tile, tile + p.m, tile + p.s, tile + p.n, tile + p.q};
}

/// One block of four lanes.
typedef struct el_q8_quad {
    int8x16_t w[8];  ///< a group each
    float32x4_t d, m, s[2], n[2];
} el_q8_quad;

EL_INLINE void el_unpack_nibbles(const uint8_t *q, uint8x16_t w[8])
{
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        const uint8x16_t pair = vld1q_u8(q + g * 64);
        w[g] = vandq_u8(pair, vdupq_n_u8(15));
        w[g + 4] = vshrq_n_u8(pair, 4);
    }
}

EL_INLINE void el_unpack_crumbs(const uint8_t *q, uint8x16_t w[8])
{
    const uint8x16_t low = vdupq_n_u8(3);
#pragma GCC unroll 2
    for (size_t c = 0; c < 2; c++) {
        const uint8x16_t four = vld1q_u8(q + c * 64);
        w[c] = vandq_u8(four, low);
        w[c + 2] = vandq_u8(vshrq_n_u8(four, 2), low);
        w[c + 4] = vandq_u8(vshrq_n_u8(four, 4), low);
        w[c + 6] = vshrq_n_u8(four, 6);
    }
}

/// Bits 4 and 5 from crumbs.
EL_INLINE void el_insert_crumbs(const uint8_t *q, uint8x16_t w[8])
{
    const uint8x16_t at = vdupq_n_u8(0x30);
#pragma GCC unroll 2
    for (size_t c = 0; c < 2; c++) {
        const uint8x16_t four = vld1q_u8(q + c * 64);
        w[c] = vbslq_u8(at, vshlq_n_u8(four, 4), w[c]);
        w[c + 2] = vbslq_u8(at, vshlq_n_u8(four, 2), w[c + 2]);
        w[c + 4] = vbslq_u8(at, four, w[c + 4]);
        w[c + 6] = vbslq_u8(at, vshrq_n_u8(four, 2), w[c + 6]);
    }
}

/// Bit 4 of group g from bit g.
EL_INLINE void el_insert_bit_4(const uint8_t *q, uint8x16_t w[8])
{
    const uint8x16_t bits = vld1q_u8(q), at = vdupq_n_u8(0x10);
    w[0] = vbslq_u8(at, vshlq_n_u8(bits, 4), w[0]);
    w[1] = vbslq_u8(at, vshlq_n_u8(bits, 3), w[1]);
    w[2] = vbslq_u8(at, vshlq_n_u8(bits, 2), w[2]);
    w[3] = vbslq_u8(at, vshlq_n_u8(bits, 1), w[3]);
    w[4] = vbslq_u8(at, bits, w[4]);
    w[5] = vbslq_u8(at, vshrq_n_u8(bits, 1), w[5]);
    w[6] = vbslq_u8(at, vshrq_n_u8(bits, 2), w[6]);
    w[7] = vbslq_u8(at, vshrq_n_u8(bits, 3), w[7]);
}

/// Bit 2 of group g from bit g.
EL_INLINE void el_insert_bit_2(const uint8_t *q, uint8x16_t w[8])
{
    const uint8x16_t bits = vld1q_u8(q), at = vdupq_n_u8(4);
    w[0] = vbslq_u8(at, vshlq_n_u8(bits, 2), w[0]);
    w[1] = vbslq_u8(at, vshlq_n_u8(bits, 1), w[1]);
    w[2] = vbslq_u8(at, bits, w[2]);
    w[3] = vbslq_u8(at, vshrq_n_u8(bits, 1), w[3]);
    w[4] = vbslq_u8(at, vshrq_n_u8(bits, 2), w[4]);
    w[5] = vbslq_u8(at, vshrq_n_u8(bits, 3), w[5]);
    w[6] = vbslq_u8(at, vshrq_n_u8(bits, 4), w[6]);
    w[7] = vbslq_u8(at, vshrq_n_u8(bits, 5), w[7]);
}

/// Integers of lanes 4 c .. 4 c + 3, still with their bias.
EL_INLINE void el_q8_unpack(el_layout kind, const uint8_t *q, int8x16_t w[8])
{
    static const int8_t codebook[16] = EL_IQ4_NL_VALUES;
    uint8x16_t u[8];
    if (kind == EL_LAYOUT_Q8_0X16) {
#pragma GCC unroll 8
        for (size_t g = 0; g < 8; g++) u[g] = veorq_u8(vld1q_u8(q + g * 64), vdupq_n_u8(128));
    } else if (kind == EL_LAYOUT_Q2_KX16 || kind == EL_LAYOUT_Q3_KX16 || kind == EL_LAYOUT_TQ2_0X16) {
        el_unpack_crumbs(q, u);
    } else {
        el_unpack_nibbles(q, u);
    }
    if (kind == EL_LAYOUT_Q5_0X16 || kind == EL_LAYOUT_Q5_1X16 || kind == EL_LAYOUT_Q5_KX16)
        el_insert_bit_4(q + 256, u);
    if (kind == EL_LAYOUT_Q3_KX16) el_insert_bit_2(q + 128, u);
    if (kind == EL_LAYOUT_Q6_KX16) el_insert_crumbs(q + 256, u);
#pragma GCC unroll 8
    for (size_t g = 0; g < 8; g++) {
        w[g] = kind == EL_LAYOUT_IQ4_NLX16 ? vqtbl1q_s8(vld1q_s8(codebook), u[g]) : vreinterpretq_s8_u8(u[g]);
    }
}

/// Four bytes as floats, exactly.
EL_INLINE float32x4_t el_u8x4(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(u)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

EL_INLINE float32x4_t el_i8x4(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(u)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

/// Nibbles of four bytes as floats.
EL_INLINE void el_u4x4(const uint8_t *p, float32x4_t *low, float32x4_t *high)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    const uint32x4_t wide = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(u)))));
    *low = vcvtq_f32_u32(vandq_u32(wide, vdupq_n_u32(15)));
    *high = vcvtq_f32_u32(vshrq_n_u32(wide, 4));
}

/// Block b of lanes 4 c .. 4 c + 3.
EL_INLINE void el_q8_load(el_layout kind, const el_q8_tile *t, size_t b, size_t c, el_q8_quad *out)
{
    const el_shape shape = el_shape_of(kind);
    const size_t head = (shape.super ? b / (EL_SUPER / EL_BLOCK) : b) * 32 + c * 8;
    el_q8_unpack(kind, t->q + b * shape.q + c * 16, out->w);
    out->d = el_f16x4(t->d + head);
    if (el_q8_offset(kind) || el_q8_minima(kind)) out->m = el_f16x4(t->m + head);
    if (el_q8_scaled(kind)) {
        out->s[0] = el_u8x4(t->s + b * 16 + c * 4);
        out->n[0] = el_u8x4(t->n + b * 16 + c * 4);
    }
    if (kind == EL_LAYOUT_Q2_KX16) {
        el_u4x4(t->s + b * 32 + c * 4, &out->s[0], &out->n[0]);
        el_u4x4(t->s + b * 32 + 16 + c * 4, &out->s[1], &out->n[1]);
    }
    if (kind == EL_LAYOUT_Q3_KX16 || kind == EL_LAYOUT_Q6_KX16) {
        out->s[0] = el_i8x4(t->s + b * 32 + c * 4);
        out->s[1] = el_i8x4(t->s + b * 32 + 16 + c * 4);
    }
}

/// The same for a panel: the bias is taken off here, once for all rows.
EL_INLINE void el_q8_load_exact(el_layout kind, const el_q8_tile *t, size_t b, size_t c, el_q8_quad *out)
{
    el_q8_load(kind, t, b, c, out);
    if (el_q8_bias(kind) == 0) return;
#pragma GCC unroll 8
    for (size_t g = 0; g < 8; g++) out->w[g] = vsubq_s8(out->w[g], vdupq_n_s8((int8_t)el_q8_bias(kind)));
}

/// What a block of activations brings beside its bytes, one row of X in each lane.
typedef struct el_q8_terms {
    float32x4_t scale, sum, sum_lo, sum_hi;
    int32x4_t start, start_hi;  ///< where the products of the block, or of its halves, start: the bias repaid
} el_q8_terms;

/// Terms of two rows: the first in lanes 0 and 1, the second in lanes 2 and 3. `exact`: no bias is left.
EL_INLINE el_q8_terms el_q8_terms_of(el_layout kind, bool exact, const el_act_q8 *a, const el_act_q8 *b)
{
    const bool halves = el_q8_halves(kind);
    const int32_t bias = exact ? 0 : -el_q8_bias(kind), a_hi = a->sum - a->sum_lo, b_hi = b->sum - b->sum_lo;
    const int32_t a_lo = halves ? a->sum_lo : a->sum, b_lo = halves ? b->sum_lo : b->sum;
    el_q8_terms x;
    x.scale = vcombine_f32(vdup_n_f32(a->scale), vdup_n_f32(b->scale));
    x.sum = vcombine_f32(vdup_n_f32((float)a->sum), vdup_n_f32((float)b->sum));
    x.sum_lo = vcombine_f32(vdup_n_f32((float)a->sum_lo), vdup_n_f32((float)b->sum_lo));
    x.sum_hi = vcombine_f32(vdup_n_f32((float)a_hi), vdup_n_f32((float)b_hi));
    x.start = vcombine_s32(vdup_n_s32(bias * a_lo), vdup_n_s32(bias * b_lo));
    x.start_hi = vcombine_s32(vdup_n_s32(bias * a_hi), vdup_n_s32(bias * b_hi));
    return x;
}

/// acc plus one block. `lo` is the product of the block's integers, or with `hi` those of its halves.
/// Integers and their products with sub-scales stay below 2^24 (el_blocks.h), so as floats they are exact.
EL_INLINE float32x4_t el_q8_add(el_layout kind, const el_q8_quad *w, const el_q8_terms *x, int32x4_t lo,
                                int32x4_t hi, float32x4_t acc)
{
    float32x4_t dot = vcvtq_f32_s32(lo);
    if (el_q8_halves(kind)) {
        dot = vfmaq_f32(vmulq_f32(dot, w->s[0]), vcvtq_f32_s32(hi), w->s[1]);
    }
    if (el_q8_scaled(kind)) dot = vmulq_f32(dot, w->s[0]);
    acc = vfmaq_f32(acc, vmulq_f32(w->d, x->scale), dot);
    if (el_q8_offset(kind)) return vfmaq_f32(acc, vmulq_f32(w->m, x->scale), x->sum);
    if (!el_q8_minima(kind)) return acc;
    float32x4_t sum = vmulq_f32(w->n[0], kind == EL_LAYOUT_Q2_KX16 ? x->sum_lo : x->sum);
    if (kind == EL_LAYOUT_Q2_KX16) sum = vfmaq_f32(sum, w->n[1], x->sum_hi);
    return vfmsq_f32(acc, vmulq_f32(w->m, x->scale), sum);
}

#endif
