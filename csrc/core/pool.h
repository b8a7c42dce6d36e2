#ifndef EL_CORE_POOL_H
#define EL_CORE_POOL_H

#include "edgellm/pool.h"

/// Work of one thread. `thread` is in [0, threads). Never fails.
typedef void el_job_fn(void *arg, size_t thread, size_t threads);

/// What every pool begins with. Running a job goes through here and not through pool.c, so that a
/// machine without threads builds the core without that file.
typedef struct el_pool_head {
    size_t threads;
    void (*run)(el_pool *pool, el_job_fn *job, void *arg);
    void (*barrier)(el_pool *pool);
} el_pool_head;

/// Run `job(arg, i, threads)` on every thread and return when all have returned.
/// Callers on several threads are served one after the other.
/// Workers spin briefly, then sleep in the kernel; the pool restarts its workers after a fork.
/// A pool of NULL is the calling thread alone.
void el_pool_run(el_pool *pool, el_job_fn *job, void *arg);

/// Inside a job: wait until all threads of the job arrive here. Spins, then sleeps.
void el_pool_barrier(el_pool *pool);

/// Contiguous share of `items` for one thread, in whole multiples of `grain`.
void el_partition(size_t items, size_t grain, size_t thread, size_t threads, size_t *begin, size_t *end);

#endif
