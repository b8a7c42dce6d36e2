/* What the files of the binding share. Only this folder includes Python.h. */
#ifndef EL_PY_EDGELLM_H
#define EL_PY_EDGELLM_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdio.h>  // Python.h does not include it for the stable ABI, and NumPy needs FILE

#include "edgellm/status.h"

/* NumPy's function table lives in py_module.c; every other file declares it. */
#define PY_ARRAY_UNIQUE_SYMBOL edgellm_numpy
#ifndef EL_PY_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

/// State of one `edgellm._core` module object: owned references only.
typedef struct el_pystate {
    PyObject *error;          ///< edgellm.EdgellmError, base of the next ones
    PyObject *format_error;   ///< edgellm.FormatError (also a ValueError)
    PyObject *context_error;  ///< edgellm.ContextError (also a ValueError)
    PyObject *grammar_error;  ///< edgellm.GrammarError (also a ValueError)
    PyObject *model_type;
    PyObject *session_type;
    PyObject *tokenizer_type;
    PyObject *grammar_type;
    PyObject *matcher_type;
    PyObject *quant_type;
    PyObject *edge_type;
} el_pystate;

el_pystate *el_py_state(PyObject *module);

/// Turn a status into a Python exception "<where>: <err->text>"; always returns NULL.
PyObject *el_py_raise(el_pystate *st, el_status status, const el_error *err, const char *where);

struct el_tokenizer;
struct el_edge;

/// A Python Tokenizer that owns `tok` from now on, also on failure (then NULL, with an exception set).
PyObject *el_py_tokenizer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *el_py_tokenizer_wrap(el_pystate *st, struct el_tokenizer *tok);

struct el_token_trie;

/// The tree of a Tokenizer's tokens, made when first asked for and kept by it; NULL with an exception set.
const struct el_token_trie *el_py_tokenizer_trie(el_pystate *st, PyObject *tokenizer);

/// A Python Tokenizer that uses the tables of an image in place; it keeps `owner`, which has the image.
PyObject *el_py_tokenizer_view(el_pystate *st, const struct el_edge *edge, PyObject *owner);

/// Copy a sequence of ints into `*ids` (PyMem_Free it), each checked to lie in 0..limit-1.
/// 0, or -1 with a TypeError or ValueError that names `name`.
int el_py_ids(PyObject *obj, const char *name, size_t limit, int32_t **ids, size_t *n_ids);

/* Each file registers its types and functions on the module; 0 or -1 with an exception set. */
int el_py_add_quant(PyObject *module);
int el_py_add_gguf(PyObject *module);
int el_py_add_tokenizer(PyObject *module);
int el_py_add_grammar(PyObject *module);
int el_py_add_model(PyObject *module);
int el_py_add_batch(PyObject *module);
int el_py_add_edge(PyObject *module);
int el_py_add_edge_writer(PyObject *module);
int el_py_add_sampler(PyObject *module);
int el_py_add_lookup(PyObject *module);
int el_py_add_cpu(PyObject *module);
int el_py_add_ops(PyObject *module);
int el_py_add_testing(PyObject *module);

#endif
