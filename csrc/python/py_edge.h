/* The object behind an edge image in memory. */
#ifndef EL_PY_EDGE_H
#define EL_PY_EDGE_H

#include <stdatomic.h>

#include "edgellm/edge.h"
#include "py_file.h"

typedef struct el_py_edge {
    PyObject_HEAD
    void *pages;       ///< the image, mapped read-only or copied
    uint64_t bytes;    ///< of `pages` still held
    bool resident;     ///< a copy
    bool used;         ///< by a model, which gives the weights back when it closes
    atomic_int views;  ///< buffers that Python holds of it
    el_edge edge;
} el_py_edge;

/// The image behind `obj`, or NULL if it is of another type.
el_py_edge *el_py_edge_of(el_pystate *st, PyObject *obj);

/// Give back the weights (not what the tokenizer reads); needs no GIL. A model that used them is gone.
void el_py_edge_drop_weights(el_py_edge *image);

/// What the image says of itself, as a Model's `info`.
PyObject *el_py_edge_info(const el_py_edge *image);

#endif
