/* The specification of attention_f32 and kv_write_f32: attention_f16 with a cache that rounds nothing. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_kv_write_f32__ref(size_t d, size_t position, const float *key, const float *value, float *k_cache,
                          float *v_cache)
{
    assert(d % 8 == 0);
    float *k = k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;  // k[:, lane]
    float *v = v_cache + position * d;
    for (size_t i = 0; i < d; i++) {
        k[i * EL_KEYS] = key[i];
        v[i] = value[i];
    }
}

static float score(size_t d, const float *q, const float *k_cache, size_t position)
{
    const float *k = k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;
    float acc = 0.0f;
    for (size_t i = 0; i < d; i++) acc = el_fmaf(q[i], k[i * EL_KEYS], acc);
    return acc;
}

static void attend(size_t d, const float *q, size_t keys, float scale, const float *k_cache,
                   const float *v_cache, float *y)
{
    float max = -EL_INF;
    float sums[16] = {0.0f};
    for (size_t i = 0; i < d; i++) y[i] = 0.0f;

    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        const size_t count = keys - first < EL_KEY_BLOCK ? keys - first : EL_KEY_BLOCK;
        float p[EL_KEY_BLOCK];

        float new_max = max;
        for (size_t j = 0; j < count; j++) {
            p[j] = score(d, q, k_cache, first + j) * scale;
            new_max = p[j] > new_max ? p[j] : new_max;
        }

        // In the first block sums and y are zero, so its factor does not matter: 0, never NaN.
        const float c = first == 0 ? 0.0f : el_expf(max - new_max);
        max = new_max;
        for (size_t i = 0; i < 16; i++) sums[i] *= c;
        for (size_t i = 0; i < d; i++) y[i] *= c;

        for (size_t j = 0; j < count; j++) {
            p[j] = el_expf(p[j] - max);
            sums[j % 16] += p[j];
            const float *v = v_cache + (first + j) * d;  // v[first + j, :]: (d,)
            for (size_t i = 0; i < d; i++) y[i] = el_fmaf(p[j], v[i], y[i]);
        }
    }

    const float inverse = 1.0f / el_tree16(sums);
    for (size_t i = 0; i < d; i++) y[i] *= inverse;
}

void el_attention_f32__ref(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                           float scale, const float *k_cache, const float *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= 256);
    for (size_t r = 0; r < rows; r++) {
        attend(d, q + offset[r], last[r] + 1, scale, k_cache, v_cache, y + offset[r]);
    }
}
