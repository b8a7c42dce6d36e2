/* edgellm.Tokenizer: text to ids and back. */
#include "py_edgellm.h"

#include <stddef.h>
#include <string.h>

#include "edgellm/edge.h"
#include "edgellm/grammar.h"
#include "edgellm/tokenizer.h"

enum { GIL_BYTES = 1024 };  // shorter texts are encoded faster than the GIL changes hands

typedef struct py_tokenizer {
    PyObject_HEAD
    const el_tokenizer *tok;
    el_tokenizer *owned;         // the same, to be freed; or NULL, with
    PyObject *image;             // what holds the tables, and
    el_tokenizer_place place;    // the tokenizer itself
    el_token_trie *trie;         // its tokens as a tree, once a grammar has asked for it
} py_tokenizer;

static el_tokenizer_info info_of(PyObject *self)
{
    el_tokenizer_info info;
    el_tokenizer_get_info(((py_tokenizer *)self)->tok, &info);
    return info;
}

static el_pystate *state_of(PyObject *self) { return (el_pystate *)PyType_GetModuleState(Py_TYPE(self)); }

int el_py_ids(PyObject *obj, const char *name, size_t limit, int32_t **ids, size_t *n_ids)
{
    PyObject *items = NULL;
    int32_t *copy = NULL;
    int rc = -1;
    *ids = NULL;
    *n_ids = 0;

    if (PyUnicode_Check(obj) || PyBytes_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be a sequence of token ids, not text", name);
        goto done;
    }
    items = PySequence_Tuple(obj);
    if (items == NULL) goto done;
    const Py_ssize_t n = PyTuple_Size(items);
    copy = PyMem_Malloc((size_t)(n > 0 ? n : 1) * sizeof *copy);
    if (copy == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *number = PyNumber_Index(PyTuple_GetItem(items, i));
        if (number == NULL) goto done;
        int overflow = 0;
        const long long id = PyLong_AsLongLongAndOverflow(number, &overflow);
        const int bad = overflow != 0 || id < 0 || (unsigned long long)id >= limit || id > INT32_MAX;
        if (bad) {
            PyErr_Format(PyExc_ValueError, "%s[%zd] is %S, not in 0..%zd", name, i, number,
                         (Py_ssize_t)limit - 1);
        }
        Py_DECREF(number);
        if (bad) goto done;
        copy[i] = (int32_t)id;
    }
    *ids = copy;
    *n_ids = (size_t)n;
    copy = NULL;
    rc = 0;

done:
    PyMem_Free(copy);
    Py_XDECREF(items);
    return rc;
}

static py_tokenizer *tokenizer_alloc(el_pystate *st)
{
    PyTypeObject *type = (PyTypeObject *)st->tokenizer_type;
    return (py_tokenizer *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

PyObject *el_py_tokenizer_wrap(el_pystate *st, el_tokenizer *tok)
{
    py_tokenizer *self = tokenizer_alloc(st);
    if (self == NULL) {
        el_tokenizer_free(tok);
        return NULL;
    }
    self->tok = self->owned = tok;
    return (PyObject *)self;
}

PyObject *el_py_tokenizer_view(el_pystate *st, const el_edge *edge, PyObject *owner)
{
    py_tokenizer *self = tokenizer_alloc(st);
    if (self == NULL) return NULL;
    el_error err = {{0}};
    const el_status status = el_edge_tokenizer(&self->tok, edge, &self->place, &err);
    if (status != EL_OK) {
        Py_DECREF((PyObject *)self);
        return el_py_raise(st, status, &err, "load");
    }
    self->image = Py_NewRef(owner);
    return (PyObject *)self;
}

const el_token_trie *el_py_tokenizer_trie(el_pystate *st, PyObject *tokenizer)
{
    py_tokenizer *self = (py_tokenizer *)tokenizer;
    if (self->trie != NULL) return self->trie;
    el_token_trie *made = NULL;
    el_error err = {{0}};
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        status = el_token_trie_new(&made, self->tok, &err);
    Py_END_ALLOW_THREADS
    if (status != EL_OK) {
        (void)el_py_raise(st, status, &err, "Grammar");
        return NULL;
    }
    if (self->trie == NULL) {
        self->trie = made;
    } else {
        el_token_trie_free(made);  // another thread was first
    }
    return self->trie;
}

static void tokenizer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    el_token_trie_free(((py_tokenizer *)self)->trie);
    el_tokenizer_free(((py_tokenizer *)self)->owned);
    Py_CLEAR(((py_tokenizer *)self)->image);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *list_of_ids(const int32_t *ids, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *id = PyLong_FromLong(ids[i]);
        if (id == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, (Py_ssize_t)i, id);
    }
    return list;
}

static PyObject *tokenizer_encode(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"text", "add_special", "parse_special", NULL};
    const el_tokenizer *tok = ((py_tokenizer *)self)->tok;
    PyObject *text;
    int add_special = 0, parse_special = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|pp:encode", names, &text, &add_special,
                                     &parse_special)) {
        return NULL;
    }
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);  // lives as long as the str, which `args` holds
    if (utf8 == NULL) return NULL;

    const unsigned flags =
        (add_special ? EL_ENCODE_ADD_SPECIAL : 0u) | (parse_special ? EL_ENCODE_PARSE_SPECIAL : 0u);
    int32_t *ids = NULL;
    size_t n = 0;
    el_error err = {0};
    el_status status;
    if (size < GIL_BYTES) {
        status = el_tokenizer_encode(tok, utf8, (size_t)size, flags, &ids, &n, &err);
    } else {
        Py_BEGIN_ALLOW_THREADS
            status = el_tokenizer_encode(tok, utf8, (size_t)size, flags, &ids, &n, &err);
        Py_END_ALLOW_THREADS
    }
    if (status != EL_OK) return el_py_raise(state_of(self), status, &err, "encode");

    PyObject *list = list_of_ids(ids, n);
    el_ids_free(ids);
    return list;
}

/* UTF-8 of all texts, one after the other, and where those are that may hold control tokens. */
static char *join_segments(PyObject *segments, size_t *n_bytes, el_stretch *control, size_t *n_control)
{
    const Py_ssize_t n = PyTuple_Size(segments);
    char *joined = NULL;
    *n_bytes = *n_control = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *text;
        int is_control;
        Py_ssize_t size;
        PyObject *segment = PyTuple_GetItem(segments, i);
        if (!PyTuple_Check(segment)) {
            PyErr_Format(PyExc_TypeError, "segments[%zd] must be a tuple of str and bool", i);
            goto fail;
        }
        if (!PyArg_ParseTuple(segment, "Up:encode_segments", &text, &is_control)) goto fail;
        const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
        if (utf8 == NULL) goto fail;
        char *grown = PyMem_Realloc(joined, *n_bytes + (size_t)size + 1);
        if (grown == NULL) {
            PyErr_NoMemory();
            goto fail;
        }
        joined = grown;
        memcpy(joined + *n_bytes, utf8, (size_t)size);
        if (is_control) control[(*n_control)++] = (el_stretch){*n_bytes, *n_bytes + (size_t)size};
        *n_bytes += (size_t)size;
    }
    return joined != NULL ? joined : PyMem_Malloc(1);

fail:
    PyMem_Free(joined);
    return NULL;
}

static PyObject *tokenizer_encode_segments(PyObject *self, PyObject *arg)
{
    const el_tokenizer *tok = ((py_tokenizer *)self)->tok;
    PyObject *list = NULL;
    el_stretch *control = NULL;
    char *joined = NULL;
    size_t n_bytes, n_control, n = 0;
    int32_t *ids = NULL;
    el_error err = {0};
    PyObject *segments = PySequence_Tuple(arg);
    if (segments == NULL) return NULL;

    control = PyMem_Malloc(((size_t)PyTuple_Size(segments) + 1) * sizeof *control);
    if (control == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    joined = join_segments(segments, &n_bytes, control, &n_control);
    if (joined == NULL) goto done;
    el_status status;
    Py_BEGIN_ALLOW_THREADS
        status = el_tokenizer_encode_trusted(tok, joined, n_bytes, control, n_control, &ids, &n, &err);
    Py_END_ALLOW_THREADS
    list =
        status == EL_OK ? list_of_ids(ids, n) : el_py_raise(state_of(self), status, &err, "encode_segments");

done:
    el_ids_free(ids);
    PyMem_Free(joined);
    PyMem_Free(control);
    Py_DECREF(segments);
    return list;
}

static PyObject *tokenizer_decode(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ids", "skip_special", "at_start", NULL};
    const el_tokenizer *tok = ((py_tokenizer *)self)->tok;
    PyObject *obj, *text = NULL;
    int skip_special = 0, at_start = 1;
    int32_t *ids = NULL;
    size_t n, total = 0, used = 0;
    char *bytes = NULL;
    el_view token;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|pp:decode", names, &obj, &skip_special, &at_start)) {
        return NULL;
    }
    if (el_py_ids(obj, "ids", info_of(self).n_tokens, &ids, &n) < 0) return NULL;

    for (size_t i = 0; i < n; i++) {
        if (el_tokenizer_token(tok, ids[i], &token, NULL) != EL_OK) token.size = 0;
        if (token.size > (size_t)PY_SSIZE_T_MAX - total) {
            PyErr_NoMemory();
            goto done;
        }
        total += token.size;
    }
    bytes = PyMem_Malloc(total > 0 ? total : 1);
    if (bytes == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    int strip = at_start && info_of(self).add_space_prefix;  // what encode has put in front
    for (size_t i = 0; i < n; i++) {
        const int32_t type = el_tokenizer_type(tok, ids[i]);
        if (skip_special && (type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN)) continue;
        if (el_tokenizer_token(tok, ids[i], &token, NULL) != EL_OK) continue;
        if (token.size == 0) continue;
        const size_t skip = strip && token.data[0] == ' ';
        strip = 0;
        memcpy(bytes + used, token.data + skip, token.size - skip);
        used += token.size - skip;
    }
    text = PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)used, "replace");

done:
    PyMem_Free(bytes);
    PyMem_Free(ids);
    return text;
}

/* An id that a caller passes by itself, or -1 with an exception that names it. */
static int32_t id_of(PyObject *self, PyObject *arg, const char *where)
{
    int overflow = 0;
    const long id = PyLong_AsLongAndOverflow(arg, &overflow);
    const size_t n = info_of(self).n_tokens;
    if (id == -1 && PyErr_Occurred()) return -1;
    if (overflow == 0 && id >= 0 && (unsigned long)id < n) return (int32_t)id;
    PyErr_Format(PyExc_ValueError, "%s: id %S is not in 0..%zu", where, arg, n - 1);
    return -1;
}

static PyObject *tokenizer_token_bytes(PyObject *self, PyObject *arg)
{
    const int32_t id = id_of(self, arg, "token_bytes");
    if (id < 0) return NULL;
    el_view token;
    el_error err = {0};
    const el_status status = el_tokenizer_token(((py_tokenizer *)self)->tok, id, &token, &err);
    if (status != EL_OK) return el_py_raise(state_of(self), status, &err, "token_bytes");
    return PyBytes_FromStringAndSize(token.data, (Py_ssize_t)token.size);
}

static PyObject *tokenizer_token_type(PyObject *self, PyObject *arg)
{
    const int32_t id = id_of(self, arg, "token_type");
    if (id < 0) return NULL;
    return PyLong_FromLong(el_tokenizer_type(((py_tokenizer *)self)->tok, id));
}

/* {text: id} of control and unknown tokens: what encode finds only with parse_special. */
static PyObject *get_special_tokens(PyObject *self, void *closure)
{
    (void)closure;
    const el_tokenizer *tok = ((py_tokenizer *)self)->tok;
    const size_t n = info_of(self).n_tokens;
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < n; i++) {
        const int32_t type = el_tokenizer_type(tok, (int32_t)i);
        el_view token;
        if (type != EL_TOKEN_CONTROL && type != EL_TOKEN_UNKNOWN) continue;
        if (el_tokenizer_token(tok, (int32_t)i, &token, NULL) != EL_OK || token.size == 0) continue;
        PyObject *text = PyUnicode_DecodeUTF8(token.data, (Py_ssize_t)token.size, "replace");
        PyObject *id = PyLong_FromSize_t(i);
        if (text == NULL || id == NULL || PyDict_SetItem(dict, text, id) < 0) Py_CLEAR(dict);
        Py_XDECREF(text);
        Py_XDECREF(id);
    }
    return dict;
}

static PyObject *get_end_ids(PyObject *self, void *closure)
{
    (void)closure;
    const size_t n = info_of(self).n_tokens;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < n; i++) {
        if (!el_tokenizer_is_end(((py_tokenizer *)self)->tok, (int32_t)i)) continue;
        PyObject *id = PyLong_FromSize_t(i);
        if (id == NULL || PyList_Append(list, id) < 0) Py_CLEAR(list);
        Py_XDECREF(id);
    }
    return list;
}

/* The id at offset `closure` of el_tokenizer_info. */
static PyObject *get_id(PyObject *self, void *closure)
{
    const el_tokenizer_info info = info_of(self);
    int32_t id;
    memcpy(&id, (const char *)&info + (uintptr_t)closure, sizeof id);
    if (id < 0) Py_RETURN_NONE;
    return PyLong_FromLong(id);
}

static PyObject *get_vocab_size(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(info_of(self).n_tokens);
}

static PyObject *get_memory_bytes(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(info_of(self).memory_bytes);
}

static PyObject *get_add_bos(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(info_of(self).add_bos);
}

static PyObject *get_add_eos(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(info_of(self).add_eos);
}

static PyObject *get_add_space_prefix(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(info_of(self).add_space_prefix);
}

static PyMethodDef tokenizer_methods[] = {
    {"encode", (PyCFunction)(void (*)(void))tokenizer_encode, METH_VARARGS | METH_KEYWORDS,
     "encode(text, add_special=False, parse_special=False) -> list[int]"},
    {"encode_segments", tokenizer_encode_segments, METH_O,
     "encode_segments([(text, is_control), ...]) -> list[int] of one text; control tokens only where is_control"},
    {"decode", (PyCFunction)(void (*)(void))tokenizer_decode, METH_VARARGS | METH_KEYWORDS,
     "decode(ids, skip_special=False, at_start=True) -> str; bytes that are no UTF-8 become U+FFFD"},
    {"token_bytes", tokenizer_token_bytes, METH_O, "token_bytes(id) -> bytes that the token stands for"},
    {"token_type", tokenizer_token_type, METH_O, "token_type(id) -> int, as GGUF numbers them (3: control)"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tokenizer_getset[] = {
    {"vocab_size", get_vocab_size, NULL, "number of tokens", NULL},
    {"memory_bytes", get_memory_bytes, NULL, "heap bytes of the vocabulary", NULL},
    {"bos_id", get_id, NULL, "id that starts a text, or None", (void *)offsetof(el_tokenizer_info, bos)},
    {"eos_id", get_id, NULL, "id that ends a text, or None", (void *)offsetof(el_tokenizer_info, eos)},
    {"eot_id", get_id, NULL, "id that ends a turn, or None", (void *)offsetof(el_tokenizer_info, eot)},
    {"unk_id", get_id, NULL, "id of what is unknown, or None", (void *)offsetof(el_tokenizer_info, unk)},
    {"pad_id", get_id, NULL, "id of padding, or None", (void *)offsetof(el_tokenizer_info, pad)},
    {"add_bos", get_add_bos, NULL, "whether add_special puts bos_id first", NULL},
    {"add_eos", get_add_eos, NULL, "whether add_special puts eos_id last", NULL},
    {"add_space_prefix", get_add_space_prefix, NULL, "whether a text is encoded with a space in front", NULL},
    {"special_tokens", get_special_tokens, NULL, "{text: id} of control and unknown tokens", NULL},
    {"end_ids", get_end_ids, NULL, "ids at which generation ends", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tokenizer_slots[] = {
    {Py_tp_doc, "Tokenizer of a model file; see edgellm.tokenizer."},
    {Py_tp_new, el_py_tokenizer_new},
    {Py_tp_dealloc, tokenizer_dealloc},
    {Py_tp_methods, tokenizer_methods},
    {Py_tp_getset, tokenizer_getset},
    {0, NULL},
};

static PyType_Spec tokenizer_spec = {
    .name = "edgellm._core.Tokenizer",
    .basicsize = sizeof(py_tokenizer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tokenizer_slots,
};

int el_py_add_tokenizer(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    st->tokenizer_type = PyType_FromModuleAndSpec(module, &tokenizer_spec, NULL);
    if (st->tokenizer_type == NULL) return -1;
    return PyModule_AddObjectRef(module, "Tokenizer", st->tokenizer_type);
}
