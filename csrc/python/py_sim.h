/* What the files of `edgellm._sim` share. */
#ifndef EL_PY_SIM_H
#define EL_PY_SIM_H

#include <Python.h>

#include "sim/sim.h"

/* What C code starts an activity with, instead of a callable: one of the two is called, once. */
typedef struct el_waker el_waker;
struct el_waker {
    int (*wake)(el_waker *waker); /* -1: an exception is set, and ends the run */
    void (*drop)(el_waker *waker);
};

/* A tag is a strong reference to a callable, or a waker: objects lie at even addresses. */
static inline void *el_waker_tag(el_waker *waker) { return (char *)waker + 1; }

extern PyType_Spec el_sim_engine_spec; /* py_sim_engine.c */

/* The world of an Engine, for those who start activities from C; no check of the type. */
el_sim *el_engine_world(PyObject *engine);

#endif
