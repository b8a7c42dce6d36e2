/* edgellm._core.Session: a conversation with a model. */
#include "py_edgellm.h"

#include "py_model.h"

static el_pystate *state_of(PyObject *op) { return el_py_state(PyType_GetModule(Py_TYPE(op))); }

static el_py_model *model_of(el_py_session *self) { return (el_py_model *)self->model; }

static PyObject *closed(const char *where)
{
    return PyErr_Format(PyExc_ValueError, "%s: the session is closed", where);
}

bool el_py_session_enter(el_py_session *self, const char *where)
{
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&self->mutex);
    Py_END_ALLOW_THREADS
    if (self->session == NULL) {
        (void)closed(where);
    } else if (el_py_model_enter(model_of(self), where)) {
        return true;
    }
    pthread_mutex_unlock(&self->mutex);
    return false;
}

void el_py_session_leave(el_py_session *self)
{
    el_py_model_leave(model_of(self));
    pthread_mutex_unlock(&self->mutex);
}

void el_py_session_go_back(el_py_session *self, size_t position)
{
    (void)el_session_truncate(self->session, position, NULL);
}

/// Give the memory back; nobody uses the session.
static void release(el_py_session *self)
{
    self->session = NULL;
    if (self->pages == NULL) return;
    el_py_pages_free(self->pages, self->bytes);
    self->pages = NULL;
    model_of(self)->live_bytes -= self->bytes;
}

static PyObject *session_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    el_pystate *st = el_py_state(PyType_GetModule(type));
    PyObject *model = NULL;
    Py_ssize_t context = 0;
    int kv = 0;
    if (!PyArg_ParseTuple(args, "O!ni:Session", st->model_type, &model, &context, &kv)) return NULL;

    el_error err = {{0}};
    el_plan plan = {0};
    el_py_model *m = (el_py_model *)model;
    el_status status = el_session_plan(&plan, &m->config, context < 0 ? 0 : (size_t)context, (el_kv_type)kv,
                                       m->micro_batch, &err);
    if (status != EL_OK) return el_py_raise(st, status, &err, "session");

    el_py_session *self = (el_py_session *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->model = Py_NewRef(model);
    self->mutex_ready = pthread_mutex_init(&self->mutex, NULL) == 0;
    self->kv = (el_kv_type)kv;
    self->bytes = el_plan_session_bytes(&plan);
    self->pages = el_py_pages_new(self->bytes);
    if (self->pages != NULL) m->live_bytes += self->bytes;
    if (!self->mutex_ready || self->pages == NULL) {
        PyErr_Format(PyExc_MemoryError, "session: no memory for %llu bytes of context %zd",
                     (unsigned long long)self->bytes, context);
        goto fail;
    }
    if (!el_py_model_enter(m, "session")) goto fail;
    status = el_session_init(&self->session, m->model, (size_t)context, (el_kv_type)kv, self->pages,
                             self->bytes, &err);
    el_py_model_leave(m);
    if (status != EL_OK) {
        (void)el_py_raise(st, status, &err, "session");
        goto fail;
    }
    return (PyObject *)self;

fail:
    Py_DECREF(self);
    return NULL;
}

static int session_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((el_py_session *)op)->model);
    return 0;
}

static int session_clear(PyObject *op)
{
    if (((el_py_session *)op)->model != NULL) release((el_py_session *)op);
    Py_CLEAR(((el_py_session *)op)->model);
    return 0;
}

static void session_dealloc(PyObject *op)
{
    el_py_session *self = (el_py_session *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->model != NULL) release(self);
    if (self->mutex_ready) pthread_mutex_destroy(&self->mutex);
    Py_CLEAR(self->model);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(op);
    Py_DECREF(type);
}

/// The tokens of a call fit in the context; the session is entered.
static el_status check_fit(const el_py_session *self, size_t n, el_error *err)
{
    const size_t used = el_session_position(self->session), context = el_session_context(self->session);
    if (n == 0) {
        snprintf(err->text, sizeof err->text, "ids is empty");
        return EL_ERR_ARG;
    }
    if (n > context - used) {
        snprintf(err->text, sizeof err->text, "%zu tokens do not fit: %zu of the context's %zu are used", n,
                 used, context);
        return EL_ERR_CONTEXT;
    }
    return EL_OK;
}

/// What happens to the logits of one micro-batch. Called without the GIL.
typedef void el_py_sink(void *arg, el_py_session *self, size_t done, size_t n, float *logits);

/// One evaluation in micro-batches, with a look at signals between them.
typedef struct el_py_eval {
    const int32_t *ids;
    size_t n;
    bool all;         ///< logits of every token; otherwise of the last
    float *logits;    ///< (n, vocab) or (1, vocab); with a sink, room for one micro-batch
    float *hidden;    ///< (n, width) instead of logits; NULL for logits
    el_py_sink *sink;
    void *sink_arg;
} el_py_eval;

/// The session is entered and stays so; -2 when the model was closed meanwhile and only the session is held.
/// On failure the session has gone back.
static int evaluate(el_py_session *self, const el_py_eval *job, const char *where)
{
    el_pystate *st = state_of((PyObject *)self);
    el_error err = {{0}};
    const size_t start = el_session_position(self->session), vocab = model_of(self)->config.vocab;
    el_status status = check_fit(self, job->n, &err);

    for (size_t done = 0; done < job->n && status == EL_OK;) {
        const size_t batch = el_model_micro_batch(model_of(self)->model);
        const size_t n = job->n - done < batch ? job->n - done : batch;
        const size_t rows = job->hidden != NULL ? 0 : job->all ? n : done + n == job->n;
        float *hidden = job->hidden != NULL ? job->hidden + done * model_of(self)->config.width : NULL;
        const el_segment segment = {self->session, job->ids + done, n, rows, hidden};
        float *logits = rows > 0 && job->all && job->sink == NULL ? job->logits + done * vocab : job->logits;

        Py_BEGIN_ALLOW_THREADS
            status = el_batch_eval(model_of(self)->model, &segment, 1, logits, &err);
            if (status == EL_OK && job->sink != NULL) job->sink(job->sink_arg, self, done, n, logits);
        Py_END_ALLOW_THREADS
        done += n;

        if (status != EL_OK || done == job->n) break;
        // Others may use the model now; the session stays ours.
        el_py_model_leave(model_of(self));
        const bool interrupted = PyErr_CheckSignals() != 0;
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        const bool entered = el_py_model_enter(model_of(self), where);
        if (!entered) {
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(trace);
            el_py_session_go_back(self, start);
            return -2;
        }
        PyErr_Restore(type, value, trace);
        if (interrupted) {
            el_py_session_go_back(self, start);
            return -1;
        }
    }
    if (status == EL_OK) return 0;
    el_py_session_go_back(self, start);
    (void)el_py_raise(st, status, &err, where);
    return -1;
}

/// Run a job and let go of the session, whatever happens.
static int evaluate_and_leave(el_py_session *self, const el_py_eval *job, const char *where)
{
    const int rc = evaluate(self, job, where);
    if (rc == -2) {  // the model was closed meanwhile: only the session is still held
        pthread_mutex_unlock(&self->mutex);
        return -1;
    }
    el_py_session_leave(self);
    return rc;
}

/// Append tokens and return an array of (n, width) hidden states, (n, vocab) logits or the last (vocab,).
static PyObject *append(PyObject *op, PyObject *arg, bool hidden, bool all, const char *where)
{
    el_py_session *self = (el_py_session *)op;
    const el_config *config = &model_of(self)->config;
    PyObject *out = NULL;
    size_t n = 0;
    int32_t *ids = NULL;
    if (el_py_ids(arg, "ids", config->vocab, &ids, &n) < 0) return NULL;

    if (!el_py_session_enter(self, where)) goto done;
    el_error err = {{0}};
    const el_status status = check_fit(self, n, &err);
    if (status != EL_OK) {
        (void)el_py_raise(state_of(op), status, &err, where);
        el_py_session_leave(self);
        goto done;
    }
    const npy_intp dims[2] = {(npy_intp)n, hidden ? config->width : config->vocab};
    out = PyArray_SimpleNew(all ? 2 : 1, all ? dims : dims + 1, NPY_FLOAT32);
    if (out == NULL) {
        el_py_session_leave(self);
        goto done;
    }
    float *data = PyArray_DATA((PyArrayObject *)out);
    const el_py_eval job = {
        .ids = ids, .n = n, .all = all, .logits = hidden ? NULL : data, .hidden = hidden ? data : NULL};
    if (evaluate_and_leave(self, &job, where) < 0) Py_CLEAR(out);

done:
    PyMem_Free(ids);
    return out;
}

static PyObject *session_eval(PyObject *op, PyObject *args)
{
    PyObject *ids = NULL;
    int all = 0;
    if (!PyArg_ParseTuple(args, "Op:eval", &ids, &all)) return NULL;
    return append(op, ids, false, all != 0, "eval");
}

static PyObject *session_hidden(PyObject *op, PyObject *ids) { return append(op, ids, true, true, "hidden"); }

/// Where scores go: token i + 1 is scored by the logits of token i.
typedef struct el_py_scores {
    const int32_t *ids;
    size_t n;
    double *logprob;
    int32_t *top;
    float *top_prob;
} el_py_scores;

static void score_batch(void *arg, el_py_session *self, size_t done, size_t n, float *logits)
{
    const el_py_scores *s = arg;
    const size_t rows = done + n == s->n ? n - 1 : n;  // the last token has no successor
    if (rows == 0) return;
    el_score(model_of(self)->model, rows, logits, s->ids + done + 1, s->logprob + done, s->top + done,
             s->top_prob + done);
}

static PyObject *session_score(PyObject *op, PyObject *arg)
{
    el_py_session *self = (el_py_session *)op;
    PyObject *logprob = NULL, *top = NULL, *prob = NULL, *result = NULL;
    float *logits = NULL;
    size_t n = 0;
    int32_t *ids = NULL;
    if (el_py_ids(arg, "ids", model_of(self)->config.vocab, &ids, &n) < 0) return NULL;

    const npy_intp dims[1] = {n > 0 ? (npy_intp)n - 1 : 0};
    logprob = PyArray_SimpleNew(1, dims, NPY_FLOAT64);
    top = PyArray_SimpleNew(1, dims, NPY_INT32);
    prob = PyArray_SimpleNew(1, dims, NPY_FLOAT32);
    if (logprob == NULL || top == NULL || prob == NULL || !el_py_session_enter(self, "score")) goto done;

    const size_t batch = el_model_micro_batch(model_of(self)->model);
    logits = PyMem_Malloc((n < batch ? n + 1 : batch) * model_of(self)->config.vocab * sizeof *logits);
    if (logits == NULL) {
        el_py_session_leave(self);
        (void)PyErr_NoMemory();
        goto done;
    }
    el_py_scores scores = {ids, n, PyArray_DATA((PyArrayObject *)logprob), PyArray_DATA((PyArrayObject *)top),
                           PyArray_DATA((PyArrayObject *)prob)};
    const el_py_eval job = {
        .ids = ids, .n = n, .all = true, .logits = logits, .sink = score_batch, .sink_arg = &scores};
    if (evaluate_and_leave(self, &job, "score") == 0) result = PyTuple_Pack(3, logprob, top, prob);

done:
    PyMem_Free(logits);
    PyMem_Free(ids);
    Py_XDECREF(logprob);
    Py_XDECREF(top);
    Py_XDECREF(prob);
    return result;
}

static PyObject *session_truncate(PyObject *op, PyObject *arg)
{
    el_py_session *self = (el_py_session *)op;
    const Py_ssize_t length = PyLong_AsSsize_t(arg);
    if (length == -1 && PyErr_Occurred()) return NULL;
    if (length < 0)
        return PyErr_Format(PyExc_ValueError, "truncate: length is %zd, but cannot be negative", length);
    if (!el_py_session_enter(self, "truncate")) return NULL;
    el_error err = {{0}};
    const el_status status = el_session_truncate(self->session, (size_t)length, &err);
    el_py_session_leave(self);
    if (status != EL_OK) return el_py_raise(state_of(op), status, &err, "truncate");
    Py_RETURN_NONE;
}

static PyObject *session_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    el_py_session *self = (el_py_session *)op;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&self->mutex);
    Py_END_ALLOW_THREADS
    release(self);
    pthread_mutex_unlock(&self->mutex);
    Py_RETURN_NONE;
}

static PyObject *session_get_position(PyObject *op, void *Py_UNUSED(closure))
{
    const el_session *session = ((el_py_session *)op)->session;
    return session != NULL ? PyLong_FromSize_t(el_session_position(session)) : closed("position");
}

static PyObject *session_get_context(PyObject *op, void *Py_UNUSED(closure))
{
    const el_session *session = ((el_py_session *)op)->session;
    return session != NULL ? PyLong_FromSize_t(el_session_context(session)) : closed("context");
}

static PyObject *session_get_kv(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong((long)((el_py_session *)op)->kv);
}

static PyObject *session_get_nbytes(PyObject *op, void *Py_UNUSED(closure))
{
    const el_py_session *self = (el_py_session *)op;
    return PyLong_FromUnsignedLongLong(self->pages != NULL ? self->bytes : 0);
}

static PyObject *session_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((el_py_session *)op)->session == NULL);
}

static PyMethodDef session_methods[] = {
    {"eval", session_eval, METH_VARARGS, "eval(ids, all): append tokens, return logits."},
    {"hidden", session_hidden, METH_O,
     "hidden(ids): append tokens, return what the head would be given: (n, width) after the final norm."},
    {"score", session_score, METH_O,
     "score(ids): log-probability, top token and its probability, per successor."},
    {"truncate", session_truncate, METH_O, "Forget everything from a position on."},
    {"close", session_close, METH_NOARGS, "Give the memory back."},
    {"to_bytes", el_py_session_to_bytes, METH_NOARGS, "The state of the session."},
    {"load_bytes", el_py_session_load_bytes, METH_O, "Take over a saved state."},
    {"copy_from", el_py_session_copy_from, METH_O, "Take over the state of another session of the model."},
    {"block_bytes", el_py_session_block_bytes, METH_O, "block_bytes(windowed): of a block's part."},
    {"block_out", el_py_session_block_out, METH_VARARGS,
     "block_out(block, windowed): a copy of a block's part, or None where it is not held."},
    {"first_window", el_py_session_first_window, METH_O,
     "first_window(count): the first block whose windowed part `fill` needs."},
    {"fill", el_py_session_fill, METH_VARARGS,
     "fill(all, windowed): take over blocks; the session is empty."},
    {NULL, NULL, 0, NULL},
};

static PyObject *session_get_model(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *model = ((el_py_session *)op)->model;
    return Py_NewRef(model != NULL ? model : Py_None);
}

static PyGetSetDef session_getset[] = {
    {"model", session_get_model, NULL, "The model it belongs to.", NULL},
    {"position", session_get_position, NULL, "Tokens held.", NULL},
    {"context", session_get_context, NULL, "Tokens that fit.", NULL},
    {"kv", session_get_kv, NULL, "Number of the cache's type.", NULL},
    {"nbytes", session_get_nbytes, NULL, "Memory held.", NULL},
    {"closed", session_get_closed, NULL, "Whether close() was called.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_doc, "A conversation; edgellm.Session is its front door."},
    {Py_tp_new, session_new},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_traverse, session_traverse},
    {Py_tp_clear, session_clear},
    {Py_tp_methods, session_methods},
    {Py_tp_getset, session_getset},
    {0, NULL},
};

static PyType_Spec session_spec = {
    .name = "edgellm._core.Session",
    .basicsize = sizeof(el_py_session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = session_slots,
};

int el_py_add_session(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    st->session_type = PyType_FromModuleAndSpec(module, &session_spec, NULL);
    if (st->session_type == NULL) return -1;
    return PyModule_AddType(module, (PyTypeObject *)st->session_type);
}
