/* A lock that is given in the order in which it was asked for. */
#ifndef EL_PY_TURNS_H
#define EL_PY_TURNS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/// A mutex alone is taken again by who has just released it: an evaluation, which lets go between its
/// micro-batches, would keep everybody else out until its end.
typedef struct el_py_turns {
    pthread_mutex_t mutex;
    pthread_cond_t next;
    uint64_t taken, served;
    bool ready;
} el_py_turns;

static inline bool el_py_turns_init(el_py_turns *turns)
{
    if (pthread_mutex_init(&turns->mutex, NULL) != 0) return false;
    turns->ready = pthread_cond_init(&turns->next, NULL) == 0;
    if (!turns->ready) pthread_mutex_destroy(&turns->mutex);
    return turns->ready;
}

static inline void el_py_turns_destroy(el_py_turns *turns)
{
    if (!turns->ready) return;
    pthread_cond_destroy(&turns->next);
    pthread_mutex_destroy(&turns->mutex);
}

/// The GIL is not held: the turn may be long in coming.
static inline void el_py_turns_enter(el_py_turns *turns)
{
    pthread_mutex_lock(&turns->mutex);
    const uint64_t own = turns->taken++;
    while (turns->served != own) pthread_cond_wait(&turns->next, &turns->mutex);
    pthread_mutex_unlock(&turns->mutex);
}

static inline void el_py_turns_leave(el_py_turns *turns)
{
    pthread_mutex_lock(&turns->mutex);
    turns->served++;
    pthread_cond_broadcast(&turns->next);
    pthread_mutex_unlock(&turns->mutex);
}

#endif
