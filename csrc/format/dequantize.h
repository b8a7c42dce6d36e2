/* Dequantization by family: each function does `blocks` consecutive blocks of one type. */
#ifndef EL_FORMAT_DEQUANTIZE_H
#define EL_FORMAT_DEQUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/el_math.h"

typedef void el_dequantize_fn(const uint8_t *src, size_t blocks, float *dst);

el_dequantize_fn el_dequantize_q2_k, el_dequantize_q3_k, el_dequantize_q4_k, el_dequantize_q5_k,
    el_dequantize_q6_k, el_dequantize_tq1_0, el_dequantize_tq2_0;

static inline float el_read_f16(const uint8_t *p) { return el_f16_to_f32(el_load_u16(p)); }

#endif
