/* edgellm._core.Grammar and Matcher: which tokens may come next. */
#include "py_edgellm.h"

#include <pthread.h>
#include <stdbool.h>

#include "edgellm/grammar.h"

typedef struct py_grammar {
    PyObject_HEAD
    PyObject *tokenizer;  // whose tree of tokens the grammar uses
    el_grammar *grammar;
} py_grammar;

typedef struct py_matcher {
    PyObject_HEAD
    PyObject *grammar;
    el_matcher *matcher;
    pthread_mutex_t mutex;  // held while `matcher` is used, also without the GIL
    bool mutex_ready;
} py_matcher;

static el_pystate *state_of(PyObject *op) { return el_py_state(PyType_GetModule(Py_TYPE(op))); }

static PyObject *raise_grammar(el_pystate *st, el_status status, const el_error *err, const char *where)
{
    if (status != EL_ERR_FORMAT) return el_py_raise(st, status, err, where);
    PyErr_Format(st->grammar_error, "%s", err->text);
    return NULL;
}

static PyObject *grammar_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tokenizer", "text", "root", NULL};
    el_pystate *st = el_py_state(PyType_GetModule(type));
    PyObject *tokenizer, *text;
    const char *root = "root";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!U|s:Grammar", names, st->tokenizer_type, &tokenizer,
                                     &text, &root)) {
        return NULL;
    }
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);  // lives as long as the str, which `args` holds
    if (utf8 == NULL) return NULL;
    const el_token_trie *trie = el_py_tokenizer_trie(st, tokenizer);
    if (trie == NULL) return NULL;

    el_error err = {{0}};
    el_grammar *grammar = NULL;
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        status = el_grammar_new(&grammar, trie, utf8, (size_t)size, root, &err);
    Py_END_ALLOW_THREADS
    if (status != EL_OK) return raise_grammar(st, status, &err, "Grammar");

    py_grammar *self = (py_grammar *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        el_grammar_free(grammar);
        return NULL;
    }
    self->grammar = grammar;
    self->tokenizer = Py_NewRef(tokenizer);
    return (PyObject *)self;
}

static int grammar_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((py_grammar *)op)->tokenizer);
    return 0;
}

static int grammar_clear(PyObject *op)
{
    py_grammar *self = (py_grammar *)op;
    el_grammar_free(self->grammar);  // before the tree that it uses
    self->grammar = NULL;
    Py_CLEAR(self->tokenizer);
    return 0;
}

static void grammar_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)grammar_clear(op);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(op);
    Py_DECREF(type);
}

/* A Python Matcher that owns `matcher` from now on, also on failure. */
static PyObject *wrap(el_pystate *st, PyObject *grammar, el_matcher *matcher)
{
    py_matcher *self = (py_matcher *)PyType_GenericAlloc((PyTypeObject *)st->matcher_type, 0);
    if (self == NULL) {
        el_matcher_free(matcher);
        return NULL;
    }
    self->matcher = matcher;
    self->grammar = Py_NewRef(grammar);
    self->mutex_ready = pthread_mutex_init(&self->mutex, NULL) == 0;
    if (self->mutex_ready) return (PyObject *)self;
    Py_DECREF((PyObject *)self);
    return PyErr_NoMemory();
}

static PyObject *grammar_matcher(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    el_matcher *matcher = NULL;
    el_error err = {{0}};
    const el_status status = el_matcher_new(&matcher, ((py_grammar *)op)->grammar, &err);
    if (status != EL_OK) return raise_grammar(state_of(op), status, &err, "matcher");
    return wrap(state_of(op), op, matcher);
}

static PyObject *grammar_memory(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(el_grammar_bytes(((py_grammar *)op)->grammar));
}

static PyObject *grammar_tokenizer(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((py_grammar *)op)->tokenizer);
}

static PyMethodDef grammar_methods[] = {
    {"matcher", grammar_matcher, METH_NOARGS, "matcher() -> Matcher at the start of a text"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef grammar_getset[] = {
    {"memory_bytes", grammar_memory, NULL, "heap bytes of its states and of the masks needed so far", NULL},
    {"tokenizer", grammar_tokenizer, NULL, "the tokenizer it was compiled for", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot grammar_slots[] = {
    {Py_tp_doc, "A compiled grammar; see edgellm.grammar."},
    {Py_tp_new, grammar_new},
    {Py_tp_dealloc, grammar_dealloc},
    {Py_tp_traverse, grammar_traverse},
    {Py_tp_clear, grammar_clear},
    {Py_tp_methods, grammar_methods},
    {Py_tp_getset, grammar_getset},
    {0, NULL},
};

static PyType_Spec grammar_spec = {
    .name = "edgellm._core.Grammar",
    .basicsize = sizeof(py_grammar),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = grammar_slots,
};

static el_matcher *enter(PyObject *op)
{
    py_matcher *self = (py_matcher *)op;
    if (pthread_mutex_trylock(&self->mutex) != 0) {
        Py_BEGIN_ALLOW_THREADS
            pthread_mutex_lock(&self->mutex);
        Py_END_ALLOW_THREADS
    }
    return self->matcher;
}

static void leave(PyObject *op) { pthread_mutex_unlock(&((py_matcher *)op)->mutex); }

/* None is no limit. */
static int tokens_left_of(PyObject *arg, size_t *out)
{
    *out = EL_TOKENS_UNLIMITED;
    if (arg == NULL || arg == Py_None) return 0;
    const Py_ssize_t n = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return -1;
    if (n < 0) {
        PyErr_Format(PyExc_ValueError, "tokens_left is %zd, and cannot be negative", n);
        return -1;
    }
    *out = (size_t)n;
    return 0;
}

static PyObject *matcher_mask(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"logits", "tokens_left", NULL};
    PyObject *logits, *limit = NULL;
    size_t left;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:mask", names, &logits, &limit)) return NULL;
    if (!PyArray_Check(logits) || PyArray_TYPE((PyArrayObject *)logits) != NPY_FLOAT32) {
        PyErr_SetString(PyExc_TypeError, "mask: logits must be a NumPy array of float32");
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)logits;
    if (PyArray_NDIM(array) != 1 || !PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISWRITEABLE(array)) {
        PyErr_SetString(PyExc_ValueError, "mask: logits must be one writable row, (vocabulary,)");
        return NULL;
    }
    if (tokens_left_of(limit, &left) < 0) return NULL;
    float *data = PyArray_DATA(array);
    const size_t n = (size_t)PyArray_SIZE(array);

    el_error err = {{0}};
    el_status status;
    el_matcher *matcher = enter(op);
    if (n <= 64 * (el_matcher_words(matcher) - 1)) {
        leave(op);
        PyErr_Format(PyExc_ValueError, "mask: %zu logits are fewer than the tokens of the vocabulary", n);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        status = el_matcher_mask(matcher, left, data, n, &err);
    Py_END_ALLOW_THREADS
    leave(op);
    if (status != EL_OK) return raise_grammar(state_of(op), status, &err, "mask");
    Py_RETURN_NONE;
}

static PyObject *matcher_accept(PyObject *op, PyObject *arg)
{
    int overflow = 0;
    const long id = PyLong_AsLongAndOverflow(arg, &overflow);
    if (id == -1 && PyErr_Occurred()) return NULL;
    el_error err = {{0}};
    el_matcher *matcher = enter(op);
    const el_status status =
        el_matcher_accept(matcher, overflow != 0 || id < 0 || id > INT32_MAX ? -1 : (int32_t)id, &err);
    leave(op);
    if (status != EL_OK) return raise_grammar(state_of(op), status, &err, "accept");
    Py_RETURN_NONE;
}

static PyObject *matcher_rollback(PyObject *op, PyObject *arg)
{
    const Py_ssize_t n = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return NULL;
    el_error err = {{0}};
    el_matcher *matcher = enter(op);
    const el_status status = el_matcher_rollback(matcher, n < 0 ? SIZE_MAX : (size_t)n, &err);
    leave(op);
    if (status != EL_OK) return raise_grammar(state_of(op), status, &err, "rollback");
    Py_RETURN_NONE;
}

static PyObject *matcher_copy(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    el_matcher *made = NULL;
    el_error err = {{0}};
    const el_status status = el_matcher_copy(&made, enter(op), &err);
    leave(op);
    if (status != EL_OK) return raise_grammar(state_of(op), status, &err, "copy");
    return wrap(state_of(op), ((py_matcher *)op)->grammar, made);
}

static PyObject *matcher_forced(PyObject *op, PyObject *arg)
{
    const Py_ssize_t limit = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
    if (limit == -1 && PyErr_Occurred()) return NULL;
    const size_t most = limit < 0 ? 0 : limit > 4096 ? 4096 : (size_t)limit;
    int32_t *ids = PyMem_Malloc((most + 1) * sizeof *ids);
    if (ids == NULL) return PyErr_NoMemory();
    size_t n = 0;
    el_error err = {{0}};
    el_status status;
    PyObject *list = NULL;
    el_matcher *matcher = enter(op);
    Py_BEGIN_ALLOW_THREADS
        status = el_matcher_forced(matcher, most, ids, &n, &err);
    Py_END_ALLOW_THREADS
    leave(op);
    if (status != EL_OK) {
        (void)raise_grammar(state_of(op), status, &err, "forced");
        goto done;
    }
    list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *id = PyLong_FromLong(ids[i]);
        if (id == NULL) Py_CLEAR(list);
        if (id != NULL) PyList_SetItem(list, (Py_ssize_t)i, id);
    }

done:
    PyMem_Free(ids);
    return list;
}

static PyObject *get_complete(PyObject *op, void *Py_UNUSED(closure))
{
    const int answer = el_matcher_complete(enter(op));
    leave(op);
    return PyBool_FromLong(answer);
}

static PyObject *get_finished(PyObject *op, void *Py_UNUSED(closure))
{
    const int answer = el_matcher_finished(enter(op));
    leave(op);
    return PyBool_FromLong(answer);
}

static PyObject *get_shortest(PyObject *op, void *Py_UNUSED(closure))
{
    const size_t answer = el_matcher_shortest(enter(op));
    leave(op);
    return PyLong_FromSize_t(answer);
}

static PyObject *get_length(PyObject *op, void *Py_UNUSED(closure))
{
    const size_t answer = el_matcher_length(enter(op));
    leave(op);
    return PyLong_FromSize_t(answer);
}

static int matcher_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((py_matcher *)op)->grammar);
    return 0;
}

static int matcher_clear(PyObject *op)
{
    py_matcher *self = (py_matcher *)op;
    el_matcher_free(self->matcher);
    self->matcher = NULL;
    Py_CLEAR(self->grammar);
    return 0;
}

static void matcher_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)matcher_clear(op);
    if (((py_matcher *)op)->mutex_ready) pthread_mutex_destroy(&((py_matcher *)op)->mutex);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(op);
    Py_DECREF(type);
}

static PyMethodDef matcher_methods[] = {
    {"mask", (PyCFunction)(void (*)(void))matcher_mask, METH_VARARGS | METH_KEYWORDS,
     "mask(logits, tokens_left=None) -> None; what is forbidden becomes -inf"},
    {"accept", matcher_accept, METH_O, "accept(id) -> None; GrammarError if it is not allowed"},
    {"rollback", matcher_rollback, METH_O, "rollback(n) -> None; takes back the last n tokens"},
    {"copy", matcher_copy, METH_NOARGS, "copy() -> Matcher of the same text"},
    {"forced", matcher_forced, METH_O,
     "forced(limit) -> list[int]; ids that are the only ones allowed, in turn"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef matcher_getset[] = {
    {"complete", get_complete, NULL, "whether the text may end here", NULL},
    {"finished", get_finished, NULL, "whether nothing but the end is possible", NULL},
    {"shortest", get_shortest, NULL, "tokens that surely suffice to complete the text", NULL},
    {"length", get_length, NULL, "tokens accepted and not taken back", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot matcher_slots[] = {
    {Py_tp_doc, "One text within a grammar; see edgellm.grammar."},
    {Py_tp_dealloc, matcher_dealloc},
    {Py_tp_traverse, matcher_traverse},
    {Py_tp_clear, matcher_clear},
    {Py_tp_methods, matcher_methods},
    {Py_tp_getset, matcher_getset},
    {0, NULL},
};

static PyType_Spec matcher_spec = {
    .name = "edgellm._core.Matcher",
    .basicsize = sizeof(py_matcher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = matcher_slots,
};

int el_py_add_grammar(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    st->grammar_type = PyType_FromModuleAndSpec(module, &grammar_spec, NULL);
    if (st->grammar_type == NULL) return -1;
    st->matcher_type = PyType_FromModuleAndSpec(module, &matcher_spec, NULL);
    if (st->matcher_type == NULL) return -1;
    if (PyModule_AddObjectRef(module, "Grammar", st->grammar_type) < 0) return -1;
    return PyModule_AddObjectRef(module, "Matcher", st->matcher_type);
}
