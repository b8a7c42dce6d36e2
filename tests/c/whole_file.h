/* A model file held in memory, and the zeroed memory that a model and its sessions ask for.
 *
 * Memory comes from a function with the form of aligned_alloc, so that a program which counts or refuses
 * requests can keep its own out of that; what it gave is given back by the matching `free`.
 */
#ifndef WHOLE_FILE_H
#define WHOLE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef void *aligned_fn(size_t align, size_t n);

typedef struct whole_file {
    uint8_t *bytes;  ///< 64-byte aligned
    uint64_t size;
} whole_file;

/// 64-byte aligned and zeroed; NULL if there is none.
static inline void *zeroed(aligned_fn *take, uint64_t bytes)
{
    void *memory = bytes <= SIZE_MAX - 64 ? take(64, ((size_t)bytes + 63) / 64 * 64) : NULL;
    if (memory != NULL) memset(memory, 0, (size_t)bytes);
    return memory;
}

/// 0, or -1 if the file cannot be read.
static inline int whole_file_load(whole_file *out, const char *path, aligned_fn *take)
{
    FILE *stream = fopen(path, "rb");
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) return -1;
    out->size = (uint64_t)ftell(stream);
    out->bytes = zeroed(take, out->size + 1);
    rewind(stream);
    const size_t got = out->bytes != NULL ? fread(out->bytes, 1, (size_t)out->size, stream) : 0;
    return fclose(stream) == 0 && got == out->size ? 0 : -1;
}

/// The `read` of an el_source whose context is a whole_file.
static inline size_t whole_file_read(void *context, uint64_t offset, void *dst, size_t n)
{
    const whole_file *f = (const whole_file *)context;
    if (offset > f->size || n > f->size - offset) return 0;
    memcpy(dst, f->bytes + offset, n);
    return n;
}

#endif
