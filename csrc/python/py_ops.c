/* Operations on arrays. edgellm/ops.py has the documentation and checks what the arrays hold; the
 * checks here keep memory safe whatever is passed. */
#include "py_edgellm.h"

#include <stdbool.h>
#include <string.h>

#include "edgellm/cpu.h"
#include "edgellm/ops.h"

/// ISA of a name, the best one for NULL; -1 with ValueError naming what there is.
static int find_isa(PyObject *module, const char *where, const char *name, size_t *out)
{
    const uint64_t cpu = el_cpu_features();
    *out = el_isa_best(cpu);
    if (name == NULL) return 0;
    el_error err = {""};
    const el_status status = el_isa_find(name, cpu, out, &err);
    if (status == EL_OK) return 0;
    el_py_raise(el_py_state(module), status, &err, where);
    return -1;
}

static bool is_array(PyObject *object, int type, int dims)
{
    if (object == NULL || !PyArray_Check(object)) return false;
    PyArrayObject *a = (PyArrayObject *)object;
    return PyArray_TYPE(a) == type && PyArray_ISCARRAY_RO(a) && (dims < 0 || PyArray_NDIM(a) == dims);
}

/// `object` as a C-contiguous float32 array of `dims` dimensions (any if negative), or NULL with TypeError.
static PyArrayObject *as_f32(const char *where, const char *name, PyObject *object, int dims)
{
    if (is_array(object, NPY_FLOAT32, dims)) return (PyArrayObject *)object;
    PyErr_Format(PyExc_TypeError, "%s: %s must be a C-contiguous float32 array", where, name);
    return NULL;
}

static float *f32_data(PyArrayObject *a) { return (float *)PyArray_DATA(a); }

static int same_length(const char *where, const char *name, PyArrayObject *a, npy_intp want)
{
    if (PyArray_SIZE(a) == want) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %s must hold %zd values, got %zd", where, name, (Py_ssize_t)want,
                 (Py_ssize_t)PyArray_SIZE(a));
    return -1;
}

static PyArrayObject *new_like(PyArrayObject *a)
{
    return (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(a), PyArray_DIMS(a), NPY_FLOAT32);
}

static PyObject *ops_map(PyObject *module, PyObject *args)
{
    const char *op, *isa_name;
    PyObject *x_object;
    size_t isa;
    if (!PyArg_ParseTuple(args, "sOz:map", &op, &x_object, &isa_name)) return NULL;
    PyArrayObject *x = as_f32(op, "x", x_object, -1);
    if (x == NULL || find_isa(module, op, isa_name, &isa) < 0) return NULL;
    void (*fn)(size_t, size_t, const float *, float *) = strcmp(op, "silu") == 0   ? el_ops_silu
                                                         : strcmp(op, "gelu") == 0 ? el_ops_gelu
                                                                                   : el_ops_gelu_tanh;
    PyArrayObject *y = new_like(x);
    if (y == NULL) return NULL;
    const size_t n = (size_t)PyArray_SIZE(x);

    Py_BEGIN_ALLOW_THREADS
        fn(isa, n, f32_data(x), f32_data(y));
    Py_END_ALLOW_THREADS
    return (PyObject *)y;
}

static PyObject *ops_swiglu(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *gate_object, *up_object;
    size_t isa;
    if (!PyArg_ParseTuple(args, "OOz:swiglu", &gate_object, &up_object, &isa_name)) return NULL;
    PyArrayObject *gate = as_f32("swiglu", "gate", gate_object, -1), *up = NULL;
    if (gate == NULL || (up = as_f32("swiglu", "up", up_object, -1)) == NULL) return NULL;
    if (same_length("swiglu", "up", up, PyArray_SIZE(gate)) < 0) return NULL;
    if (find_isa(module, "swiglu", isa_name, &isa) < 0) return NULL;
    PyArrayObject *y = new_like(gate);
    if (y == NULL) return NULL;
    const size_t n = (size_t)PyArray_SIZE(gate);

    Py_BEGIN_ALLOW_THREADS
        el_ops_swiglu(isa, n, f32_data(gate), f32_data(up), f32_data(y));
    Py_END_ALLOW_THREADS
    return (PyObject *)y;
}

/// Rows and length of the last axis of x, which must be positive.
static int split_rows(const char *where, PyArrayObject *x, size_t *rows, size_t *n)
{
    const int dims = PyArray_NDIM(x);
    const npy_intp last = dims == 0 ? 0 : PyArray_DIM(x, dims - 1);
    if (last == 0) {
        PyErr_Format(PyExc_ValueError, "%s: the last axis of x must not be empty", where);
        return -1;
    }
    *n = (size_t)last;
    *rows = (size_t)(PyArray_SIZE(x) / last);
    return 0;
}

static PyObject *ops_norm(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *x_object, *w_object, *b_object;
    float eps;
    int centred;
    size_t isa, rows, n;
    if (!PyArg_ParseTuple(args, "OOOfpz:norm", &x_object, &w_object, &b_object, &eps, &centred, &isa_name)) {
        return NULL;
    }
    const char *where = centred ? "layer_norm" : "rms_norm";
    PyArrayObject *x = as_f32(where, "x", x_object, -1), *w = NULL, *b = NULL;
    if (x == NULL || (w = as_f32(where, "w", w_object, 1)) == NULL) return NULL;
    if (b_object != Py_None && (b = as_f32(where, "b", b_object, 1)) == NULL) return NULL;
    if (split_rows(where, x, &rows, &n) < 0 || same_length(where, "w", w, (npy_intp)n) < 0) return NULL;
    if (b != NULL && same_length(where, "b", b, (npy_intp)n) < 0) return NULL;
    if (find_isa(module, where, isa_name, &isa) < 0) return NULL;
    PyArrayObject *y = new_like(x);
    if (y == NULL) return NULL;
    const float *bias = b == NULL ? NULL : f32_data(b);

    Py_BEGIN_ALLOW_THREADS
        if (centred) {
            el_ops_layer_norm(isa, rows, n, f32_data(x), f32_data(w), bias, eps, f32_data(y));
        } else {
            el_ops_rms_norm(isa, rows, n, f32_data(x), f32_data(w), eps, f32_data(y));
        }
    Py_END_ALLOW_THREADS
    return (PyObject *)y;
}

static PyObject *ops_softmax(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *x_object;
    size_t isa, rows, n;
    if (!PyArg_ParseTuple(args, "Oz:softmax", &x_object, &isa_name)) return NULL;
    PyArrayObject *x = as_f32("softmax", "x", x_object, -1);
    if (x == NULL || split_rows("softmax", x, &rows, &n) < 0) return NULL;
    if (find_isa(module, "softmax", isa_name, &isa) < 0) return NULL;
    PyArrayObject *y = new_like(x);
    if (y == NULL) return NULL;

    Py_BEGIN_ALLOW_THREADS
        el_ops_softmax(isa, rows, n, f32_data(x), f32_data(y));
    Py_END_ALLOW_THREADS
    return (PyObject *)y;
}

static PyObject *ops_matmul(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *x_object;
    PyArrayObject *y = NULL;
    Py_buffer w = {0};
    unsigned type;
    Py_ssize_t n;
    size_t isa;
    if (!PyArg_ParseTuple(args, "Iny*Oz:matmul", &type, &n, &w, &x_object, &isa_name)) return NULL;
    PyArrayObject *x = as_f32("matmul", "x", x_object, 2);
    if (x == NULL || find_isa(module, "matmul", isa_name, &isa) < 0) goto done;
    if (n < 0) {
        PyErr_SetString(PyExc_ValueError, "matmul: w has a negative number of rows");
        goto done;
    }
    const npy_intp dims[2] = {PyArray_DIM(x, 0), n};
    y = (PyArrayObject *)PyArray_SimpleNew(2, dims, NPY_FLOAT32);
    if (y == NULL) goto done;
    const size_t m = (size_t)PyArray_DIM(x, 0), k = (size_t)PyArray_DIM(x, 1);
    el_error err = {""};
    el_status status;

    Py_BEGIN_ALLOW_THREADS
        status =
            el_ops_matmul(isa, type, m, (size_t)n, k, w.buf, (size_t)w.len, f32_data(x), f32_data(y), &err);
    Py_END_ALLOW_THREADS

    if (status != EL_OK) {
        Py_CLEAR(y);
        el_py_raise(el_py_state(module), status, &err, "matmul");
    }

done:
    PyBuffer_Release(&w);
    return (PyObject *)y;
}

static PyObject *ops_rope(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *x_object, *positions_object;
    Py_ssize_t rotated;
    double theta;
    size_t isa;
    if (!PyArg_ParseTuple(args, "OOndz:rope", &x_object, &positions_object, &rotated, &theta, &isa_name))
        return NULL;
    PyArrayObject *x = as_f32("rope", "x", x_object, 3);
    if (x == NULL || find_isa(module, "rope", isa_name, &isa) < 0) return NULL;
    PyArrayObject *positions = (PyArrayObject *)positions_object;
    if (!is_array(positions_object, NPY_INT64, 1) || PyArray_DIM(positions, 0) != PyArray_DIM(x, 0)) {
        PyErr_SetString(PyExc_TypeError, "rope: positions must be int64, one for each row of x");
        return NULL;
    }
    if (rotated < 0 || rotated % 2 != 0 || rotated > PyArray_DIM(x, 2)) {
        PyErr_SetString(PyExc_ValueError, "rope: rotated must be even and at most the head size");
        return NULL;
    }
    PyArrayObject *y = (PyArrayObject *)PyArray_NewCopy(x, NPY_CORDER);
    if (y == NULL) return NULL;
    const size_t rows = (size_t)PyArray_DIM(x, 0), heads = (size_t)PyArray_DIM(x, 1),
                 d = (size_t)PyArray_DIM(x, 2);
    el_error err = {""};
    el_status status;

    Py_BEGIN_ALLOW_THREADS
        status = el_ops_rope(isa, rows, heads, d, (size_t)rotated, (const int64_t *)PyArray_DATA(positions),
                             theta, f32_data(y), &err);
    Py_END_ALLOW_THREADS

    if (status != EL_OK) {
        Py_CLEAR(y);
        el_py_raise(el_py_state(module), status, &err, "rope");
    }
    return (PyObject *)y;
}

/// Extents of (tokens, heads, d) and (keys, groups, d); -1 with ValueError if they do not fit.
static int attention_shapes(PyArrayObject *q, PyArrayObject *k, PyArrayObject *v, bool causal)
{
    const npy_intp *a = PyArray_DIMS(q), *b = PyArray_DIMS(k), *c = PyArray_DIMS(v);
    const bool fits = b[0] == c[0] && b[1] == c[1] && b[2] == c[2] && a[2] == b[2] && b[0] > 0 && b[1] > 0 &&
                      a[1] % b[1] == 0 && a[2] > 0 && a[2] % 8 == 0 && a[2] <= 256 &&
                      (!causal || a[0] <= b[0]);
    if (fits) return 0;
    PyErr_SetString(PyExc_ValueError, "attention: the shapes of q, k and v do not fit");
    return -1;
}

static PyObject *ops_attention(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *q_object, *k_object, *v_object;
    float scale;
    int causal;
    size_t isa;
    if (!PyArg_ParseTuple(args, "OOOfpz:attention", &q_object, &k_object, &v_object, &scale, &causal,
                          &isa_name)) {
        return NULL;
    }
    PyArrayObject *q = as_f32("attention", "q", q_object, 3), *k = NULL, *v = NULL;
    if (q == NULL || (k = as_f32("attention", "k", k_object, 3)) == NULL) return NULL;
    if ((v = as_f32("attention", "v", v_object, 3)) == NULL) return NULL;
    if (attention_shapes(q, k, v, causal != 0) < 0 || find_isa(module, "attention", isa_name, &isa) < 0)
        return NULL;
    PyArrayObject *y = new_like(q);
    if (y == NULL) return NULL;
    const npy_intp *a = PyArray_DIMS(q), *b = PyArray_DIMS(k);
    el_error err = {""};
    el_status status;

    Py_BEGIN_ALLOW_THREADS
        status = el_ops_attention(isa, (size_t)a[0], (size_t)a[1], (size_t)b[0], (size_t)b[1], (size_t)a[2],
                                  f32_data(q), f32_data(k), f32_data(v), scale, causal, f32_data(y), &err);
    Py_END_ALLOW_THREADS

    if (status != EL_OK) {
        Py_CLEAR(y);
        el_py_raise(el_py_state(module), status, &err, "attention");
    }
    return (PyObject *)y;
}

static PyObject *ops_cross_entropy(PyObject *module, PyObject *args)
{
    const char *isa_name;
    PyObject *x_object, *targets_object;
    size_t isa;
    if (!PyArg_ParseTuple(args, "OOz:cross_entropy", &x_object, &targets_object, &isa_name)) return NULL;
    PyArrayObject *x = as_f32("cross_entropy", "logits", x_object, 2);
    if (x == NULL || find_isa(module, "cross_entropy", isa_name, &isa) < 0) return NULL;
    const npy_intp rows = PyArray_DIM(x, 0), n = PyArray_DIM(x, 1);
    if (!is_array(targets_object, NPY_INT64, 1) || PyArray_DIM((PyArrayObject *)targets_object, 0) != rows ||
        rows == 0 || n == 0) {
        PyErr_SetString(PyExc_ValueError, "cross_entropy: targets must be int64, one for each row of logits");
        return NULL;
    }
    // A copy, so that no other thread changes an index after its check.
    PyArrayObject *targets = (PyArrayObject *)PyArray_NewCopy((PyArrayObject *)targets_object, NPY_CORDER);
    if (targets == NULL) return NULL;
    const int64_t *index = (const int64_t *)PyArray_DATA(targets);
    for (npy_intp i = 0; i < rows; i++) {
        if (index[i] >= 0 && index[i] < n) continue;
        PyErr_Format(PyExc_ValueError, "cross_entropy: targets[%zd] is %lld, not in 0..%zd", (Py_ssize_t)i,
                     (long long)index[i], (Py_ssize_t)(n - 1));
        Py_DECREF(targets);
        return NULL;
    }
    double loss;

    Py_BEGIN_ALLOW_THREADS
        loss = el_ops_cross_entropy(isa, (size_t)rows, (size_t)n, f32_data(x), index);
    Py_END_ALLOW_THREADS
    Py_DECREF(targets);
    return PyFloat_FromDouble(loss);
}

static PyObject *ops_mse(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *a_object, *b_object;
    if (!PyArg_ParseTuple(args, "OO:mse", &a_object, &b_object)) return NULL;
    PyArrayObject *a = as_f32("mse", "a", a_object, -1), *b = NULL;
    if (a == NULL || (b = as_f32("mse", "b", b_object, -1)) == NULL) return NULL;
    if (same_length("mse", "b", b, PyArray_SIZE(a)) < 0) return NULL;
    if (PyArray_SIZE(a) == 0) {
        PyErr_SetString(PyExc_ValueError, "mse: a must not be empty");
        return NULL;
    }
    return PyFloat_FromDouble(el_ops_mse((size_t)PyArray_SIZE(a), f32_data(a), f32_data(b)));
}

static PyMethodDef methods[] = {
    {"ops_map", ops_map, METH_VARARGS, "silu, gelu or gelu_tanh; see edgellm.ops."},
    {"ops_swiglu", ops_swiglu, METH_VARARGS, "See edgellm.ops.swiglu."},
    {"ops_norm", ops_norm, METH_VARARGS, "rms_norm or layer_norm; see edgellm.ops."},
    {"ops_softmax", ops_softmax, METH_VARARGS, "See edgellm.ops.softmax."},
    {"ops_matmul", ops_matmul, METH_VARARGS, "See edgellm.ops.matmul."},
    {"ops_rope", ops_rope, METH_VARARGS, "See edgellm.ops.rope."},
    {"ops_attention", ops_attention, METH_VARARGS, "See edgellm.ops.attention."},
    {"ops_cross_entropy", ops_cross_entropy, METH_VARARGS, "See edgellm.ops.cross_entropy."},
    {"ops_mse", ops_mse, METH_VARARGS, "See edgellm.ops.mse."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_ops(PyObject *module) { return PyModule_AddFunctions(module, methods); }
