/* edgellm._core.EdgeImage: an image in memory, its structure checked, its bytes readable for hashing. */
#include "py_edgellm.h"

#include <string.h>

#include "edgellm/quant.h"
#include "py_edge.h"

el_py_edge *el_py_edge_of(el_pystate *st, PyObject *obj)
{
    return Py_IS_TYPE(obj, (PyTypeObject *)st->edge_type) ? (el_py_edge *)obj : NULL;
}

void el_py_edge_drop_weights(el_py_edge *image)
{
    if (image->pages == NULL || atomic_load(&image->views) != 0) return;
    const uint64_t kept = image->edge.sections[EL_EDGE_WEIGHTS].offset;  // a multiple of 4096
    if (kept % el_py_page_bytes() != 0 || image->bytes <= kept) return;
    el_py_pages_free((uint8_t *)image->pages + kept, image->bytes - kept);
    image->bytes = kept;
}

static PyObject *edge_open(PyObject *module, PyObject *args)
{
    el_pystate *st = el_py_state(module);
    PyObject *path = NULL;
    int resident = 0;
    if (!PyArg_ParseTuple(args, "O&p:edge_open", PyUnicode_FSConverter, &path, &resident)) return NULL;

    PyTypeObject *type = (PyTypeObject *)st->edge_type;
    el_py_edge *self = (el_py_edge *)PyType_GenericAlloc(type, 0);
    el_error err = {{0}};
    el_status status = EL_OK;
    bool found = false;
    if (self == NULL) goto done;
    self->resident = resident != 0;
    Py_BEGIN_ALLOW_THREADS
        status = el_py_image_open(&self->pages, &self->bytes, &found, PyBytes_AsString(path), self->resident,
                                  &err);
        if (status == EL_OK && found) status = el_edge_parse(&self->edge, self->pages, self->bytes, &err);
    Py_END_ALLOW_THREADS
    if (status != EL_OK) {
        (void)el_py_raise(st, status, &err, "load");
        Py_CLEAR(self);
    } else if (!found) {
        Py_DECREF((PyObject *)self);
        Py_DECREF(path);
        Py_RETURN_NONE;
    }
done:
    Py_DECREF(path);
    return (PyObject *)self;
}

static void edge_dealloc(PyObject *op)
{
    el_py_edge *self = (el_py_edge *)op;
    PyTypeObject *type = Py_TYPE(op);
    el_py_pages_free(self->pages, self->bytes);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(op);
    Py_DECREF(type);
}

static int edge_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    el_py_edge *self = (el_py_edge *)op;
    const int rc = PyBuffer_FillInfo(view, op, self->pages, (Py_ssize_t)self->bytes, 1, flags);
    if (rc == 0) atomic_fetch_add(&self->views, 1);
    return rc;
}

static void edge_releasebuffer(PyObject *op, Py_buffer *view)
{
    (void)view;
    atomic_fetch_sub(&((el_py_edge *)op)->views, 1);
}

static PyObject *hash_of(const uint8_t *sha256)
{
    return PyBytes_FromStringAndSize((const char *)sha256, EL_EDGE_HASH_BYTES);
}

/// Append an item whose reference is taken over; false with an exception.
static bool append(PyObject *list, PyObject *item)
{
    const bool fine = item != NULL && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    return fine;
}

static PyObject *get_sections(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge *edge = &((el_py_edge *)op)->edge;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < EL_EDGE_SECTIONS; i++) {
        const el_edge_section *s = &edge->sections[i];
        if (!append(list, Py_BuildValue("(KKN)", (unsigned long long)s->offset, (unsigned long long)s->bytes,
                                        hash_of(s->sha256))))
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *get_tensors(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge *edge = &((el_py_edge *)op)->edge;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < edge->n_tensors; i++) {
        el_edge_tensor t;
        (void)el_edge_tensor_get(edge, i, &t, NULL);
        if (!append(list, Py_BuildValue("(s#sIIKKN)", t.name.data, (Py_ssize_t)t.name.size,
                                        el_type_get(t.type)->name, t.n, t.k, (unsigned long long)t.offset,
                                        (unsigned long long)t.bytes, hash_of(t.sha256))))
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *get_signature(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge *edge = &((el_py_edge *)op)->edge;
    if (!edge->is_signed) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)edge->signature, EL_EDGE_SIGNATURE_BYTES);
}

static PyObject *get_manifest(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge *edge = &((el_py_edge *)op)->edge;
    return PyBytes_FromStringAndSize((const char *)edge->image, (Py_ssize_t)edge->manifest_bytes);
}

static PyObject *get_facts(PyObject *op, void *Py_UNUSED(closure))
{
    const el_edge *e = &((el_py_edge *)op)->edge;
    const el_edge_figures *f = &e->figures;
    return Py_BuildValue("{s:s,s:I,s:I,s:O,s:{s:K,s:K,s:K,s:K,s:K,s:K,s:I}}", "machine",
                         el_machine_name(e->machine), "version", e->version, "numerics", e->numerics,
                         "signed", e->is_signed ? Py_True : Py_False, "plan", "weights",
                         (unsigned long long)f->weights, "scratch", (unsigned long long)f->scratch, "tables",
                         (unsigned long long)f->tables, "session", (unsigned long long)f->session,
                         "kv_f16_per_position", (unsigned long long)f->kv_f16, "kv_f32_per_position",
                         (unsigned long long)f->kv_f32, "micro_batch", f->micro_batch);
}

static bool set_text(PyObject *info, const char *name, el_view text)
{
    PyObject *value = Py_NewRef(Py_None);
    if (text.size > 0) {
        Py_DECREF(value);
        value = PyUnicode_DecodeUTF8(text.data, (Py_ssize_t)text.size, "replace");
    }
    const bool fine = value != NULL && PyDict_SetItemString(info, name, value) == 0;
    Py_XDECREF(value);
    return fine;
}

static bool set_item(PyObject *info, const char *name, PyObject *value)
{
    const bool fine = value != NULL && PyDict_SetItemString(info, name, value) == 0;
    Py_XDECREF(value);
    return fine;
}

/// {type name: bytes} over the image's tensors.
static PyObject *bytes_by_type(const el_edge *edge)
{
    uint64_t sums[64] = {0};
    PyObject *types = PyDict_New();
    for (size_t i = 0; i < edge->n_tensors; i++) {
        el_edge_tensor t;
        (void)el_edge_tensor_get(edge, i, &t, NULL);
        if (t.type < sizeof sums / sizeof *sums) sums[t.type] += t.bytes;
    }
    for (uint32_t type = 0; types != NULL && type < sizeof sums / sizeof *sums; type++) {
        if (sums[type] == 0) continue;
        if (!set_item(types, el_type_get(type)->name, PyLong_FromUnsignedLongLong(sums[type])))
            Py_CLEAR(types);
    }
    return types;
}

PyObject *el_py_edge_info(const el_py_edge *image)
{
    const el_edge *e = &image->edge;
    PyObject *info = PyDict_New();
    if (info != NULL && set_item(info, "types", bytes_by_type(e)) &&
        set_item(info, "file_bytes", PyLong_FromUnsignedLongLong(e->bytes)) &&
        set_text(info, "name", e->name) && set_text(info, "licence", e->licence) &&
        set_text(info, "chat_template", e->chat_template) &&
        set_text(info, "requantized_from", e->requantized_from) &&
        set_item(info, "image", get_facts((PyObject *)(uintptr_t)image, NULL)))
        return info;
    Py_XDECREF(info);
    return NULL;
}

static PyObject *get_info(PyObject *op, void *Py_UNUSED(closure))
{
    return el_py_edge_info((el_py_edge *)op);
}

static PyGetSetDef edge_getset[] = {
    {"sections", get_sections, NULL, "[(offset, bytes, SHA-256)]; the weights' is of their tensors' hashes.",
     NULL},
    {"tensors", get_tensors, NULL, "[(name, type, n, k, offset, bytes, SHA-256)]", NULL},
    {"signature", get_signature, NULL, "64 bytes, or None.", NULL},
    {"manifest", get_manifest, NULL, "The bytes that are signed.", NULL},
    {"facts", get_facts, NULL, "Machine, version, numerics, signed, plan.", NULL},
    {"info", get_info, NULL, "What a Model's info will be.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot edge_slots[] = {
    {Py_tp_doc, "An edge image in memory; its buffer is the file's bytes."},
    {Py_tp_dealloc, edge_dealloc},
    {Py_tp_getset, edge_getset},
    {Py_bf_getbuffer, edge_getbuffer},
    {Py_bf_releasebuffer, edge_releasebuffer},
    {0, NULL},
};

static PyType_Spec edge_spec = {
    .name = "edgellm._core.EdgeImage",
    .basicsize = sizeof(el_py_edge),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = edge_slots,
};

static PyMethodDef functions[] = {
    {"edge_open", edge_open, METH_VARARGS,
     "edge_open(path, resident): the EdgeImage of a file, or None if it starts as no image does."},
    {NULL, NULL, 0, NULL},
};

int el_py_add_edge(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    st->edge_type = PyType_FromModuleAndSpec(module, &edge_spec, NULL);
    if (st->edge_type == NULL || PyModule_AddType(module, (PyTypeObject *)st->edge_type) < 0) return -1;
    if (PyModule_AddFunctions(module, functions) < 0) return -1;
    return el_py_add_edge_writer(module);
}
