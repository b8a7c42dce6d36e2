/* edgellm._core.EdgeWriter: a GGUF laid out as an edge image and packed piece by piece. */
#include "py_edgellm.h"

#include <pthread.h>
#include <stdlib.h>

#include "edgellm/edge_write.h"
#include "py_file.h"

typedef struct py_writer {
    PyObject_HEAD
    pthread_mutex_t mutex;
    bool mutex_ready;
    el_py_gguf file;
    el_edge_writer *writer;
} py_writer;

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "machine", "version", "signed", NULL};
    el_pystate *st = el_py_state(PyType_GetModule(type));
    PyObject *path = NULL;
    const char *name;
    unsigned long version = 0;
    int is_signed = 0;
    el_machine machine = EL_MACHINE_PORTABLE;
    el_error err = {{0}};
    py_writer *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&skp:EdgeWriter", names, PyUnicode_FSConverter, &path,
                                     &name, &version, &is_signed))
        return NULL;

    el_status status = el_machine_find(name, &machine, &err);
    if (status == EL_OK) self = (py_writer *)PyType_GenericAlloc(type, 0);
    if (status == EL_OK && self == NULL) goto done;
    if (status == EL_OK) {
        self->file.fd = -1;
        self->mutex_ready = pthread_mutex_init(&self->mutex, NULL) == 0;
        if (!self->mutex_ready) status = EL_ERR_SYSTEM;
    }
    if (status == EL_OK) {
        Py_BEGIN_ALLOW_THREADS
            status = el_py_gguf_open(&self->file, PyBytes_AsString(path), &err);
            if (status == EL_OK) {
                const el_source source = el_py_gguf_source(&self->file);
                status = el_edge_writer_new(&self->writer, self->file.gguf, &source, machine,
                                            (uint32_t)version, is_signed != 0, &err);
            }
        Py_END_ALLOW_THREADS
    }
    if (status != EL_OK) {
        (void)el_py_raise(st, status, &err, "convert");
        Py_CLEAR(self);
    }
done:
    Py_DECREF(path);
    return (PyObject *)self;
}

static void writer_dealloc(PyObject *op)
{
    py_writer *self = (py_writer *)op;
    PyTypeObject *type = Py_TYPE(op);
    el_edge_writer_free(self->writer);
    el_py_gguf_close(&self->file);
    if (self->mutex_ready) pthread_mutex_destroy(&self->mutex);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(op);
    Py_DECREF(type);
}

static PyObject *writer_pack(PyObject *op, PyObject *args)
{
    py_writer *self = (py_writer *)op;
    el_pystate *st = el_py_state(PyType_GetModule(Py_TYPE(op)));
    Py_ssize_t i = 0;
    unsigned long long first = 0, tiles = 0;
    if (!PyArg_ParseTuple(args, "nKK:pack", &i, &first, &tiles)) return NULL;

    el_edge_piece piece;
    if (i < 0 || (size_t)i >= el_edge_writer_tensors(self->writer)) {
        PyErr_SetString(PyExc_IndexError, "pack: there is no such tensor");
        return NULL;
    }
    el_edge_writer_tensor(self->writer, (size_t)i, &piece);
    if (first > piece.tiles || tiles < 1 || tiles > piece.tiles - first) {
        PyErr_SetString(PyExc_ValueError, "pack: there are no such tiles");
        return NULL;
    }
    const size_t bytes = (size_t)(tiles * piece.tile_bytes);
    el_error err = {{0}};
    el_status status = EL_ERR_NOMEM;
    uint8_t *packed = NULL;
    Py_BEGIN_ALLOW_THREADS
        packed = aligned_alloc(EL_EDGE_ALIGN, bytes);
        if (packed != NULL) {
            pthread_mutex_lock(&self->mutex);
            status = el_edge_writer_pack(self->writer, (size_t)i, first, tiles, packed, &err);
            pthread_mutex_unlock(&self->mutex);
        }
    Py_END_ALLOW_THREADS
    PyObject *out = status == EL_OK ? PyBytes_FromStringAndSize((const char *)packed, (Py_ssize_t)bytes)
                                    : el_py_raise(st, status, &err, "convert");
    free(packed);
    return out;
}

static PyObject *writer_seal(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    py_writer *self = (py_writer *)op;
    uint64_t bytes = 0;
    el_edge_writer_seal(self->writer);
    const uint8_t *head = el_edge_writer_head(self->writer, &bytes);
    return PyByteArray_FromStringAndSize((const char *)head, (Py_ssize_t)bytes);
}

static PyObject *piece_list(const el_edge_writer *writer, size_t n,
                            void (*get)(const el_edge_writer *, size_t, el_edge_piece *))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < n; i++) {
        el_edge_piece p = {0};
        get(writer, i, &p);
        const char *type = p.tiles > 0 ? el_type_get(p.type)->name : "";
        PyObject *item = Py_BuildValue("(s#sKKKKK)", p.name.data != NULL ? p.name.data : "",
                                       (Py_ssize_t)p.name.size, type, (unsigned long long)p.offset,
                                       (unsigned long long)p.bytes, (unsigned long long)p.hash_offset,
                                       (unsigned long long)p.tiles, (unsigned long long)p.tile_bytes);
        if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *get_tensors(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge_writer *writer = ((py_writer *)op)->writer;
    return piece_list(writer, el_edge_writer_tensors(writer), el_edge_writer_tensor);
}

static PyObject *get_sections(PyObject *op, void *Py_UNUSED(closure))
{
    return piece_list(((py_writer *)op)->writer, EL_EDGE_SECTIONS, el_edge_writer_section);
}

static PyMethodDef writer_methods[] = {
    {"pack", writer_pack, METH_VARARGS, "pack(i, first, tiles): the bytes of these tiles of tensor i."},
    {"seal", writer_seal, METH_NOARGS,
     "When all is packed: the head, complete but for hashes and signature."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef writer_getset[] = {
    {"tensors", get_tensors, NULL, "[(name, type, offset, bytes, hash offset, tiles, tile bytes)]", NULL},
    {"sections", get_sections, NULL, "The same of sections, without names.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "Lays out and packs an edge image; edgellm.convert is its front door."},
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_getset, writer_getset},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "edgellm._core.EdgeWriter",
    .basicsize = sizeof(py_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};

int el_py_add_edge_writer(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &writer_spec, NULL);
    if (type == NULL) return -1;
    const int rc = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return rc;
}
