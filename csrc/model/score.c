/* From logits to log-probabilities, with the canonical exponential. */
#include "core/trig.h"
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

static void score_rows(void *arg, size_t thread, size_t threads)
{
    const el_scoring *job = arg;
    const size_t vocab = job->model->config.vocab;
    size_t begin, end;
    el_partition(job->rows, 1, thread, threads, &begin, &end);

    for (size_t r = begin; r < end; r++) {
        float *row = job->logits + r * vocab;  // logits[r, :]: (vocab,)
        size_t top = 0;
        for (size_t i = 1; i < vocab; i++) {
            if (row[i] > row[top]) top = i;
        }
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
