/* The table of kernels that the core calls through. */
#ifndef EL_KERNELS_H
#define EL_KERNELS_H

#include "kernels/el_declare.h"
#include "kernels/el_layout.h"

typedef struct el_kernels {
#define EL_OP(op, type) type *op;
#include "kernels/kernels_ops.def"
#undef EL_OP
} el_kernels;

/// The product for a quantized layout.
static inline el_gemm_q8_fn *el_kernels_gemm_q8(const el_kernels *k, el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_Q4_0X16: return k->gemm_q8_q4_0x16;
    case EL_LAYOUT_Q4_1X16: return k->gemm_q8_q4_1x16;
    case EL_LAYOUT_Q8_0X16: return k->gemm_q8_q8_0x16;
    case EL_LAYOUT_Q5_0X16: return k->gemm_q8_q5_0x16;
    case EL_LAYOUT_Q5_1X16: return k->gemm_q8_q5_1x16;
    case EL_LAYOUT_IQ4_NLX16: return k->gemm_q8_iq4_nlx16;
    case EL_LAYOUT_Q4_KX16: return k->gemm_q8_q4_kx16;
    case EL_LAYOUT_Q5_KX16: return k->gemm_q8_q5_kx16;
    case EL_LAYOUT_Q2_KX16: return k->gemm_q8_q2_kx16;
    case EL_LAYOUT_Q3_KX16: return k->gemm_q8_q3_kx16;
    case EL_LAYOUT_Q6_KX16: return k->gemm_q8_q6_kx16;
    case EL_LAYOUT_TQ2_0X16: return k->gemm_q8_tq2_0x16;
    default: return NULL;
    }
}

/// The product for a layout of floats.
static inline el_gemm_f32_fn *el_kernels_gemm_f32(const el_kernels *k, el_layout layout)
{
    switch (layout) {
    case EL_LAYOUT_F32X16: return k->gemm_f32_f32x16;
    case EL_LAYOUT_F16X16: return k->gemm_f32_f16x16;
    case EL_LAYOUT_BF16X16: return k->gemm_f32_bf16x16;
    default: return NULL;
    }
}

#endif
