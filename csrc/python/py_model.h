/* The objects behind edgellm.Model and edgellm.Session. */
#ifndef EL_PY_MODEL_H
#define EL_PY_MODEL_H

#include <pthread.h>

#include "py_edge.h"
#include "py_turns.h"

typedef struct el_py_model {
    PyObject_HEAD
    el_py_turns turns;  ///< of who uses or closes the model
    el_pool *pool;
    void *pages;
    uint64_t bytes;
    el_py_edge *image;   ///< owned; whose weights are used in place, or NULL
    el_model *model;     ///< NULL once closed
    el_config config;
    el_plan plan;        ///< of the model; the session's parts are for the default context
    size_t micro_batch;
    uint64_t live_bytes; ///< of the sessions that are alive; guarded by the GIL
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
    uint64_t bytes;         ///< counted in the model's live_bytes while there are pages
    el_kv_type kv;
    el_session *session;    ///< NULL once closed
} el_py_session;

/// Take a turn at the model with the GIL held (it is released meanwhile). False, with ValueError set,
/// if the model is closed; then nothing is held.
bool el_py_model_enter(el_py_model *model, const char *where);
void el_py_model_leave(el_py_model *model);

/// Take the session and its model (the GIL is held, and released meanwhile). False, with ValueError set, if
/// either is closed; then nothing is held.
bool el_py_session_enter(el_py_session *session, const char *where);
void el_py_session_leave(el_py_session *session);

/// After a call that failed, with the session held: go back to where it began, or, where the windows of its
/// layers have moved on too far for that, stay after the last whole micro-batch.
void el_py_session_go_back(el_py_session *session, size_t position);

/// Methods of Session that copy its state; py_state.c.
PyObject *el_py_session_to_bytes(PyObject *op, PyObject *ignored);
PyObject *el_py_session_load_bytes(PyObject *op, PyObject *state);
PyObject *el_py_session_copy_from(PyObject *op, PyObject *other);
PyObject *el_py_session_block_bytes(PyObject *op, PyObject *part);
PyObject *el_py_session_block_out(PyObject *op, PyObject *args);
PyObject *el_py_session_first_window(PyObject *op, PyObject *count);
PyObject *el_py_session_fill(PyObject *op, PyObject *args);

int el_py_add_session(PyObject *module);
int el_py_add_state(PyObject *module);

#endif
