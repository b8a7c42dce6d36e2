#ifndef EDGELLM_QUANT_H
#define EDGELLM_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"

EL_API_BEGIN

/// Tensor types, numbered as in GGUF files.
typedef enum el_type {
    EL_TYPE_F32 = 0,
    EL_TYPE_F16 = 1,
    EL_TYPE_Q4_0 = 2,
    EL_TYPE_Q4_1 = 3,
    EL_TYPE_Q5_0 = 6,
    EL_TYPE_Q5_1 = 7,
    EL_TYPE_Q8_0 = 8,
    EL_TYPE_Q2_K = 10,
    EL_TYPE_Q3_K = 11,
    EL_TYPE_Q4_K = 12,
    EL_TYPE_Q5_K = 13,
    EL_TYPE_Q6_K = 14,
    EL_TYPE_IQ4_NL = 20,
    EL_TYPE_BF16 = 30,
    EL_TYPE_TQ1_0 = 34,
    EL_TYPE_TQ2_0 = 35
} el_type;

/// What a type is: its lower-case name, values per block, bytes per block.
typedef struct el_type_info {
    const char *name;
    uint32_t block_values;
    uint32_t block_bytes;
} el_type_info;

/// NULL if `type` is none of el_type's.
const el_type_info *el_type_get(uint32_t type);

/// Find a type by name ("q4_0", any case). EL_ERR_UNSUPPORTED names the known ones.
el_status el_type_find(const char *name, el_type *out, el_error *err);

/// Bytes of one row of k values. EL_ERR_ARG if k is no multiple of the block, or on overflow.
el_status el_row_bytes(el_type type, uint64_t k, uint64_t *out, el_error *err);

/// Values of `n` consecutive elements (a multiple of the block), bit for bit as the
/// `gguf` package computes them. Any bytes are accepted.
void el_dequantize(el_type type, const uint8_t *src, size_t n, float *dst);

/// Round n finite values (a multiple of the block) to a type, bit for bit as `gguf` does.
/// EL_ERR_UNSUPPORTED for types without a quantizer, EL_ERR_ARG if a value is not finite.
el_status el_quantize(el_type type, const float *src, size_t n, uint8_t *dst, el_error *err);

EL_API_END

#endif
