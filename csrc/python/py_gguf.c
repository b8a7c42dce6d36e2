/* The one GGUF parser, for Python: bytes in, tuples out. edgellm/gguf.py opens files and decodes. */
#include "py_edgellm.h"

#include "edgellm/gguf.h"
#include "edgellm/vocab.h"

/// (key, type, element type, count, begin, end): positions in the header bytes.
static PyObject *entry_tuple(const el_gguf_kv *kv, const uint8_t *bytes)
{
    const size_t begin = (size_t)(kv->value - bytes);
    return Py_BuildValue("s#iiKnn", kv->key.data, (Py_ssize_t)kv->key.size, (int)kv->type, (int)kv->element,
                         (unsigned long long)kv->count, (Py_ssize_t)begin,
                         (Py_ssize_t)(begin + kv->value_bytes));
}

/// (name, type name, shape with the innermost extent last, offset, bytes).
static PyObject *tensor_tuple(const el_gguf_tensor *t)
{
    PyObject *shape = PyTuple_New((Py_ssize_t)t->dims);
    if (shape == NULL) return NULL;
    for (uint32_t i = 0; i < t->dims; i++) {
        PyObject *extent = PyLong_FromUnsignedLongLong(t->shape[t->dims - 1 - i]);
        if (extent == NULL || PyTuple_SetItem(shape, (Py_ssize_t)i, extent) < 0) {
            Py_DECREF(shape);
            return NULL;
        }
    }
    return Py_BuildValue("s#sNKK", t->name.data, (Py_ssize_t)t->name.size,
                         el_type_get((uint32_t)t->type)->name, shape, (unsigned long long)t->offset,
                         (unsigned long long)t->bytes);
}

static PyObject *entry_list(const el_gguf *gguf, const uint8_t *bytes)
{
    PyObject *list = PyList_New((Py_ssize_t)gguf->n_kv);
    for (size_t i = 0; list != NULL && i < gguf->n_kv; i++) {
        PyObject *row = entry_tuple(&gguf->kv[i], bytes);
        if (row == NULL || PyList_SetItem(list, (Py_ssize_t)i, row) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *tensor_list(const el_gguf *gguf)
{
    PyObject *list = PyList_New((Py_ssize_t)gguf->n_tensors);
    for (size_t i = 0; list != NULL && i < gguf->n_tensors; i++) {
        PyObject *row = tensor_tuple(&gguf->tensors[i]);
        if (row == NULL || PyList_SetItem(list, (Py_ssize_t)i, row) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *parse_header(PyObject *module, PyObject *args)
{
    PyObject *header = NULL;
    unsigned long long file_bytes = 0;
    const char *where = NULL;
    PyObject *entries = NULL;
    PyObject *tensors = NULL;
    PyObject *out = NULL;
    el_gguf *gguf = NULL;
    uint64_t more = 0;
    el_error err = {""};
    el_status status;

    if (!PyArg_ParseTuple(args, "SKs:gguf_parse", &header, &file_bytes, &where)) return NULL;
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(header);  // immutable, and `args` keeps it
    const Py_ssize_t size = PyBytes_Size(header);
    if (bytes == NULL || size < 0) return NULL;

    Py_BEGIN_ALLOW_THREADS
        status = el_gguf_parse(&gguf, bytes, (size_t)size, file_bytes, &more, &err);
    Py_END_ALLOW_THREADS

    if (status == EL_ERR_IO && more > (uint64_t)size) return PyLong_FromUnsignedLongLong(more);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, where);

    entries = entry_list(gguf, bytes);
    if (entries == NULL) goto done;
    tensors = tensor_list(gguf);
    if (tensors == NULL) goto done;
    out = Py_BuildValue("IIKOO", gguf->version, gguf->alignment, (unsigned long long)gguf->data_offset,
                        entries, tensors);

done:
    Py_XDECREF(entries);
    Py_XDECREF(tensors);
    el_gguf_free(gguf);
    return out;
}

static PyObject *header_tokenizer(PyObject *module, PyObject *args)
{
    PyObject *header = NULL;
    unsigned long long file_bytes = 0;
    const char *where = NULL;
    el_gguf *gguf = NULL;
    el_tokenizer *tok = NULL;
    uint64_t more = 0;
    el_error err = {""};
    el_status status;

    if (!PyArg_ParseTuple(args, "SKs:gguf_tokenizer", &header, &file_bytes, &where)) return NULL;
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(header);  // immutable, and `args` keeps it
    const Py_ssize_t size = PyBytes_Size(header);
    if (bytes == NULL || size < 0) return NULL;

    Py_BEGIN_ALLOW_THREADS
        status = el_gguf_parse(&gguf, bytes, (size_t)size, file_bytes, &more, &err);
        if (status == EL_OK) status = el_tokenizer_from_gguf(&tok, gguf, &err);
        el_gguf_free(gguf);
    Py_END_ALLOW_THREADS

    el_pystate *st = el_py_state(module);
    return status == EL_OK ? el_py_tokenizer_wrap(st, tok) : el_py_raise(st, status, &err, where);
}

static PyMethodDef functions[] = {
    {"gguf_parse", parse_header, METH_VARARGS,
     "gguf_parse(header, file_bytes, where): (version, alignment, data offset, entries, tensors), or an int: "
     "how many bytes of the file to come back with."},
    {"gguf_tokenizer", header_tokenizer, METH_VARARGS,
     "gguf_tokenizer(header, file_bytes, where) -> Tokenizer of a whole header"},
    {NULL, NULL, 0, NULL},
};

int el_py_add_gguf(PyObject *module) { return PyModule_AddFunctions(module, functions); }
