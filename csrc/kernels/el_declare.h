/* A declaration of every kernel: a kernel file includes this, so that one which does not match
 * its contract does not compile. */
#ifndef EL_DECLARE_H
#define EL_DECLARE_H

#include "kernels/kernel_types.h"

#define EL_OP(op, type) typedef type el_##op##_type;
#include "kernels/kernels_ops.def"
#undef EL_OP

#define EL_KERNEL(op, isa, needs) el_##op##_type el_##op##__##isa;
#include "kernels/kernels.def"
#undef EL_KERNEL

#endif
