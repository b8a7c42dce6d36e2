/* From logits to a token and its probability. */
#include "py_edgellm.h"

#include "edgellm/cpu.h"
#include "edgellm/sampler.h"

/// edgellm._core.Sampler: how the tokens of one text are chosen. Immutable, so threads may share it.
typedef struct el_py_sampler {
    PyObject_HEAD
    el_sampler_params params;
    uint64_t seed;
    uint64_t stream;
    el_bias *bias;  ///< (n_bias,) owned
    size_t n_bias;
} el_py_sampler;

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

/* (ids, values) of a bias; ids ascend. */
static int take_bias(el_py_sampler *self, PyObject *ids_obj, PyObject *values)
{
    int32_t *ids = NULL;
    if (el_py_ids(ids_obj, "logit_bias", INT32_MAX, &ids, &self->n_bias) < 0) return -1;
    int rc = -1;
    self->bias = PyMem_Calloc(self->n_bias + 1, sizeof *self->bias);
    if (self->bias == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if ((size_t)PyTuple_Size(values) != self->n_bias) {
        PyErr_SetString(PyExc_ValueError, "logit_bias: as many values as ids are needed");
        goto done;
    }
    for (size_t i = 0; i < self->n_bias; i++) {
        const double value = PyFloat_AsDouble(PyTuple_GetItem(values, (Py_ssize_t)i));
        if (value == -1.0 && PyErr_Occurred()) goto done;
        self->bias[i] = (el_bias){ids[i], (float)value};
    }
    rc = 0;

done:
    PyMem_Free(ids);
    return rc;
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *ids = NULL, *values = NULL;
    long long top_k = 0;
    el_sampler_params params = {0};
    el_draw draw = {0};
    if (!PyArg_ParseTuple(args, "dLdddO&O&OO!:Sampler", &params.temperature, &top_k, &params.top_p,
                          &params.min_p, &params.repeat_penalty, conv_u64, &draw.seed, conv_u64, &draw.stream,
                          &ids, &PyTuple_Type, &values)) {
        return NULL;
    }
    params.top_k = top_k;
    el_error err = {0};
    const el_status status = el_sampler_check(&params, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(PyType_GetModule(type)), status, &err, "sample");

    el_py_sampler *self = (el_py_sampler *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->params = params;
    self->seed = draw.seed;
    self->stream = draw.stream;
    if (take_bias(self, ids, values) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyMem_Free(((el_py_sampler *)op)->bias);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(op);
    Py_DECREF(type);
}

/* Short enough to keep the GIL: giving it up may cost a switch interval to get it back. */
static PyObject *sampler_choose(PyObject *op, PyObject *args)
{
    const el_py_sampler *self = (el_py_sampler *)op;
    el_pystate *st = el_py_state(PyType_GetModule(Py_TYPE(op)));
    PyObject *obj = NULL, *recent_obj = NULL, *result = NULL;
    PyArrayObject *logits = NULL;
    el_draw draw = {.seed = self->seed, .stream = self->stream};
    int32_t *recent = NULL, id = 0;
    size_t n_recent = 0;
    void *workspace = NULL;
    el_error err = {0};

    if (!PyArg_ParseTuple(args, "OOO&:choose", &obj, &recent_obj, conv_u64, &draw.position)) return NULL;
    logits = logits_of(obj);
    if (logits == NULL) return NULL;
    const size_t vocab = (size_t)PyArray_SIZE(logits);
    float *data = PyArray_DATA(logits);
    if (el_py_ids(recent_obj, "recent", vocab, &recent, &n_recent) < 0) goto done;
    if (self->n_bias > 0 && !PyArray_ISWRITEABLE(logits)) {
        PyErr_SetString(PyExc_ValueError, "sample: logits must be writeable where there is a bias");
        goto done;
    }
    el_status status = el_bias_apply(data, vocab, self->bias, self->n_bias, &err);
    if (status == EL_OK) {
        workspace = PyMem_Malloc(el_sampler_workspace_bytes(vocab) + 1);
        if (workspace == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        status = el_sample(data, vocab, &self->params, recent, n_recent, draw, workspace, &id, &err);
    }
    result = status == EL_OK ? PyLong_FromLong(id) : el_py_raise(st, status, &err, "sample");

done:
    PyMem_Free(workspace);
    PyMem_Free(recent);
    Py_DECREF((PyObject *)logits);
    return result;
}

static PyObject *pairs_of(const int32_t *ids, const double *values, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *pair = Py_BuildValue("(id)", (int)ids[i], values[i]);
        if (pair == NULL || PyList_SetItem(list, (Py_ssize_t)i, pair) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *py_logprobs(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *obj = NULL, *list = NULL, *result = NULL;
    Py_ssize_t id = 0, n = 0;
    if (!PyArg_ParseTuple(args, "Onn:logprobs", &obj, &id, &n)) return NULL;
    PyArrayObject *logits = logits_of(obj);
    if (logits == NULL) return NULL;
    const Py_ssize_t vocab = PyArray_SIZE(logits);
    int32_t *top = NULL;
    double *values = NULL, logprob = 0.0;
    float *workspace = NULL;
    if (id < 0 || id >= vocab || n < 0 || n > vocab) {
        PyErr_Format(PyExc_ValueError, "logprobs: token %zd and %zd alternatives of %zd tokens", id, n,
                     vocab);
        goto done;
    }
    top = PyMem_Calloc((size_t)n + 1, sizeof *top);
    values = PyMem_Calloc((size_t)n + 1, sizeof *values);
    workspace = PyMem_Calloc((size_t)vocab, sizeof *workspace);
    if (top == NULL || values == NULL || workspace == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    const size_t isa = el_isa_best(el_cpu_features());
    const float *data = PyArray_DATA(logits);
    Py_BEGIN_ALLOW_THREADS
        el_logprobs(isa, data, (size_t)vocab, (int32_t)id, (size_t)n, workspace, &logprob, top, values);
    Py_END_ALLOW_THREADS
    list = pairs_of(top, values, (size_t)n);
    if (list != NULL) result = Py_BuildValue("(dO)", logprob, list);

done:
    PyMem_Free(top);
    PyMem_Free(values);
    PyMem_Free(workspace);
    Py_XDECREF(list);
    Py_DECREF((PyObject *)logits);
    return result;
}

static PyMethodDef sampler_methods[] = {
    {"choose", sampler_choose, METH_VARARGS,
     "choose(logits, recent, position) -> int; a bias is applied to logits in place."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc,
     "Sampler(temperature, top_k, top_p, min_p, repeat_penalty, seed, stream, bias_ids, bias_values)"},
    {Py_tp_new, sampler_new},
    {Py_tp_dealloc, sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "edgellm._core.Sampler",
    .basicsize = sizeof(el_py_sampler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

static PyMethodDef sampler_functions[] = {
    {"sample", (PyCFunction)(void (*)(void))py_sample, METH_VARARGS | METH_KEYWORDS,
     "sample(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, recent=(), seed=0, "
     "stream=0, position=0) -> int"},
    {"uniform", py_uniform, METH_VARARGS, "uniform(seed, stream, position) -> float in [0, 1)"},
    {"logprobs", py_logprobs, METH_VARARGS,
     "logprobs(logits, id, n) -> (logprob of id, [(id, logprob), ...])"},
    {NULL, NULL, 0, NULL},
};

int el_py_add_sampler(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    const int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return rc < 0 ? -1 : PyModule_AddFunctions(module, sampler_functions);
}
