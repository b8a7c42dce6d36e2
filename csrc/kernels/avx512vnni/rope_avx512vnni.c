/* rope: eight pairs a register. fmaddsub subtracts in even lanes and adds in odd ones, which is
 * exactly y0 = fma(x0, c, -(x1 s)) and y1 = fma(x0, s, x1 c). */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

void el_rope__avx512vnni(size_t heads, size_t d, size_t rotated, const float *cs, float *x)
{
    assert(rotated % 2 == 0 && rotated <= d);

    for (size_t i = 0; i < rotated; i += 16) {
        const __mmask16 mask = el_mask16(rotated - i);
        const __m512 c_s = _mm512_maskz_loadu_ps(mask, cs + i);
        const __m512 s_c = _mm512_permute_ps(c_s, 0xB1);
        for (size_t h = 0; h < heads; h++) {
            const __m512 v = _mm512_maskz_loadu_ps(mask, x + h * d + i);
            const __m512 a = _mm512_moveldup_ps(v), b = _mm512_movehdup_ps(v);
            const __m512 out = _mm512_fmaddsub_ps(a, c_s, _mm512_mul_ps(b, s_c));
            _mm512_mask_storeu_ps(x + h * d + i, mask, out);
        }
    }
}
