#ifndef EDGELLM_CPU_H
#define EDGELLM_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"

EL_API_BEGIN

/// A feature counts only if the CPU has it and the operating system saves its state.
enum {
    EL_CPU_AVX2 = 1u << 0,
    EL_CPU_FMA = 1u << 1,
    EL_CPU_F16C = 1u << 2,
    EL_CPU_AVX_VNNI = 1u << 3,
    EL_CPU_AVX512 = 1u << 4,  ///< F, BW, VL and DQ together
    EL_CPU_AVX512_VNNI = 1u << 5,
    EL_CPU_AMX_INT8 = 1u << 6,  ///< counts only if the kernel has granted this process its tiles
    EL_CPU_AMX_BF16 = 1u << 7,  ///< and AVX512_BF16
    EL_CPU_NEON = 1u << 16,
    EL_CPU_DOTPROD = 1u << 17,
    EL_CPU_I8MM = 1u << 18
};

/// The features of this machine; asked once, then remembered.
uint64_t el_cpu_features(void);

/// CPUs that this process may run on (its affinity mask), at least 1.
size_t el_cpu_count(void);

/// Name of the i-th feature ("avx2", ...) and its bit; NULL past the last.
const char *el_cpu_feature_name(size_t i, uint64_t *bit);

/// Instruction sets this build has kernels for, in increasing order of preference.
/// Name of the i-th ("ref", "avx2", "avx512vnni"; on AArch64 "ref", "neon", "dotprod", "i8mm"); NULL past the last.
const char *el_isa_name(size_t i);

/// Index of an ISA by name. EL_ERR_ARG, naming the known ones, if it is unknown or
/// if a machine with features `cpu` cannot run it.
el_status el_isa_find(const char *name, uint64_t cpu, size_t *out, el_error *err);

/// Best ISA for a machine with features `cpu`.
size_t el_isa_best(uint64_t cpu);

/// The cap for a caller who does not need exact bits: above the best exact ISA of this build (and only above
/// that one) it allows kernels outside the arithmetic contract, for products of many rows.
/// The other functions take it as they take the index of an ISA.
size_t el_isa_inexact(size_t isa);

/// Rows of activations from which a product counts as one of many rows: a prefill, or a large batch.
/// Matrix units (AMX) are used from here on.
enum { EL_MANY_ROWS = 9 };

/// ISA of the kernel chosen for operation `op` ("gemm_q8_q4_0x16") on `rows` rows when the cap is
/// `isa`, or NULL if there is no such operation. `el_op_name(i)` lists them.
const char *el_op_isa(const char *op, size_t isa, uint64_t cpu, size_t rows);
const char *el_op_name(size_t i);

EL_API_END

#endif
