/* edgellm._core.Model: a packed model, its threads and its tokenizer. */
#include "py_edgellm.h"

#include <stddef.h>
#include <structmember.h>

#include "edgellm/cpu.h"
#include "edgellm/vocab.h"
#include "py_model.h"

bool el_py_model_enter(el_py_model *model, const char *where)
{
    Py_BEGIN_ALLOW_THREADS
        el_py_turns_enter(&model->turns);
    Py_END_ALLOW_THREADS
    if (model->model != NULL) return true;
    el_py_turns_leave(&model->turns);
    PyErr_Format(PyExc_ValueError, "%s: the model is closed", where);
    return false;
}

void el_py_model_leave(el_py_model *model) { el_py_turns_leave(&model->turns); }

/// Release memory and threads; it is our turn, or nobody else can have one.
static void release(el_py_model *self)
{
    self->model = NULL;
    el_pool_free(self->pool);
    self->pool = NULL;
    el_py_pages_free(self->pages, self->bytes);
    self->pages = NULL;
    if (self->image != NULL) el_py_edge_drop_weights(self->image);
}

/// What `load` was asked for.
typedef struct el_py_load {
    const char *path;   ///< of a GGUF; NULL with
    el_py_edge *image;  ///< an edge image
    size_t threads;
    size_t isa;
    size_t micro_batch;
    uint64_t max_bytes;  ///< 0 for no cap
} el_py_load;

static el_status check_cap(const el_plan *plan, uint64_t max_bytes, el_error *err)
{
    const uint64_t needed = el_plan_model_bytes(plan) + plan->image;
    if (max_bytes == 0 || needed <= max_bytes) return EL_OK;
    snprintf(err->text, sizeof err->text,
             "the model needs %llu bytes (weights %llu + scratch %llu + tables %llu), max_bytes is %llu",
             (unsigned long long)needed, (unsigned long long)(plan->weights + plan->image),
             (unsigned long long)plan->scratch, (unsigned long long)plan->tables,
             (unsigned long long)max_bytes);
    return EL_ERR_NOMEM;
}

/// Threads and memory for the plan.
static el_status take_memory(el_py_model *self, const el_py_load *want, el_error *err)
{
    el_status st = check_cap(&self->plan, want->max_bytes, err);
    if (st == EL_OK) st = el_pool_new(&self->pool, want->threads, err);
    if (st != EL_OK) return st;
    self->bytes = el_plan_model_bytes(&self->plan);
    self->pages = el_py_pages_new(self->bytes);
    if (self->pages != NULL) return EL_OK;
    snprintf(err->text, sizeof err->text, "no memory for the model's %llu bytes",
             (unsigned long long)self->bytes);
    return EL_ERR_NOMEM;
}

/// All of loading that needs no GIL. Fills `self`; on failure `release` cleans up.
static el_status load_file(el_py_model *self, const el_py_load *want, el_py_gguf *file, el_tokenizer **tok,
                           el_error *err)
{
    el_status st = el_py_gguf_open(file, want->path, err);
    if (st == EL_OK)
        st = el_model_plan(&self->plan, file->gguf, 1, EL_KV_F16, want->micro_batch, want->threads, err);
    if (st == EL_OK) st = take_memory(self, want, err);
    if (st != EL_OK) return st;
    const el_source source = el_py_gguf_source(file);
    st = el_model_load(&self->model, tok, file->gguf, &source, want->isa, want->micro_batch, self->pool,
                       self->pages, self->bytes, err);
    if (st == EL_OK) self->config = *el_model_config(self->model);
    return st;
}

/// The same for an edge image.
static el_status use_image(el_py_model *self, const el_py_load *want, el_error *err)
{
    const el_edge *edge = &want->image->edge;
    el_status st = el_edge_check_isa(edge, want->isa, err);
    if (st == EL_OK)
        st = el_edge_plan(&self->plan, edge, 1, EL_KV_F16, want->micro_batch, want->threads, err);
    if (st == EL_OK) st = take_memory(self, want, err);
    if (st != EL_OK) return st;
    st = el_model_from_edge(&self->model, edge, want->isa, want->micro_batch, self->pool, self->pages,
                            self->bytes, err);
    if (st == EL_OK) self->config = edge->config;
    return st;
}

static int set_string(PyObject *dict, const char *name, const el_gguf *gguf, const char *key)
{
    el_view view;
    if (el_gguf_find(gguf, key) == NULL || el_gguf_get_string(gguf, key, &view, NULL) != EL_OK) {
        return PyDict_SetItemString(dict, name, Py_None);
    }
    PyObject *text = PyUnicode_DecodeUTF8(view.data, (Py_ssize_t)view.size, "replace");
    if (text == NULL) return -1;
    const int rc = PyDict_SetItemString(dict, name, text);
    Py_DECREF(text);
    return rc;
}

/// {type name: bytes} over the file's tensors.
static PyObject *bytes_by_type(const el_gguf *gguf)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < gguf->n_tensors; i++) {
        const char *type = el_type_get(gguf->tensors[i].type)->name;
        PyObject *old = PyDict_GetItemString(dict, type);  // borrowed
        const unsigned long long before = old != NULL ? PyLong_AsUnsignedLongLong(old) : 0;
        PyObject *sum = PyLong_FromUnsignedLongLong(before + gguf->tensors[i].bytes);
        if (sum == NULL || PyDict_SetItemString(dict, type, sum) < 0) Py_CLEAR(dict);
        Py_XDECREF(sum);
    }
    return dict;
}

static PyObject *file_info(const el_py_gguf *file)
{
    PyObject *info = PyDict_New();
    PyObject *types = bytes_by_type(file->gguf);
    PyObject *size = PyLong_FromUnsignedLongLong(file->bytes);
    const bool bad = info == NULL || types == NULL || size == NULL ||
                     PyDict_SetItemString(info, "types", types) < 0 ||
                     PyDict_SetItemString(info, "file_bytes", size) < 0 ||
                     set_string(info, "name", file->gguf, "general.name") < 0 ||
                     set_string(info, "licence", file->gguf, "general.license") < 0 ||
                     set_string(info, "chat_template", file->gguf, "tokenizer.chat_template") < 0;
    Py_XDECREF(types);
    Py_XDECREF(size);
    if (bad) Py_CLEAR(info);
    return info;
}

/// What the file says of itself, and its tokenizer; 0, or -1 with an exception. Takes `tok` over.
static int set_facts(el_py_model *self, el_pystate *st, const el_py_gguf *file, el_tokenizer *tok)
{
    const el_py_edge *image = self->image;
    self->info = image != NULL ? el_py_edge_info(image) : file_info(file);
    if (self->info == NULL) {
        el_tokenizer_free(tok);
        return -1;
    }
    self->tokenizer = image != NULL ? el_py_tokenizer_view(st, &image->edge, (PyObject *)self->image)
                                    : el_py_tokenizer_wrap(st, tok);
    return self->tokenizer != NULL ? 0 : -1;
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"source", "threads", "isa", "micro_batch", "max_bytes", "exact", NULL};
    el_pystate *st = el_py_state(PyType_GetModule(type));
    el_py_model *self = NULL;
    el_py_gguf file = {.fd = -1};
    el_tokenizer *tok = NULL;
    PyObject *source = NULL, *path = NULL;
    Py_ssize_t threads = 0, micro_batch = 0;
    unsigned long long max_bytes = 0;
    int exact = 1;
    const char *isa = NULL;
    el_error err = {{0}};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnznK|p:Model", names, &source, &threads, &isa,
                                     &micro_batch, &max_bytes, &exact)) {
        return NULL;
    }
    el_py_edge *image = el_py_edge_of(st, source);
    if (image == NULL && !PyUnicode_FSConverter(source, &path)) return NULL;
    el_py_load want = {path != NULL ? PyBytes_AsString(path) : NULL,
                       image,
                       threads < 0 ? 0 : (size_t)threads,
                       el_isa_best(el_cpu_features()),
                       micro_batch < 0 ? 0 : (size_t)micro_batch,
                       max_bytes};
    el_status status = isa != NULL ? el_isa_find(isa, el_cpu_features(), &want.isa, &err) : EL_OK;
    if (status != EL_OK) goto fail;
    if (image != NULL && image->used) {
        PyErr_SetString(PyExc_ValueError, "load: the image is another model's");
        goto done;
    }

    self = (el_py_model *)PyType_GenericAlloc(type, 0);
    if (self == NULL) goto done;
    (void)el_py_turns_init(&self->turns);
    self->isa = want.isa;
    self->micro_batch = want.micro_batch;
    if (image != NULL) {
        self->image = (el_py_edge *)Py_NewRef((PyObject *)image);
        image->used = true;
    }

    Py_BEGIN_ALLOW_THREADS
        status = !self->turns.ready ? EL_ERR_SYSTEM
                 : image != NULL    ? use_image(self, &want, &err)
                                    : load_file(self, &want, &file, &tok, &err);
    Py_END_ALLOW_THREADS
    if (status != EL_OK) goto fail;
    if (!exact) el_model_allow_inexact(self->model, self->isa);
    if (set_facts(self, st, &file, tok) < 0) Py_CLEAR(self);
    goto done;

fail:
    (void)el_py_raise(st, status, &err, "load");
    Py_CLEAR(self);
done:
    el_py_gguf_close(&file);
    Py_XDECREF(path);
    return (PyObject *)self;
}

static int model_traverse(PyObject *op, visitproc visit, void *arg)
{
    el_py_model *self = (el_py_model *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->tokenizer);
    Py_VISIT(self->info);
    return 0;
}

static void model_dealloc(PyObject *op)
{
    el_py_model *self = (el_py_model *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    release(self);
    Py_XDECREF((PyObject *)self->image);
    el_py_turns_destroy(&self->turns);
    Py_CLEAR(self->tokenizer);
    Py_CLEAR(self->info);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(op);
    Py_DECREF(type);
}

static PyObject *model_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    el_py_model *self = (el_py_model *)op;
    Py_BEGIN_ALLOW_THREADS
        el_py_turns_enter(&self->turns);
        release(self);
        el_py_turns_leave(&self->turns);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *model_plan(PyObject *op, PyObject *args)
{
    el_py_model *self = (el_py_model *)op;
    el_pystate *st = el_py_state(PyType_GetModule(Py_TYPE(op)));
    Py_ssize_t context = 0;
    int kv = 0;
    if (!PyArg_ParseTuple(args, "ni:plan", &context, &kv)) return NULL;

    el_plan plan = self->plan;
    el_error err = {{0}};
    const el_status status = el_session_plan(&plan, &self->config, context < 0 ? 0 : (size_t)context,
                                             (el_kv_type)kv, self->micro_batch, &err);
    if (status != EL_OK) return el_py_raise(st, status, &err, "plan");
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "image", (unsigned long long)plan.image, "weights",
                         (unsigned long long)plan.weights, "scratch", (unsigned long long)plan.scratch,
                         "tables", (unsigned long long)plan.tables, "kv", (unsigned long long)plan.kv,
                         "session", (unsigned long long)plan.session);
}

/// Put a new value into a dict; false with an exception.
static bool set_value(PyObject *dict, const char *name, PyObject *value)
{
    const bool fine = value != NULL && PyDict_SetItemString(dict, name, value) == 0;
    Py_XDECREF(value);
    return fine;
}

static PyObject *model_get_config(PyObject *op, void *Py_UNUSED(closure))
{
    const el_config *c = &((el_py_model *)op)->config;
    const struct {
        const char *name;
        uint32_t value;
    } extents[] = {
        {"layers", c->layers},        {"width", c->width},
        {"heads", c->heads},          {"kv_heads", c->kv_heads},
        {"head_dim", c->head_values}, {"ffn", c->ffn},
        {"vocab", c->vocab},          {"context", c->context},
        {"rope_dims", c->rope_dims},  {"rope_original", c->rope_original},
        {"window", c->window},        {"window_pattern", c->window_pattern},
    };
    const struct {
        const char *name;
        float value;
    } numbers[] = {
        {"rope_base", c->rope_base},     {"rope_local_base", c->rope_local_base},
        {"rope_scale", c->rope_scale},   {"rope_magnitude", c->rope_magnitude},
        {"norm_eps", c->norm_eps},       {"attention_scale", c->attention_scale},
        {"embed_scale", c->embed_scale},
    };
    PyObject *dict =
        Py_BuildValue("{s:s,s:O}", "architecture", c->architecture, "tied", c->tied ? Py_True : Py_False);
    for (size_t i = 0; i < sizeof extents / sizeof *extents && dict != NULL; i++) {
        if (!set_value(dict, extents[i].name, PyLong_FromUnsignedLong(extents[i].value))) Py_CLEAR(dict);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && dict != NULL; i++) {
        if (!set_value(dict, numbers[i].name, PyFloat_FromDouble((double)numbers[i].value))) Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *model_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((el_py_model *)op)->model == NULL);
}

static PyObject *model_get_isa(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(el_isa_name(((el_py_model *)op)->isa));
}

static PyObject *model_get_live_bytes(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((el_py_model *)op)->live_bytes);
}

static PyMethodDef model_methods[] = {
    {"close", model_close, METH_NOARGS, "Give back memory and threads."},
    {"plan", model_plan, METH_VARARGS, "Bytes by part for one session of so many positions."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef model_members[] = {
    {"tokenizer", T_OBJECT_EX, offsetof(el_py_model, tokenizer), READONLY, "The file's tokenizer."},
    {"info", T_OBJECT_EX, offsetof(el_py_model, info), READONLY, "What the file says of itself."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef model_getset[] = {
    {"config", model_get_config, NULL, "Shape, as a dict.", NULL},
    {"closed", model_get_closed, NULL, "Whether close() was called.", NULL},
    {"isa", model_get_isa, NULL, "Best instruction set that is used.", NULL},
    {"live_bytes", model_get_live_bytes, NULL, "Of the sessions that are alive.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot model_slots[] = {
    {Py_tp_doc, "A model in memory; edgellm.Model is its front door."},
    {Py_tp_new, model_new},
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_traverse, model_traverse},
    {Py_tp_methods, model_methods},
    {Py_tp_members, model_members},
    {Py_tp_getset, model_getset},
    {0, NULL},
};

static PyType_Spec model_spec = {
    .name = "edgellm._core.Model",
    .basicsize = sizeof(el_py_model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};

int el_py_add_model(PyObject *module)
{
    el_pystate *st = el_py_state(module);
    st->model_type = PyType_FromModuleAndSpec(module, &model_spec, NULL);
    if (st->model_type == NULL || PyModule_AddType(module, (PyTypeObject *)st->model_type) < 0) return -1;
    if (PyModule_AddIntConstant(module, "NUMERICS", EL_NUMERICS) < 0) return -1;
    return el_py_add_session(module) < 0 ? -1 : el_py_add_state(module);
}
