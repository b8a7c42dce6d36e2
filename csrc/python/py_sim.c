/* `edgellm._sim`: simulated time for the testbed. Wakes Python callables, in simulated order. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "py_sim.h"
#include "simgrid/el_simgrid.h"

typedef struct {
    PyObject *engine_type;
} sim_state;

/* PyIter_Send returns a generator's result without raising StopIteration. */
static PyObject *sim_step(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    PyObject *result = NULL;
    (void)module;
    if (n != 2) {
        PyErr_Format(PyExc_TypeError, "step() takes 2 arguments, got %zd", n);
        return NULL;
    }
    PySendResult sent = PyIter_Send(args[0], args[1], &result);
    if (sent == PYGEN_ERROR) return NULL;
    PyObject *pair = PyTuple_Pack(2, sent == PYGEN_RETURN ? Py_True : Py_False, result);
    Py_DECREF(result);
    return pair;
}

/* The finalizer of SplitMix64 after each index (losses.py has the source). */
static PyObject *sim_mixed(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n == 0) {
        PyErr_SetString(PyExc_TypeError, "mixed() needs a word");
        return NULL;
    }
    uint64_t word = PyLong_AsUnsignedLongLongMask(args[0]);
    for (Py_ssize_t i = 1; i < n; i++) {
        const uint64_t index = PyLong_AsUnsignedLongLongMask(args[i]);
        word += (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
        word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
        word ^= word >> 31;
    }
    return PyErr_Occurred() != NULL ? NULL : PyLong_FromUnsignedLongLong(word);
}

static PyObject *sim_version(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(el_simgrid_version());
}

static PyMethodDef module_methods[] = {
    {"step", (PyCFunction)(void (*)(void))sim_step, METH_FASTCALL,
     "step(generator, value) -> (ended, yielded or returned)"},
    {"mixed", (PyCFunction)(void (*)(void))sim_mixed, METH_FASTCALL,
     "mixed(word, *indices) -> 64 bits that stand for a key and indices below it."},
    {"simgrid_version", sim_version, METH_NOARGS, "simgrid_version() -> str: of the library at run time."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    sim_state *state = (sim_state *)PyModule_GetState(module);
    state->engine_type = PyType_FromModuleAndSpec(module, &el_sim_engine_spec, NULL);
    if (state->engine_type == NULL) return -1;
    return PyModule_AddObjectRef(module, "Engine", state->engine_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    sim_state *state = (sim_state *)PyModule_GetState(module);
    if (state != NULL) Py_VISIT(state->engine_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    sim_state *state = (sim_state *)PyModule_GetState(module);
    if (state != NULL) Py_CLEAR(state->engine_type);
    return 0;
}

static void module_free(void *module) { (void)module_clear((PyObject *)module); }

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "edgellm._sim",
    .m_doc = "Simulated time behind callables; only edgellm.sim.engine imports it.",
    .m_size = sizeof(sim_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__sim(void);
PyMODINIT_FUNC PyInit__sim(void) { return PyModuleDef_Init(&module_def); }
