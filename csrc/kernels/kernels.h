/* The table of kernels that the core calls through, and a declaration of every kernel:
 * a kernel file includes this, so that one which does not match its contract does not compile. */
#ifndef EL_KERNELS_H
#define EL_KERNELS_H

#include "kernels/kernel_types.h"

typedef struct el_kernels {
#define EL_OP(op, type) type *op;
#include "kernels/kernels_ops.def"
#undef EL_OP
} el_kernels;

#define EL_OP(op, type) typedef type el_##op##_type;
#include "kernels/kernels_ops.def"
#undef EL_OP

#define EL_KERNEL(op, isa, needs) el_##op##_type el_##op##__##isa;
#include "kernels/kernels.def"
#undef EL_KERNEL

#endif
