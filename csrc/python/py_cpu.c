/* What this machine can run. edgellm/cpu.py has the documentation. */
#include "py_edgellm.h"

#include "edgellm/cpu.h"

static int append_text(PyObject *list, const char *text)
{
    PyObject *item = PyUnicode_FromString(text);
    const int rc = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return rc;
}

static PyObject *cpu_features(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const uint64_t cpu = el_cpu_features();
    PyObject *out = PyList_New(0);
    uint64_t bit = 0;
    const char *name;
    for (size_t i = 0; out != NULL && (name = el_cpu_feature_name(i, &bit)) != NULL; i++) {
        if ((cpu & bit) != 0 && append_text(out, name) < 0) Py_CLEAR(out);
    }
    return out;
}

static PyObject *cpu_isas(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const uint64_t cpu = el_cpu_features();
    PyObject *out = PyList_New(0);
    const char *name;
    for (size_t i = 0; out != NULL && (name = el_isa_name(i)) != NULL; i++) {
        size_t index;
        if (el_isa_find(name, cpu, &index, NULL) == EL_OK && append_text(out, name) < 0) Py_CLEAR(out);
    }
    return out;
}

static PyObject *cpu_kernels(PyObject *module, PyObject *args)
{
    const char *isa = NULL;
    Py_ssize_t rows;
    int exact;
    if (!PyArg_ParseTuple(args, "znp:kernels", &isa, &rows, &exact)) return NULL;
    if (rows < 1) return PyErr_Format(PyExc_ValueError, "kernels: rows must be positive, got %zd", rows);

    const uint64_t cpu = el_cpu_features();
    size_t index = el_isa_best(cpu);
    el_error err = {""};
    const el_status status = isa == NULL ? EL_OK : el_isa_find(isa, cpu, &index, &err);
    if (status != EL_OK) return el_py_raise(el_py_state(module), status, &err, "kernels");
    if (!exact) index = el_isa_inexact(index);

    PyObject *out = PyDict_New();
    const char *op;
    for (size_t i = 0; out != NULL && (op = el_op_name(i)) != NULL; i++) {
        // A key made by PyDict_SetItemString is interned; `load` asks so often that their table would grow.
        PyObject *key = PyUnicode_FromString(op);
        PyObject *chosen = PyUnicode_FromString(el_op_isa(op, index, cpu, (size_t)rows));
        if (key == NULL || chosen == NULL || PyDict_SetItem(out, key, chosen) < 0) Py_CLEAR(out);
        Py_XDECREF(key);
        Py_XDECREF(chosen);
    }
    return out;
}

static PyObject *cpu_count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromSize_t(el_cpu_count());
}

static PyMethodDef methods[] = {
    {"cpu_features", cpu_features, METH_NOARGS, "Features of this machine; see edgellm.cpu."},
    {"cpu_isas", cpu_isas, METH_NOARGS, "Instruction sets that this machine can run; see edgellm.cpu."},
    {"cpu_kernels", cpu_kernels, METH_VARARGS, "ISA chosen for each operation; see edgellm.cpu."},
    {"cpu_count", cpu_count, METH_NOARGS, "CPUs that this process may use; see edgellm.cpu."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_cpu(PyObject *module) { return PyModule_AddFunctions(module, methods); }
