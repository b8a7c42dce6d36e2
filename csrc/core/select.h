#ifndef EL_CORE_SELECT_H
#define EL_CORE_SELECT_H

#include "edgellm/cpu.h"
#include "kernels/kernels.h"

/// Features that an instruction set's kernels may use, all of them.
#define EL_NEEDS_AVX2 (EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C)
#define EL_NEEDS_AVX512VNNI (EL_NEEDS_AVX2 | EL_CPU_AVX512 | EL_CPU_AVX512_VNNI)

/// Fill the table with the best kernel at or below ISA `isa` that features `cpu` allow.
/// A pure function of its arguments; every entry is set, since ref has every operation.
void el_kernels_select(el_kernels *out, size_t isa, uint64_t cpu);

#endif
