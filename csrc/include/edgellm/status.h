#ifndef EDGELLM_STATUS_H
#define EDGELLM_STATUS_H

#include "edgellm/api.h"

EL_API_BEGIN

/// What a call of the core answers. Nothing in the core prints or aborts.
typedef enum el_status {
    EL_OK = 0,
    EL_ERR_NOMEM,        ///< memory was refused, or a stated cap is too small
    EL_ERR_ARG,          ///< a bad argument: shape, range, type, NaN where none may be
    EL_ERR_FORMAT,       ///< a file or text from outside is malformed
    EL_ERR_UNSUPPORTED,  ///< well-formed, but an architecture, type or feature we do not have
    EL_ERR_IO,           ///< a read came up short or failed
    EL_ERR_CONTEXT,      ///< the context of a session is full
    EL_ERR_CANCELLED,    ///< stopped on request
    EL_ERR_SYSTEM        ///< the operating system refused (threads, maps)
} el_status;

/// One line for a person: what is wrong and with which named thing.
/// Always NUL-terminated; control bytes of hostile names are replaced by '?'.
typedef struct el_error {
    char text[256];
} el_error;

/// Short constant name of a status, such as "format error". Never NULL.
const char *el_status_name(el_status status);

EL_API_END

#endif
