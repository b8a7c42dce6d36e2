/* The table of kernels that the core calls through. */
#ifndef EL_KERNELS_H
#define EL_KERNELS_H

#include "kernels/el_declare.h"

typedef struct el_kernels {
#define EL_OP(op, type) type *op;
#include "kernels/kernels_ops.def"
#undef EL_OP
} el_kernels;

#endif
