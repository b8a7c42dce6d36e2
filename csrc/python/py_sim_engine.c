/* `edgellm._sim.Engine`: the simulated world, with Python callables for what happens in it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <string.h>

#include "py_sim.h"
#include "sim/solver.h"
#include "simgrid/el_simgrid.h"

/* Ctrl-C is looked for once in so many wakes. */
#define EL_SIM_SIGNAL_INTERVAL 1000

typedef struct {
    PyObject_HEAD
    el_sim *world;
    unsigned wakes;
} engine_object;

el_sim *el_engine_world(PyObject *engine) { return ((engine_object *)engine)->world; }

/* ---- callbacks of the world ---------------------------------------------------------------------------- */

/* The waker of a tag that is one. */
static el_waker *waker_of(void *tag) { return (uintptr_t)tag & 1 ? (el_waker *)((char *)tag - 1) : NULL; }

static int call(void *tag)
{
    PyObject *callable = tag;
    PyObject *result = PyObject_CallNoArgs(callable);

    Py_DECREF(callable);
    if (result == NULL) return -1;  // the exception waits in the thread state until run() returns
    Py_DECREF(result);
    return 0;
}

static int wake(void *user, void *tag)
{
    engine_object *self = user;
    el_waker *waker = waker_of(tag);

    if ((waker != NULL ? waker->wake(waker) : call(tag)) < 0) return -1;
    return ++self->wakes % EL_SIM_SIGNAL_INTERVAL == 0 ? PyErr_CheckSignals() : 0;
}

static void drop(void *user, void *tag)
{
    PyObject *type, *value, *traceback;
    el_waker *waker = waker_of(tag);

    (void)user;
    PyErr_Fetch(&type, &value, &traceback);  // letting go may run Python, which must not see an exception
    if (waker != NULL)
        waker->drop(waker);
    else
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

/* SimGrid is made only where it is asked for: a process has one of it, and any number of exact worlds. */
static int solve_with_simgrid(engine_object *self)
{
    el_solver solver;
    el_sim_status status = el_simgrid_new(self->world, &solver);
    if (status == EL_SIM_OK) status = el_sim_solve_with(self->world, &solver);
    if (status == EL_SIM_OK) return 0;
    if (status == EL_SIM_NOMEM)
        (void)PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_RuntimeError,
                        status == EL_SIM_STATE
                            ? "SimGrid runs one simulation per process, and this one has had its own"
                            : "SimGrid could not start");
    return -1;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"solver", NULL};
    const char *solver = "exact";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|s:Engine", names, &solver)) return NULL;
    const bool exact = strcmp(solver, "exact") == 0;
    if (!exact && strcmp(solver, "simgrid") != 0)
        return PyErr_Format(PyExc_ValueError, "solver must be 'exact' or 'simgrid', got '%s'", solver);
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    engine_object *self = (engine_object *)alloc(type, 0);
    if (self == NULL) return NULL;
    if (el_sim_new(self, wake, drop, &self->world) != EL_SIM_OK) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if (exact || solve_with_simgrid(self) == 0) return (PyObject *)self;
    Py_DECREF(self);
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
    double latency_s = 0.0, rate[2] = {0.0, 0.0};
    int duplex = 0;
    uint32_t id = 0;
    if (!PyArg_ParseTuple(args, "dp|dd:link", &latency_s, &duplex, &rate[1], &rate[0])) return NULL;
    el_sim_status status = rate[0] == 0.0 && rate[1] == 0.0
                               ? el_sim_link(self->world, latency_s, duplex, &id)
                               : el_sim_streamed_link(self->world, latency_s, duplex, rate, &id);
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

/* Arguments of the calls that a simulation makes millions of times are taken one by one: no format is read. */
static bool counted(const char *name, Py_ssize_t n, Py_ssize_t least, Py_ssize_t most)
{
    if (n >= least && n <= most) return true;
    if (least == most)
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", name, least, n);
    else
        PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments, got %zd", name, least, most, n);
    return false;
}

static bool as_double(PyObject *number, double *value)
{
    *value = PyFloat_AsDouble(number);
    return *value != -1.0 || PyErr_Occurred() == NULL;
}

/* A number too large for a host or link is the number of none. */
static bool as_number(PyObject *number, uint32_t *value)
{
    const unsigned long wide = PyLong_AsUnsignedLong(number);
    if (wide == (unsigned long)-1 && PyErr_Occurred() != NULL) return false;
    *value = wide > UINT32_MAX ? UINT32_MAX : (uint32_t)wide;
    return true;
}

/* The reference to the callable belongs to the world once the activity has started. */
static PyObject *started(engine_object *self, el_sim_status status, el_sim_ticket ticket, PyObject *callable)
{
    if (status != EL_SIM_OK) return raise_status(self, status);
    Py_INCREF(callable);
    return PyLong_FromUnsignedLongLong(ticket);
}

static PyObject *engine_exec(PyObject *op, PyObject *const *args, Py_ssize_t n)
{
    engine_object *self = (engine_object *)op;
    uint32_t host = 0;
    double work_s = 0.0;
    el_sim_share share = {.weight = 1.0, .compute = 1.0, .memory = 1.0};
    el_sim_ticket ticket = 0;
    if (!counted("exec", n, 4, 6) || !as_number(args[0], &host) || !as_double(args[1], &work_s) ||
        !as_double(args[2], &share.weight) || (n > 4 && !as_double(args[4], &share.compute)) ||
        (n > 5 && !as_double(args[5], &share.memory)))
        return NULL;
    el_sim_status status = el_sim_exec(self->world, host, work_s, share, args[3], &ticket);
    return started(self, status, ticket, args[3]);
}

static PyObject *engine_transfer(PyObject *op, PyObject *const *args, Py_ssize_t n)
{
    engine_object *self = (engine_object *)op;
    uint32_t link = 0;
    double airtime_s = 0.0, wait_s = 0.0;
    el_sim_ticket ticket = 0;
    if (!counted("transfer", n, 4, 5) || !as_number(args[0], &link) || !as_double(args[2], &airtime_s) ||
        (n > 4 && !as_double(args[4], &wait_s)))
        return NULL;
    const int up = PyObject_IsTrue(args[1]);
    if (up < 0) return NULL;
    el_sim_status status = el_sim_transfer(self->world, link, up != 0, airtime_s, wait_s, args[3], &ticket);
    return started(self, status, ticket, args[3]);
}

static bool as_hop(PyObject *tuple, el_sim_hop *hop)
{
    unsigned int link = 0;
    int up = 0;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a hop is a tuple (link, up, airtime_s)");
        return false;
    }
    hop->airtime_s = 0.0;
    if (!PyArg_ParseTuple(tuple, "Ip|d:hop", &link, &up, &hop->airtime_s)) return false;
    hop->link = link;
    hop->up = up != 0;
    return true;
}

/* -1: an exception is set. */
static Py_ssize_t as_hops(PyObject *sequence, el_sim_hop hops[EL_SIM_MAX_HOPS])
{
    const Py_ssize_t n = PySequence_Size(sequence);
    for (Py_ssize_t i = 0; i < n && i < EL_SIM_MAX_HOPS; i++) {
        PyObject *tuple = PySequence_GetItem(sequence, i);
        if (tuple == NULL) return -1;
        const bool fine = as_hop(tuple, &hops[i]);
        Py_DECREF(tuple);
        if (!fine) return -1;
    }
    return n;
}

static PyObject *engine_route(PyObject *op, PyObject *sequence)
{
    engine_object *self = (engine_object *)op;
    el_sim_hop hops[EL_SIM_MAX_HOPS];
    const Py_ssize_t n = as_hops(sequence, hops);
    if (n < 0) return NULL;
    el_sim_status status = el_sim_route(self->world, hops, (size_t)n);
    if (status != EL_SIM_OK) return raise_status(self, status);
    Py_RETURN_NONE;
}

static PyObject *engine_stream(PyObject *op, PyObject *const *args, Py_ssize_t n)
{
    engine_object *self = (engine_object *)op;
    el_sim_hop hops[EL_SIM_MAX_HOPS];
    double latency_s = 0.0;
    el_sim_ticket ticket = 0;
    if (!counted("stream", n, 3, 3) || !as_double(args[1], &latency_s)) return NULL;
    const Py_ssize_t hops_n = as_hops(args[0], hops);
    if (hops_n < 0) return NULL;
    el_sim_status status = el_sim_stream(self->world, hops, (size_t)hops_n, latency_s, args[2], &ticket);
    return started(self, status, ticket, args[2]);
}

static PyObject *engine_timer(PyObject *op, PyObject *const *args, Py_ssize_t n)
{
    engine_object *self = (engine_object *)op;
    double date_s = 0.0;
    el_sim_ticket ticket = 0;
    if (!counted("timer", n, 2, 2) || !as_double(args[0], &date_s)) return NULL;
    el_sim_status status = el_sim_timer(self->world, date_s, args[1], &ticket);
    return started(self, status, ticket, args[1]);
}

static PyObject *engine_soon(PyObject *op, PyObject *callable)
{
    engine_object *self = (engine_object *)op;
    el_sim_ticket ticket = 0;
    el_sim_status status = el_sim_timer(self->world, el_sim_now(self->world), callable, &ticket);
    return started(self, status, ticket, callable);
}

static PyObject *engine_speed(PyObject *op, PyObject *const *args, Py_ssize_t n)
{
    engine_object *self = (engine_object *)op;
    uint32_t host = 0;
    double factor = 1.0;
    if (!counted("speed", n, 2, 2) || !as_number(args[0], &host) || !as_double(args[1], &factor)) return NULL;
    el_sim_status status = el_sim_speed(self->world, host, factor);
    if (status != EL_SIM_OK) return raise_status(self, status);
    Py_RETURN_NONE;
}

static PyObject *engine_load(PyObject *op, PyObject *number)
{
    engine_object *self = (engine_object *)op;
    uint32_t host = 0;
    el_sim_load load;
    if (!as_number(number, &host)) return NULL;
    el_sim_status status = el_sim_host_load(self->world, host, &load);
    if (status != EL_SIM_OK) return raise_status(self, status);
    return Py_BuildValue("(ddd)", load.pace, load.compute, load.memory);
}

static bool as_ticket(PyObject *number, el_sim_ticket *ticket)
{
    *ticket = PyLong_AsUnsignedLongLong(number);
    return *ticket != (el_sim_ticket)-1 || PyErr_Occurred() == NULL;
}

static PyObject *engine_remaining(PyObject *op, PyObject *number)
{
    el_sim_ticket ticket = 0;
    if (!as_ticket(number, &ticket)) return NULL;
    return PyFloat_FromDouble(el_sim_remaining(((engine_object *)op)->world, ticket));
}

static PyObject *engine_cancel(PyObject *op, PyObject *number)
{
    engine_object *self = (engine_object *)op;
    el_sim_ticket ticket = 0;
    if (!as_ticket(number, &ticket)) return NULL;
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

/* Through void (*)(void), the type that a cast of functions may go through. */
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef engine_methods[] = {
    {"host", engine_host, METH_NOARGS, "host() -> int: add a host that does one second of work in a second."},
    {"link", engine_link, METH_VARARGS,
     "link(latency_s, duplex, up_rate=0.0, down_rate=0.0) -> int: add a link of capacity one; with rates "
     "(amounts that take a second) streams may cross it."},
    {"route", engine_route, METH_O, "route([(link, up), ...]): name a way of streams, for SimGrid."},
    {"seal", engine_seal, METH_NOARGS, "seal(): end the description of the platform."},
    {"exec", FAST(engine_exec), METH_FASTCALL,
     "exec(host, work_s, weight, callable, compute=1.0, memory=1.0) -> ticket"},
    {"transfer", FAST(engine_transfer), METH_FASTCALL,
     "transfer(link, up, airtime_s, callable, wait_s=0.0) -> ticket; it waits before, beyond the latency."},
    {"stream", FAST(engine_stream), METH_FASTCALL,
     "stream([(link, up, airtime_s), ...], latency_s, callable) -> ticket: one flow over several links."},
    {"timer", FAST(engine_timer), METH_FASTCALL, "timer(date_s, callable) -> ticket"},
    {"soon", engine_soon, METH_O, "soon(callable) -> ticket: a timer for now, after what is already due."},
    {"speed", FAST(engine_speed), METH_FASTCALL,
     "speed(host, factor): everything on the host goes at so many times its pace."},
    {"load", engine_load, METH_O,
     "load(host) -> sums of the paces, paces times compute and paces times memory of what runs there now."},
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
    {Py_tp_doc,
     "Engine(solver='exact'): a simulated world; 'simgrid' lets SimGrid solve everything, once in a process."},
    {0, NULL},
};

PyType_Spec el_sim_engine_spec = {
    .name = "edgellm._sim.Engine",
    .basicsize = sizeof(engine_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = engine_slots,
};
