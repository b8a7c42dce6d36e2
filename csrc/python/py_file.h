/* Files and memory, which the core never touches by itself. */
#ifndef EL_PY_FILE_H
#define EL_PY_FILE_H

#include "edgellm/gguf.h"
#include "edgellm/model.h"

/// An open GGUF: descriptor, header bytes and what was parsed from them.
typedef struct el_py_gguf {
    int fd;
    uint64_t bytes;     ///< size of the file when it was opened
    uint8_t *header;    ///< the views of `gguf` point here
    el_gguf *gguf;
} el_py_gguf;

/// Open a regular file and parse its header. Needs no GIL. On failure everything is released.
el_status el_py_gguf_open(el_py_gguf *file, const char *path, el_error *err);

/// Accepts one that is closed already (descriptor -1).
void el_py_gguf_close(el_py_gguf *file);

/// Reads with pread, so that truncation under our feet is an error and not a signal.
el_source el_py_gguf_source(el_py_gguf *file);

/// Map a file read-only, or copy it into memory of its own. *found is false, with nothing taken, if it does not
/// start as an edge image does. Free with el_py_pages_free.
el_status el_py_image_open(void **pages, uint64_t *bytes, bool *found, const char *path, bool resident,
                           el_error *err);

/// Bytes of a page of this machine.
uint64_t el_py_page_bytes(void);

/// Zeroed pages, huge ones where the system gives them; NULL when refused.
void *el_py_pages_new(uint64_t bytes);
void el_py_pages_free(void *pages, uint64_t bytes);

#endif
