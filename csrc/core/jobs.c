/* Running a job on a pool or, without one, on the calling thread alone. This file needs no
 * threads: pool.c has them, and nothing here refers to it. */
#include "core/pool.h"

static const el_pool_head *head(const el_pool *pool) { return (const el_pool_head *)(const void *)pool; }

size_t el_pool_threads(const el_pool *pool) { return pool == NULL ? 1 : head(pool)->threads; }

void el_pool_run(el_pool *pool, el_job_fn *job, void *arg)
{
    if (pool == NULL) {
        job(arg, 0, 1);
    } else {
        head(pool)->run(pool, job, arg);
    }
}

void el_pool_barrier(el_pool *pool)
{
    if (pool != NULL) head(pool)->barrier(pool);
}

void el_partition(size_t items, size_t grain, size_t thread, size_t threads, size_t *begin, size_t *end)
{
    // Split whole grains; the first `more` threads get one more. No product can overflow.
    const size_t grains = items / grain + (items % grain != 0 ? 1 : 0);
    const size_t each = grains / threads, more = grains % threads;
    const size_t from = thread * each + (thread < more ? thread : more);
    const size_t to = from + each + (thread < more ? 1 : 0);
    *begin = from * grain < items ? from * grain : items;
    *end = to * grain < items ? to * grain : items;
}
