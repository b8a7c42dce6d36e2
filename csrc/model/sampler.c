#include "edgellm/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/error.h"

#define FIRST_TOP_P ((size_t)64)

enum { BLOCK = 16 };  // logits that are compared at once

typedef struct candidate {
    float logit;  // its weight once the last step begins
    int32_t id;
} candidate;

typedef struct candidates {
    candidate *at;  // (n,)
    size_t n;
    float max;    // largest logit, finite
    int ordered;  // from the best down, else by id
} candidates;

double el_uniform(el_draw draw)
{
    uint32_t key[2] = {(uint32_t)draw.seed, (uint32_t)(draw.seed >> 32)};
    uint32_t c[4] = {(uint32_t)draw.position, (uint32_t)(draw.position >> 32), (uint32_t)draw.stream,
                     (uint32_t)(draw.stream >> 32)};
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c[0];
        const uint64_t b = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t c1 = c[1];
        const uint32_t c3 = c[3];
        c[0] = (uint32_t)(b >> 32) ^ c1 ^ key[0];
        c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c3 ^ key[1];
        c[3] = (uint32_t)a;
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    const uint64_t bits = ((uint64_t)c[1] << 32 | c[0]) >> 11;
    return (double)bits * 0x1p-53;
}

/* e^x for x <= 0 to within 1e-14, relative; exactly 0 below -700, exactly 1 at 0. Only additions and products of
 * doubles, hence the same bits everywhere; seven times as fast as el_expf where a fused multiply-add is emulated. */
static double exp_of(double x)
{
    if (!(x >= -700.0)) return 0.0;

    // x = n ln 2 + r; the first part of ln 2 has 21 zero bits at its end, so n times it is exact
    const double t = x * 0x1.71547652b82fep+0 + 0x1.8p52;
    const double n = t - 0x1.8p52;
    const double r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;

    // Taylor to r^11 / 11!: |r| <= ln 2 / 2, so the rest is below 7e-15
    double p = 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;

    uint64_t bits;  // times 2^n: the low bits of t hold n, and the result is normal
    uint64_t shift;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&shift, &t, sizeof shift);
    bits += shift << 52;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* Probability of a candidate relative to the best one. */
static double relative(const candidates *c, size_t i, double temperature)
{
    return exp_of(((double)c->at[i].logit - (double)c->max) / temperature);
}

static int is_better(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void swap(candidate *a, candidate *b)
{
    const candidate held = *a;
    *a = *b;
    *b = held;
}

/* Restore the heap (worst on top) of at[0, n) below `i`. */
static void sift_down(candidate *at, size_t n, size_t i)
{
    const candidate moved = at[i];
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && is_better(at[child], at[child + 1])) child++;
        if (!is_better(moved, at[child])) break;
        at[i] = at[child];
        i = child;
    }
    at[i] = moved;
}

/* Bring the best k of n candidates to the front, from the best down; the others follow in any order. */
static void order_best(candidate *at, size_t n, size_t k)
{
    for (size_t i = k / 2; i-- > 0;) sift_down(at, k, i);
    for (size_t i = k; i < n; i++) {
        if (!is_better(at[i], at[0])) continue;
        swap(&at[0], &at[i]);
        sift_down(at, k, 0);
    }
    for (size_t end = k; end-- > 1;) {
        swap(&at[0], &at[end]);
        sift_down(at, end, 0);
    }
}

static void filter_top_k(candidates *c, size_t k)
{
    order_best(c->at, c->n, k);
    c->n = k;
    c->ordered = 1;
}

static void filter_top_p(candidates *c, double top_p)
{
    double total = 0.0;
    for (size_t i = 0; i < c->n; i++) total += relative(c, i, 1.0);

    // few are enough as a rule: order some, and more only where those do not suffice
    size_t k = c->ordered || c->n < FIRST_TOP_P ? c->n : FIRST_TOP_P;
    for (;;) {
        if (!c->ordered) order_best(c->at, c->n, k);
        double sum = 0.0;
        size_t kept = 0;
        while (kept < k && sum < top_p * total) sum += relative(c, kept++, 1.0);
        if (sum >= top_p * total || k == c->n) {
            c->n = kept;
            c->ordered = 1;
            return;
        }
        k = c->n / 8 < k ? c->n : 8 * k;
    }
}

static void filter_min_p(candidates *c, double min_p)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (relative(c, i, 1.0) >= min_p) c->at[kept++] = c->at[i];
    }
    c->n = kept;
}

/* One of the candidates with the probability of its weight. */
static int32_t draw_one(candidates *c, double temperature, double uniform)
{
    double total = 0.0;
    for (size_t i = 0; i < c->n; i++) {
        c->at[i].logit = (float)relative(c, i, temperature);
        total += (double)c->at[i].logit;
    }
    const double target = uniform * total;
    int32_t chosen = c->at[0].id;
    double sum = 0.0;
    for (size_t i = 0; i < c->n; i++) {
        if (!(c->at[i].logit > 0.0f)) continue;
        chosen = c->at[i].id;  // the last possible one where rounding lets target reach total
        sum += (double)c->at[i].logit;
        if (sum > target) break;
    }
    return chosen;
}

static float penalised(float logit, double penalty)
{
    if (logit < -FLT_MAX) return logit;  // forbidden stays forbidden
    const double y = logit > 0.0f ? (double)logit / penalty : (double)logit * penalty;
    if (y > (double)FLT_MAX) return FLT_MAX;
    return y < -(double)FLT_MAX ? -FLT_MAX : (float)y;
}

static el_status refuse(size_t i, float logit, el_error *err)
{
    return el_fail(err, EL_ERR_ARG, "logits[%zu] is %s", i, logit != logit ? "NaN" : "infinite");
}

/* All tokens by id, the recent ones penalised. */
static el_status gather(candidates *c, const float *logits, const el_sampler_params *params,
                        const int32_t *recent, size_t n_recent, el_error *err)
{
    for (size_t i = 0; i < c->n; i++) {
        if (!(logits[i] <= FLT_MAX)) return refuse(i, logits[i], err);
        c->at[i] = (candidate){.logit = logits[i], .id = (int32_t)i};
    }
    for (size_t i = 0; i < n_recent; i++) {
        const int32_t id = recent[i];
        if (id < 0 || (size_t)id >= c->n) {
            return el_fail(err, EL_ERR_ARG, "recent[%zu] is %d, not in 0..%zu", i, (int)id, c->n - 1);
        }
        c->at[id].logit = penalised(logits[id], params->repeat_penalty);
    }
    return EL_OK;
}

el_status el_sampler_check(const el_sampler_params *params, el_error *err)
{
    const double t = params->temperature;
    if (!(t >= 0.0 && t <= DBL_MAX)) {
        return el_fail(err, EL_ERR_ARG, "temperature is %g, not finite and >= 0", t);
    }
    if (params->top_k < 0) {
        return el_fail(err, EL_ERR_ARG, "top_k is %lld, not >= 0", (long long)params->top_k);
    }
    if (!(params->top_p > 0.0 && params->top_p <= 1.0)) {
        return el_fail(err, EL_ERR_ARG, "top_p is %g, not in (0, 1]", params->top_p);
    }
    if (!(params->min_p >= 0.0 && params->min_p <= 1.0)) {
        return el_fail(err, EL_ERR_ARG, "min_p is %g, not in [0, 1]", params->min_p);
    }
    if (!(params->repeat_penalty > 0.0 && params->repeat_penalty <= DBL_MAX)) {
        return el_fail(err, EL_ERR_ARG, "repeat_penalty is %g, not finite and > 0", params->repeat_penalty);
    }
    return EL_OK;
}

static el_status nothing_allowed(el_error *err)
{
    return el_fail(err, EL_ERR_ARG, "every logit is -infinity: no token is allowed");
}

/* Whether one of BLOCK logits is above max, or NaN. */
static int any_above(const float *logits, float max)
{
    int above = 0;
    for (size_t j = 0; j < BLOCK; j++) above |= !(logits[j] <= max);
    return above;
}

/* The first of the largest, where there is nothing to penalise. Blocks that hold nothing better are passed over at
 * a comparison per logit. */
static el_status take_largest(const float *logits, size_t vocab, int32_t *out, el_error *err)
{
    float max = -HUGE_VALF;
    size_t at = 0;
    for (size_t i = 0; i < vocab; i += BLOCK) {
        const size_t end = vocab - i < BLOCK ? vocab : i + BLOCK;
        if (end - i == BLOCK && !any_above(logits + i, max)) continue;
        for (size_t j = i; j < end; j++) {
            if (logits[j] <= max) continue;
            if (!(logits[j] <= FLT_MAX)) return refuse(j, logits[j], err);
            max = logits[j];
            at = j;
        }
    }
    if (max < -FLT_MAX) return nothing_allowed(err);
    *out = (int32_t)at;
    return EL_OK;
}

size_t el_sampler_workspace_bytes(size_t vocab)
{
    return vocab > INT32_MAX || vocab > SIZE_MAX / sizeof(candidate) ? 0 : vocab * sizeof(candidate);
}

el_status el_sample(const float *logits, size_t vocab, const el_sampler_params *params, const int32_t *recent,
                    size_t n_recent, el_draw draw, void *workspace, int32_t *out, el_error *err)
{
    el_status st = el_sampler_check(params, err);
    if (st != EL_OK) return st;
    if (vocab == 0 || el_sampler_workspace_bytes(vocab) == 0) {
        return el_fail(err, EL_ERR_ARG, "a vocabulary of %zu tokens", vocab);
    }

    if (params->temperature == 0.0 && (n_recent == 0 || params->repeat_penalty == 1.0)) {
        return take_largest(logits, vocab, out, err);
    }

    candidates c = {.at = workspace, .n = vocab};
    st = gather(&c, logits, params, recent, n_recent, err);
    if (st != EL_OK) return st;

    candidate best = c.at[0];
    for (size_t i = 1; i < c.n; i++) {
        if (c.at[i].logit > best.logit) best = c.at[i];
    }
    c.max = best.logit;
    if (c.max < -FLT_MAX) return nothing_allowed(err);

    if (params->temperature == 0.0) {
        *out = best.id;
        return EL_OK;
    }
    if (params->top_k > 0 && (uint64_t)params->top_k < c.n) filter_top_k(&c, (size_t)params->top_k);
    if (params->top_p < 1.0) filter_top_p(&c, params->top_p);
    if (params->min_p > 0.0) filter_min_p(&c, params->min_p);
    *out = draw_one(&c, params->temperature, el_uniform(draw));
    return EL_OK;
}

el_status el_bias_apply(float *logits, size_t vocab, const el_bias *bias, size_t n, el_error *err)
{
    int taken = 0;  // whether an allowed token has +infinity
    for (size_t i = 0; i < n; i++) {
        if (bias[i].id < 0 || (size_t)bias[i].id >= vocab) {
            return el_fail(err, EL_ERR_ARG, "bias for token %d, not in 0..%zu", (int)bias[i].id, vocab - 1);
        }
        if (i > 0 && bias[i].id <= bias[i - 1].id) {
            return el_fail(err, EL_ERR_ARG, "bias for token %d is out of order", (int)bias[i].id);
        }
        if (bias[i].value != bias[i].value) {
            return el_fail(err, EL_ERR_ARG, "bias for token %d is NaN", (int)bias[i].id);
        }
        taken |= bias[i].value > FLT_MAX && logits[bias[i].id] >= -FLT_MAX;
    }
    if (taken) {
        size_t next = 0;
        for (size_t id = 0; id < vocab; id++) {
            while (next < n && (size_t)bias[next].id < id) next++;
            const int keeps = next < n && (size_t)bias[next].id == id && bias[next].value > FLT_MAX;
            if (!keeps) logits[id] = -HUGE_VALF;
        }
        return EL_OK;
    }
    for (size_t i = 0; i < n; i++) {
        float *logit = logits + bias[i].id;
        if (bias[i].value < -FLT_MAX) *logit = -HUGE_VALF;
        if (!(*logit >= -FLT_MAX && *logit <= FLT_MAX) || bias[i].value > FLT_MAX) continue;
        const double y = (double)*logit + (double)bias[i].value;
        *logit = y > (double)FLT_MAX ? FLT_MAX : y < -(double)FLT_MAX ? -FLT_MAX : (float)y;
    }
    return EL_OK;
}
