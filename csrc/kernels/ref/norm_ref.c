/* The specification of rms_norm, layer_norm and softmax: sixteen partial sums, element i
 * into sum i mod 16, then the fixed tree, whatever the vector width of the machine. */
#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_rms_norm__ref(size_t n, const float *x, const float *w, float eps, float *y)
{
    assert(n > 0);
    float s[16] = {0.0f};
    for (size_t i = 0; i < n; i++) s[i % 16] = el_fmaf(x[i], x[i], s[i % 16]);
    const float mean = el_tree16(s) / (float)n;
    const float inverse = 1.0f / el_sqrtf(mean + eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] * inverse) * w[i];
}

void el_layer_norm__ref(size_t n, const float *x, const float *w, const float *b, float eps, float *y)
{
    assert(n > 0);
    float s[16] = {0.0f};
    for (size_t i = 0; i < n; i++) s[i % 16] += x[i];
    const float mean = el_tree16(s) / (float)n;

    float v[16] = {0.0f};
    for (size_t i = 0; i < n; i++) {
        const float c = x[i] - mean;
        v[i % 16] = el_fmaf(c, c, v[i % 16]);
    }
    const float inverse = 1.0f / el_sqrtf(el_tree16(v) / (float)n + eps);

    for (size_t i = 0; i < n; i++) {
        const float c = (x[i] - mean) * inverse;
        y[i] = b == NULL ? c * w[i] : el_fmaf(c, w[i], b[i]);
    }
}

void el_softmax__ref(size_t n, const float *x, float *y)
{
    assert(n > 0);
    float max = x[0];
    for (size_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;

    float s[16] = {0.0f};
    for (size_t i = 0; i < n; i++) {
        y[i] = el_expf(x[i] - max);
        s[i % 16] += y[i];
    }
    const float inverse = 1.0f / el_tree16(s);
    for (size_t i = 0; i < n; i++) y[i] *= inverse;
}
