/* attention_f32, one query row at a time. Scores: lanes are keys, so each is one fma chain. Values: lanes
 * are the head's values, keys follow in order. Keys past the row's last are computed with whatever the
 * cache holds there and then dropped: their weight is set to zero and their value is never touched. */
#ifndef __AVX512VNNI__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx512vnni/el_avx512vnni.h"
#include "kernels/el_declare.h"

enum { EL_TILES = EL_KEY_BLOCK / EL_KEYS, EL_HEAD_REGS = 256 / 16 };

/// p = scale * (q . k) for the 64 keys of a block that starts at k.
EL_INLINE void scores(size_t d, const float *q, float scale, const float *k, size_t tiles, float *p)
{
    __m512 acc[EL_TILES] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                            _mm512_setzero_ps()};
    for (size_t i = 0; i < d; i++) {
        const __m512 qi = _mm512_set1_ps(q[i]);
        for (size_t t = 0; t < tiles; t++) {
            acc[t] = _mm512_fmadd_ps(qi, _mm512_loadu_ps(k + (t * d + i) * EL_KEYS), acc[t]);
        }
    }
    for (size_t t = 0; t < tiles; t++) {
        _mm512_storeu_ps(p + t * EL_KEYS, _mm512_mul_ps(acc[t], _mm512_set1_ps(scale)));
    }
}

/// Turn scores into weights; returns the factor of what was there before.
EL_INLINE __m512 weigh(size_t count, float *p, float *max, __m512 *sums)
{
    __m512 most = _mm512_set1_ps(*max);
    for (size_t j = 0; j < count; j += EL_KEYS) {
        most = _mm512_mask_max_ps(most, el_mask16(count - j), most, _mm512_loadu_ps(p + j));
    }
    const float new_max = _mm512_reduce_max_ps(most);
    most = _mm512_set1_ps(new_max);
    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const __m512 c = el_exp_neg_x16(_mm512_sub_ps(_mm512_set1_ps(*max), most));
    *max = new_max;
    *sums = _mm512_mul_ps(*sums, c);
    for (size_t j = 0; j < count; j += EL_KEYS) {
        const __m512 weight = el_exp_neg_x16(_mm512_sub_ps(_mm512_loadu_ps(p + j), most));
        const __m512 visible = _mm512_maskz_mov_ps(el_mask16(count - j), weight);
        *sums = _mm512_add_ps(*sums, visible);
        _mm512_storeu_ps(p + j, visible);
    }
    return c;
}

static void attend(size_t d, const float *q, size_t keys, float scale, const float *k_cache,
                   const float *v_cache, float *y)
{
    const size_t regs = (d + 15) / 16;
    const __mmask16 tail = el_mask16(d - (regs - 1) * 16);
    __m512 acc[EL_HEAD_REGS], sums = _mm512_setzero_ps();
    float max = -EL_INF, p[EL_KEY_BLOCK];
    for (size_t t = 0; t < regs; t++) acc[t] = _mm512_setzero_ps();

    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        const size_t count = keys - first < EL_KEY_BLOCK ? keys - first : EL_KEY_BLOCK;
        scores(d, q, scale, k_cache + first * d, (count + EL_KEYS - 1) / EL_KEYS, p);
        const __m512 c = weigh(count, p, &max, &sums);
        for (size_t t = 0; t < regs; t++) acc[t] = _mm512_mul_ps(acc[t], c);
        for (size_t j = 0; j < count; j++) {
            const __m512 weight = _mm512_set1_ps(p[j]);
            const float *v = v_cache + (first + j) * d;  // v[first + j, :]: (d,)
            for (size_t t = 0; t < regs; t++) {
                const __m512 values = _mm512_maskz_loadu_ps(t + 1 < regs ? 0xFFFF : tail, v + t * 16);
                acc[t] = _mm512_fmadd_ps(weight, values, acc[t]);
            }
        }
    }

    const __m512 inverse = _mm512_set1_ps(1.0f / el_tree_x16(sums));
    for (size_t t = 0; t < regs; t++) {
        _mm512_mask_storeu_ps(y + t * 16, t + 1 < regs ? 0xFFFF : tail, _mm512_mul_ps(acc[t], inverse));
    }
}

void el_attention_f32__avx512vnni(size_t rows, size_t d, const float *q, const size_t *offset,
                                  const size_t *last, float scale, const float *k_cache, const float *v_cache,
                                  float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_REGS * 16);
    for (size_t r = 0; r < rows; r++) {
        attend(d, q + offset[r], last[r] + 1, scale, k_cache, v_cache, y + offset[r]);
    }
}
