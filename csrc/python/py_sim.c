/* `edgellm._sim`: SimGrid for the testbed. Wakes Python callables, in simulated order. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "simgrid/el_simgrid.h"

/* Ctrl-C is looked for once in so many wakes. */
#define EL_SIM_SIGNAL_INTERVAL 1000

typedef struct {
    PyObject *engine_type;
} sim_state;

typedef struct {
    PyObject_HEAD
    el_sim *world;
    unsigned wakes;
} engine_object;

/* ---- callbacks of the shim: a tag is a strong reference to a callable -------------------------------- */

static int wake_callable(void *user, void *tag)
{
    engine_object *self = user;
    PyObject *callable = tag;
    PyObject *result = PyObject_CallNoArgs(callable);

    Py_DECREF(callable);
    if (result == NULL) return -1;  // the exception waits in the thread state until run() returns
    Py_DECREF(result);
    if (++self->wakes % EL_SIM_SIGNAL_INTERVAL == 0 && PyErr_CheckSignals() < 0) return -1;
    return 0;
}

static void drop_callable(void *user, void *tag)
{
    PyObject *type, *value, *traceback;

    (void)user;
    PyErr_Fetch(&type, &value, &traceback);  // letting go may run Python, which must not see an exception
    Py_DECREF((PyObject *)tag);
    PyErr_Restore(type, value, traceback);
}

static PyObject *raise_status(engine_object *self, el_sim_status status)
{
    PyObject *type = status == EL_SIM_NOMEM ? PyExc_MemoryError
                     : status == EL_SIM_ARG ? PyExc_ValueError
                                            : PyExc_RuntimeError;
    PyErr_SetString(type, el_sim_error(self->world));
    return NULL;
}

/* ---- Engine ------------------------------------------------------------------------------------------- */

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Engine", names)) return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    engine_object *self = (engine_object *)alloc(type, 0);
    if (self == NULL) return NULL;
    self->world = NULL;
    self->wakes = 0;
    el_sim_status status = el_sim_new(self, wake_callable, drop_callable, &self->world);
    if (status == EL_SIM_OK) return (PyObject *)self;
    Py_DECREF(self);
    if (status == EL_SIM_NOMEM) return PyErr_NoMemory();
    PyErr_SetString(PyExc_RuntimeError,
                    status == EL_SIM_STATE
                        ? "SimGrid runs one simulation per process, and this one has had its own"
                        : "SimGrid could not start");
    return NULL;
}

static void engine_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    el_sim_free(((engine_object *)op)->world);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(op);
    Py_DECREF(type);
}

static PyObject *engine_host(PyObject *op, PyObject *unused)
{
    engine_object *self = (engine_object *)op;
    uint32_t id = 0;
    (void)unused;
    el_sim_status status = el_sim_host(self->world, &id);
    return status == EL_SIM_OK ? PyLong_FromUnsignedLong(id) : raise_status(self, status);
}

static PyObject *engine_link(PyObject *op, PyObject *args)
{
    engine_object *self = (engine_object *)op;
    double latency_s = 0.0;
    int duplex = 0;
    uint32_t id = 0;
    if (!PyArg_ParseTuple(args, "dp:link", &latency_s, &duplex)) return NULL;
    el_sim_status status = el_sim_link(self->world, latency_s, duplex, &id);
    return status == EL_SIM_OK ? PyLong_FromUnsignedLong(id) : raise_status(self, status);
}

static PyObject *engine_seal(PyObject *op, PyObject *unused)
{
    engine_object *self = (engine_object *)op;
    (void)unused;
    el_sim_status status = el_sim_seal(self->world);
    if (status != EL_SIM_OK) return raise_status(self, status);
    Py_RETURN_NONE;
}

/* The reference to the callable belongs to the world once the activity has started. */
static PyObject *started(engine_object *self, el_sim_status status, el_sim_ticket ticket, PyObject *callable)
{
    if (status == EL_SIM_OK) return PyLong_FromUnsignedLongLong(ticket);
    Py_DECREF(callable);
    return raise_status(self, status);
}

static PyObject *engine_exec(PyObject *op, PyObject *args)
{
    engine_object *self = (engine_object *)op;
    unsigned int host = 0;
    double work_s = 0.0, weight = 1.0;
    PyObject *callable = NULL;
    el_sim_ticket ticket = 0;
    if (!PyArg_ParseTuple(args, "IddO:exec", &host, &work_s, &weight, &callable)) return NULL;
    Py_INCREF(callable);
    el_sim_status status = el_sim_exec(self->world, host, work_s, weight, callable, &ticket);
    return started(self, status, ticket, callable);
}

static PyObject *engine_transfer(PyObject *op, PyObject *args)
{
    engine_object *self = (engine_object *)op;
    unsigned int link = 0;
    int up = 0;
    double airtime_s = 0.0;
    PyObject *callable = NULL;
    el_sim_ticket ticket = 0;
    if (!PyArg_ParseTuple(args, "IpdO:transfer", &link, &up, &airtime_s, &callable)) return NULL;
    Py_INCREF(callable);
    el_sim_status status = el_sim_transfer(self->world, link, up, airtime_s, callable, &ticket);
    return started(self, status, ticket, callable);
}

static PyObject *engine_timer(PyObject *op, PyObject *args)
{
    engine_object *self = (engine_object *)op;
    double date_s = 0.0;
    PyObject *callable = NULL;
    el_sim_ticket ticket = 0;
    if (!PyArg_ParseTuple(args, "dO:timer", &date_s, &callable)) return NULL;
    Py_INCREF(callable);
    el_sim_status status = el_sim_timer(self->world, date_s, callable, &ticket);
    return started(self, status, ticket, callable);
}

static int as_ticket(PyObject *number, el_sim_ticket *ticket)
{
    *ticket = PyLong_AsUnsignedLongLong(number);
    return PyErr_Occurred() != NULL ? -1 : 0;
}

static PyObject *engine_remaining(PyObject *op, PyObject *number)
{
    el_sim_ticket ticket = 0;
    if (as_ticket(number, &ticket) < 0) return NULL;
    return PyFloat_FromDouble(el_sim_remaining(((engine_object *)op)->world, ticket));
}

static PyObject *engine_cancel(PyObject *op, PyObject *number)
{
    engine_object *self = (engine_object *)op;
    el_sim_ticket ticket = 0;
    if (as_ticket(number, &ticket) < 0) return NULL;
    double left_s = el_sim_remaining(self->world, ticket);
    el_sim_cancel(self->world, ticket);
    return PyFloat_FromDouble(left_s);
}

static PyObject *engine_run(PyObject *op, PyObject *unused)
{
    engine_object *self = (engine_object *)op;
    (void)unused;
    el_sim_status status = el_sim_run(self->world);
    if (PyErr_Occurred() != NULL) return NULL;
    if (status != EL_SIM_OK) return raise_status(self, status);
    Py_RETURN_NONE;
}

static PyObject *engine_stop(PyObject *op, PyObject *unused)
{
    (void)unused;
    el_sim_stop(((engine_object *)op)->world);
    Py_RETURN_NONE;
}

static PyObject *engine_now(PyObject *op, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble(el_sim_now(((engine_object *)op)->world));
}

static PyObject *engine_events(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(el_sim_events(((engine_object *)op)->world));
}

static PyMethodDef engine_methods[] = {
    {"host", engine_host, METH_NOARGS, "host() -> int: add a host that does one second of work in a second."},
    {"link", engine_link, METH_VARARGS, "link(latency_s, duplex) -> int: add a link of capacity one."},
    {"seal", engine_seal, METH_NOARGS, "seal(): end the description of the platform."},
    {"exec", engine_exec, METH_VARARGS, "exec(host, work_s, weight, callable) -> ticket"},
    {"transfer", engine_transfer, METH_VARARGS, "transfer(link, up, airtime_s, callable) -> ticket"},
    {"timer", engine_timer, METH_VARARGS, "timer(date_s, callable) -> ticket"},
    {"remaining", engine_remaining, METH_O,
     "remaining(ticket) -> seconds of work, air time or waiting left."},
    {"cancel", engine_cancel, METH_O,
     "cancel(ticket) -> what remaining() was; the callable is never called."},
    {"run", engine_run, METH_NOARGS, "run(): until nothing is left, stop() is called, or a callable raises."},
    {"stop", engine_stop, METH_NOARGS, "stop(): cancel everything, so that run() returns."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef engine_getset[] = {
    {"now", engine_now, NULL, "Simulated seconds.", NULL},
    {"events", engine_events, NULL, "Activities and timers woken so far.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_getset},
    {Py_tp_doc, "Engine(): the one SimGrid world of this process."},
    {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = "edgellm._sim.Engine",
    .basicsize = sizeof(engine_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = engine_slots,
};

/* ---- module ------------------------------------------------------------------------------------------- */

/* PyIter_Send returns a generator's result without raising StopIteration. */
static PyObject *sim_step(PyObject *module, PyObject *args)
{
    PyObject *generator = NULL, *value = NULL, *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO:step", &generator, &value)) return NULL;
    PySendResult sent = PyIter_Send(generator, value, &result);
    if (sent == PYGEN_ERROR) return NULL;
    PyObject *pair = PyTuple_Pack(2, sent == PYGEN_RETURN ? Py_True : Py_False, result);
    Py_DECREF(result);
    return pair;
}

static PyObject *sim_version(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(el_sim_version());
}

static PyMethodDef module_methods[] = {
    {"step", sim_step, METH_VARARGS, "step(generator, value) -> (ended, yielded or returned)"},
    {"simgrid_version", sim_version, METH_NOARGS, "simgrid_version() -> str: of the library at run time."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    sim_state *state = (sim_state *)PyModule_GetState(module);
    state->engine_type = PyType_FromModuleAndSpec(module, &engine_spec, NULL);
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
    .m_doc = "SimGrid behind callables; only edgellm.sim.engine imports it.",
    .m_size = sizeof(sim_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__sim(void);
PyMODINIT_FUNC PyInit__sim(void) { return PyModuleDef_Init(&module_def); }
