/* The specification of rope: adjacent pairs are rotated by the angle of the position. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_rope__ref(size_t heads, size_t d, size_t rotated, const float *cs, float *x)
{
    assert(rotated % 2 == 0 && rotated <= d);

    for (size_t h = 0; h < heads; h++) {
        float *v = x + h * d;  // x[h, :]: (d,)
        for (size_t i = 0; i < rotated; i += 2) {
            const float c = cs[i], s = cs[i + 1], a = v[i], b = v[i + 1];
            v[i] = el_fmaf(a, c, -(b * s));
            v[i + 1] = el_fmaf(a, s, b * c);
        }
    }
}
