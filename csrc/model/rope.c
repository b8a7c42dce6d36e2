/* Rotary positions. Tables are made in double precision with core/trig, so that they have the same bits on
 * every machine. Sources: YaRN (arXiv 2309.00071) and LongRoPE (arXiv 2402.13753) as transformers computes
 * them; keys and tensors as llama.cpp writes them. */
#include "model/rope.h"

#include <string.h>

#include "core/error.h"
#include "core/trig.h"
#include "model/keys.h"

/// Frequencies of RoPE: positions stay below 2^24, and el_sincos takes the product.
static const double EL_MAX_FREQUENCY = 1073741824.0;  // 2^30

static const char freqs_name[] = "rope_freqs.weight";
static const char short_name[] = "rope_factors_short.weight", long_name[] = "rope_factors_long.weight";

bool el_rope_frequency_ok(double f) { return f > 0.0 && f <= EL_MAX_FREQUENCY; }

size_t el_rope_tables(const el_config *c)
{
    if (c->rope_dims == 0) return 0;
    return c->rope_local_base > 0.0f || c->rope_original > 0 ? 2 : 1;
}

size_t el_rope_kinds(const el_config *c) { return c->rope_local_base > 0.0f ? 2 : c->rope_dims > 0 ? 1 : 0; }

bool el_rope_owns(const el_config *c, el_view name)
{
    return c->rope_dims > 0 && (el_view_equals(name, freqs_name) || el_view_equals(name, short_name) ||
                                el_view_equals(name, long_name));
}

/// What a file states of longer contexts than those of its training.
typedef struct el_scaling {
    bool yarn, longrope;
    float factor;
    uint32_t original;      ///< positions before the scaling
    float fast, slow;       ///< rotations within those, between which YaRN mixes
    float magnitude;
} el_scaling;

static el_status read_scaling(el_scaling *s, const el_config *c, const el_gguf *g, el_error *err)
{
    const char *arch = c->architecture;
    const bool factors = el_gguf_tensor_find(g, short_name) != NULL;
    el_view kind = {"linear", 6};
    float extrapolation = 1.0f, magnitude = 1.0f, yarn_magnitude = 0.0f;
    *s = (el_scaling){.longrope = factors, .factor = 1.0f, .original = c->context, .fast = 32, .slow = 1};

    el_status st = el_key_string_or(g, arch, "rope.scaling.type", &kind, err);
    if (st == EL_OK)
        st = el_key_u32_or(g, arch, "rope.scaling.original_context_length", 1, EL_MAX_CONTEXT, &s->original,
                           err);
    if (st == EL_OK) st = el_key_f32_or(g, arch, "rope.scaling.attn_factor", &magnitude, err);
    s->magnitude = magnitude;
    if (st != EL_OK || el_view_equals(kind, "none")) return st;
    s->longrope |= el_view_equals(kind, "longrope");
    if (s->longrope) return EL_OK;
    s->yarn = el_view_equals(kind, "yarn");
    if (!s->yarn && !el_view_equals(kind, "linear")) {
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "rope scaling '%.*s' is not supported (known: none, linear, yarn, longrope)",
                       (int)(kind.size > 40 ? 40 : kind.size), kind.data);
    }
    st = el_key_f32_or(g, arch, "rope.scaling.factor", &s->factor, err);
    if (!s->yarn || st != EL_OK) return st;

    st = el_key_f32_or(g, arch, "rope.scaling.yarn_beta_fast", &s->fast, err);
    if (st == EL_OK) st = el_key_f32_or(g, arch, "rope.scaling.yarn_beta_slow", &s->slow, err);
    if (st == EL_OK) st = el_key_f32_or(g, arch, "rope.scaling.yarn_ext_factor", &extrapolation, err);
    if (st == EL_OK) st = el_key_f32_or(g, arch, "rope.scaling.yarn_attn_factor", &yarn_magnitude, err);
    if (st == EL_OK && extrapolation != 1.0f)
        return el_fail(err, EL_ERR_UNSUPPORTED, "%s.rope.scaling.yarn_ext_factor is not 1", arch);
    if (yarn_magnitude == 0.0f)
        yarn_magnitude = s->factor > 1.0f ? (float)(0.1 * el_log((double)s->factor) + 1.0) : 1.0f;
    s->magnitude = magnitude * yarn_magnitude;
    if (st == EL_OK && !(s->magnitude > 0.0f && s->magnitude < 1e30f))
        return el_fail(err, EL_ERR_FORMAT, "%s.rope.scaling: the attention factor is out of range", arch);
    return st;
}

el_status el_rope_config(el_config *c, const el_family *family, const el_gguf *g, el_error *err)
{
    const char *arch = c->architecture;
    c->rope_scale = c->rope_magnitude = 1.0f;
    c->rope_base = 10000.0f;
    if (family->positions) return EL_OK;

    c->rope_dims = c->head_values;
    el_status st = el_key_u32_or(g, arch, "rope.dimension_count", 2, c->head_values, &c->rope_dims, err);
    if (st == EL_OK) st = el_key_f32_or(g, arch, "rope.freq_base", &c->rope_base, err);
    if (st != EL_OK) return st;
    if (c->rope_dims % 2 != 0) return el_fail(err, EL_ERR_FORMAT, "%s.rope.dimension_count is odd", arch);

    el_scaling s;
    st = read_scaling(&s, c, g, err);
    if (st != EL_OK) return st;
    if (s.yarn && !(c->rope_base > 1.0f))
        return el_fail(err, EL_ERR_FORMAT, "%s.rope.freq_base is too small for YaRN", arch);
    c->rope_scale = s.factor;
    c->rope_magnitude = s.magnitude;
    if (s.longrope && s.original < c->context) c->rope_original = s.original;
    return EL_OK;
}

/// Divide frequencies by the factors of a tensor, if there is one, and check what they are then.
static el_status divide(const el_gguf *g, const el_source *source, const char *name, bool needed,
                        size_t pairs, double *inv_freq, el_error *err)
{
    const el_gguf_tensor *t = el_gguf_tensor_find(g, name);
    if (t == NULL && needed) return el_fail(err, EL_ERR_FORMAT, "tensor %s is missing", name);
    if (t != NULL && (t->type != EL_TYPE_F32 || t->shape[0] != pairs || t->bytes != pairs * sizeof(float)))
        return el_fail(err, EL_ERR_FORMAT, "%s is not %zu values of f32", name, pairs);
    for (size_t i = 0; i < pairs; i++) {
        float factor = 1.0f;
        if (t != NULL && source->read(source->context, t->offset + i * sizeof factor, &factor,
                                      sizeof factor) != sizeof factor)
            return el_fail(err, EL_ERR_IO, "%s: the file ended while it was read", name);
        if (!(factor > 0.0f && factor < 1e30f))
            return el_fail(err, EL_ERR_FORMAT, "%s[%zu] is not positive", name, i);
        inv_freq[i] /= (double)factor;
        if (!el_rope_frequency_ok(inv_freq[i]))
            return el_fail(err, EL_ERR_FORMAT, "RoPE frequency %zu is out of range", i);
    }
    return EL_OK;
}

/// The pair that turns `rotations` times within the original positions.
static double pair_of(const el_config *c, const el_scaling *s, float rotations)
{
    const double two_pi = 6.28318530717958647692;
    const double log_turn = el_log((double)s->original) - el_log((double)rotations * two_pi);
    return (double)c->rope_dims * log_turn / (2.0 * el_log((double)c->rope_base));
}

/// Mix frequencies with those of linear scaling: fast pairs stay, slow ones are divided by the factor.
static void mix_yarn(const el_config *c, const el_scaling *s, double *inv_freq)
{
    const double last = (double)(c->rope_dims - 1);
    double low = pair_of(c, s, s->fast), high = pair_of(c, s, s->slow);
    low = low > 0.0 ? (low < last ? (double)(int64_t)low : last) : 0.0;  // rounded down
    high = high > 0.0 ? (high < last ? (double)(int64_t)high + (high > (double)(int64_t)high) : last) : 0.0;
    const double span = high - low > 0.001 ? high - low : 0.001;
    for (size_t i = 0; i < c->rope_dims / 2; i++) {
        double slow = ((double)i - low) / span;
        slow = slow < 0.0 ? 0.0 : slow > 1.0 ? 1.0 : slow;
        inv_freq[i] = inv_freq[i] / (double)s->factor * slow + inv_freq[i] * (1.0 - slow);
    }
}

el_status el_rope_load(const el_config *c, const el_gguf *g, const el_source *source, double *inv_freq,
                       el_error *err)
{
    const size_t pairs = c->rope_dims / 2, tables = el_rope_tables(c);
    if (tables == 0) return EL_OK;
    el_scaling s;
    el_status st = read_scaling(&s, c, g, err);
    if (st != EL_OK) return st;

    double *second = tables > 1 ? inv_freq + pairs : NULL;
    for (size_t i = 0; i < pairs; i++) {
        const double exponent = -2.0 * (double)i / (double)c->rope_dims;
        inv_freq[i] = el_pow(c->rope_base, exponent);
        if (!s.yarn) inv_freq[i] /= (double)c->rope_scale;
        if (second != NULL)
            second[i] = c->rope_original > 0 ? inv_freq[i] : el_pow(c->rope_local_base, exponent);
    }
    if (s.yarn) mix_yarn(c, &s, inv_freq);
    st = divide(g, source, freqs_name, false, pairs, inv_freq, err);
    if (st == EL_OK && s.longrope) st = divide(g, source, short_name, true, pairs, inv_freq, err);
    if (st != EL_OK || second == NULL) return st;
    const bool is_long = c->rope_original > 0;
    return divide(g, source, is_long ? long_name : "", is_long, pairs, second, err);
}

void el_rope_angles(const el_model *m, size_t row)
{
    const size_t dims = m->config.rope_dims, pairs = dims / 2, kinds = el_rope_kinds(&m->config);
    const el_row *r = &m->scratch.row[row];
    const double magnitude = (double)m->config.rope_magnitude;

    for (size_t kind = 0; kind < kinds; kind++) {
        const double *inv_freq = m->inv_freq + (kind + r->session->rope) * pairs;
        float *cs = m->scratch.cs + (row * kinds + kind) * dims;
        for (size_t i = 0; i < pairs; i++) {
            double sine, cosine;
            el_sincos((double)r->position * inv_freq[i], &sine, &cosine);
            cs[2 * i] = (float)(cosine * magnitude);
            cs[2 * i + 1] = (float)(sine * magnitude);
        }
    }
}

void el_rotate(const el_lane *at, size_t layer, float *x, size_t heads, size_t first, size_t last)
{
    const el_model *m = at->step->m;
    const size_t d = m->config.head_dim, dims = m->config.rope_dims, kinds = el_rope_kinds(&m->config);
    if (dims == 0) return;

    for (size_t r = 0; r < at->step->rows; r++) {
        const float *cs = m->scratch.cs + (r * kinds + m->layers[layer].rope) * dims;
        float *row = x + r * heads * d;
        for (size_t i = first; i < last;) {
            // whole heads at once; pairs are neighbours, so that no tile cuts one
            const size_t in = i % d, whole = in == 0 ? (last - i) / d : 0;
            const size_t n = whole > 0 ? whole * d : (last - i < d - in ? last - i : d - in);
            if (whole > 0) {
                m->kernels.rope(whole, d, dims, cs, row + i);
            } else if (in < dims) {
                m->kernels.rope(1, n, dims - in < n ? dims - in : n, cs + in, row + i);
            }
            i += n;
        }
    }
}
