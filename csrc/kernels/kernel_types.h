/* The contracts: one function type per operation. A kernel that does not match
 * does not compile. Numerics: canonical (docs/numerics.md), so that every ISA
 * gives the bits of ref/.
 *
 * Common to all: no argument is NULL when its extent is positive, outputs overlap
 * no input unless a contract allows it, packed weights are 64-byte aligned, other
 * arrays need the alignment of their element only. Preconditions are asserted, not
 * reported: the core checks what comes from outside. */
#ifndef EL_KERNEL_TYPES_H
#define EL_KERNEL_TYPES_H

#include "kernels/el_blocks.h"

/// Round activations to 8 bits per block of EL_BLOCK.
///
/// @param[in]  k  values; a multiple of EL_BLOCK
/// @param[in]  x  (k,)
/// @param[out] y  (k / EL_BLOCK,)
typedef void el_quantize_act_q8_fn(size_t k, const float *x, el_act_q8 *y);

/// Y = X W^T with packed weights and 8-bit activations.
///
/// @param[in]  m         rows of X and Y (tokens), any number including 0
/// @param[in]  n         rows of W (outputs); W holds ceil(n / EL_LANES) tiles
/// @param[in]  k         columns of W; a multiple of EL_BLOCK
/// @param[in]  w         tiles of the layout in the operation's name (el_blocks.h)
/// @param[in]  x         (m, x_stride) blocks, of which k / EL_BLOCK are read in each row
/// @param[out] y         (m, y_stride) floats, of which n are written in each row
///
/// Per output: blocks in increasing order, exact integer dot products,
/// acc = fma(d_w * d_x, (float)dot, acc), then the minimum's fma where the type has one.
typedef void el_gemm_q8_fn(size_t m, size_t n, size_t k, const uint8_t *w, const el_act_q8 *x,
                           size_t x_stride, float *y, size_t y_stride);

/// Y = X W^T with packed float weights: one f32 fma chain in k order per output.
/// Parameters as el_gemm_q8_fn; x is (m, x_stride) floats and k is any number.
typedef void el_gemm_f32_fn(size_t m, size_t n, size_t k, const uint8_t *w, const float *x, size_t x_stride,
                            float *y, size_t y_stride);

/// Interleave words of 4 bytes of EL_LANES rows, as packed tiles are.
///
/// Word i of block b of row r goes to y + b * y_step + (i * EL_LANES + r) * 4, xor `flip`.
///
/// @param[in]  rows       rows of x, 1 to EL_LANES; the last one fills the lanes that are missing
/// @param[in]  blocks     blocks of a row
/// @param[in]  words      words of a block
/// @param[in]  x          word i of block b of row r is at x + r * row_bytes + b * x_step + i * 4
/// @param[in]  flip       exclusive or with every word
/// @param[out] y          blocks of words * EL_LANES words, y_step bytes apart
typedef void el_interleave_fn(size_t rows, size_t blocks, size_t words, const uint8_t *x, size_t row_bytes,
                              size_t x_step, uint32_t flip, uint8_t *y, size_t y_step);

/// y = x / sqrt(mean(x^2) + eps) * w. n is any positive number; y may be x.
/// Sixteen partial sums (element i into sum i mod 16), then the fixed tree.
typedef void el_rms_norm_fn(size_t n, const float *x, const float *w, float eps, float *y);

/// y = (x - mean) / sqrt(var + eps) * w + b; b may be NULL. y may be x.
typedef void el_layer_norm_fn(size_t n, const float *x, const float *w, const float *b, float eps, float *y);

/// Elementwise y = f(x); y may be x.
typedef void el_map_fn(size_t n, const float *x, float *y);

/// y = silu(gate) * up; y may be gate or up. geglu_tanh: y = gelu_tanh(gate) * up.
typedef void el_swiglu_fn(size_t n, const float *gate, const float *up, float *y);

/// y = x + y (the residual).
typedef void el_add_fn(size_t n, const float *x, float *y);

/// y = exp(x - max(x)) / sum; y may be x. -INFINITY entries give exactly 0.
typedef void el_softmax_fn(size_t n, const float *x, float *y);

/// Rotate adjacent pairs (x[2i], x[2i+1]) of `heads` heads of size d in place.
/// cs: (rotated / 2, 2) cosine and sine of this position; values from `rotated` on stay.
typedef void el_rope_fn(size_t heads, size_t d, size_t rotated, const float *cs, float *x);

/// Write one position's key and value, rounded as the operation's name says, into the cache of one head.
///
/// @param[in] d           head size; a multiple of 8, at most 256
/// @param[in] position    place in the cache: the absolute position, modulo the ring where there is one
/// @param[in] key, value  (d,)
/// @param[out] k_cache, v_cache  of one head, in the layout of the type (el_blocks.h)
typedef void el_kv_write_fn(size_t d, size_t position, const float *key, const float *value, void *k_cache,
                            void *v_cache);

/// Causal attention of `rows` query vectors that share one key-value head.
///
/// Row r sees positions 0 .. last[r], or the last `window` of them. Keys are walked in blocks of
/// EL_KEY_BLOCK absolute positions with a running maximum (docs/numerics.md, "Attention").
///
/// @param[in]  rows      query vectors: heads of the group times tokens
/// @param[in]  d         head size; a multiple of 8, at most 256
/// @param[in]  q         row r starts at q + offset[r]
/// @param[in]  offset    (rows,) float offsets into q, and into y for the result
/// @param[in]  last      (rows,) last visible position; faster when non-decreasing
/// @param[in]  window    visible positions of a row, its own included; SIZE_MAX for all
/// @param[in]  ring      a multiple of EL_KEY_BLOCK: position p is at place p mod ring of the cache. No two
///                       visible positions of the call share a place
/// @param[in]  scale     multiplies the scores, 1 / sqrt(d) for most models
/// @param[in]  k_cache, v_cache  of one head, in the layout of the operation's name (el_blocks.h); whole
///                       tiles of EL_KEYS positions are read up to the last visible one
/// @param[out] y         row r is written at y + offset[r], (d,) each; may not overlap q
typedef void el_attention_fn(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                             size_t window, size_t ring, float scale, const void *k_cache,
                             const void *v_cache, float *y);

/// Convert n values between float32 and float16, round to nearest even.
typedef void el_f32_to_f16_fn(size_t n, const float *x, uint16_t *y);
typedef void el_f16_to_f32_fn(size_t n, const uint16_t *x, float *y);

#endif
