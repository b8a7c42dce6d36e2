/* f32_to_f16, f16_to_f32 and the writers of the cache. Converting to and from float16 is part of
 * ARMv8.0 (arithmetic in it is not): fcvtn rounds to nearest even and keeps subnormals. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_kv_q8.h"
#include "kernels/neon/el_neon.h"

EL_INLINE uint16x8_t to_f16(const float *x)
{
    const float16x4_t lo = vcvt_f16_f32(vld1q_f32(x)), hi = vcvt_f16_f32(vld1q_f32(x + 4));
    return vcombine_u16(vreinterpret_u16_f16(lo), vreinterpret_u16_f16(hi));
}

void el_f32_to_f16__neon(size_t n, const float *x, uint16_t *y)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) vst1q_u16(y + i, to_f16(x + i));
    for (; i < n; i++) y[i] = el_f32_to_f16(x[i]);
}

void el_f16_to_f32__neon(size_t n, const uint16_t *x, float *y)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        vst1q_f32(y + i, el_f16x4(x + i));
        vst1q_f32(y + i + 4, el_f16x4(x + i + 4));
    }
    for (; i < n; i++) y[i] = el_f16_to_f32(x[i]);
}

void el_kv_write_f16__neon(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                           void *v_cache)
{
    assert(d % 8 == 0);
    uint16_t *k = (uint16_t *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    uint16_t *v = (uint16_t *)v_cache + position * d;
    for (size_t i = 0; i < d; i += 8) {
        const uint16x8_t halves = to_f16(key + i);
        vst1q_lane_u16(k + (i + 0) * EL_KEYS, halves, 0);
        vst1q_lane_u16(k + (i + 1) * EL_KEYS, halves, 1);
        vst1q_lane_u16(k + (i + 2) * EL_KEYS, halves, 2);
        vst1q_lane_u16(k + (i + 3) * EL_KEYS, halves, 3);
        vst1q_lane_u16(k + (i + 4) * EL_KEYS, halves, 4);
        vst1q_lane_u16(k + (i + 5) * EL_KEYS, halves, 5);
        vst1q_lane_u16(k + (i + 6) * EL_KEYS, halves, 6);
        vst1q_lane_u16(k + (i + 7) * EL_KEYS, halves, 7);
        vst1q_u16(v + i, to_f16(value + i));
    }
}

void el_kv_write_f32__neon(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                           void *v_cache)
{
    assert(d % 8 == 0);
    float *k = (float *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    float *v = (float *)v_cache + position * d;
    for (size_t i = 0; i < d; i += 4) {
        const float32x4_t x = vld1q_f32(key + i);
        vst1q_lane_f32(k + (i + 0) * EL_KEYS, x, 0);
        vst1q_lane_f32(k + (i + 1) * EL_KEYS, x, 1);
        vst1q_lane_f32(k + (i + 2) * EL_KEYS, x, 2);
        vst1q_lane_f32(k + (i + 3) * EL_KEYS, x, 3);
        vst1q_f32(v + i, vld1q_f32(value + i));
    }
}

void el_kv_write_q8_0__neon(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                            void *v_cache)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_kv_write_q8(el_quantize_act_q8__neon, d, position, key, value, k_cache, v_cache);
}
