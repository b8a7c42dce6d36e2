/* edgellm._core.batch_eval and batch_hidden: one call for several sessions of a model. edgellm.Batch is the
 * front door of the first, Model.embed of the second. */
#include "py_edgellm.h"

#include <stdlib.h>

#include "py_model.h"

/// What one session of a call appends. A member with no tokens pauses: its session is not touched.
typedef struct el_py_member {
    el_py_session *session;
    int32_t *ids;  ///< owned
    size_t n;
    size_t rows;   ///< of the result, for the last tokens
    size_t start;  ///< position before the call
    size_t index;  ///< in the caller's list, for messages
} el_py_member;

typedef struct el_py_batch {
    el_py_model *model;
    size_t count;
    el_py_member *members;   ///< (count,) in the caller's order
    el_py_member **locked;   ///< (count,) those with tokens, by address of their session
    size_t n_locked;
    el_segment *segments;    ///< (count,)
    size_t rows;             ///< of the result
    bool hidden;             ///< whose rows are hidden states, of all tokens; otherwise logits
} el_py_batch;

static void batch_free(el_py_batch *b)
{
    for (size_t i = 0; b->members != NULL && i < b->count; i++) PyMem_Free(b->members[i].ids);
    PyMem_Free(b->members);
    PyMem_Free(b->locked);
    PyMem_Free(b->segments);
}

static int by_session(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)(*(el_py_member *const *)a)->session;
    const uintptr_t y = (uintptr_t)(*(el_py_member *const *)b)->session;
    return (x > y) - (x < y);
}

/// How many rows of logits a member of n tokens wants.
static int take_rows(el_py_member *m, PyObject *rows)
{
    const Py_ssize_t wanted = PyLong_AsSsize_t(rows);
    if (wanted == -1 && PyErr_Occurred()) return -1;
    if (wanted < 0 || (size_t)wanted > m->n) {
        PyErr_Format(PyExc_ValueError, "batch: rows[%zu] is %zd, not in 0..%zu", m->index, wanted, m->n);
        return -1;
    }
    m->rows = (size_t)wanted;
    return 0;
}

static int take_member(el_py_batch *b, el_pystate *st, size_t i, PyObject *session, PyObject *ids,
                       PyObject *rows)
{
    char name[32];
    (void)snprintf(name, sizeof name, "ids[%zu]", i);
    if (!PyObject_TypeCheck(session, (PyTypeObject *)st->session_type) ||
        ((el_py_session *)session)->model != (PyObject *)b->model) {
        PyErr_Format(PyExc_ValueError, "batch: member %zu is no session of this model", i);
        return -1;
    }
    el_py_member *m = &b->members[i];
    *m = (el_py_member){.session = (el_py_session *)session, .index = i};
    if (el_py_ids(ids, name, b->model->config.vocab, &m->ids, &m->n) < 0) return -1;
    if (m->n > 0) b->locked[b->n_locked++] = m;
    m->rows = m->n;
    if (!b->hidden && take_rows(m, rows) < 0) return -1;
    b->rows += m->rows;
    return 0;
}

/// Copy what the caller gave. `sessions`, `ids` and `rows` are tuples of the same length; hidden states need no
/// rows, which are `ids` then.
static int take_members(el_py_batch *b, el_pystate *st, PyObject *sessions, PyObject *ids, PyObject *rows)
{
    b->count = (size_t)PyTuple_Size(sessions);
    if ((size_t)PyTuple_Size(ids) != b->count || (size_t)PyTuple_Size(rows) != b->count) {
        const bool short_ids = (size_t)PyTuple_Size(ids) != b->count;
        PyErr_Format(PyExc_ValueError, "batch: %zd %s for %zu sessions", PyTuple_Size(short_ids ? ids : rows),
                     short_ids ? "lists of tokens" : "counts of rows", b->count);
        return -1;
    }
    b->members = PyMem_Calloc(b->count + 1, sizeof *b->members);
    b->locked = PyMem_Calloc(b->count + 1, sizeof *b->locked);
    b->segments = PyMem_Calloc(b->count + 1, sizeof *b->segments);
    if (b->members == NULL || b->locked == NULL || b->segments == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < b->count; i++) {
        const Py_ssize_t at = (Py_ssize_t)i;
        if (take_member(b, st, i, PyTuple_GetItem(sessions, at), PyTuple_GetItem(ids, at),
                        PyTuple_GetItem(rows, at)) < 0) {
            return -1;
        }
    }
    qsort(b->locked, b->n_locked, sizeof(el_py_member *), by_session);
    for (size_t i = 1; i < b->n_locked; i++) {
        if (b->locked[i - 1]->session == b->locked[i]->session) {
            PyErr_Format(PyExc_ValueError, "batch: members %zu and %zu are the same session",
                         b->locked[i - 1]->index, b->locked[i]->index);
            return -1;
        }
    }
    return 0;
}

static void unlock_sessions(const el_py_batch *b)
{
    for (size_t i = b->n_locked; i > 0; i--) pthread_mutex_unlock(&b->locked[i - 1]->session->mutex);
}

/// Take all sessions, in the order of their addresses so that two batches cannot wait for each other, and
/// then the model. False with an exception set; then nothing is held.
static bool enter(el_py_batch *b)
{
    Py_BEGIN_ALLOW_THREADS
        for (size_t i = 0; i < b->n_locked; i++) pthread_mutex_lock(&b->locked[i]->session->mutex);
    Py_END_ALLOW_THREADS
    for (size_t i = 0; i < b->n_locked; i++) {
        if (b->locked[i]->session->session != NULL) continue;
        PyErr_Format(PyExc_ValueError, "batch: the session of member %zu is closed", b->locked[i]->index);
        unlock_sessions(b);
        return false;
    }
    if (el_py_model_enter(b->model, "batch")) {
        for (size_t i = 0; i < b->n_locked; i++)
            b->locked[i]->start = el_session_position(b->locked[i]->session->session);
        return true;
    }
    unlock_sessions(b);
    return false;
}

/// Every member's tokens fit in its context.
static int check_fit(const el_py_batch *b, el_pystate *st)
{
    for (size_t i = 0; i < b->count; i++) {
        const el_py_member *m = &b->members[i];
        if (m->n == 0) continue;
        const size_t context = el_session_context(m->session->session);
        if (m->n <= context - m->start) continue;
        PyErr_Format(st->context_error,
                     "batch: member %zu: %zu tokens do not fit: %zu of the context's %zu are used", i, m->n,
                     m->start, context);
        return -1;
    }
    return 0;
}

static void go_back(const el_py_batch *b)
{
    for (size_t i = 0; i < b->n_locked; i++) {
        el_py_session_go_back(b->locked[i]->session, b->locked[i]->start);
    }
}

/// Values in a row of the result.
static size_t columns(const el_py_batch *b)
{
    return b->hidden ? b->model->config.width : b->model->config.vocab;
}

/// Cut the next micro-batch from the members' tokens, one member after the other. `at` is the member
/// and `used` what has been taken of its tokens; both move on, and `out` beyond the rows that come of it.
static size_t next_segments(const el_py_batch *b, size_t room, size_t *at, size_t *used, float **out)
{
    size_t count = 0;
    while (*at < b->count && room > 0) {
        const el_py_member *m = &b->members[*at];
        const size_t left = m->n - *used, n = left < room ? left : room;
        if (n > 0) {
            const size_t after = left - n;  // tokens of later micro-batches
            const size_t owed = m->rows > after ? m->rows - after : 0, wanted = owed < n ? owed : n;
            b->segments[count++] = b->hidden
                                       ? (el_segment){m->session->session, m->ids + *used, n, 0, *out}
                                       : (el_segment){m->session->session, m->ids + *used, n, wanted, NULL};
            *out += wanted * columns(b);
            *used += n;
            room -= n;
        }
        if (*used == m->n) {
            *at += 1;
            *used = 0;
        }
    }
    return count;
}

/// Let others use the model and look at signals; the sessions stay ours. 1 to go on, 0 when a handler
/// raised, -1 when the model was closed meanwhile (then it is not held).
static int pause_between(const el_py_batch *b)
{
    PyObject *type, *value, *trace;
    el_py_model_leave(b->model);
    const bool interrupted = PyErr_CheckSignals() != 0;
    PyErr_Fetch(&type, &value, &trace);
    if (!el_py_model_enter(b->model, "batch")) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return -1;
    }
    PyErr_Restore(type, value, trace);
    return interrupted ? 0 : 1;
}

/// Everything is entered and, at the end, left. On failure every position is what it was.
static int evaluate(el_py_batch *b, el_pystate *st, float *out)
{
    const size_t most = el_model_micro_batch(b->model->model);
    size_t at = 0, used = 0;
    el_error err = {{0}};
    el_status status = EL_OK;
    int go_on = 1;

    while (status == EL_OK && go_on == 1) {
        float *const logits = out;
        const size_t count = next_segments(b, most, &at, &used, &out);
        if (count == 0) break;
        Py_BEGIN_ALLOW_THREADS
            status = el_batch_eval(b->model->model, b->segments, count, logits, &err);
        Py_END_ALLOW_THREADS
        if (status == EL_OK && at < b->count) go_on = pause_between(b);
    }
    if (status != EL_OK || go_on != 1) go_back(b);
    if (go_on != -1) el_py_model_leave(b->model);
    unlock_sessions(b);
    if (status != EL_OK) (void)el_py_raise(st, status, &err, "batch");
    return status == EL_OK && go_on == 1 ? 0 : -1;
}

/// One array of (rows, columns) per member, a view of `result`; None for a member that wanted no rows.
static PyObject *views(const el_py_batch *b, PyObject *result)
{
    PyObject *list = PyList_New((Py_ssize_t)b->count);
    Py_ssize_t row = 0;
    for (size_t i = 0; list != NULL && i < b->count; i++) {
        const Py_ssize_t n = (Py_ssize_t)b->members[i].rows;
        PyObject *view = n == 0 ? Py_NewRef(Py_None) : PySequence_GetSlice(result, row, row + n);
        row += n;
        if (view == NULL || PyList_SetItem(list, (Py_ssize_t)i, view) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *append(PyObject *module, PyObject *model, PyObject *sessions, PyObject *ids, PyObject *rows)
{
    el_pystate *st = el_py_state(module);
    PyObject *result = NULL, *list = NULL;
    el_py_batch b = {.model = (el_py_model *)model, .hidden = rows == NULL};
    if (take_members(&b, st, sessions, ids, rows == NULL ? ids : rows) < 0 || !enter(&b)) goto done;

    // The caller's tuple keeps the sessions alive.
    const npy_intp dims[2] = {(npy_intp)b.rows, (npy_intp)columns(&b)};
    if (check_fit(&b, st) == 0) result = PyArray_SimpleNew(2, dims, NPY_FLOAT32);
    if (result == NULL) {
        el_py_model_leave(b.model);
        unlock_sessions(&b);
        goto done;
    }
    if (evaluate(&b, st, PyArray_DATA((PyArrayObject *)result)) == 0) list = views(&b, result);

done:
    Py_XDECREF(result);
    batch_free(&b);
    return list;
}

static PyObject *batch_eval(PyObject *module, PyObject *args)
{
    PyObject *model = NULL, *sessions = NULL, *ids = NULL, *rows = NULL;
    if (!PyArg_ParseTuple(args, "O!O!O!O!:batch_eval", el_py_state(module)->model_type, &model, &PyTuple_Type,
                          &sessions, &PyTuple_Type, &ids, &PyTuple_Type, &rows)) {
        return NULL;
    }
    return append(module, model, sessions, ids, rows);
}

static PyObject *batch_hidden(PyObject *module, PyObject *args)
{
    PyObject *model = NULL, *sessions = NULL, *ids = NULL;
    if (!PyArg_ParseTuple(args, "O!O!O!:batch_hidden", el_py_state(module)->model_type, &model, &PyTuple_Type,
                          &sessions, &PyTuple_Type, &ids)) {
        return NULL;
    }
    return append(module, model, sessions, ids, NULL);
}

static PyMethodDef batch_functions[] = {
    {"batch_eval", batch_eval, METH_VARARGS,
     "batch_eval(model, sessions, ids, rows) -> list: append tokens to several sessions at once."},
    {"batch_hidden", batch_hidden, METH_VARARGS,
     "batch_hidden(model, sessions, ids) -> list: the same, for (n, width) hidden states of all tokens."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_batch(PyObject *module) { return PyModule_AddFunctions(module, batch_functions); }
