#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *el_status_name(el_status status)
{
    switch (status) {
    case EL_OK: return "ok";
    case EL_ERR_NOMEM: return "out of memory";
    case EL_ERR_ARG: return "bad argument";
    case EL_ERR_FORMAT: return "format error";
    case EL_ERR_UNSUPPORTED: return "unsupported";
    case EL_ERR_IO: return "read error";
    case EL_ERR_CONTEXT: return "context full";
    case EL_ERR_CANCELLED: return "cancelled";
    case EL_ERR_SYSTEM: return "system error";
    }
    return "unknown status";
}

el_status el_fail(el_error *err, el_status status, const char *format, ...)
{
    if (err == NULL) return status;

    va_list args;
    va_start(args, format);
    const int written = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (written < 0) err->text[0] = '\0';

    for (char *c = err->text; *c != '\0'; c++) {
        const unsigned char byte = (unsigned char)*c;
        if (byte < 0x20 || byte >= 0x7F) *c = '?';
    }
    return status;
}

void el_list_name(char *list, size_t size, const char *name)
{
    const size_t used = strlen(list);
    snprintf(list + used, size - used, "%s%s", used == 0 ? "" : ", ", name);
}
