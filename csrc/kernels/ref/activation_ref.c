/* The specification of the elementwise operations; their formulas are in el_math.h. */
#include "kernels/el_declare.h"
#include "kernels/el_math.h"

void el_silu__ref(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_siluf(x[i]);
}

void el_gelu__ref(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_geluf(x[i]);
}

void el_gelu_tanh__ref(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_gelu_tanhf(x[i]);
}

void el_swiglu__ref(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_siluf(gate[i]) * up[i];
}

void el_geglu_tanh__ref(size_t n, const float *gate, const float *up, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = el_gelu_tanhf(gate[i]) * up[i];
}

void el_add__ref(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] + y[i];
}
