/* Doors for tests only: every kernel on raw memory, packing, and the inner parts of the core. Nothing is
 * checked here; edgellm/_testing.py checks sizes. */
#include "py_edgellm.h"

#include <stdatomic.h>
#include <string.h>

#include "core/cpu_detect.h"
#include "core/pool.h"
#include "core/trig.h"
#include "edgellm/cpu.h"
#include "kernels/el_pack.h"
#include "kernels/kernels.h"

enum { MAX_SIZES = 7, MAX_BUFFERS = 6 };

typedef void any_fn(void);

/// The kernel of an operation on exactly this ISA, or NULL.
static any_fn *find_kernel(const char *op, const char *isa)
{
#define EL_KERNEL(name, set, needs)                                                                          \
    if (strcmp(op, #name) == 0 && strcmp(isa, #set) == 0) found = (any_fn *)el_##name##__##set;
    any_fn *found = NULL;
#include "kernels/kernels.def"
#undef EL_KERNEL
    return found;
}

/// What a call is made of: positions in `n` and `p` are those of the contract's parameters.
typedef struct call {
    any_fn *fn;
    size_t n[MAX_SIZES];
    float scalar;
    void *p[MAX_BUFFERS];
} call;

static int starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static void call_matrix(const char *op, const call *c)
{
    const size_t *n = c->n;
    if (starts(op, "gemm_q8")) {
        ((el_gemm_q8_fn *)c->fn)(n[0], n[1], n[2], c->p[0], c->p[1], n[3], c->p[2], n[4]);
    } else {
        ((el_gemm_f32_fn *)c->fn)(n[0], n[1], n[2], c->p[0], c->p[1], n[3], c->p[2], n[4]);
    }
}

static int call_kernel(const char *op, const call *c)
{
    const size_t *n = c->n;
    void *const *p = c->p;
    if (starts(op, "gemm"))
        call_matrix(op, c);
    else if (strcmp(op, "quantize_act_q8") == 0)
        ((el_quantize_act_q8_fn *)c->fn)(n[0], p[0], p[1]);
    else if (strcmp(op, "interleave") == 0)
        ((el_interleave_fn *)c->fn)(n[0], n[1], n[2], p[0], n[3], n[4], (uint32_t)n[5], p[1], n[6]);
    else if (strcmp(op, "rms_norm") == 0)
        ((el_rms_norm_fn *)c->fn)(n[0], p[0], p[1], c->scalar, p[2]);
    else if (strcmp(op, "layer_norm") == 0)
        ((el_layer_norm_fn *)c->fn)(n[0], p[0], p[1], p[2], c->scalar, p[3]);
    else if (strcmp(op, "softmax") == 0)
        ((el_softmax_fn *)c->fn)(n[0], p[0], p[1]);
    else if (strcmp(op, "silu") == 0 || starts(op, "gelu"))
        ((el_map_fn *)c->fn)(n[0], p[0], p[1]);
    else if (strcmp(op, "swiglu") == 0 || strcmp(op, "geglu_tanh") == 0)
        ((el_swiglu_fn *)c->fn)(n[0], p[0], p[1], p[2]);
    else if (strcmp(op, "add") == 0)
        ((el_add_fn *)c->fn)(n[0], p[0], p[1]);
    else if (strcmp(op, "rope") == 0)
        ((el_rope_fn *)c->fn)(n[0], n[1], n[2], p[0], p[1]);
    else if (starts(op, "kv_write_"))
        ((el_kv_write_fn *)c->fn)(n[0], n[1], p[0], p[1], p[2], p[3]);
    else if (starts(op, "attention_"))
        ((el_attention_fn *)c->fn)(n[0], n[1], p[0], p[1], p[2], n[2], n[3], c->scalar, p[3], p[4], p[5]);
    else if (strcmp(op, "f32_to_f16") == 0)
        ((el_f32_to_f16_fn *)c->fn)(n[0], p[0], p[1]);
    else if (strcmp(op, "f16_to_f32") == 0)
        ((el_f16_to_f32_fn *)c->fn)(n[0], p[0], p[1]);
    else
        return -1;
    return 0;
}

// call_kernel(op, isa, sizes: tuple, scalar, buffers: tuple of writable buffers or None)
static PyObject *testing_call_kernel(PyObject *module, PyObject *args)
{
    const char *op, *isa;
    PyObject *sizes, *buffers, *out = NULL;
    Py_buffer views[MAX_BUFFERS] = {{0}};
    call c = {0};
    size_t index;
    el_error err = {""};
    if (!PyArg_ParseTuple(args, "ssO!fO!:call_kernel", &op, &isa, &PyTuple_Type, &sizes, &c.scalar,
                          &PyTuple_Type, &buffers)) {
        return NULL;
    }
    const uint64_t cpu = el_cpu_features();
    const char *inexact = el_op_isa(op, el_isa_inexact(el_isa_best(cpu)), cpu, EL_MANY_ROWS);
    const bool found = inexact != NULL && strcmp(inexact, isa) == 0;
    const el_status status = found ? EL_OK : el_isa_find(isa, cpu, &index, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, "call_kernel");
    if ((c.fn = find_kernel(op, isa)) == NULL) {
        PyErr_Format(PyExc_KeyError, "no kernel %s__%s", op, isa);
        return NULL;
    }
    if (PyTuple_Size(sizes) > MAX_SIZES || PyTuple_Size(buffers) > MAX_BUFFERS) {
        PyErr_SetString(PyExc_ValueError, "call_kernel: too many sizes or buffers");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(sizes); i++) {
        c.n[i] = PyLong_AsSize_t(PyTuple_GetItem(sizes, i));
        if (PyErr_Occurred()) goto done;
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(buffers); i++) {
        PyObject *item = PyTuple_GetItem(buffers, i);
        if (item == Py_None) continue;
        if (PyObject_GetBuffer(item, &views[i], PyBUF_WRITABLE) < 0) goto done;
        c.p[i] = views[i].buf;
    }
    if (call_kernel(op, &c) < 0) {
        PyErr_Format(PyExc_KeyError, "call_kernel does not know how to call %s", op);
        goto done;
    }
    out = Py_NewRef(Py_None);

done:
    for (size_t i = 0; i < MAX_BUFFERS; i++) PyBuffer_Release(&views[i]);
    return out;
}

static PyObject *testing_kernel_list(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *out = PyList_New(0), *row = NULL;
#define EL_KERNEL(name, set, needs)                                                                          \
    row = out == NULL ? NULL : Py_BuildValue("(ss)", #name, #set);                                           \
    if (out != NULL && (row == NULL || PyList_Append(out, row) < 0)) Py_CLEAR(out);                          \
    Py_CLEAR(row);
#include "kernels/kernels.def"
#undef EL_KERNEL
    return out;
}

// pack_tile(isa, type, rows, k, src, tile) and unpack_lane(type, k, tile, lane, y)
static PyObject *testing_pack_tile(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned type;
    Py_ssize_t rows, k;
    Py_buffer src, tile;
    const char *isa;
    if (!PyArg_ParseTuple(args, "sInny*w*:pack_tile", &isa, &type, &rows, &k, &src, &tile)) return NULL;
    el_interleave_fn *interleave = (el_interleave_fn *)find_kernel("interleave", isa);
    if (interleave != NULL) el_pack_tile_by(interleave, type, (size_t)rows, (size_t)k, src.buf, tile.buf);
    PyBuffer_Release(&src);
    PyBuffer_Release(&tile);
    if (interleave == NULL) return PyErr_Format(PyExc_KeyError, "no kernel interleave__%s", isa);
    return Py_NewRef(Py_None);
}

static PyObject *testing_unpack_lane(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned type;
    Py_ssize_t k, lane;
    Py_buffer tile, y;
    if (!PyArg_ParseTuple(args, "Iny*nw*:unpack_lane", &type, &k, &tile, &lane, &y)) return NULL;
    el_unpack_lane(type, (size_t)k, tile.buf, (size_t)lane, y.buf);
    PyBuffer_Release(&tile);
    PyBuffer_Release(&y);
    return Py_NewRef(Py_None);
}

// (layout or -1, bytes of a row, bytes of a tile)
static PyObject *testing_pack_sizes(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned type;
    Py_ssize_t k;
    if (!PyArg_ParseTuple(args, "In:pack_sizes", &type, &k)) return NULL;
    const int layout = el_pack_layout(type);
    const size_t tile = layout < 0 ? 0 : el_pack_tile_bytes((el_layout)layout, (size_t)k);
    return Py_BuildValue("inn", layout, (Py_ssize_t)el_pack_row_bytes(type, (size_t)k), (Py_ssize_t)tile);
}

static PyObject *feature_names(uint64_t cpu)
{
    PyObject *out = PyList_New(0);
    uint64_t bit = 0;
    const char *name;
    for (size_t i = 0; out != NULL && (name = el_cpu_feature_name(i, &bit)) != NULL; i++) {
        if ((cpu & bit) == 0) continue;
        PyObject *item = PyUnicode_FromString(name);
        if (item == NULL || PyList_Append(out, item) < 0) Py_CLEAR(out);
        Py_XDECREF(item);
    }
    return out;
}

// cpu_pretend(name): a feature counts as present from now on, in this process
static PyObject *testing_cpu_pretend(PyObject *module, PyObject *args)
{
    (void)module;
    const char *want, *name;
    uint64_t bit = 0;
    if (!PyArg_ParseTuple(args, "s:cpu_pretend", &want)) return NULL;
    for (size_t i = 0; (name = el_cpu_feature_name(i, &bit)) != NULL; i++) {
        if (strcmp(name, want) == 0) {
            el_cpu_pretend(bit);
            return Py_NewRef(Py_None);
        }
    }
    return PyErr_Format(PyExc_ValueError, "cpu_pretend: no feature %s", want);
}

static PyObject *testing_cpu_decode(PyObject *module, PyObject *args)
{
    (void)module;
    el_cpuid id;
    unsigned long long xcr0;
    if (!PyArg_ParseTuple(args, "IIIIIK:cpu_decode", &id.leaf1_ecx, &id.leaf7_ebx, &id.leaf7_ecx,
                          &id.leaf7_edx, &id.leaf7_1_eax, &xcr0)) {
        return NULL;
    }
    id.xcr0 = xcr0;
    return feature_names(el_cpu_decode(&id));
}

static PyObject *testing_cpu_decode_hwcap(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long hwcap, hwcap2;
    if (!PyArg_ParseTuple(args, "KK:cpu_decode_hwcap", &hwcap, &hwcap2)) return NULL;
    return feature_names(el_cpu_decode_hwcap(hwcap, hwcap2));
}

// cpu_choose(features: tuple of names, op, rows): ISA of the kernel that a machine with just these features uses
static PyObject *testing_cpu_choose(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *features;
    const char *op, *name;
    Py_ssize_t rows;
    uint64_t cpu = 0, bit = 0;
    if (!PyArg_ParseTuple(args, "O!sn:cpu_choose", &PyTuple_Type, &features, &op, &rows)) return NULL;
    for (size_t i = 0; (name = el_cpu_feature_name(i, &bit)) != NULL; i++) {
        PyObject *text = PyUnicode_FromString(name);
        const int has = text == NULL ? -1 : PySequence_Contains(features, text);
        Py_XDECREF(text);
        if (has < 0) return NULL;
        if (has != 0) cpu |= bit;
    }
    const char *isa = el_op_isa(op, el_isa_best(cpu), cpu, (size_t)rows);
    return isa == NULL ? PyErr_Format(PyExc_KeyError, "no operation %s", op) : PyUnicode_FromString(isa);
}

static PyObject *testing_sincos(PyObject *module, PyObject *args)
{
    (void)module;
    double x, sine, cosine;
    if (!PyArg_ParseTuple(args, "d:sincos", &x)) return NULL;
    el_sincos(x, &sine, &cosine);
    return Py_BuildValue("dd", sine, cosine);
}

static PyObject *testing_pow(PyObject *module, PyObject *args)
{
    (void)module;
    double base, y;
    if (!PyArg_ParseTuple(args, "dd:pow", &base, &y)) return NULL;
    return PyFloat_FromDouble(el_pow(base, y));
}

static PyObject *testing_partition(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t items, grain, thread, threads;
    if (!PyArg_ParseTuple(args, "nnnn:partition", &items, &grain, &thread, &threads)) return NULL;
    size_t begin, end;
    el_partition((size_t)items, (size_t)grain, (size_t)thread, (size_t)threads, &begin, &end);
    return Py_BuildValue("nn", (Py_ssize_t)begin, (Py_ssize_t)end);
}

/// A job that counts who came, and checks at barriers that nobody runs ahead.
typedef struct rounds {
    el_pool *pool;
    size_t rounds;
    atomic_size_t arrived, wrong, threads;
} rounds;

static void count_rounds(void *arg, size_t thread, size_t threads)
{
    rounds *r = arg;
    if (thread == 0) atomic_store(&r->threads, threads);
    for (size_t i = 1; i <= r->rounds; i++) {
        atomic_fetch_add(&r->arrived, 1);
        el_pool_barrier(r->pool);
        if (atomic_load(&r->arrived) != i * threads) atomic_fetch_add(&r->wrong, 1);
        el_pool_barrier(r->pool);
    }
}

static void free_pool(PyObject *capsule)
{
    el_pool_free(PyCapsule_GetPointer(capsule, "edgellm.testing.pool"));
}

static PyObject *testing_pool_new(PyObject *module, PyObject *args)
{
    Py_ssize_t threads;
    el_pool *pool;
    el_error err = {""};
    if (!PyArg_ParseTuple(args, "n:pool_new", &threads)) return NULL;
    const el_status status = el_pool_new(&pool, (size_t)threads, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, "pool_new");
    PyObject *capsule = PyCapsule_New(pool, "edgellm.testing.pool", free_pool);
    if (capsule == NULL) el_pool_free(pool);
    return capsule;
}

// pool_rounds(pool, jobs, rounds) -> (threads, wrong): `jobs` runs of a job with two barriers a round
static PyObject *testing_pool_rounds(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *capsule;
    Py_ssize_t jobs, count;
    if (!PyArg_ParseTuple(args, "Onn:pool_rounds", &capsule, &jobs, &count)) return NULL;
    el_pool *pool = PyCapsule_GetPointer(capsule, "edgellm.testing.pool");
    if (pool == NULL) return NULL;
    size_t threads = 0, wrong = 0;

    Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < jobs; i++) {
            rounds r = {.pool = pool, .rounds = (size_t)count};
            el_pool_run(pool, count_rounds, &r);
            wrong +=
                atomic_load(&r.wrong) + (atomic_load(&r.arrived) != (size_t)count * atomic_load(&r.threads));
            threads = atomic_load(&r.threads);
        }
    Py_END_ALLOW_THREADS
    return Py_BuildValue("nn", (Py_ssize_t)threads, (Py_ssize_t)wrong);
}

static PyMethodDef methods[] = {
    {"testing_call_kernel", testing_call_kernel, METH_VARARGS, "Call one kernel on raw memory."},
    {"testing_kernel_list", testing_kernel_list, METH_NOARGS, "Rows of kernels.def: (op, isa)."},
    {"testing_pack_tile", testing_pack_tile, METH_VARARGS, "el_pack_tile"},
    {"testing_unpack_lane", testing_unpack_lane, METH_VARARGS, "el_unpack_lane"},
    {"testing_pack_sizes", testing_pack_sizes, METH_VARARGS, "Layout, bytes of a row, bytes of a tile."},
    {"testing_cpu_decode", testing_cpu_decode, METH_VARARGS, "el_cpu_decode"},
    {"testing_cpu_pretend", testing_cpu_pretend, METH_VARARGS, "el_cpu_pretend"},
    {"testing_cpu_choose", testing_cpu_choose, METH_VARARGS,
     "Which kernel a machine with these features uses."},
    {"testing_cpu_decode_hwcap", testing_cpu_decode_hwcap, METH_VARARGS, "el_cpu_decode_hwcap"},
    {"testing_sincos", testing_sincos, METH_VARARGS, "el_sincos"},
    {"testing_pow", testing_pow, METH_VARARGS, "el_pow"},
    {"testing_partition", testing_partition, METH_VARARGS, "el_partition"},
    {"testing_pool_new", testing_pool_new, METH_VARARGS, "A pool in a capsule."},
    {"testing_pool_rounds", testing_pool_rounds, METH_VARARGS, "Run counting jobs with barriers."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_testing(PyObject *module) { return PyModule_AddFunctions(module, methods); }
