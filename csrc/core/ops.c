/* Operations on plain arrays: what surrounds a kernel when there is no model around it. */
#define _POSIX_C_SOURCE 200809L
#include "edgellm/ops.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/select.h"
#include "core/trig.h"
#include "kernels/el_math.h"
#include "kernels/el_pack.h"

static el_kernels table(size_t isa, size_t rows)
{
    el_kernels k;
    el_kernels_select(&k, isa, el_cpu_features(), rows);
    return k;
}

/// count * size bytes at a multiple of 64, or NULL.
static void *allocate(size_t count, size_t size)
{
    size_t bytes;
    void *p = NULL;
    if (!el_mul_size(count, size, &bytes) || bytes > SIZE_MAX - 64) return NULL;
    return posix_memalign(&p, 64, el_round_up(bytes + 1, 64)) == 0 ? p : NULL;
}

el_status el_ops_matmul(size_t isa, uint32_t type, size_t m, size_t n, size_t k, const void *w,
                        size_t w_bytes, const float *x, float *y, el_error *err)
{
    const int found = el_pack_layout(type);
    if (found < 0) return el_fail(err, EL_ERR_ARG, "no kernel for tensor type %u", (unsigned)type);
    const el_layout layout = (el_layout)found;
    const bool quantized = el_layout_is_q8(layout);
    const size_t row_bytes = el_pack_row_bytes(type, k), tile_bytes = el_pack_tile_bytes(layout, k);
    size_t want = 0;
    if (k > 0 && (row_bytes == 0 || tile_bytes == 0)) {
        return el_fail(err, EL_ERR_ARG, "k = %zu is no multiple of the type's block", k);
    }
    if (!el_mul_size(n, row_bytes, &want) || want != w_bytes) {
        return el_fail(err, EL_ERR_ARG, "w takes %zu bytes, got %zu", want, w_bytes);
    }

    el_status status = EL_ERR_NOMEM;
    const el_kernels kernels = table(isa, m);
    el_act_q8 *acts = NULL;
    uint8_t *tile = allocate(tile_bytes, 1);
    if (tile == NULL) goto done;
    if (quantized) {
        acts = allocate(m, k / EL_BLOCK * sizeof *acts);
        if (acts == NULL) goto done;
        kernels.quantize_act_q8(m * k, x, acts);  // rows are whole blocks
    }
    const uint8_t *src = w;
    for (size_t row = 0; row < n; row += EL_LANES, src += EL_LANES * row_bytes) {
        const size_t rows = n - row < EL_LANES ? n - row : EL_LANES;
        el_pack_tile_by(kernels.interleave, type, rows, k, src, tile);
        if (quantized) {
            el_kernels_gemm_q8(&kernels, layout)(m, rows, k, tile, acts, k / EL_BLOCK, y + row, n);
        } else {
            el_kernels_gemm_f32(&kernels, layout)(m, rows, k, tile, x, k, y + row, n);
        }
    }
    status = EL_OK;

done:
    free(acts);
    free(tile);
    return status == EL_OK ? EL_OK : el_fail(err, status, "no memory for %zu x %zu weights", n, k);
}

void el_ops_rms_norm(size_t isa, size_t rows, size_t n, const float *x, const float *w, float eps, float *y)
{
    const el_kernels k = table(isa, 1);
    for (size_t r = 0; r < rows; r++) k.rms_norm(n, x + r * n, w, eps, y + r * n);
}

void el_ops_layer_norm(size_t isa, size_t rows, size_t n, const float *x, const float *w, const float *b,
                       float eps, float *y)
{
    const el_kernels k = table(isa, 1);
    for (size_t r = 0; r < rows; r++) k.layer_norm(n, x + r * n, w, b, eps, y + r * n);
}

void el_ops_softmax(size_t isa, size_t rows, size_t n, const float *x, float *y)
{
    const el_kernels k = table(isa, 1);
    for (size_t r = 0; r < rows; r++) k.softmax(n, x + r * n, y + r * n);
}

void el_ops_silu(size_t isa, size_t n, const float *x, float *y) { table(isa, 1).silu(n, x, y); }

void el_ops_gelu(size_t isa, size_t n, const float *x, float *y) { table(isa, 1).gelu(n, x, y); }

void el_ops_gelu_tanh(size_t isa, size_t n, const float *x, float *y) { table(isa, 1).gelu_tanh(n, x, y); }

void el_ops_swiglu(size_t isa, size_t n, const float *gate, const float *up, float *y)
{
    table(isa, 1).swiglu(n, gate, up, y);
}

el_status el_ops_rope(size_t isa, size_t rows, size_t heads, size_t d, size_t rotated,
                      const int64_t *positions, double theta, float *x, el_error *err)
{
    const el_kernels k = table(isa, 1);
    float *cs = allocate(rotated, sizeof *cs);
    double *frequency = allocate(rotated / 2, sizeof *frequency);
    if (cs == NULL || frequency == NULL) {
        free(cs);
        free(frequency);
        return el_fail(err, EL_ERR_NOMEM, "no memory for a table of %zu angles", rotated);
    }
    for (size_t i = 0; i < rotated / 2; i++) {
        frequency[i] = el_pow(theta, -(double)(2 * i) / (double)rotated);
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < rotated / 2; i++) {
            double sine, cosine;
            el_sincos((double)positions[r] * frequency[i], &sine, &cosine);
            cs[2 * i] = (float)cosine;
            cs[2 * i + 1] = (float)sine;
        }
        k.rope(heads, d, rotated, cs, x + r * heads * d);
    }
    free(cs);
    free(frequency);
    return EL_OK;
}

el_status el_ops_attention(size_t isa, size_t t, size_t h, size_t s, size_t g, size_t d, const float *q,
                           const float *k, const float *v, float scale, int causal, float *y, el_error *err)
{
    el_status status = EL_ERR_NOMEM;
    const el_kernels kernels = table(isa, 1);
    const size_t group = h / g, rows = t * group, context = el_round_up(s, EL_KEYS);
    uint16_t *k_cache = allocate(context, d * sizeof *k_cache);
    uint16_t *v_cache = allocate(context, d * sizeof *v_cache);
    size_t *offset = allocate(rows, sizeof *offset), *last = allocate(rows, sizeof *last);
    if (k_cache == NULL || v_cache == NULL || offset == NULL || last == NULL) goto done;

    memset(k_cache, 0, context * d * sizeof *k_cache);
    for (size_t head = 0; head < g; head++) {
        for (size_t p = 0; p < s; p++) {
            const size_t at = (p * g + head) * d;  // k[p, head, :]
            kernels.kv_write_f16(d, p, k + at, v + at, k_cache, v_cache);
        }
        for (size_t r = 0; r < rows; r++) {  // rows of one query follow each other
            offset[r] = (r / group * h + head * group + r % group) * d;
            last[r] = causal ? s - t + r / group : s - 1;
        }
        kernels.attention_f16(rows, d, q, offset, last, SIZE_MAX, el_round_up(s, EL_KEY_BLOCK), scale,
                              k_cache, v_cache, y);
    }
    status = EL_OK;

done:
    free(k_cache);
    free(v_cache);
    free(offset);
    free(last);
    return status == EL_OK ? EL_OK : el_fail(err, status, "no memory for %zu keys", s);
}

double el_ops_cross_entropy(size_t isa, size_t rows, size_t n, const float *x, const int64_t *targets)
{
    (void)isa;  // scalar double precision: the same on every ISA
    double total = 0.0;
    for (size_t r = 0; r < rows; r++, x += n) {
        float max = x[0];
        for (size_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
        double sum = 0.0;
        for (size_t i = 0; i < n; i++) {
            const double below = (double)x[i] - (double)max;
            if (below > -700.0) sum += el_exp(below);
        }
        total += el_log(sum) - ((double)x[targets[r]] - (double)max);
    }
    return total / (double)rows;
}

double el_ops_mse(size_t n, const float *a, const float *b)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double difference = (double)a[i] - (double)b[i];
        total += difference * difference;
    }
    return total / (double)n;
}
