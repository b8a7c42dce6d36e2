/* attention_f32, one query row at a time. Scores: lanes are keys, so each is one fma chain. Values: lanes
 * are the head's values, keys follow in order. Keys past the row's last are computed with whatever the
 * cache holds there and then dropped: their weight is set to zero and their value is never touched. */
#ifndef __AVX2__
#error "compile this file with the flags of its folder"
#endif

#include <assert.h>

#include "kernels/avx2/el_avx2.h"
#include "kernels/el_declare.h"

enum { EL_HALVES = EL_KEY_BLOCK / 8, EL_HEAD_REGS = 256 / 8 };

/// p = scale * (q . k) for the first `halves` * 8 keys of a block that starts at k.
EL_INLINE void scores(size_t d, const float *q, float scale, const float *k, size_t halves, float *p)
{
    __m256 acc[EL_HALVES];
    for (size_t t = 0; t < EL_HALVES; t++) acc[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < d; i++) {
        const __m256 qi = _mm256_set1_ps(q[i]);
        for (size_t t = 0; t < halves; t++) {
            acc[t] = _mm256_fmadd_ps(qi, _mm256_loadu_ps(k + (t / 2 * d + i) * EL_KEYS + t % 2 * 8), acc[t]);
        }
    }
    for (size_t t = 0; t < halves; t++) {
        _mm256_storeu_ps(p + t * 8, _mm256_mul_ps(acc[t], _mm256_set1_ps(scale)));
    }
}

/// Turn scores into weights; returns the factor of what was there before.
EL_INLINE __m256 weigh(size_t count, float *p, float *max, __m256 sums[2])
{
    float new_max = *max;
    for (size_t j = 0; j < count; j++) new_max = p[j] > new_max ? p[j] : new_max;
    const __m256 most = _mm256_set1_ps(new_max);
    // In the first block the old maximum is -infinity, which makes c exactly 0.
    const __m256 c = el_exp_neg_x8(_mm256_sub_ps(_mm256_set1_ps(*max), most));
    *max = new_max;
    sums[0] = _mm256_mul_ps(sums[0], c);
    sums[1] = _mm256_mul_ps(sums[1], c);
    for (size_t j = 0; j < count; j += 8) {
        const __m256 weight = el_exp_neg_x8(_mm256_sub_ps(_mm256_loadu_ps(p + j), most));
        const __m256 visible = _mm256_and_ps(weight, _mm256_castsi256_ps(el_mask8(count - j)));
        sums[j / 8 % 2] = _mm256_add_ps(sums[j / 8 % 2], visible);
        _mm256_storeu_ps(p + j, visible);
    }
    return c;
}

static void attend(size_t d, const float *q, size_t keys, float scale, const float *k_cache,
                   const float *v_cache, float *y)
{
    const size_t regs = d / 8;
    __m256 acc[EL_HEAD_REGS], sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    float max = -EL_INF, p[EL_KEY_BLOCK];
    for (size_t t = 0; t < regs; t++) acc[t] = _mm256_setzero_ps();

    for (size_t first = 0; first < keys; first += EL_KEY_BLOCK) {
        const size_t count = keys - first < EL_KEY_BLOCK ? keys - first : EL_KEY_BLOCK;
        scores(d, q, scale, k_cache + first * d, (count + 7) / 8, p);
        const __m256 c = weigh(count, p, &max, sums);
        for (size_t t = 0; t < regs; t++) acc[t] = _mm256_mul_ps(acc[t], c);
        for (size_t j = 0; j < count; j++) {
            const __m256 weight = _mm256_set1_ps(p[j]);
            const float *v = v_cache + (first + j) * d;  // v[first + j, :]: (d,)
            for (size_t t = 0; t < regs; t++) {
                acc[t] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(v + t * 8), acc[t]);
            }
        }
    }

    const __m256 inverse = _mm256_set1_ps(1.0f / el_tree_x8(sums[0], sums[1]));
    for (size_t t = 0; t < regs; t++) _mm256_storeu_ps(y + t * 8, _mm256_mul_ps(acc[t], inverse));
}

void el_attention_f32__avx2(size_t rows, size_t d, const float *q, const size_t *offset, const size_t *last,
                            float scale, const float *k_cache, const float *v_cache, float *y)
{
    assert(d % 8 == 0 && d <= EL_HEAD_REGS * 8);
    for (size_t r = 0; r < rows; r++) {
        attend(d, q + offset[r], last[r] + 1, scale, k_cache, v_cache, y + offset[r]);
    }
}
