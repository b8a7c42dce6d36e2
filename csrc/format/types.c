#include <string.h>

#include "core/error.h"
#include "format/format.h"

enum { TYPE_NUMBERS = 42 };

/* Indexed by the number in the file. A name in capitals marks a type of other engines: we know
 * what it is called and cannot read it. */
static const el_type_info types[TYPE_NUMBERS] = {
    [EL_TYPE_F32] = {"f32", 1, 4},
    [EL_TYPE_F16] = {"f16", 1, 2},
    [EL_TYPE_Q4_0] = {"q4_0", 32, 18},
    [EL_TYPE_Q4_1] = {"q4_1", 32, 20},
    [4] = {"Q4_2", 0, 0},
    [5] = {"Q4_3", 0, 0},
    [EL_TYPE_Q5_0] = {"q5_0", 32, 22},
    [EL_TYPE_Q5_1] = {"q5_1", 32, 24},
    [EL_TYPE_Q8_0] = {"q8_0", 32, 34},
    [9] = {"Q8_1", 0, 0},
    [EL_TYPE_Q2_K] = {"q2_k", 256, 84},
    [EL_TYPE_Q3_K] = {"q3_k", 256, 110},
    [EL_TYPE_Q4_K] = {"q4_k", 256, 144},
    [EL_TYPE_Q5_K] = {"q5_k", 256, 176},
    [EL_TYPE_Q6_K] = {"q6_k", 256, 210},
    [15] = {"Q8_K", 0, 0},
    [16] = {"IQ2_XXS", 0, 0},
    [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},
    [19] = {"IQ1_S", 0, 0},
    [EL_TYPE_IQ4_NL] = {"iq4_nl", 32, 18},
    [21] = {"IQ3_S", 0, 0},
    [22] = {"IQ2_S", 0, 0},
    [23] = {"IQ4_XS", 0, 0},
    [24] = {"I8", 0, 0},
    [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},
    [27] = {"I64", 0, 0},
    [28] = {"F64", 0, 0},
    [29] = {"IQ1_M", 0, 0},
    [EL_TYPE_BF16] = {"bf16", 1, 2},
    [31] = {"Q4_0_4_4", 0, 0},
    [32] = {"Q4_0_4_8", 0, 0},
    [33] = {"Q4_0_8_8", 0, 0},
    [EL_TYPE_TQ1_0] = {"tq1_0", 256, 54},
    [EL_TYPE_TQ2_0] = {"tq2_0", 256, 66},
    [36] = {"IQ4_NL_4_4", 0, 0},
    [37] = {"IQ4_NL_4_8", 0, 0},
    [38] = {"IQ4_NL_8_8", 0, 0},
    [39] = {"MXFP4", 0, 0},
    [40] = {"NVFP4", 0, 0},
    [41] = {"Q1_0", 0, 0},
};

const el_type_info *el_type_get(uint32_t type)
{
    return type < TYPE_NUMBERS && types[type].block_values != 0 ? &types[type] : NULL;
}

const char *el_type_foreign_name(uint32_t type)
{
    return type < TYPE_NUMBERS && types[type].block_values == 0 ? types[type].name : NULL;
}

static bool same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        const char x = *a >= 'A' && *a <= 'Z' ? (char)(*a - 'A' + 'a') : *a;
        if (x != *b) return false;
        if (x == '\0') return true;
    }
}

el_status el_type_find(const char *name, el_type *out, el_error *err)
{
    char known[200] = "";
    for (uint32_t type = 0; type < TYPE_NUMBERS; type++) {
        const el_type_info *info = el_type_get(type);
        if (info == NULL) continue;
        if (same_name(name, info->name)) {
            *out = (el_type)type;
            return EL_OK;
        }
        el_list_name(known, sizeof known, info->name);
    }
    return el_fail(err, EL_ERR_UNSUPPORTED, "unknown type '%.40s'; known are %s", name, known);
}

el_status el_row_bytes(el_type type, uint64_t k, uint64_t *out, el_error *err)
{
    const el_type_info *info = el_type_get((uint32_t)type);
    if (info == NULL) return el_fail(err, EL_ERR_ARG, "type %d is not known", (int)type);
    if (k % info->block_values != 0) {
        return el_fail(err, EL_ERR_ARG, "a row of %llu values is no multiple of %s's block of %u",
                       (unsigned long long)k, info->name, info->block_values);
    }
    const uint64_t blocks = k / info->block_values;
    if (blocks > UINT64_MAX / info->block_bytes) {
        return el_fail(err, EL_ERR_ARG, "a row of %llu values is too long", (unsigned long long)k);
    }
    *out = blocks * info->block_bytes;
    return EL_OK;
}
