/* Rounding arrays to GGUF types and back. edgellm/quant.py has the documentation. */
#include "py_edgellm.h"

#include "edgellm/quant.h"

/// Type by name; -1 with ValueError naming the known ones.
static int find_type(const char *name, el_type *out)
{
    el_error err = {""};
    if (el_type_find(name, out, &err) == EL_OK) return 0;
    PyErr_SetString(PyExc_ValueError, err.text);
    return -1;
}

static PyObject *quant_types(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *types = PyDict_New();
    for (uint32_t type = 0; types != NULL && type < 64; type++) {
        const el_type_info *info = el_type_get(type);
        if (info == NULL) continue;
        PyObject *row = Py_BuildValue("III", type, info->block_values, info->block_bytes);
        if (row == NULL || PyDict_SetItemString(types, info->name, row) < 0) Py_CLEAR(types);
        Py_XDECREF(row);
    }
    return types;
}

static PyObject *quant_quantize(PyObject *module, PyObject *args)
{
    PyObject *object = NULL;
    const char *name = NULL;
    PyObject *out = NULL;  // stays NULL unless everything succeeds
    el_type type = EL_TYPE_F32;
    el_error err = {""};

    if (!PyArg_ParseTuple(args, "Os:quantize", &object, &name)) return NULL;
    if (find_type(name, &type) < 0) return NULL;
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != NPY_FLOAT32 ||
        !PyArray_ISCARRAY_RO((PyArrayObject *)object) || PyArray_NDIM((PyArrayObject *)object) < 1) {
        PyErr_SetString(PyExc_TypeError, "quantize: a must be a C-contiguous float32 array");
        return NULL;
    }
    PyArrayObject *a = (PyArrayObject *)object;
    const npy_intp k = PyArray_DIM(a, PyArray_NDIM(a) - 1);
    const npy_intp n = PyArray_SIZE(a);
    uint64_t row_bytes = 0;
    el_status status = el_row_bytes(type, (uint64_t)k, &row_bytes, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, "quantize");

    // No type takes more bytes than float32, so this does not overflow.
    const uint64_t bytes = k == 0 ? 0 : row_bytes * (uint64_t)(n / k);
    out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (out == NULL) return NULL;
    const float *src = PyArray_DATA(a);  // `args` keeps the array
    uint8_t *dst = (uint8_t *)PyBytes_AsString(out);

    Py_BEGIN_ALLOW_THREADS
        status = el_quantize(type, src, (size_t)n, dst, &err);
    Py_END_ALLOW_THREADS

    if (status != EL_OK) {
        Py_CLEAR(out);
        if (status == EL_ERR_UNSUPPORTED) status = EL_ERR_ARG;  // the caller's choice, not a file's
        el_py_raise(el_py_state(module), status, &err, "quantize");
    }
    return out;
}

static PyObject *quant_dequantize(PyObject *module, PyObject *args)
{
    Py_buffer raw = {0};
    const char *name = NULL;
    PyObject *out = NULL;
    el_type type = EL_TYPE_F32;

    if (!PyArg_ParseTuple(args, "y*s:dequantize", &raw, &name)) return NULL;
    if (find_type(name, &type) < 0) goto done;
    const el_type_info *info = el_type_get((uint32_t)type);
    if (raw.len % info->block_bytes != 0) {
        PyErr_Format(PyExc_ValueError, "dequantize: %zd bytes are no multiple of %s's block of %u bytes",
                     raw.len, info->name, info->block_bytes);
        goto done;
    }
    npy_intp dims[1] = {raw.len / (npy_intp)info->block_bytes};
    if (dims[0] > NPY_MAX_INTP / 4 / (npy_intp)info->block_values) {
        PyErr_SetString(PyExc_ValueError, "dequantize: too many values");
        goto done;
    }
    dims[0] *= (npy_intp)info->block_values;
    out = PyArray_SimpleNew(1, dims, NPY_FLOAT32);
    if (out == NULL) goto done;
    float *dst = PyArray_DATA((PyArrayObject *)out);

    Py_BEGIN_ALLOW_THREADS
        el_dequantize(type, raw.buf, (size_t)dims[0], dst);
    Py_END_ALLOW_THREADS

done:
    (void)module;
    PyBuffer_Release(&raw);
    return out;
}

static PyMethodDef functions[] = {
    {"quant_types", quant_types, METH_NOARGS, "Known types: name -> (number, block values, block bytes)."},
    {"quantize", quant_quantize, METH_VARARGS, "quantize(a, type): bytes of a float32 array as a type."},
    {"dequantize", quant_dequantize, METH_VARARGS, "dequantize(raw, type): the bytes' values, flat float32."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_quant(PyObject *module) { return PyModule_AddFunctions(module, functions); }
