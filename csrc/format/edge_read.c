/* The container of an edge image: header, sections and info, checked before anything else is read. */
#include <string.h>

#include "core/error.h"
#include "format/edge_file.h"

static const struct {
    const char *name;
    const char *isa;
} machines[] = {
    [EL_MACHINE_PORTABLE] = {"portable", "ref"},
    [EL_MACHINE_X86_AVX2] = {"x86-avx2", "avx2"},
    [EL_MACHINE_X86_AVX512] = {"x86-avx512", "avx512vnni"},
    [EL_MACHINE_AARCH64] = {"aarch64", "neon"},
};
enum { MACHINES = sizeof machines / sizeof *machines };

const char *el_machine_name(uint32_t machine) { return machine < MACHINES ? machines[machine].name : NULL; }

const char *el_machine_isa(uint32_t machine) { return machine < MACHINES ? machines[machine].isa : NULL; }

el_status el_machine_find(const char *name, el_machine *out, el_error *err)
{
    for (uint32_t i = 0; i < MACHINES; i++) {
        if (strcmp(name, machines[i].name) != 0) continue;
        *out = (el_machine)i;
        return EL_OK;
    }
    return el_fail(err, EL_ERR_ARG,
                   "unknown machine '%.40s'; known are portable, x86-avx2, x86-avx512, aarch64", name);
}

static bool is_little_endian(void)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

static bool is_zero(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) any |= b[i];
    return any == 0;
}

static el_status reserved(const char *where, el_error *err)
{
    return el_fail(err, EL_ERR_FORMAT, "reserved bytes of the %s are not zero", where);
}

bool el_edge_is_image(const uint8_t first[EL_EDGE_MAGIC_BYTES])
{
    return memcmp(first, EL_EDGE_MAGIC, EL_EDGE_MAGIC_BYTES) == 0;
}

el_status el_edge_size(const void *image, uint64_t bytes, uint64_t *file_bytes, el_error *err)
{
    const el_edge_header *h = image;
    if (bytes < EL_EDGE_FIRST_SECTION || !el_edge_is_image(h->magic))
        return el_fail(err, EL_ERR_FORMAT, "not an edge image");
    if (h->format != EL_EDGE_FORMAT) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "edge format %u is not supported, only %d", h->format,
                       EL_EDGE_FORMAT);
    }
    *file_bytes = h->file_bytes;
    return EL_OK;
}

static el_status read_header(el_edge *e, const el_edge_header *h, el_error *err)
{
    uint64_t file_bytes = 0;
    const el_status st = el_edge_size(h, e->bytes, &file_bytes, err);
    if (st != EL_OK) return st;
    if (file_bytes != e->bytes) {
        return el_fail(err, EL_ERR_FORMAT, "the image says it has %llu bytes, there are %llu",
                       (unsigned long long)file_bytes, (unsigned long long)e->bytes);
    }
    if (h->header_bytes != sizeof *h || h->sections != EL_EDGE_SECTIONS || h->flags > EL_EDGE_SIGNED)
        return el_fail(err, EL_ERR_FORMAT, "the image's header is damaged");
    if (el_machine_name(h->machine) == NULL)
        return el_fail(err, EL_ERR_UNSUPPORTED, "machine %u of the image is not known", h->machine);
    if (h->numerics != EL_NUMERICS) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "made under arithmetic contract %u, this build has %d",
                       h->numerics, EL_NUMERICS);
    }
    if (!is_zero(h->reserved, sizeof h->reserved)) return reserved("header", err);
    e->machine = (el_machine)h->machine;
    e->numerics = h->numerics;
    e->version = h->version;
    e->is_signed = h->flags == EL_EDGE_SIGNED;
    e->manifest_bytes = EL_EDGE_MANIFEST_BYTES;
    e->signature = e->image + EL_EDGE_MANIFEST_BYTES;
    if (!e->is_signed && !is_zero(e->signature, EL_EDGE_SIGNATURE_BYTES))
        return el_fail(err, EL_ERR_FORMAT, "the image says it is not signed, and has a signature");
    return EL_OK;
}

/// Sections follow each other without a gap, so that every byte belongs to the manifest, the signature
/// or one hash.
static el_status read_sections(el_edge *e, el_error *err)
{
    const el_edge_section_entry *entry = (const void *)(e->image + sizeof(el_edge_header));
    uint64_t at = EL_EDGE_FIRST_SECTION;
    for (size_t i = 0; i < EL_EDGE_SECTIONS; i++, entry++) {
        if (i == EL_EDGE_WEIGHTS) at = el_edge_align(at, EL_EDGE_WEIGHTS_ALIGN);
        if (entry->kind != i + 1 || entry->offset != at || at > e->bytes || entry->bytes > e->bytes - at)
            return el_fail(err, EL_ERR_FORMAT, "section %zu of the image is damaged", i + 1);
        if (entry->reserved != 0 || entry->reserved_2 != 0) return reserved("section table", err);
        e->sections[i] = (el_edge_section){at, 0, entry->bytes, entry->sha256};
        at = el_edge_align(at + entry->bytes, EL_EDGE_ALIGN);
        if (i > 0) e->sections[i - 1].bytes = e->sections[i].offset - e->sections[i - 1].offset;
    }
    e->sections[EL_EDGE_WEIGHTS].bytes = e->sections[EL_EDGE_WEIGHTS].used;
    if (at != e->bytes)
        return el_fail(err, EL_ERR_FORMAT, "the image's sections end at %llu of %llu bytes",
                       (unsigned long long)at, (unsigned long long)e->bytes);
    return EL_OK;
}

static el_status read_info(el_edge *e, el_error *err)
{
    const el_edge_section s = e->sections[EL_EDGE_INFO];
    const el_edge_info_entry *info = (const void *)(e->image + s.offset);
    el_view *const views[] = {&e->name, &e->licence, &e->chat_template, &e->requantized_from};
    if (s.used < sizeof *info) return el_fail(err, EL_ERR_FORMAT, "the image's info is too short");
    for (size_t i = 0; i < EL_EDGE_INFO_SLOTS; i++) {
        const uint64_t offset = info->slots[i].offset, bytes = info->slots[i].bytes;
        const bool known = i < sizeof views / sizeof *views;
        if (offset > s.used || bytes > s.used - offset || (!known && (offset != 0 || bytes != 0)))
            return el_fail(err, EL_ERR_FORMAT, "text %zu of the image's info is outside it", i);
        if (known) *views[i] = (el_view){(const char *)info + offset, (size_t)bytes};
    }
    return EL_OK;
}

static el_status read_figures(el_edge *e, el_error *err)
{
    const el_edge_section s = e->sections[EL_EDGE_PLAN];
    const el_edge_figures_entry *f = (const void *)(e->image + s.offset);
    if (s.used != sizeof *f) return el_fail(err, EL_ERR_FORMAT, "the image's plan is damaged");
    if (f->reserved != 0 || f->reserved_2 != 0) return reserved("plan", err);
    if (f->weights != e->sections[EL_EDGE_WEIGHTS].bytes)
        return el_fail(err, EL_ERR_FORMAT, "the image's plan is of other weights");
    e->figures = (el_edge_figures){f->weights, f->scratch, f->tables,     f->session,
                                   f->kv_f16,  f->kv_f32,  f->micro_batch};
    return EL_OK;
}

el_status el_edge_read(el_edge *out, const void *image, uint64_t bytes, el_error *err)
{
    el_edge e = {.image = image, .bytes = bytes};
    if ((uintptr_t)image % EL_EDGE_ALIGN != 0)
        return el_fail(err, EL_ERR_ARG, "an image lies at a multiple of %d", EL_EDGE_ALIGN);
    if (bytes > SIZE_MAX) return el_fail(err, EL_ERR_ARG, "an image of this size has no address");
    if (!is_little_endian())
        return el_fail(err, EL_ERR_UNSUPPORTED, "edge images are for little-endian machines");

    el_status st = read_header(&e, image, err);
    if (st == EL_OK) st = read_sections(&e, err);
    if (st == EL_OK) st = read_info(&e, err);
    if (st == EL_OK) st = read_figures(&e, err);
    if (st != EL_OK) return st;
    e.n_tensors = (size_t)(e.sections[EL_EDGE_TENSORS].used / sizeof(el_edge_tensor_entry));
    if (e.n_tensors * sizeof(el_edge_tensor_entry) != e.sections[EL_EDGE_TENSORS].used)
        return el_fail(err, EL_ERR_FORMAT, "the image's table of tensors is damaged");
    *out = e;
    return EL_OK;
}

el_status el_edge_tensor_get(const el_edge *edge, size_t i, el_edge_tensor *out, el_error *err)
{
    if (i >= edge->n_tensors)
        return el_fail(err, EL_ERR_ARG, "there is no tensor %zu of %zu", i, edge->n_tensors);
    const el_edge_tensor_entry *entry = el_edge_tensor_entries(edge) + i;
    const char *end = memchr(entry->name, 0, sizeof entry->name);
    *out = (el_edge_tensor){
        .name = {entry->name, end != NULL ? (size_t)(end - entry->name) : sizeof entry->name},
        .type = entry->type,
        .n = entry->n,
        .k = entry->k,
        .offset = entry->offset,
        .bytes = entry->bytes,
        .sha256 = entry->sha256,
    };
    return EL_OK;
}
