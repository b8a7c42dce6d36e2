#ifndef EL_CORE_SELECT_H
#define EL_CORE_SELECT_H

#include "edgellm/cpu.h"
#include "kernels/kernels.h"

/// Features that an instruction set's kernels may use, all of them.
#define EL_NEEDS_AVX2 (EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C)
#define EL_NEEDS_AVXVNNI (EL_NEEDS_AVX2 | EL_CPU_AVX_VNNI)
#define EL_NEEDS_AVX512VNNI (EL_NEEDS_AVX2 | EL_CPU_AVX512 | EL_CPU_AVX512_VNNI)
#define EL_NEEDS_AMX (EL_NEEDS_AVX512VNNI | EL_CPU_AMX_INT8)
#define EL_NEEDS_NEON EL_CPU_NEON
#define EL_NEEDS_DOTPROD (EL_NEEDS_NEON | EL_CPU_DOTPROD)
#define EL_NEEDS_I8MM (EL_NEEDS_DOTPROD | EL_CPU_I8MM)
#define EL_NEEDS_AMXBF16 (EL_NEEDS_AMX | EL_CPU_AMX_BF16)

/// Fill the table with the best kernel at or below ISA `isa` that features `cpu` allow, for products of
/// `rows` rows of activations: tiles of a whole matrix unit are wasted on few. Bits do not depend on it.
/// A pure function of its arguments; every entry is set, since ref has every operation.
void el_kernels_select(el_kernels *out, size_t isa, uint64_t cpu, size_t rows);

#endif
