/* The specification of quantize_act_q8: clear beats fast in this folder. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_quantize_act_q8__ref(size_t k, const float *x, el_act_q8 *y)
{
    assert(k % EL_BLOCK == 0);

    for (size_t b = 0; b < k / EL_BLOCK; b++) {
        const float *v = x + b * EL_BLOCK;  // (EL_BLOCK,)
        float amax = 0.0f;
        for (size_t j = 0; j < EL_BLOCK; j++) {
            const float a = v[j] < 0.0f ? -v[j] : v[j];
            amax = a > amax ? a : amax;
        }

        // Below the limit 127 / amax would overflow before long, and such a block is nothing.
        const bool tiny = amax < EL_ACT_TINY;
        y[b].scale = tiny ? 0.0f : amax / 127.0f;
        const float inverse = tiny ? 0.0f : 127.0f / amax;

        int32_t sum = 0, sum_lo = 0;
        for (size_t j = 0; j < EL_BLOCK; j++) {
            // The clamp changes no finite value; it makes NaN 127 and the conversion defined.
            float t = v[j] * inverse;
            t = t < 127.0f ? t : 127.0f;
            t = t > -127.0f ? t : -127.0f;
            const int32_t q = (int32_t)el_rintf(t);
            y[b].q[j] = (int8_t)q;
            sum += q;
            if (j < EL_BLOCK / 2) sum_lo += q;
        }
        y[b].sum = sum;
        y[b].sum_lo = sum_lo;
    }
}
