/* Choosing the next token from logits; the same token on every machine. */
#ifndef EDGELLM_SAMPLER_H
#define EDGELLM_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"

EL_API_BEGIN

/// The steps, in the order in which they are applied (llama.cpp's): repetition penalty, top-k, top-p, min-p,
/// temperature. So top-p and min-p look at probabilities before the temperature changes them.
typedef struct el_sampler_params {
    double
        temperature;  ///< finite, >= 0; 0 takes the largest logit after the penalty, the lowest id of equals
    int64_t top_k;  ///< keep the k largest; 0: all
    double top_p;  ///< in (0, 1]: the fewest largest whose probabilities sum to at least this; 1: all
    double min_p;  ///< in [0, 1]: those at least this times as probable as the likeliest; 0: all
    double
        repeat_penalty;  ///< > 0: a recent token's logit is divided by it if positive, else multiplied; 1: none
} el_sampler_params;

/// Which random number: equal numbers for equal triples, independent ones for all others.
typedef struct el_draw {
    uint64_t seed;
    uint64_t stream;  ///< which text of this seed
    uint64_t position;  ///< which token of the text
} el_draw;

/// Uniform in [0, 1), a multiple of 2^-53.
/// Source: Philox4x32-10, key = seed, counter = (position, stream); Salmon et al., "Parallel random numbers: as
/// easy as 1, 2, 3", SC 2011.
double el_uniform(el_draw draw);

/// EL_ERR_ARG names the first parameter out of its range; NaN is out of every range.
el_status el_sampler_check(const el_sampler_params *params, el_error *err);

/// Bytes, aligned to 8, that el_sample needs to work in; 0 if `vocab` is absurd.
size_t el_sampler_workspace_bytes(size_t vocab);

/// Choose one token.
///
/// @param[in]  logits     (vocab,) float32; -infinity forbids a token
/// @param[in]  recent     (n_recent,) ids that the repetition penalty concerns; repeats count once
/// @param[in]  workspace  el_sampler_workspace_bytes(vocab) bytes
/// @param[out] out        an id in [0, vocab); written on success only
/// Equal logits rank by id, the lowest first. Nothing is allocated. Time O(vocab log k), where top-k or
/// top-p keep k.
/// EL_ERR_ARG: a parameter out of range, a recent id out of range, a NaN or +infinity, or nothing allowed.
///
/// Numerics: canonical. Weights are e^((logit - max) / temperature) in double by a fixed polynomial, rounded to
/// float; sums are double, in id order, or from the largest down once top-k or top-p have ordered them.
el_status el_sample(const float *logits, size_t vocab, const el_sampler_params *params, const int32_t *recent,
                    size_t n_recent, el_draw draw, void *workspace, int32_t *out, el_error *err);

/// A change of one token's logit: added to it. -INFINITY forbids the token; +INFINITY forbids, wherever the
/// token is allowed, all tokens without it.
typedef struct el_bias {
    int32_t id;
    float value;
} el_bias;

/// Apply (n,) changes, by ascending id, to (vocab,) logits. Sums beyond the range of float stay finite.
/// EL_ERR_ARG, with nothing changed, if an id is out of range or out of order, or a value NaN.
el_status el_bias_apply(float *logits, size_t vocab, const el_bias *bias, size_t n, el_error *err);

/// Natural logarithms of probabilities, with the bits of el_score.
///
/// @param[in]  isa        index from el_isa_find; the bits do not depend on it
/// @param[in]  logits     (vocab,) finite, vocab >= 1
/// @param[in]  id         below vocab
/// @param[in]  n          at most vocab
/// @param[in]  workspace  (vocab,)
/// @param[out] logprob    of `id`
/// @param[out] top        (n,) the likeliest tokens, the best first, equals by id
/// @param[out] top_logprob (n,)
void el_logprobs(size_t isa, const float *logits, size_t vocab, int32_t id, size_t n, float *workspace,
                 double *logprob, int32_t *top, double *top_logprob);

EL_API_END

#endif
