/* attention_f16 and attention_f32: the same body over two caches. */
#ifndef __ARM_NEON
#error "compile this file for AArch64"
#endif

#include <assert.h>

#include "kernels/el_declare.h"
#include "kernels/neon/el_attention_neon.h"

void el_attention_f16__neon(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            float scale, const uint16_t *k_cache, const uint16_t *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_attention_rows(true, rows, d, q, offset, last, scale, k_cache, v_cache, y);
}

void el_attention_f32__neon(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            float scale, const float *k_cache, const float *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_MAX);
    el_attention_rows(false, rows, d, q, offset, last, scale, k_cache, v_cache, y);
}
