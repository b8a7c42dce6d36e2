#ifndef EDGELLM_POOL_H
#define EDGELLM_POOL_H

#include <stddef.h>

#include "edgellm/api.h"
#include "edgellm/status.h"

EL_API_BEGIN

/// A persistent pool of threads. One job at a time; the caller is thread 0. Wherever a pool is asked
/// for, NULL stands for the calling thread alone, which needs no threads of the system.
typedef struct el_pool el_pool;

/// Start `threads - 1` workers; threads is at least 1 (and at most 256).
el_status el_pool_new(el_pool **out, size_t threads, el_error *err);

/// Join the workers and free. Accepts NULL.
void el_pool_free(el_pool *pool);

/// 1 for NULL.
size_t el_pool_threads(const el_pool *pool);

EL_API_END

#endif
