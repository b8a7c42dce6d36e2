#ifndef EDGELLM_OPS_H
#define EDGELLM_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"

EL_API_BEGIN

/* The engine's operations on plain arrays, on the calling thread, through the kernels of ISA `isa` (an
 * index of el_isa_name) or the best below it. Arrays are C-contiguous, values finite, and outputs
 * overlap no input. The arithmetic is that of docs/numerics.md. */

/// Y = X W^T. W is (n, k) in a GGUF type (its number in files); X is (m, k), Y is (m, n).
/// With a quantized type X is rounded to 8 bits per block of 32 first, as inside a model.
/// EL_ERR_ARG if k does not suit the type or w_bytes is not what W takes; EL_ERR_NOMEM.
el_status el_ops_matmul(size_t isa, uint32_t type, size_t m, size_t n, size_t k, const void *w,
                        size_t w_bytes, const float *x, float *y, el_error *err);

/// Each of `rows` rows of n values; w and b are (n,), b may be NULL. n is positive, eps >= 0.
void el_ops_rms_norm(size_t isa, size_t rows, size_t n, const float *x, const float *w, float eps, float *y);
void el_ops_layer_norm(size_t isa, size_t rows, size_t n, const float *x, const float *w, const float *b,
                       float eps, float *y);
/// Entries may be -INFINITY (they get 0) as long as a row has a finite one.
void el_ops_softmax(size_t isa, size_t rows, size_t n, const float *x, float *y);

void el_ops_silu(size_t isa, size_t n, const float *x, float *y);
void el_ops_gelu(size_t isa, size_t n, const float *x, float *y);
void el_ops_gelu_tanh(size_t isa, size_t n, const float *x, float *y);
void el_ops_swiglu(size_t isa, size_t n, const float *gate, const float *up, float *y);

/// Rotate adjacent pairs of the first `rotated` values of (rows, heads, d) in place: pair i of row r by the
/// angle positions[r] * theta^(-2i / rotated). Positions lie in 0..2^20, theta in 1..1e9.
el_status el_ops_rope(size_t isa, size_t rows, size_t heads, size_t d, size_t rotated,
                      const int64_t *positions, double theta, float *x, el_error *err);

/// Attention of q (t, h, d) over k, v (s, g, d), g a divisor of h; y is (t, h, d). Keys and values are rounded to
/// f16, as in the cache. If `causal`, query i sees keys 0 .. s - t + i (t <= s), otherwise all.
/// d is a multiple of 8, at most 256; s is positive.
el_status el_ops_attention(size_t isa, size_t t, size_t h, size_t s, size_t g, size_t d, const float *q,
                           const float *k, const float *v, float scale, int causal, float *y, el_error *err);

/// Mean over rows of -log softmax(x)[target], in nats; targets lie in 0 .. n - 1; rows and n are positive.
double el_ops_cross_entropy(size_t isa, size_t rows, size_t n, const float *x, const int64_t *targets);

/// Mean of (a - b)^2 in double precision; n is positive.
double el_ops_mse(size_t n, const float *a, const float *b);

EL_API_END

#endif
