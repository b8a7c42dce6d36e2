/* libFuzzer harness of the GGUF parser. From the repository root:
 *
 *   clang -g -O1 -std=c11 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *       -Icsrc/include -Icsrc tests/fuzz/fuzz_gguf.c csrc/format/[a-z]*.c csrc/core/error.c -o build/fuzz_gguf
 *   build/fuzz_gguf -max_len=8192 -max_total_time=300 build/fuzz_corpus tests/fuzz/corpus
 *
 * The input is a whole file. It is parsed at once and through a growing window, and both must
 * agree; then every view is read to its last byte, so that a bad one is a sanitizer report.
 */
#include <stdlib.h>
#include <string.h>

#include "edgellm/gguf.h"

static volatile uint64_t sink;

static void touch(const void *data, size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) sum = sum * 31 + ((const uint8_t *)data)[i];
    sink += sum;
}

static char *as_text(el_view view)
{
    char *text = malloc(view.size + 1);
    if (text == NULL) abort();
    memcpy(text, view.data, view.size);
    text[view.size] = '\0';
    return text;
}

static void read_entry(const el_gguf *gguf, const el_gguf_kv *kv)
{
    char *key = as_text(kv->key);
    el_error err;
    uint64_t number = 0;
    float real = 0.0f;
    bool truth = false;
    el_view text = {NULL, 0};
    touch(kv->value, kv->value_bytes);
    if (el_gguf_find(gguf, key) != kv) abort();
    (void)el_gguf_get_u64(gguf, key, &number, &err);
    (void)el_gguf_get_f32(gguf, key, &real, &err);
    (void)el_gguf_get_bool(gguf, key, &truth, &err);
    if (el_gguf_get_string(gguf, key, &text, &err) == EL_OK) touch(text.data, text.size);
    if (kv->type == EL_GGUF_ARRAY) {
        const uint8_t *cursor = kv->value;
        uint64_t strings = 0;
        while (el_gguf_next_string(kv, &cursor, &text)) {
            touch(text.data, text.size);
            strings++;
        }
        if (kv->element == EL_GGUF_STRING && strings != kv->count) abort();
    }
    free(key);
}

static void read_tensor(const el_gguf *gguf, const el_gguf_tensor *t, const uint8_t *bytes)
{
    char *name = as_text(t->name);
    if (el_gguf_tensor_find(gguf, name) != t) abort();
    if (t->offset > gguf->file_bytes || t->bytes > gguf->file_bytes - t->offset) abort();
    if (t->offset % gguf->alignment != 0) abort();

    uint64_t row_bytes = 0;
    if (el_row_bytes(t->type, t->shape[0], &row_bytes, NULL) != EL_OK) abort();
    if (row_bytes * t->shape[1] * t->shape[2] * t->shape[3] != t->bytes) abort();
    float *row = malloc(t->shape[0] * sizeof *row);
    if (row == NULL) abort();
    el_dequantize(t->type, bytes + t->offset, (size_t)t->shape[0], row);
    touch(row, t->shape[0] * sizeof *row);
    free(row);
    free(name);
}

/// Parse a copy of the first bytes only, larger each time, as a reader of a file does.
static el_status parse_in_windows(const uint8_t *bytes, size_t size)
{
    uint64_t window = 0;
    for (;;) {
        uint8_t *part = malloc(window + 1);
        if (part == NULL) abort();
        if (window > 0) memcpy(part, bytes, window);
        el_gguf *gguf = NULL;
        uint64_t more = 0;
        const el_status st = el_gguf_parse(&gguf, part, (size_t)window, size, &more, NULL);
        el_gguf_free(gguf);
        free(part);
        if (st != EL_ERR_IO) return st;
        if (more <= window || more > size) abort();
        window = window < 64 && more > window + 7 ? window + 7 : more;  // small steps at first
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    el_gguf *gguf = NULL;
    uint64_t more = 0;
    el_error err = {""};
    const el_status st = el_gguf_parse(&gguf, bytes, size, size, &more, &err);
    if (st == EL_ERR_IO || more != 0 || (st == EL_OK) != (gguf != NULL)) abort();
    if (memchr(err.text, '\0', sizeof err.text) == NULL || (st != EL_OK && err.text[0] == '\0')) abort();
    if (parse_in_windows(bytes, size) != st) abort();
    if (st != EL_OK) return 0;

    for (size_t i = 0; i < gguf->n_kv; i++) read_entry(gguf, &gguf->kv[i]);
    for (size_t i = 0; i < gguf->n_tensors; i++) read_tensor(gguf, &gguf->tensors[i], bytes);
    if (el_gguf_find(gguf, "") != NULL || el_gguf_tensor_find(gguf, "\x7f") != NULL) abort();
    el_gguf_free(gguf);
    return 0;
}
