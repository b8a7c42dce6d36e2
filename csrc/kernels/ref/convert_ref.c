/* The specification of f32_to_f16, f16_to_f32, kv_write_f16, kv_write_f32 and kv_write_q8_0. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_kv_q8.h"

void el_f32_to_f16__ref(size_t n, const float *x, uint16_t *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_f32_to_f16(x[i]);
}

void el_f16_to_f32__ref(size_t n, const uint16_t *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_f16_to_f32(x[i]);
}

void el_kv_write_f16__ref(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                          void *v_cache)
{
    assert(d % 8 == 0);
    uint16_t *k = (uint16_t *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    uint16_t *v = (uint16_t *)v_cache + position * d;
    for (size_t i = 0; i < d; i++) {
        k[i * EL_KEYS] = el_f32_to_f16(key[i]);
        v[i] = el_f32_to_f16(value[i]);
    }
}

void el_kv_write_f32__ref(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                          void *v_cache)
{
    assert(d % 8 == 0);
    float *k = (float *)k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    float *v = (float *)v_cache + position * d;
    for (size_t i = 0; i < d; i++) {
        k[i * EL_KEYS] = key[i];
        v[i] = value[i];
    }
}

void el_kv_write_q8_0__ref(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                           void *v_cache)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_kv_write_q8(el_quantize_act_q8__ref, d, position, key, value, k_cache, v_cache);
}
