/* How rounded keys and values are put into a cache of q8_0 (el_blocks.h). */
#ifndef EL_KV_Q8_H
#define EL_KV_Q8_H

#include "kernels/el_math.h"
#include "kernels/kernel_types.h"

/// The scale as the cache keeps it. One that float16 lacks becomes its largest: the block is cut off there.
static inline uint16_t el_kv_scale(float scale) { return el_f32_to_f16(scale < 65504.0f ? scale : 65504.0f); }

/// Put values [in, in + n) of a head's key at a place; `in` begins a block, x holds their blocks.
static inline void el_put_key_q8(size_t d, size_t place, size_t in, size_t n, const el_act_q8 *x,
                                 uint8_t *k_cache)
{
    uint8_t *tile = k_cache + place / EL_KEYS * EL_KEYS * el_q8_row_bytes(d);
    uint8_t *q = tile + el_head_blocks(d) * EL_KEYS * sizeof(uint16_t) + place % EL_KEYS;
    for (size_t i = 0; i < n; i++) {
        const el_act_q8 *block = &x[i / EL_BLOCK];
        if (i % EL_BLOCK == 0) {
            const uint16_t scale = el_kv_scale(block->scale);
            const size_t at = (in + i) / EL_BLOCK * EL_KEYS + place % EL_KEYS;
            memcpy(tile + at * sizeof scale, &scale, sizeof scale);
        }
        q[(in + i) * EL_KEYS] = (uint8_t)block->q[i % EL_BLOCK];
    }
}

/// The same for its value.
static inline void el_put_value_q8(size_t d, size_t place, size_t in, size_t n, const el_act_q8 *x,
                                   uint8_t *v_cache)
{
    uint8_t *row = v_cache + place * el_q8_row_bytes(d);
    for (size_t i = 0; i < n; i += EL_BLOCK, x++) {
        const uint16_t scale = el_kv_scale(x->scale);
        memcpy(row + (in + i) / EL_BLOCK * sizeof scale, &scale, sizeof scale);
        memcpy(row + el_head_blocks(d) * sizeof scale + in + i, x->q, n - i < EL_BLOCK ? n - i : EL_BLOCK);
    }
}

/// Round values of a head (n <= EL_HEAD_MAX) with a kernel; a shorter last block is filled up with zeros.
static inline void el_round_head(el_quantize_act_q8_fn *quantize, size_t n, const float *x, el_act_q8 *out)
{
    const size_t whole = n / EL_BLOCK * EL_BLOCK;
    quantize(whole, x, out);
    if (whole == n) return;
    float rest[EL_BLOCK] = {0.0f};
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    quantize(EL_BLOCK, rest, out + whole / EL_BLOCK);
}

/// kv_write_q8_0 by way of an instruction set's quantize_act_q8.
static inline void el_kv_write_q8(el_quantize_act_q8_fn *quantize, size_t d, size_t place, const float *key,
                                  const float *value, void *k_cache, void *v_cache)
{
    el_act_q8 rounded[EL_HEAD_MAX / EL_BLOCK];
    el_round_head(quantize, d, key, rounded);
    el_put_key_q8(d, place, 0, d, rounded, k_cache);
    el_round_head(quantize, d, value, rounded);
    el_put_value_q8(d, place, 0, d, rounded, v_cache);
}

#endif
