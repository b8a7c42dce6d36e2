/* The whole of dispatch: a pure function of a cap and a feature mask. */
#include "core/select.h"

#include <stdbool.h>
#include <string.h>

#include "core/error.h"

enum {
    EL_ISA_ref,
#if EL_BUILD_AVX2
    EL_ISA_avx2,
#endif
#if EL_BUILD_AVXVNNI
    EL_ISA_avxvnni,
#endif
#if EL_BUILD_AVX512VNNI
    EL_ISA_avx512vnni,
#endif
#if EL_BUILD_AMX
    EL_ISA_amx,
#endif
#if EL_BUILD_NEON
    EL_ISA_neon,
#endif
#if EL_BUILD_DOTPROD
    EL_ISA_dotprod,
#endif
#if EL_BUILD_I8MM
    EL_ISA_i8mm,
#endif
    EL_ISAS,
    EL_ISA_amxbf16 = EL_ISAS,  // not exact: no cap by name reaches it
    EL_CAPS
};

static const struct {
    const char *name;
    uint64_t needs;
    size_t rows;  ///< fewest rows of a product that its kernels are worth it for
} isas[EL_CAPS] = {
    [EL_ISA_ref] = {"ref", 0, 0},
#if EL_BUILD_AVX2
    [EL_ISA_avx2] = {"avx2", EL_NEEDS_AVX2, 0},
#endif
#if EL_BUILD_AVXVNNI
    [EL_ISA_avxvnni] = {"avxvnni", EL_NEEDS_AVXVNNI, 0},
#endif
#if EL_BUILD_AVX512VNNI
    [EL_ISA_avx512vnni] = {"avx512vnni", EL_NEEDS_AVX512VNNI, 0},
#endif
#if EL_BUILD_AMX
    [EL_ISA_amx] = {"amx", EL_NEEDS_AMX, EL_MANY_ROWS},
#endif
#if EL_BUILD_NEON
    [EL_ISA_neon] = {"neon", EL_NEEDS_NEON, 0},
#endif
#if EL_BUILD_DOTPROD
    [EL_ISA_dotprod] = {"dotprod", EL_NEEDS_DOTPROD, 0},
#endif
#if EL_BUILD_I8MM
    [EL_ISA_i8mm] = {"i8mm", EL_NEEDS_I8MM, 0},
#endif
    [EL_ISA_amxbf16] = {"amxbf16", EL_NEEDS_AMXBF16, EL_MANY_ROWS},
};

static const char *const ops[] = {
#define EL_OP(op, type) #op,
#include "kernels/kernels_ops.def"
#undef EL_OP
};

static bool allowed(size_t kernel_isa, uint64_t needs, size_t cap, uint64_t cpu, size_t rows)
{
    return kernel_isa <= cap && (needs & ~cpu) == 0 && isas[kernel_isa].rows <= rows;
}

void el_kernels_select(el_kernels *out, size_t isa, uint64_t cpu, size_t rows)
{
    memset(out, 0, sizeof *out);
#define EL_KERNEL(op, name, needs)                                                                           \
    if (allowed(EL_ISA_##name, (needs), isa, cpu, rows)) out->op = el_##op##__##name;
#include "kernels/kernels.def"
#undef EL_KERNEL
}

const char *el_isa_name(size_t i) { return i < EL_ISAS ? isas[i].name : NULL; }

size_t el_isa_best(uint64_t cpu)
{
    size_t best = EL_ISA_ref;
    for (size_t i = 0; i < EL_ISAS; i++) {
        if ((isas[i].needs & ~cpu) == 0) best = i;
    }
    return best;
}

size_t el_isa_inexact(size_t isa) { return isa + 1 == EL_ISAS ? EL_ISA_amxbf16 : isa; }

el_status el_isa_find(const char *name, uint64_t cpu, size_t *out, el_error *err)
{
    char known[64] = "";
    for (size_t i = 0; i < EL_ISAS; i++) {
        const bool runs = (isas[i].needs & ~cpu) == 0;
        if (strcmp(name, isas[i].name) == 0 && runs) {
            *out = i;
            return EL_OK;
        }
        if (strcmp(name, isas[i].name) == 0) {
            return el_fail(err, EL_ERR_ARG,
                           "isa '%s' needs CPU features that this machine lacks (best here: '%s')", name,
                           isas[el_isa_best(cpu)].name);
        }
        el_list_name(known, sizeof known, isas[i].name);
    }
    return el_fail(err, EL_ERR_ARG, "unknown isa '%.40s'; this build has %s", name, known);
}

const char *el_op_name(size_t i) { return i < sizeof ops / sizeof *ops ? ops[i] : NULL; }

const char *el_op_isa(const char *op, size_t isa, uint64_t cpu, size_t rows)
{
    const char *chosen = NULL;
#define EL_KERNEL(row, name, needs)                                                                          \
    if (strcmp(op, #row) == 0 && allowed(EL_ISA_##name, (needs), isa, cpu, rows)) chosen = #name;
#include "kernels/kernels.def"
#undef EL_KERNEL
    return chosen;
}
