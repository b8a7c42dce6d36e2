#ifndef EDGELLM_VIEW_H
#define EDGELLM_VIEW_H

#include <stddef.h>

/// Bytes that belong to somebody else; not NUL-terminated.
typedef struct el_view {
    const char *data;
    size_t size;
} el_view;

#endif
