/* edgellm._core.Lookup: drafts from where a text has been before. edgellm.generation.drafts is its front door. */
#include "py_edgellm.h"

#include "edgellm/lookup.h"

enum { MOST_GUESSED = 512 };

typedef struct el_py_lookup {
    PyObject_HEAD
    void *memory;
    el_lookup *lookup;
} el_py_lookup;

static PyObject *lookup_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_ssize_t capacity = 0;
    if (!PyArg_ParseTuple(args, "n:Lookup", &capacity)) return NULL;
    const size_t bytes = capacity < 0 ? 0 : el_lookup_bytes((size_t)capacity);
    if (bytes == 0) return PyErr_Format(PyExc_ValueError, "lookup: a text of %zd tokens", capacity);

    el_py_lookup *self = (el_py_lookup *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->memory = PyMem_Malloc(bytes);
    if (self->memory == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->lookup = el_lookup_init(self->memory, (size_t)capacity);
    return (PyObject *)self;
}

static void lookup_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyMem_Free(((el_py_lookup *)op)->memory);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(op);
    Py_DECREF(type);
}

static PyObject *lookup_push(PyObject *op, PyObject *arg)
{
    int32_t *ids = NULL;
    size_t n = 0;
    if (el_py_ids(arg, "ids", INT32_MAX, &ids, &n) < 0) return NULL;
    el_lookup_push(((el_py_lookup *)op)->lookup, ids, n);
    PyMem_Free(ids);
    Py_RETURN_NONE;
}

static PyObject *lookup_guess(PyObject *op, PyObject *arg)
{
    int32_t ids[MOST_GUESSED];
    const Py_ssize_t limit = PyLong_AsSsize_t(arg);
    if (limit == -1 && PyErr_Occurred()) return NULL;
    if (limit < 0 || limit > MOST_GUESSED) {
        return PyErr_Format(PyExc_ValueError, "lookup: limit is %zd, not in 0..%d", limit, MOST_GUESSED);
    }
    size_t length = 0;
    const size_t n = el_lookup_guess(((el_py_lookup *)op)->lookup, (size_t)limit, ids, &length);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *id = PyLong_FromLong(ids[i]);
        if (id == NULL || PyList_SetItem(list, (Py_ssize_t)i, id) < 0) Py_CLEAR(list);
    }
    return list == NULL ? NULL : Py_BuildValue("(Nn)", list, (Py_ssize_t)length);
}

static PyMethodDef lookup_methods[] = {
    {"push", lookup_push, METH_O, "push(ids): append tokens."},
    {"guess", lookup_guess, METH_O, "guess(limit) -> (ids, tokens of the end that were found before)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lookup_slots[] = {
    {Py_tp_doc, "Lookup(capacity): a text of tokens that guesses how it goes on."},
    {Py_tp_new, lookup_new},
    {Py_tp_dealloc, lookup_dealloc},
    {Py_tp_methods, lookup_methods},
    {0, NULL},
};

static PyType_Spec lookup_spec = {
    .name = "edgellm._core.Lookup",
    .basicsize = sizeof(el_py_lookup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lookup_slots,
};

int el_py_add_lookup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &lookup_spec, NULL);
    const int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return rc;
}
