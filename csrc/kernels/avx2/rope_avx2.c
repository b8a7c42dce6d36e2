/* rope: four pairs a register. fmaddsub subtracts in even lanes and adds in odd ones, which is
 * exactly y0 = fma(x0, c, -(x1 s)) and y1 = fma(x0, s, x1 c). */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

void el_rope__avx2(size_t heads, size_t d, size_t rotated, const float *cs, float *x)
{
    assert(rotated % 2 == 0 && rotated <= d);

    for (size_t i = 0; i < rotated; i += 8) {
        const __m256 c_s = el_load8(cs + i, rotated - i);
        const __m256 s_c = _mm256_permute_ps(c_s, 0xB1);
        for (size_t h = 0; h < heads; h++) {
            float *v = x + h * d + i;
            const __m256 both = el_load8(v, rotated - i);
            const __m256 a = _mm256_moveldup_ps(both), b = _mm256_movehdup_ps(both);
            el_store8(v, rotated - i, _mm256_fmaddsub_ps(a, c_s, _mm256_mul_ps(b, s_c)));
        }
    }
}
