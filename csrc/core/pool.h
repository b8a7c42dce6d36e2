#ifndef EL_CORE_POOL_H
#define EL_CORE_POOL_H

#include <stddef.h>

#include "edgellm/status.h"

/// A persistent pool of threads. One job at a time; the caller is thread 0.
typedef struct el_pool el_pool;

/// Work of one thread. `thread` is in [0, threads). Never fails.
typedef void el_job_fn(void *arg, size_t thread, size_t threads);

/// Start `threads - 1` workers; threads is at least 1 (and at most 256).
el_status el_pool_new(el_pool **out, size_t threads, el_error *err);

/// Join the workers and free. Accepts NULL.
void el_pool_free(el_pool *pool);

size_t el_pool_threads(const el_pool *pool);

/// Run `job(arg, i, threads)` on every thread and return when all have returned.
/// Callers on several threads are served one after the other (fair enough for sessions).
/// Workers spin briefly, then sleep in the kernel; the pool restarts its workers after a fork.
void el_pool_run(el_pool *pool, el_job_fn *job, void *arg);

/// Inside a job: wait until all threads of the job arrive here. Spins, then sleeps.
void el_pool_barrier(el_pool *pool);

/// Contiguous share of `items` for one thread, in whole multiples of `grain`.
void el_partition(size_t items, size_t grain, size_t thread, size_t threads, size_t *begin, size_t *end);

#endif
