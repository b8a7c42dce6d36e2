/* The module object: state, exceptions, and the call of each file's registration. */
#define EL_PY_IMPORTS_NUMPY
#include "py_edgellm.h"

el_pystate *el_py_state(PyObject *module) { return (el_pystate *)PyModule_GetState(module); }

PyObject *el_py_raise(el_pystate *st, el_status status, const el_error *err, const char *where)
{
    const char *text = err != NULL && err->text[0] != '\0' ? err->text : el_status_name(status);
    PyObject *type = st->error;
    switch (status) {
    case EL_ERR_NOMEM: type = PyExc_MemoryError; break;
    case EL_ERR_ARG: type = PyExc_ValueError; break;
    case EL_ERR_FORMAT:
    case EL_ERR_UNSUPPORTED: type = st->format_error; break;
    case EL_ERR_IO:
    case EL_ERR_SYSTEM: type = PyExc_OSError; break;
    case EL_ERR_CONTEXT: type = st->context_error; break;
    case EL_ERR_CANCELLED: type = PyExc_KeyboardInterrupt; break;
    case EL_OK: break;
    }
    PyErr_Format(type, "%s: %s", where, text);
    return NULL;
}

static int add_errors(PyObject *module, el_pystate *st)
{
    PyObject *bases = NULL;
    int rc = -1;

    st->error =
        PyErr_NewExceptionWithDoc("edgellm.EdgellmError", "Base of edgellm's own errors.", NULL, NULL);
    if (st->error == NULL) goto done;
    bases = PyTuple_Pack(2, st->error, PyExc_ValueError);
    if (bases == NULL) goto done;
    st->format_error = PyErr_NewExceptionWithDoc(
        "edgellm.FormatError", "A model file is malformed, or holds what this version cannot run.", bases,
        NULL);
    if (st->format_error == NULL) goto done;
    st->context_error = PyErr_NewExceptionWithDoc(
        "edgellm.ContextError", "More tokens than the context of a session holds.", bases, NULL);
    if (st->context_error == NULL) goto done;

    st->grammar_error = PyErr_NewExceptionWithDoc(
        "edgellm.GrammarError", "A grammar or schema that cannot be followed, or a token outside of it.",
        bases, NULL);
    if (st->grammar_error == NULL) goto done;

    if (PyModule_AddObjectRef(module, "EdgellmError", st->error) < 0) goto done;
    if (PyModule_AddObjectRef(module, "FormatError", st->format_error) < 0) goto done;
    if (PyModule_AddObjectRef(module, "ContextError", st->context_error) < 0) goto done;
    if (PyModule_AddObjectRef(module, "GrammarError", st->grammar_error) < 0) goto done;
    rc = 0;

done:
    Py_XDECREF(bases);
    return rc;
}

static int module_exec(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    if (PyArray_ImportNumPyAPI() < 0) return -1;
    if (add_errors(module, st) < 0) return -1;
    if (el_py_add_quant(module) < 0) return -1;
    if (el_py_add_gguf(module) < 0) return -1;
    if (el_py_add_tokenizer(module) < 0) return -1;
    if (el_py_add_grammar(module) < 0) return -1;
    if (el_py_add_edge(module) < 0) return -1;
    if (el_py_add_model(module) < 0) return -1;
    if (el_py_add_batch(module) < 0) return -1;
    if (el_py_add_sampler(module) < 0) return -1;
    if (el_py_add_lookup(module) < 0) return -1;
    if (el_py_add_cpu(module) < 0) return -1;
    if (el_py_add_ops(module) < 0) return -1;
    if (el_py_add_testing(module) < 0) return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    el_pystate *st = el_py_state(module);
    if (st == NULL) return 0;
    Py_VISIT(st->error);
    Py_VISIT(st->format_error);
    Py_VISIT(st->context_error);
    Py_VISIT(st->grammar_error);
    Py_VISIT(st->model_type);
    Py_VISIT(st->session_type);
    Py_VISIT(st->tokenizer_type);
    Py_VISIT(st->grammar_type);
    Py_VISIT(st->matcher_type);
    Py_VISIT(st->quant_type);
    Py_VISIT(st->edge_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    if (st == NULL) return 0;
    Py_CLEAR(st->error);
    Py_CLEAR(st->format_error);
    Py_CLEAR(st->context_error);
    Py_CLEAR(st->grammar_error);
    Py_CLEAR(st->model_type);
    Py_CLEAR(st->session_type);
    Py_CLEAR(st->tokenizer_type);
    Py_CLEAR(st->grammar_type);
    Py_CLEAR(st->matcher_type);
    Py_CLEAR(st->quant_type);
    Py_CLEAR(st->edge_type);
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
    .m_name = "edgellm._core",
    .m_doc = "The C engine; documented in the Python modules that front it.",
    .m_size = sizeof(el_pystate),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_def); }
