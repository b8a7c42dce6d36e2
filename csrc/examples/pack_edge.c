/* Make an edge image from a GGUF, in C alone; byte for byte what edgellm.convert writes.
 *
 *   pack_edge MODEL.gguf IMAGE.edge [MACHINE]
 *
 * MACHINE is portable (the default), x86-avx2, x86-avx512 or aarch64. The image appears only when it is
 * whole. Signing needs a private key and is left to edgellm.convert(sign=).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm/edge_write.h"
#include "examples/sha256.h"

typedef struct file {
    uint8_t *bytes;
    uint64_t size;
} file;

static size_t read_at(void *context, uint64_t offset, void *dst, size_t n)
{
    const file *f = (const file *)context;
    if (offset > f->size || n > f->size - offset) return 0;
    memcpy(dst, f->bytes + offset, n);
    return n;
}

static el_status io_error(const char *path, el_error *err)
{
    (void)snprintf(err->text, sizeof err->text, "%.150s: %.80s", path, strerror(errno));
    return EL_ERR_IO;
}

static el_status read_file(file *out, const char *path, el_error *err)
{
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) return io_error(path, err);
    el_status st = EL_OK;
    long size = -1;
    if (fseek(stream, 0, SEEK_END) == 0) size = ftell(stream);
    out->bytes = size >= 0 ? malloc((size_t)size + 1) : NULL;
    rewind(stream);
    if (out->bytes == NULL || fread(out->bytes, 1, (size_t)size, stream) != (size_t)size)
        st = io_error(path, err);
    out->size = size >= 0 ? (uint64_t)size : 0;
    (void)fclose(stream);
    return st;
}

static void hash_into(uint8_t *head, uint64_t at, const void *data, uint64_t bytes)
{
    sha256 h;
    sha256_begin(&h);
    sha256_add(&h, data, (size_t)bytes);
    sha256_end(&h, head + at);
}

/// Pack and write tensor `i`; its hash goes into the head, and into that of all tensors' hashes.
static el_status write_tensor(el_edge_writer *w, size_t i, uint8_t *head, sha256 *all, FILE *stream,
                              el_error *err)
{
    el_edge_piece piece;
    el_edge_writer_tensor(w, i, &piece);
    uint8_t *tile = aligned_alloc(64, (size_t)piece.tile_bytes);
    if (tile == NULL) return EL_ERR_NOMEM;

    sha256 h;
    sha256_begin(&h);
    el_status st = EL_OK;
    for (uint64_t t = 0; t < piece.tiles && st == EL_OK; t++) {
        st = el_edge_writer_pack(w, i, t, 1, tile, err);
        if (st != EL_OK) break;
        sha256_add(&h, tile, (size_t)piece.tile_bytes);
        if (fwrite(tile, 1, (size_t)piece.tile_bytes, stream) != piece.tile_bytes)
            st = io_error("the image", err);
    }
    sha256_end(&h, head + piece.hash_offset);
    sha256_add(all, head + piece.hash_offset, EL_EDGE_HASH_BYTES);
    free(tile);
    return st;
}

static el_status write_image(el_edge_writer *w, FILE *stream, el_error *err)
{
    uint64_t head_bytes = 0;
    uint8_t *head = el_edge_writer_head(w, &head_bytes);
    el_edge_piece piece;
    sha256 all;
    sha256_begin(&all);

    el_status st = EL_OK;
    if (fwrite(head, 1, (size_t)head_bytes, stream) != head_bytes) st = io_error("the image", err);
    for (size_t i = 0; i < el_edge_writer_tensors(w) && st == EL_OK; i++) {
        st = write_tensor(w, i, head, &all, stream, err);
    }
    if (st != EL_OK) return st;

    el_edge_writer_seal(w);
    for (size_t i = 0; i + 1 < EL_EDGE_SECTIONS; i++) {
        el_edge_writer_section(w, i, &piece);
        hash_into(head, piece.hash_offset, head + piece.offset, piece.bytes);
    }
    el_edge_writer_section(w, EL_EDGE_SECTIONS - 1, &piece);
    sha256_end(&all, head + piece.hash_offset);
    rewind(stream);
    return fwrite(head, 1, (size_t)head_bytes, stream) == head_bytes ? EL_OK : io_error("the image", err);
}

static el_status pack(const file *f, const char *target, const char *machine_name, el_error *err)
{
    el_gguf *gguf = NULL;
    el_edge_writer *w = NULL;
    FILE *stream = NULL;
    el_machine machine;
    uint64_t more = 0;
    char part[4096];
    const el_source source = {read_at, (void *)(uintptr_t)f};
    const int length = snprintf(part, sizeof part, "%s.part", target);

    el_status st = el_machine_find(machine_name, &machine, err);
    if (st == EL_OK && (length < 0 || (size_t)length >= sizeof part)) st = EL_ERR_ARG;
    if (st == EL_OK) st = el_gguf_parse(&gguf, f->bytes, (size_t)f->size, f->size, &more, err);
    if (st == EL_OK) st = el_edge_writer_new(&w, gguf, &source, machine, 0, false, err);
    if (st != EL_OK) goto done;

    stream = fopen(part, "wb");
    if (stream == NULL) {
        st = io_error(part, err);
        goto done;
    }
    st = write_image(w, stream, err);
    if (fclose(stream) != 0 && st == EL_OK) st = io_error(part, err);
    if (st == EL_OK && rename(part, target) != 0) st = io_error(target, err);
    if (st != EL_OK) (void)remove(part);

done:
    el_edge_writer_free(w);
    el_gguf_free(gguf);
    return st;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fputs("usage: pack_edge MODEL.gguf IMAGE.edge [MACHINE]\n", stderr);
        return 2;
    }
    file f = {0};
    el_error err = {{0}};
    el_status st = read_file(&f, argv[1], &err);
    if (st == EL_OK) st = pack(&f, argv[2], argc == 4 ? argv[3] : "portable", &err);
    free(f.bytes);
    if (st != EL_OK) fprintf(stderr, "pack_edge: %s: %s\n", el_status_name(st), err.text);
    return st == EL_OK ? 0 : 1;
}
