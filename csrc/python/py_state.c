/* Methods of edgellm._core.Session that copy its state: to bytes, to another session, in blocks. Copies are made
 * without the GIL: bytes objects do not change, and the session is held. */
#include "py_edgellm.h"

#include "py_model.h"

static el_pystate *state_of(PyObject *op) { return el_py_state(PyType_GetModule(Py_TYPE(op))); }

PyObject *el_py_session_to_bytes(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    el_py_session *self = (el_py_session *)op;
    if (!el_py_session_enter(self, "to_bytes")) return NULL;
    const uint64_t size = el_session_state_bytes(self->session);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    uint8_t *to = bytes != NULL ? (uint8_t *)PyBytes_AsString(bytes) : NULL;
    if (to != NULL) {
        Py_BEGIN_ALLOW_THREADS
            el_session_export(self->session, to);
        Py_END_ALLOW_THREADS
    }
    el_py_session_leave(self);
    return bytes;
}

PyObject *el_py_session_load_bytes(PyObject *op, PyObject *state)
{
    el_py_session *self = (el_py_session *)op;
    char *data = NULL;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(state, &data, &size) < 0) return NULL;
    if (!el_py_session_enter(self, "session_from_bytes")) return NULL;
    el_error err = {{0}};
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        status = el_session_import(self->session, (const uint8_t *)data, (uint64_t)size, &err);
    Py_END_ALLOW_THREADS
    el_py_session_leave(self);
    if (status != EL_OK) return el_py_raise(state_of(op), status, &err, "session_from_bytes");
    Py_RETURN_NONE;
}

/// `self` has just been made and is known to its maker alone, so that its lock cannot be waited for.
PyObject *el_py_session_copy_from(PyObject *op, PyObject *other)
{
    el_py_session *self = (el_py_session *)op, *from = (el_py_session *)other;
    el_pystate *st = state_of(op);
    if (!PyObject_TypeCheck(other, (PyTypeObject *)st->session_type) || self == from) {
        PyErr_SetString(PyExc_TypeError, "fork: another session is needed");
        return NULL;
    }
    if (!el_py_session_enter(from, "fork")) return NULL;
    el_error err = {{0}};
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&self->mutex);
        status = el_session_copy(self->session, from->session, &err);
        pthread_mutex_unlock(&self->mutex);
    Py_END_ALLOW_THREADS
    el_py_session_leave(from);
    if (status != EL_OK) return el_py_raise(st, status, &err, "fork");
    Py_RETURN_NONE;
}

static el_state_part part_of(int windowed) { return windowed ? EL_PART_WINDOW : EL_PART_ALL; }

PyObject *el_py_session_block_bytes(PyObject *op, PyObject *windowed)
{
    el_py_session *self = (el_py_session *)op;
    const int which = PyObject_IsTrue(windowed);
    if (which < 0 || !el_py_session_enter(self, "block_bytes")) return NULL;
    const uint64_t size = el_session_block_bytes(self->session, part_of(which));
    el_py_session_leave(self);
    return PyLong_FromUnsignedLongLong(size);
}

PyObject *el_py_session_block_out(PyObject *op, PyObject *args)
{
    el_py_session *self = (el_py_session *)op;
    Py_ssize_t block = 0;
    int windowed = 0;
    if (!PyArg_ParseTuple(args, "np:block_out", &block, &windowed)) return NULL;
    if (block < 0) return PyErr_Format(PyExc_ValueError, "block_out: block is %zd", block);
    if (!el_py_session_enter(self, "block_out")) return NULL;

    const uint64_t size = el_session_block_bytes(self->session, part_of(windowed));
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    uint8_t *to = bytes != NULL ? (uint8_t *)PyBytes_AsString(bytes) : NULL;
    bool held = true;
    if (to != NULL) {
        Py_BEGIN_ALLOW_THREADS
            held = el_session_block_out(self->session, (size_t)block, part_of(windowed), to);
        Py_END_ALLOW_THREADS
    }
    el_py_session_leave(self);
    if (held) return bytes;
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}

PyObject *el_py_session_first_window(PyObject *op, PyObject *count)
{
    el_py_session *self = (el_py_session *)op;
    const Py_ssize_t blocks = PyLong_AsSsize_t(count);
    if (blocks == -1 && PyErr_Occurred()) return NULL;
    if (blocks < 0) return PyErr_Format(PyExc_ValueError, "first_window: count is %zd", blocks);
    if (!el_py_session_enter(self, "first_window")) return NULL;
    const size_t first = el_session_first_window(self->session, (size_t)blocks);
    el_py_session_leave(self);
    return PyLong_FromSize_t(first);
}

/// Point at the bytes of a tuple's items, each of `size` bytes; those before `first` are not looked at.
static int point_at(PyObject *blocks, Py_ssize_t first, uint64_t size, const uint8_t **out)
{
    for (Py_ssize_t i = first; i < PyTuple_Size(blocks); i++) {
        char *data = NULL;
        Py_ssize_t length = 0;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(blocks, i), &data, &length) < 0) return -1;
        if ((uint64_t)length != size) {
            PyErr_Format(PyExc_ValueError, "fill: block %zd has %zd bytes, not %llu", i, length,
                         (unsigned long long)size);
            return -1;
        }
        out[i] = (const uint8_t *)data;
    }
    return 0;
}

PyObject *el_py_session_fill(PyObject *op, PyObject *args)
{
    el_py_session *self = (el_py_session *)op;
    PyObject *all = NULL, *windowed = NULL;
    if (!PyArg_ParseTuple(args, "O!O!:fill", &PyTuple_Type, &all, &PyTuple_Type, &windowed)) return NULL;
    const Py_ssize_t count = PyTuple_Size(all);
    if (PyTuple_Size(windowed) != count)
        return PyErr_Format(PyExc_ValueError, "fill: %zd and %zd blocks", count, PyTuple_Size(windowed));

    const uint8_t **pointers = PyMem_Calloc(2 * (size_t)count + 1, sizeof *pointers);
    if (pointers == NULL) return PyErr_NoMemory();
    el_error err = {{0}};
    el_status status = EL_OK;
    bool fine = el_py_session_enter(self, "fill");
    if (fine) {
        const size_t first = el_session_first_window(self->session, (size_t)count);
        fine = point_at(all, 0, el_session_block_bytes(self->session, EL_PART_ALL), pointers) == 0 &&
               point_at(windowed, (Py_ssize_t)first, el_session_block_bytes(self->session, EL_PART_WINDOW),
                        pointers + count) == 0;
        if (fine) {
            Py_BEGIN_ALLOW_THREADS
                status = el_session_fill(self->session, (size_t)count, pointers, pointers + count, &err);
            Py_END_ALLOW_THREADS
        }
        el_py_session_leave(self);
    }
    PyMem_Free(pointers);
    if (status != EL_OK) return el_py_raise(state_of(op), status, &err, "fill");
    if (!fine) return NULL;
    Py_RETURN_NONE;
}

static PyObject *state_facts(PyObject *module, PyObject *state)
{
    char *data = NULL;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(state, &data, &size) < 0) return NULL;
    el_error err = {{0}};
    el_state_facts facts;
    const el_status status = el_state_read(&facts, (const uint8_t *)data, (uint64_t)size, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, "session_from_bytes");
    return Py_BuildValue("iK", (int)facts.type, (unsigned long long)facts.position);
}

static PyMethodDef functions[] = {
    {"state_facts", state_facts, METH_O, "state_facts(bytes) -> (kv, position) of a saved session."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_state(PyObject *module) { return PyModule_AddFunctions(module, functions); }
