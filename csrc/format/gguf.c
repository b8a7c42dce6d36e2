/* Parse a GGUF header. The file is hostile: nothing is allocated or walked for a number that
 * the file states before that number is checked against the bytes that are there.
 *
 * Layout, little-endian throughout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
 *   "GGUF", u32 version, u64 tensors, u64 entries
 *   entries  string key, u32 type, value; an array is u32 element type, u64 count, elements
 *   tensors  string name, u32 dims, u64 extents[dims], u32 type, u64 offset into the data
 *   padding to general.alignment, then the data
 */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "format/format.h"

enum {
    MAGIC_BYTES = 4,
    HEAD_BYTES = 24,
    ENTRY_MIN_BYTES = 8 + 1 + 4 + 1,           ///< the shortest entry: one-byte key, u8 value
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8,  ///< the shortest tensor: one-byte name, one extent
    NAME_MAX_BYTES = 65535,
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20,
    FIRST_WINDOW_BYTES = 1 << 16
};

/// Where we are in the bytes, and what we are reading (for the words of an error).
typedef struct reader {
    const uint8_t *bytes;
    uint64_t pos;
    uint64_t size;  ///< bytes in memory
    uint64_t file;  ///< bytes in the file; size <= file
    uint64_t want;  ///< set when memory ends before the header does: read this many and try again
    const char *kind;
    uint64_t index;
    el_view name;  ///< empty until it is read
    el_error *err;
} reader;

/// "metadata 'general.name'" or, before the name is read, "metadata entry 7".
static const char *subject(const reader *r, char text[96])
{
    char *t = text;
    const char *words = r->kind;
    while (*words != '\0') *t++ = *words++;
    *t++ = ' ';
    if (r->name.size > 0) {
        const size_t shown = r->name.size < 64 ? r->name.size : 64;
        *t++ = '\'';
        for (size_t i = 0; i < shown; i++) *t++ = r->name.data[i] == '\0' ? '?' : r->name.data[i];
        *t++ = '\'';
    } else {
        char digits[20];
        size_t n = 0;
        uint64_t left = r->index;
        do digits[n++] = (char)('0' + left % 10);
        while ((left /= 10) != 0);
        while (n > 0) *t++ = digits[--n];
    }
    *t = '\0';
    return text;
}

#define FAIL(r, status, what) el_fail((r)->err, (status), "%s " what, subject((r), (char[96]){0}))

/// Make sure that n more bytes are in memory. EL_ERR_IO sets `want`.
static el_status need(reader *r, uint64_t n)
{
    if (n <= r->size - r->pos) return EL_OK;
    if (n > r->file - r->pos) return FAIL(r, EL_ERR_FORMAT, "runs past the end of the file");
    if (r->pos + n > EL_GGUF_MAX_HEADER_BYTES) {
        return el_fail(r->err, EL_ERR_UNSUPPORTED, "the header is longer than %u MiB",
                       (unsigned)(EL_GGUF_MAX_HEADER_BYTES >> 20));
    }
    r->want = r->pos + n;
    return FAIL(r, EL_ERR_IO, "is cut off: more of the file is needed");
}

static el_status read_u32(reader *r, uint32_t *out)
{
    const el_status st = need(r, 4);
    if (st != EL_OK) return st;
    *out = el_read_u32(r->bytes + r->pos);
    r->pos += 4;
    return EL_OK;
}

static el_status read_u64(reader *r, uint64_t *out)
{
    const el_status st = need(r, 8);
    if (st != EL_OK) return st;
    *out = el_read_u64(r->bytes + r->pos);
    r->pos += 8;
    return EL_OK;
}

static el_status read_string(reader *r, el_view *out)
{
    uint64_t length = 0;
    el_status st = read_u64(r, &length);
    if (st == EL_OK) st = need(r, length);
    if (st != EL_OK) return st;
    *out = (el_view){(const char *)r->bytes + r->pos, (size_t)length};
    r->pos += length;
    return EL_OK;
}

/// The name of an entry or a tensor: from here on errors call it by that name.
static el_status read_name(reader *r, const char *kind, el_view *out)
{
    uint64_t length = 0;
    el_status st = read_u64(r, &length);
    if (st != EL_OK) return st;
    if (length == 0) return FAIL(r, EL_ERR_FORMAT, "has an empty name");
    if (length > NAME_MAX_BYTES) return FAIL(r, EL_ERR_FORMAT, "has a name longer than 65535 bytes");
    st = need(r, length);
    if (st != EL_OK) return st;

    r->kind = kind;
    r->name = (el_view){(const char *)r->bytes + r->pos, (size_t)length};
    r->pos += length;
    if (!el_view_is_text(r->name)) {
        return FAIL(r, EL_ERR_FORMAT, "has a name that is no printable UTF-8");
    }
    *out = r->name;
    return EL_OK;
}

/// Bytes of one scalar; 0 for strings and arrays, whose size is in the file.
static uint32_t scalar_bytes(uint32_t type)
{
    static const uint8_t sizes[] = {
        [EL_GGUF_U8] = 1,  [EL_GGUF_I8] = 1,  [EL_GGUF_U16] = 2, [EL_GGUF_I16] = 2,
        [EL_GGUF_U32] = 4, [EL_GGUF_I32] = 4, [EL_GGUF_F32] = 4, [EL_GGUF_BOOL] = 1,
        [EL_GGUF_U64] = 8, [EL_GGUF_I64] = 8, [EL_GGUF_F64] = 8,
    };
    return sizes[type];
}

/// Walk `count` values of one type; r->pos ends after the last.
static el_status walk_values(reader *r, uint32_t type, uint64_t count)
{
    if (type == EL_GGUF_STRING) {
        if (count > (r->file - r->pos) / 8) return FAIL(r, EL_ERR_FORMAT, "runs past the end of the file");
        for (uint64_t i = 0; i < count; i++) {
            el_view ignored;
            const el_status st = read_string(r, &ignored);
            if (st != EL_OK) return st;
        }
        return EL_OK;
    }

    const uint32_t each = scalar_bytes(type);
    if (count > (r->file - r->pos) / each) return FAIL(r, EL_ERR_FORMAT, "runs past the end of the file");
    const el_status st = need(r, count * each);
    if (st != EL_OK) return st;
    if (type == EL_GGUF_BOOL) {
        for (uint64_t i = 0; i < count; i++) {
            if (r->bytes[r->pos + i] > 1) return FAIL(r, EL_ERR_FORMAT, "has a bool that is neither 0 nor 1");
        }
    }
    r->pos += count * each;
    return EL_OK;
}

static el_status read_entry(reader *r, uint64_t index, el_gguf_kv *kv)
{
    r->kind = "metadata entry";
    r->index = index;
    r->name = (el_view){NULL, 0};

    uint32_t type = 0;
    uint64_t count = 1;
    el_status st = read_name(r, "metadata", &kv->key);
    if (st == EL_OK) st = read_u32(r, &type);
    if (st != EL_OK) return st;
    if (type > EL_GGUF_F64) return FAIL(r, EL_ERR_FORMAT, "has an unknown value type");

    uint32_t element = type;
    if (type == EL_GGUF_ARRAY) {
        st = read_u32(r, &element);
        if (st == EL_OK) st = read_u64(r, &count);
        if (st != EL_OK) return st;
        if (element == EL_GGUF_ARRAY) return FAIL(r, EL_ERR_UNSUPPORTED, "is an array of arrays");
        if (element > EL_GGUF_F64) return FAIL(r, EL_ERR_FORMAT, "is an array of an unknown type");
    }

    const uint64_t start = r->pos;
    st = walk_values(r, element, count);
    if (st != EL_OK) return st;
    kv->type = (el_gguf_type)type;
    kv->element = (el_gguf_type)element;
    kv->count = count;
    kv->value = r->bytes + start;
    kv->value_bytes = (size_t)(r->pos - start);
    return EL_OK;
}

/// Type and extents of one tensor, and the bytes that they come to.
static el_status check_extents(reader *r, uint32_t type, el_gguf_tensor *t)
{
    const el_type_info *info = el_type_get(type);
    if (info == NULL) {
        const char *name = el_type_foreign_name(type);
        return el_fail(r->err, EL_ERR_UNSUPPORTED, "%s has type %u (%s), which this version cannot read",
                       subject(r, (char[96]){0}), type, name != NULL ? name : "unknown");
    }
    for (uint32_t i = 0; i < t->dims; i++) {
        if (t->shape[i] == 0) return FAIL(r, EL_ERR_FORMAT, "has an extent of zero");
    }
    if (t->shape[0] % info->block_values != 0) {
        return el_fail(r->err, EL_ERR_FORMAT, "%s has rows of %llu values, no multiple of %s's block of %u",
                       subject(r, (char[96]){0}), (unsigned long long)t->shape[0], info->name,
                       info->block_values);
    }

    // No tensor is larger than the file, so the running product is checked against that. The
    // number of values stays below 2^63 too: a block of n values takes more than n / 8 bytes.
    uint64_t bytes = t->shape[0] / info->block_values;
    bool fits = bytes <= r->file / info->block_bytes;
    if (fits) bytes *= info->block_bytes;
    for (int i = 1; i < 4 && fits; i++) {
        fits = bytes <= r->file / t->shape[i];
        if (fits) bytes *= t->shape[i];
    }
    if (!fits) return FAIL(r, EL_ERR_FORMAT, "is larger than the file");
    t->type = (el_type)type;
    t->bytes = bytes;
    return EL_OK;
}

static el_status read_tensor(reader *r, uint64_t index, el_gguf_tensor *t)
{
    r->kind = "tensor number";
    r->index = index;
    r->name = (el_view){NULL, 0};
    for (int i = 0; i < 4; i++) t->shape[i] = 1;

    uint32_t type = 0;
    el_status st = read_name(r, "tensor", &t->name);
    if (st == EL_OK) st = read_u32(r, &t->dims);
    if (st != EL_OK) return st;
    if (t->dims < 1 || t->dims > 4) return FAIL(r, EL_ERR_FORMAT, "does not have 1 to 4 dimensions");
    for (uint32_t i = 0; i < t->dims && st == EL_OK; i++) st = read_u64(r, &t->shape[i]);
    if (st == EL_OK) st = read_u32(r, &type);
    if (st == EL_OK) st = read_u64(r, &t->offset);  // into the data: made absolute by place_tensors
    if (st != EL_OK) return st;
    return check_extents(r, type, t);
}

static int compare_offsets(const el_view *a, const el_view *b)
{
    const uint64_t x = ((const el_gguf_tensor *)(const void *)a)->offset;
    const uint64_t y = ((const el_gguf_tensor *)(const void *)b)->offset;
    return (x > y) - (x < y);
}

/// Make offsets absolute; check that each tensor is aligned, inside the file, and alone there.
static el_status place_tensors(reader *r, el_gguf_whole *w)
{
    el_gguf *g = &w->gguf;
    const uint64_t padding = (g->alignment - r->pos % g->alignment) % g->alignment;
    g->data_offset = padding <= r->file - r->pos ? r->pos + padding : r->file;
    const uint64_t room = r->file - g->data_offset;

    for (size_t i = 0; i < g->n_tensors; i++) {
        el_gguf_tensor *t = &w->tensors[i];
        r->kind = "tensor";
        r->name = t->name;
        if (t->offset % g->alignment != 0) {
            return FAIL(r, EL_ERR_FORMAT, "starts at an offset that is not aligned");
        }
        if (t->offset > room || t->bytes > room - t->offset) {
            return FAIL(r, EL_ERR_FORMAT, "has data past the end of the file (is the file cut short?)");
        }
        t->offset += g->data_offset;
        w->by_name[i] = &t->name;
    }

    el_sort_views(w->by_name, g->n_tensors, compare_offsets);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const el_gguf_tensor *before = (const el_gguf_tensor *)(const void *)w->by_name[i - 1];
        const el_gguf_tensor *t = (const el_gguf_tensor *)(const void *)w->by_name[i];
        if (t->offset - before->offset < before->bytes) {
            r->name = t->name;
            return FAIL(r, EL_ERR_FORMAT, "overlaps another tensor");
        }
    }
    return EL_OK;
}

static el_status sort_names(reader *r, const char *kind, const el_view **names, size_t n)
{
    el_sort_views(names, n, el_view_compare);
    for (size_t i = 1; i < n; i++) {
        if (el_view_compare(names[i - 1], names[i]) != 0) continue;
        r->kind = kind;
        r->name = *names[i];
        return FAIL(r, EL_ERR_FORMAT, "occurs twice");
    }
    return EL_OK;
}

static el_status read_alignment(el_gguf_whole *w, el_error *err)
{
    uint64_t alignment = DEFAULT_ALIGNMENT;
    if (el_gguf_find(&w->gguf, "general.alignment") != NULL) {
        const el_status st = el_gguf_get_u64(&w->gguf, "general.alignment", &alignment, err);
        if (st != EL_OK) return st;
    }
    if (alignment == 0 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0) {
        return el_fail(err, EL_ERR_FORMAT, "general.alignment is %llu: no power of two up to 1 MiB",
                       (unsigned long long)alignment);
    }
    w->gguf.alignment = (uint32_t)alignment;
    return EL_OK;
}

/// Magic, version and the two counts; the counts are possible when this returns EL_OK.
static el_status read_head(reader *r, el_gguf *g)
{
    static const char magic[MAGIC_BYTES] = {'G', 'G', 'U', 'F'};
    const size_t seen = r->size < MAGIC_BYTES ? (size_t)r->size : MAGIC_BYTES;
    if (seen > 0 && memcmp(r->bytes, magic, seen) != 0) {
        return el_fail(r->err, EL_ERR_FORMAT, "not a GGUF file: it does not start with 'GGUF'");
    }
    r->kind = "header of";
    r->index = HEAD_BYTES;
    el_status st = need(r, HEAD_BYTES);
    if (st == EL_ERR_FORMAT) {
        return el_fail(r->err, EL_ERR_FORMAT, "not a GGUF file: %llu bytes are less than its header",
                       (unsigned long long)r->file);
    }
    if (st != EL_OK) return st;

    g->version = el_read_u32(r->bytes + 4);
    if (g->version == 0x02000000 || g->version == 0x03000000) {
        return el_fail(r->err, EL_ERR_UNSUPPORTED, "a big-endian GGUF file; only little-endian is read");
    }
    if (g->version != 2 && g->version != 3) {
        return el_fail(r->err, EL_ERR_UNSUPPORTED, "GGUF version %u; only 2 and 3 are read", g->version);
    }

    const uint64_t tensors = el_read_u64(r->bytes + 8);
    const uint64_t entries = el_read_u64(r->bytes + 16);
    r->pos = HEAD_BYTES;
    const uint64_t left = r->file - r->pos;
    if (entries > left / ENTRY_MIN_BYTES || tensors > (left - entries * ENTRY_MIN_BYTES) / TENSOR_MIN_BYTES) {
        return el_fail(r->err, EL_ERR_FORMAT, "%llu tensors and %llu metadata entries do not fit in the file",
                       (unsigned long long)tensors, (unsigned long long)entries);
    }
    if (entries > EL_GGUF_MAX_ENTRIES || tensors > EL_GGUF_MAX_TENSORS) {
        return el_fail(r->err, EL_ERR_UNSUPPORTED,
                       "%llu metadata entries and %llu tensors; at most %d and %d are read",
                       (unsigned long long)entries, (unsigned long long)tensors, EL_GGUF_MAX_ENTRIES,
                       EL_GGUF_MAX_TENSORS);
    }
    r->kind = "header with entries";
    r->index = entries;
    st = need(r, entries * ENTRY_MIN_BYTES + tensors * TENSOR_MIN_BYTES);
    if (st != EL_OK) return st;
    g->n_tensors = (size_t)tensors;
    g->n_kv = (size_t)entries;
    return EL_OK;
}

static el_status parse(reader *r, el_gguf_whole *w)
{
    el_gguf *g = &w->gguf;
    el_status st = read_head(r, g);
    if (st != EL_OK) return st;

    // The counts fit in the bytes in memory, so this is at most five times those; +1 as
    // malloc(0) may be NULL. calloc checks its product.
    w->kv = calloc(g->n_kv + 1, sizeof *w->kv);
    w->by_key = calloc(g->n_kv + 1, sizeof *w->by_key);
    w->tensors = calloc(g->n_tensors + 1, sizeof *w->tensors);
    w->by_name = calloc(g->n_tensors + 1, sizeof *w->by_name);
    if (w->kv == NULL || w->by_key == NULL || w->tensors == NULL || w->by_name == NULL) {
        return el_fail(r->err, EL_ERR_NOMEM, "no memory for the header's tables");
    }
    g->kv = w->kv;
    g->tensors = w->tensors;

    for (size_t i = 0; i < g->n_kv && st == EL_OK; i++) {
        st = read_entry(r, i, &w->kv[i]);
        w->by_key[i] = &w->kv[i].key;
    }
    if (st == EL_OK) st = sort_names(r, "metadata", w->by_key, g->n_kv);
    if (st == EL_OK) st = read_alignment(w, r->err);
    for (size_t i = 0; i < g->n_tensors && st == EL_OK; i++) st = read_tensor(r, i, &w->tensors[i]);
    if (st == EL_OK) st = place_tensors(r, w);
    if (st == EL_OK) st = sort_names(r, "tensor", w->by_name, g->n_tensors);
    return st;
}

el_status el_gguf_parse(el_gguf **out, const uint8_t *bytes, size_t size, uint64_t file_bytes,
                        uint64_t *more_bytes, el_error *err)
{
    *out = NULL;
    *more_bytes = 0;
    if (size > file_bytes) return el_fail(err, EL_ERR_ARG, "more bytes than the file has");

    el_gguf_whole *w = calloc(1, sizeof *w);
    if (w == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for the header");
    w->gguf.file_bytes = file_bytes;

    reader r = {.bytes = bytes, .size = size, .file = file_bytes, .kind = "header", .err = err};
    const el_status st = parse(&r, w);
    if (st == EL_OK) {
        *out = &w->gguf;
        return EL_OK;
    }
    if (st == EL_ERR_IO) {  // twice as much each time, so that all tries together stay linear
        uint64_t more = size <= file_bytes / 2 ? 2 * (uint64_t)size : file_bytes;
        if (more < FIRST_WINDOW_BYTES) more = FIRST_WINDOW_BYTES;
        if (more < r.want) more = r.want;
        *more_bytes = more < file_bytes ? more : file_bytes;
    }
    el_gguf_free(&w->gguf);
    return st;
}

void el_gguf_free(el_gguf *gguf)
{
    if (gguf == NULL) return;
    el_gguf_whole *w = (el_gguf_whole *)(void *)gguf;
    free(w->kv);
    free(w->tensors);
    free((void *)w->by_key);
    free((void *)w->by_name);
    free(w);
}
