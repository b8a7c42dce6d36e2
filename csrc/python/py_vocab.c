/* edgellm.Tokenizer(...): a tokenizer from Python lists, as a model file has them. */
#include "py_edgellm.h"

#include "edgellm/tokenizer.h"

/* Views of a sequence of str or bytes. `*items` keeps the texts alive; both are NULL on failure. */
static el_view *views_of(PyObject *obj, const char *name, PyObject **items, size_t *n)
{
    *items = PySequence_Tuple(obj);
    if (*items == NULL) return NULL;
    const Py_ssize_t count = PyTuple_Size(*items);
    el_view *views = PyMem_Malloc((size_t)(count > 0 ? count : 1) * sizeof *views);
    if (views == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(*items, i);
        Py_ssize_t size = 0;
        if (PyUnicode_Check(item)) {
            views[i].data = PyUnicode_AsUTF8AndSize(item, &size);
        } else if (PyBytes_Check(item)) {
            views[i].data = PyBytes_AsString(item);
            size = PyBytes_Size(item);
        } else {
            PyErr_Format(PyExc_TypeError, "%s[%zd] must be str or bytes", name, i);
            goto fail;
        }
        if (views[i].data == NULL) goto fail;
        views[i].size = (size_t)size;
    }
    *n = (size_t)count;
    return views;

fail:
    PyMem_Free(views);
    Py_CLEAR(*items);
    return NULL;
}

/* A list of ints, or None, as int32 types. 0, or -1 with an exception. */
static int types_of(PyObject *obj, size_t n_tokens, int32_t **types)
{
    size_t n = 0;
    *types = NULL;
    if (obj == Py_None) return 0;
    if (el_py_ids(obj, "token_types", 16, types, &n) < 0) return -1;
    if (n == n_tokens) return 0;
    PyErr_Format(PyExc_ValueError, "token_types has %zu entries for %zu tokens", n, n_tokens);
    PyMem_Free(*types);
    *types = NULL;
    return -1;
}

/* A list of numbers, or None, as float scores. 0, or -1 with an exception. */
static int scores_of(PyObject *obj, size_t n_tokens, float **scores)
{
    *scores = NULL;
    if (obj == Py_None) return 0;
    PyObject *items = PySequence_Tuple(obj);
    if (items == NULL) return -1;
    const size_t n = (size_t)PyTuple_Size(items);
    if (n != n_tokens) {
        PyErr_Format(PyExc_ValueError, "scores has %zu entries for %zu tokens", n, n_tokens);
        goto fail;
    }
    *scores = PyMem_Malloc((n > 0 ? n : 1) * sizeof **scores);
    if (*scores == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        const double score = PyFloat_AsDouble(PyTuple_GetItem(items, (Py_ssize_t)i));
        if (score == -1.0 && PyErr_Occurred()) goto fail;
        (*scores)[i] = (float)score;
    }
    Py_DECREF(items);
    return 0;

fail:
    PyMem_Free(*scores);
    *scores = NULL;
    Py_DECREF(items);
    return -1;
}

static char *names[] = {"tokens",
                        "token_types",
                        "merges",
                        "pre",
                        "bos",
                        "eos",
                        "unk",
                        "pad",
                        "add_bos",
                        "eot",
                        "add_eos",
                        "model",
                        "scores",
                        "add_space_prefix",
                        "strip_after_special",
                        "remove_extra_whitespaces",
                        "charsmap",
                        NULL};

PyObject *el_py_tokenizer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    el_pystate *st = (el_pystate *)PyType_GetModuleState(type);
    PyObject *tokens, *token_types, *merges, *score_list = Py_None;
    PyObject *token_items = NULL, *merge_items = NULL, *self = NULL;
    const char *pre, *model = "gpt2", *charsmap = NULL;
    Py_ssize_t pre_size, model_size = 4, charsmap_size = 0;
    int32_t *types = NULL;
    float *scores = NULL;
    el_view *token_views = NULL, *merge_views = NULL;
    el_vocab_source source = {.bos = -1, .eos = -1, .eot = -1, .unk = -1, .pad = -1, .add_space_prefix = -1};
    el_error err = {0};
    el_tokenizer *tok = NULL;

    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOs#|iiiipips#Oippy#:Tokenizer", names, &tokens, &token_types, &merges, &pre,
            &pre_size, &source.bos, &source.eos, &source.unk, &source.pad, &source.add_bos, &source.eot,
            &source.add_eos, &model, &model_size, &score_list, &source.add_space_prefix,
            &source.strip_after_special, &source.remove_extra_whitespaces, &charsmap, &charsmap_size)) {
        return NULL;
    }
    token_views = views_of(tokens, "tokens", &token_items, &source.n_tokens);
    if (token_views == NULL) goto done;
    merge_views = views_of(merges, "merges", &merge_items, &source.n_merges);
    if (merge_views == NULL) goto done;
    if (types_of(token_types, source.n_tokens, &types) < 0) goto done;
    if (scores_of(score_list, source.n_tokens, &scores) < 0) goto done;
    source.scores = scores;
    source.tokens = token_views;
    source.merges = merge_views;
    source.types = types;
    source.charsmap = (el_view){charsmap, (size_t)charsmap_size};
    source.pre = (el_view){pre, (size_t)pre_size};
    source.model = (el_view){model, (size_t)model_size};

    const el_status status = el_tokenizer_new(&tok, &source, &err);
    self = status == EL_OK ? el_py_tokenizer_wrap(st, tok) : el_py_raise(st, status, &err, "Tokenizer");

done:
    PyMem_Free(types);
    PyMem_Free(scores);
    PyMem_Free(token_views);
    PyMem_Free(merge_views);
    Py_XDECREF(token_items);
    Py_XDECREF(merge_items);
    return self;
}
