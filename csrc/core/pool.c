/* A persistent pool. Every wait (for a job, for its end, at a barrier) is one thing: until a
 * counter changes. A waiter spins a few microseconds, yields for some tens, then sleeps, so that
 * a decode step pays no system call on idle cores and nothing collapses on shared ones. */
#define _POSIX_C_SOURCE 200809L
#include "core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "core/error.h"
#include "edgellm/cpu.h"

enum {
    EL_MAX_THREADS = 256,
    EL_STACK_BYTES = 1 << 20,
    EL_SPIN_NS = 4000,    // pause only: shorter than a time slice matters to anybody
    EL_YIELD_NS = 50000,  // offering the core to others; longer than a norm, shorter than a sleep costs
    EL_SPINS = 64         // pauses between two looks at the clock
};

/// A counter that threads wait on.
typedef struct el_event {
    atomic_uint value;
    atomic_uint sleepers;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} el_event;

struct el_pool {
    el_pool_head head;      ///< first: jobs.c sees no more of a pool
    size_t active;          ///< of the running job: the caller and the workers that could be started
    size_t started;         ///< workers that exist
    bool spin;              ///< false when there are more threads than CPUs
    unsigned fork_epoch;    ///< of the process that started the workers
    pthread_mutex_t callers;
    el_event job, finished, barrier;
    atomic_size_t left;     ///< workers that have not finished the job
    atomic_size_t arrived;  ///< threads at the barrier
    el_job_fn *fn;
    void *arg;
    bool stop;
    struct el_worker {
        el_pool *pool;
        size_t index;
        unsigned seen;  ///< value of `job` when the worker was started
        pthread_t id;
    } workers[];
};

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned fork_epoch;  // forks between this process and the first; under fork_lock

static void before_fork(void) { (void)pthread_mutex_lock(&fork_lock); }

static void in_parent(void) { (void)pthread_mutex_unlock(&fork_lock); }

static void in_child(void)
{
    fork_epoch++;
    (void)pthread_mutex_unlock(&fork_lock);
}

static void watch_forks(void) { (void)pthread_atfork(before_fork, in_parent, in_child); }

static void event_init(el_event *e)
{
    atomic_init(&e->value, 0);
    atomic_init(&e->sleepers, 0);
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_cond_init(&e->changed, NULL);
}

static void event_destroy(el_event *e)
{
    (void)pthread_mutex_destroy(&e->lock);
    (void)pthread_cond_destroy(&e->changed);
}

static void event_bump(el_event *e)
{
    // Sequentially consistent on both sides: either we see the sleeper or it sees the new value.
    atomic_fetch_add(&e->value, 1);
    if (atomic_load(&e->sleepers) == 0) return;
    (void)pthread_mutex_lock(&e->lock);
    (void)pthread_cond_broadcast(&e->changed);
    (void)pthread_mutex_unlock(&e->lock);
}

#if defined(__x86_64__) || defined(__i386__)
static void relax(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static void relax(void) { __asm__ volatile("isb"); }
#else
static void relax(void) { (void)sched_yield(); }
#endif

static int64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool event_spin(el_event *e, unsigned old)
{
    for (int i = 0; i < EL_SPINS; i++) {
        if (atomic_load_explicit(&e->value, memory_order_acquire) != old) return true;
        relax();
    }
    return false;
}

/// Wait until the event's value is no longer `old`.
static void event_wait(el_event *e, unsigned old, bool spin)
{
    if (atomic_load_explicit(&e->value, memory_order_acquire) != old) return;
    if (spin) {
        const int64_t start = now_ns();
        int64_t spent = 0;
        while (spent < EL_YIELD_NS) {
            if (event_spin(e, old)) return;
            spent = now_ns() - start;
            if (spent > EL_SPIN_NS) (void)sched_yield();
        }
    }
    (void)pthread_mutex_lock(&e->lock);
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == old) (void)pthread_cond_wait(&e->changed, &e->lock);
    atomic_fetch_sub(&e->sleepers, 1);
    (void)pthread_mutex_unlock(&e->lock);
}

static void *worker_main(void *arg)
{
    struct el_worker *self = arg;
    el_pool *pool = self->pool;
    unsigned seen = self->seen;

    for (;;) {
        event_wait(&pool->job, seen, pool->spin);
        seen++;
        if (pool->stop) return NULL;
        pool->fn(pool->arg, self->index, pool->active);
        if (atomic_fetch_sub(&pool->left, 1) == 1) event_bump(&pool->finished);
    }
}

// Start the workers that are missing; fewer than asked for is not an error, since results do
// not depend on the number of threads.
static int start_workers(el_pool *pool)
{
    pthread_attr_t attr;
    sigset_t all, old;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) return rc;
    (void)pthread_attr_setstacksize(&attr, EL_STACK_BYTES);

    // Signals are for the caller's threads (Ctrl-C must reach Python's main thread), but for those that an
    // instruction raises: blocked, they would end the process past every handler.
    static const int own[] = {SIGILL, SIGTRAP, SIGFPE, SIGBUS, SIGSEGV};
    (void)sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) (void)sigdelset(&all, own[i]);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool->started + 1 < pool->head.threads) {
        struct el_worker *w = &pool->workers[pool->started];
        w->pool = pool;
        w->index = pool->started + 1;
        w->seen = atomic_load(&pool->job.value);
        rc = pthread_create(&w->id, &attr, worker_main, w);
        if (rc != 0) break;
        pool->started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

static void init_sync(el_pool *pool)
{
    event_init(&pool->job);
    event_init(&pool->finished);
    event_init(&pool->barrier);
    atomic_init(&pool->left, 0);
    atomic_init(&pool->arrived, 0);
    pool->started = 0;
}

// After a fork only the calling thread lives on, and locks may be held by threads that are gone:
// forget everything and start anew. True if this is another process than the workers'.
static bool restart_after_fork(el_pool *pool)
{
    (void)pthread_mutex_lock(&fork_lock);
    const bool forked = pool->fork_epoch != fork_epoch;
    if (forked) {
        (void)pthread_mutex_init(&pool->callers, NULL);
        init_sync(pool);
        pool->fork_epoch = fork_epoch;
    }
    (void)pthread_mutex_unlock(&fork_lock);
    return forked;
}

static void run(el_pool *pool, el_job_fn *job, void *arg)
{
    (void)restart_after_fork(pool);
    (void)pthread_mutex_lock(&pool->callers);
    if (pool->started + 1 < pool->head.threads) (void)start_workers(pool);

    pool->active = pool->started + 1;
    pool->fn = job;
    pool->arg = arg;
    if (pool->started > 0) {
        const unsigned before = atomic_load(&pool->finished.value);
        atomic_store(&pool->left, pool->started);
        event_bump(&pool->job);  // publishes the fields above
        job(arg, 0, pool->active);
        event_wait(&pool->finished, before, pool->spin);
    } else {
        job(arg, 0, 1);
    }
    (void)pthread_mutex_unlock(&pool->callers);
}

static void barrier(el_pool *pool)
{
    const unsigned before = atomic_load(&pool->barrier.value);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->active) {
        atomic_store(&pool->arrived, 0);
        event_bump(&pool->barrier);
    } else {
        event_wait(&pool->barrier, before, pool->spin);
    }
}

void el_pool_free(el_pool *pool)
{
    if (pool == NULL) return;
    (void)restart_after_fork(pool);
    pool->stop = true;
    event_bump(&pool->job);
    for (size_t i = 0; i < pool->started; i++) (void)pthread_join(pool->workers[i].id, NULL);
    event_destroy(&pool->job);
    event_destroy(&pool->finished);
    event_destroy(&pool->barrier);
    (void)pthread_mutex_destroy(&pool->callers);
    free(pool);
}

el_status el_pool_new(el_pool **out, size_t threads, el_error *err)
{
    *out = NULL;
    if (threads < 1 || threads > EL_MAX_THREADS) {
        return el_fail(err, EL_ERR_ARG, "threads must be 1 to %d, got %zu", EL_MAX_THREADS, threads);
    }
    (void)pthread_once(&fork_once, watch_forks);

    el_pool *pool = calloc(1, sizeof *pool + (threads - 1) * sizeof *pool->workers);
    if (pool == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a pool of %zu threads", threads);
    pool->head = (el_pool_head){threads, run, barrier};
    pool->spin = threads <= el_cpu_count();
    (void)pthread_mutex_init(&pool->callers, NULL);
    init_sync(pool);
    (void)pthread_mutex_lock(&fork_lock);
    pool->fork_epoch = fork_epoch;
    (void)pthread_mutex_unlock(&fork_lock);

    if (start_workers(pool) != 0) {
        el_pool_free(pool);
        return el_fail(err, EL_ERR_SYSTEM, "the system refused to start %zu threads", threads);
    }
    *out = pool;
    return EL_OK;
}
