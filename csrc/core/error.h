#ifndef EL_CORE_ERROR_H
#define EL_CORE_ERROR_H

#include <stddef.h>

#include "edgellm/status.h"

#if defined(__GNUC__)
#define EL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define EL_PRINTF(fmt, args)
#endif

/// Write one line into `err` (may be NULL) and return `status`, so that
/// `return el_fail(err, EL_ERR_ARG, "...")` is one statement.
el_status el_fail(el_error *err, el_status status, const char *format, ...) EL_PRINTF(3, 4);

/// Append a name to `list`, a string in `size` bytes: "known, other". What does not fit is cut off.
void el_list_name(char *list, size_t size, const char *name);

#endif
