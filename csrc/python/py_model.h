/* The objects behind edgellm.Model and edgellm.Session. */
#ifndef EL_PY_MODEL_H
#define EL_PY_MODEL_H

#include <pthread.h>

#include "py_edge.h"

typedef struct el_py_model {
    PyObject_HEAD
    pthread_mutex_t mutex;  ///< held while the model is used or closed; taken without the GIL
    bool mutex_ready;
    el_pool *pool;
    void *pages;
    uint64_t bytes;
    el_py_edge *image;   ///< owned; whose weights are used in place, or NULL
    el_model *model;     ///< NULL once closed
    el_config config;
    el_plan plan;        ///< of the model; the session's parts are for the default context
    size_t isa;
    PyObject *tokenizer;
    PyObject *info;      ///< dict of what the file says of itself
} el_py_model;

typedef struct el_py_session {
    PyObject_HEAD
    pthread_mutex_t mutex;  ///< one call at a time; taken before the model's
    bool mutex_ready;
    PyObject *model;        ///< owned
    void *pages;
    uint64_t bytes;
    el_session *session;
} el_py_session;

/// Take the model's mutex with the GIL held (it is released meanwhile). False, with ValueError set,
/// if the model is closed; then nothing is held.
bool el_py_model_enter(el_py_model *model, const char *where);
void el_py_model_leave(el_py_model *model);

int el_py_add_session(PyObject *module);

#endif
