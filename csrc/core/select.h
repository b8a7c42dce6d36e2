#ifndef EL_CORE_SELECT_H
#define EL_CORE_SELECT_H

#include "edgellm/cpu.h"
#include "kernels/kernels.h"

/// Fill the table with the best kernel at or below ISA `isa` that features `cpu` allow.
/// A pure function of its arguments; every entry is set, since ref has every operation.
void el_kernels_select(el_kernels *out, size_t isa, uint64_t cpu);

#endif
