/* The specification of attention_f16. Keys are walked in blocks of EL_KEY_BLOCK absolute
 * positions with a running maximum; a masked key takes no part in any operation. So the result of a
 * query depends on its own position and the cache alone, not on how queries were batched. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

static float score(size_t d, const float *q, const uint16_t *k_cache, size_t position)
{
    const uint16_t *k = k_cache + position / EL_KEYS * d * EL_KEYS + position % EL_KEYS;
    float acc = 0.0f;
    for (size_t i = 0; i < d; i++) acc = el_fmaf(q[i], el_f16_to_f32(k[i * EL_KEYS]), acc);
    return acc;
}

static void attend(size_t d, const float *q, size_t keys, float scale, const uint16_t *k_cache,
                   const uint16_t *v_cache, float *y)
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
            const uint16_t *v = v_cache + (first + j) * d;  // v[first + j, :]: (d,)
            for (size_t i = 0; i < d; i++) y[i] = el_fmaf(p[j], el_f16_to_f32(v[i]), y[i]);
        }
    }

    const float inverse = 1.0f / el_tree16(sums);
    for (size_t i = 0; i < d; i++) y[i] *= inverse;
}

void el_attention_f16__ref(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                           float scale, const uint16_t *k_cache, const uint16_t *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= 256);
    for (size_t r = 0; r < rows; r++) {
        attend(d, q + offset[r], last[r] + 1, scale, k_cache, v_cache, y + offset[r]);
    }
}
