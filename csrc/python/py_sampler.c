/* Sampling of one token, for tests and for those who keep their own loop. */
#include "py_edgellm.h"

#include "edgellm/sampler.h"

/* A converter for O&: any int of 64 bits without sign. */
static int conv_u64(PyObject *obj, void *out)
{
    PyObject *number = PyNumber_Index(obj);
    if (number == NULL) return 0;
    const unsigned long long value = PyLong_AsUnsignedLongLong(number);
    const int failed = value == (unsigned long long)-1 && PyErr_Occurred() != NULL;
    if (failed && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "seed, stream and position lie in 0..2**64-1, got %S", number);
    }
    Py_DECREF(number);
    if (failed) return 0;
    *(uint64_t *)out = (uint64_t)value;
    return 1;
}

static PyObject *py_uniform(PyObject *module, PyObject *args)
{
    (void)module;
    el_draw draw = {0};
    if (!PyArg_ParseTuple(args, "O&O&O&:uniform", conv_u64, &draw.seed, conv_u64, &draw.stream, conv_u64,
                          &draw.position)) {
        return NULL;
    }
    return PyFloat_FromDouble(el_uniform(draw));
}

/* Float32, one dimension, contiguous: taken as it is, with a new reference; nothing is converted. */
static PyArrayObject *logits_of(PyObject *obj)
{
    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_FLOAT32 ||
        !PyArray_ISNOTSWAPPED((PyArrayObject *)obj)) {
        PyErr_SetString(PyExc_TypeError, "sample: logits must be an ndarray of float32");
        return NULL;
    }
    PyArrayObject *logits = (PyArrayObject *)obj;
    if (PyArray_NDIM(logits) != 1 || !PyArray_IS_C_CONTIGUOUS(logits) || !PyArray_ISALIGNED(logits)) {
        PyErr_Format(PyExc_ValueError,
                     "sample: logits must be contiguous with 1 dimension, got %d dimension(s)",
                     PyArray_NDIM(logits));
        return NULL;
    }
    Py_INCREF(obj);
    return logits;
}

static PyObject *py_sample(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"logits", "temperature", "top_k",  "top_p",    "min_p", "repeat_penalty",
                            "recent", "seed",        "stream", "position", NULL};
    el_pystate *st = el_py_state(module);
    PyObject *obj, *recent_obj = NULL, *result = NULL;
    PyArrayObject *logits = NULL;
    long long top_k = 0;
    el_sampler_params params = {.temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.0};
    el_draw draw = {0};
    int32_t *recent = NULL;
    size_t n_recent = 0;
    void *workspace = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$dLdddOO&O&O&:sample", names, &obj, &params.temperature,
                                     &top_k, &params.top_p, &params.min_p, &params.repeat_penalty,
                                     &recent_obj, conv_u64, &draw.seed, conv_u64, &draw.stream, conv_u64,
                                     &draw.position)) {
        return NULL;
    }
    params.top_k = top_k;
    logits = logits_of(obj);
    if (logits == NULL) goto done;
    const size_t vocab = (size_t)PyArray_SIZE(logits);
    if (recent_obj != NULL && el_py_ids(recent_obj, "recent", vocab, &recent, &n_recent) < 0) goto done;
    workspace = PyMem_Malloc(el_sampler_workspace_bytes(vocab) + 1);
    if (workspace == NULL) {
        PyErr_NoMemory();
        goto done;
    }

    const float *data = PyArray_DATA(logits);
    int32_t id = 0;
    el_error err = {0};
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        status = el_sample(data, vocab, &params, recent, n_recent, draw, workspace, &id, &err);
    Py_END_ALLOW_THREADS
    result = status == EL_OK ? PyLong_FromLong(id) : el_py_raise(st, status, &err, "sample");

done:
    PyMem_Free(workspace);
    PyMem_Free(recent);
    Py_XDECREF((PyObject *)logits);
    return result;
}

static PyMethodDef sampler_methods[] = {
    {"sample", (PyCFunction)(void (*)(void))py_sample, METH_VARARGS | METH_KEYWORDS,
     "sample(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, recent=(), seed=0, "
     "stream=0, position=0) -> int"},
    {"uniform", py_uniform, METH_VARARGS, "uniform(seed, stream, position) -> float in [0, 1)"},
    {NULL, NULL, 0, NULL},
};

int el_py_add_sampler(PyObject *module) { return PyModule_AddFunctions(module, sampler_methods); }
