/* From logits to log-probabilities, with the canonical exponential. */
#include "core/select.h"
#include "core/trig.h"
#include "edgellm/cpu.h"
#include "edgellm/sampler.h"
#include "model/model.h"

typedef struct el_scoring {
    const el_model *model;
    size_t rows;
    float *logits;
    const int32_t *targets;
    double *logprob;
    int32_t *top;
    float *top_prob;
} el_scoring;

/// The first of the largest.
static size_t largest(const float *row, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++) {
        if (row[i] > row[top]) top = i;
    }
    return top;
}

static void score_rows(void *arg, size_t thread, size_t threads)
{
    const el_scoring *job = arg;
    const size_t vocab = job->model->config.vocab;
    size_t begin, end;
    el_partition(job->rows, 1, thread, threads, &begin, &end);

    for (size_t r = begin; r < end; r++) {
        float *row = job->logits + r * vocab;  // logits[r, :]: (vocab,)
        const size_t top = largest(row, vocab);
        const double gap = (double)row[job->targets[r]] - (double)row[top];
        job->model->kernels.softmax(vocab, row, row);
        // exp(0) = 1, so the largest probability is 1 / sum: log p = gap - log(sum)
        job->top[r] = (int32_t)top;
        job->top_prob[r] = row[top];
        job->logprob[r] = gap + el_log((double)row[top]);
    }
}

void el_score(el_model *model, size_t rows, float *logits, const int32_t *targets, double *logprob,
              int32_t *top, float *top_prob)
{
    el_scoring job = {model, rows, logits, targets, logprob, top, top_prob};
    el_pool_run(model->pool, score_rows, &job);
}

/// Keep the `n` best of all ids in order. A place costs a shift, but few tokens get one.
static void best_of(const float *logits, size_t vocab, size_t n, int32_t *top)
{
    size_t held = 0;
    for (size_t i = 0; i < vocab; i++) {
        if (held == n && !(logits[i] > logits[top[n - 1]])) continue;
        size_t at = held < n ? held++ : n - 1;
        for (; at > 0 && logits[i] > logits[top[at - 1]]; at--) top[at] = top[at - 1];
        top[at] = (int32_t)i;
    }
}

void el_logprobs(size_t isa, const float *logits, size_t vocab, int32_t id, size_t n, float *workspace,
                 double *logprob, int32_t *top, double *top_logprob)
{
    el_kernels kernels;
    el_kernels_select(&kernels, isa, el_cpu_features(), 1);
    const size_t first = largest(logits, vocab);
    kernels.softmax(vocab, logits, workspace);
    // as in score_rows: the largest probability is 1 / sum
    const double log_first = el_log((double)workspace[first]);
    *logprob = ((double)logits[id] - (double)logits[first]) + log_first;
    if (n > 0) best_of(logits, vocab, n, top);
    for (size_t i = 0; i < n; i++) {
        top_logprob[i] = ((double)logits[top[i]] - (double)logits[first]) + log_first;
    }
}
