/* Files and memory, which the core never touches by itself. */
#include "py_edgellm.h"  // first: Python.h sets feature macros

#include "py_file.h"

#include "edgellm/edge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_HEADER_BYTES = 2 << 20, HUGE_PAGE_BYTES = 1 << 21 };
static const uint64_t MAX_HEADER_BYTES = UINT64_C(1) << 29;

static el_status fail(el_error *err, el_status status, const char *what, const char *path)
{
    snprintf(err->text, sizeof err->text, "%.160s: %.90s", path, what);
    return status;
}

static size_t read_at(void *context, uint64_t offset, void *dst, size_t n)
{
    const int fd = *(const int *)context;
    size_t done = 0;
    while (done < n) {
        const ssize_t got = pread(fd, (uint8_t *)dst + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    return done;
}

/// Parse with ever more of the header until it is whole.
static el_status parse_header(el_py_gguf *file, const char *path, el_error *err)
{
    uint64_t want = file->bytes < FIRST_HEADER_BYTES ? file->bytes : FIRST_HEADER_BYTES;
    for (;;) {
        if (want > MAX_HEADER_BYTES)
            return fail(err, EL_ERR_FORMAT, "the header is larger than 512 MiB", path);
        uint8_t *grown = realloc(file->header, want > 0 ? (size_t)want : 1);
        if (grown == NULL) return fail(err, EL_ERR_NOMEM, "no memory for the header", path);
        file->header = grown;
        if (read_at(&file->fd, 0, grown, (size_t)want) != want) {
            return fail(err, EL_ERR_IO, "the file ended or failed while its header was read", path);
        }
        uint64_t more = 0;
        el_error why = {{0}};
        const el_status st = el_gguf_parse(&file->gguf, grown, (size_t)want, file->bytes, &more, &why);
        if (st == EL_OK) return EL_OK;
        if (more <= want) return fail(err, st, why.text, path);
        want = more;
    }
}

/// Open a regular file; *fd is -1 on failure.
static el_status open_file(int *fd, uint64_t *bytes, const char *path, el_error *err)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not hang us
    if (*fd < 0) return fail(err, EL_ERR_IO, strerror(errno), path);
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *bytes = (uint64_t)info.st_size;
        return EL_OK;
    }
    const el_status st = fail(err, EL_ERR_IO, "not a regular file", path);
    close(*fd);
    *fd = -1;
    return st;
}

el_status el_py_gguf_open(el_py_gguf *file, const char *path, el_error *err)
{
    *file = (el_py_gguf){.fd = -1};
    el_status st = open_file(&file->fd, &file->bytes, path, err);
    if (st == EL_OK) st = parse_header(file, path, err);
    if (st != EL_OK) el_py_gguf_close(file);
    return st;
}

void el_py_gguf_close(el_py_gguf *file)
{
    el_gguf_free(file->gguf);
    free(file->header);
    if (file->fd >= 0) close(file->fd);
    *file = (el_py_gguf){.fd = -1};
}

el_source el_py_gguf_source(el_py_gguf *file) { return (el_source){.read = read_at, .context = &file->fd}; }

void *el_py_pages_new(uint64_t bytes)
{
    if (bytes == 0 || bytes > SIZE_MAX) return NULL;
    void *pages = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= 4 * (uint64_t)HUGE_PAGE_BYTES) (void)madvise(pages, (size_t)bytes, MADV_HUGEPAGE);
#endif
    return pages;
}

void el_py_pages_free(void *pages, uint64_t bytes)
{
    if (pages != NULL) (void)munmap(pages, (size_t)bytes);
}

uint64_t el_py_page_bytes(void)
{
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (uint64_t)bytes : 4096;
}

static el_status copy_image(void **pages, uint64_t bytes, int fd, const char *path, el_error *err)
{
    *pages = el_py_pages_new(bytes);
    if (*pages == NULL) return fail(err, EL_ERR_NOMEM, "no memory for a copy of the image", path);
    if (read_at((void *)&fd, 0, *pages, (size_t)bytes) == bytes) {
        (void)mprotect(*pages, (size_t)bytes, PROT_READ);
        return EL_OK;
    }
    el_py_pages_free(*pages, bytes);
    *pages = NULL;
    return fail(err, EL_ERR_IO, "the file ended or failed while it was read", path);
}

el_status el_py_image_open(void **pages, uint64_t *bytes, bool *found, const char *path, bool resident,
                           el_error *err)
{
    int fd = -1;
    uint64_t size = 0;
    uint8_t head[EL_EDGE_MAGIC_BYTES];
    *pages = NULL;
    *found = false;
    el_status st = open_file(&fd, &size, path, err);
    if (st != EL_OK) return st;
    *found = read_at(&fd, 0, head, sizeof head) == sizeof head && el_edge_is_image(head) && size <= SIZE_MAX;
    if (*found && resident) {
        st = copy_image(pages, size, fd, path, err);
    } else if (*found) {
        void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            st = fail(err, EL_ERR_SYSTEM, strerror(errno), path);
        else
            *pages = map;
    }
    if (st == EL_OK) *bytes = size;
    close(fd);
    return st;
}
