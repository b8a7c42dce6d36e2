/* libFuzzer harness of the whole way from a file's bytes to logits and text. From the repository root:
 *
 *   clang -g -O1 -std=c11 -ffp-contract=off -pthread -fsanitize=fuzzer,address,undefined \
 *       -fno-sanitize-recover=all -Icsrc/include -Icsrc tests/fuzz/fuzz_model.c csrc/model/[a-z]*.c \
 *       csrc/text/[a-z]*.c csrc/format/[a-z]*.c csrc/core/[a-z]*.c csrc/kernels/ref/[a-z]*.c -o build/fuzz_model
 *   build/fuzz_model -max_len=40000 -max_total_time=300 build/fuzz_corpus FOLDER_WITH_TINY_MODELS
 *
 * tests/fuzz/mutants.py makes tiny models. Only the reference kernels are built in.
 */
#include <stdlib.h>
#include <string.h>

#include "edgellm/cpu.h"
#include "edgellm/model.h"
#include "edgellm/vocab.h"

enum { CONTEXT = 8, MICRO_BATCH = 4, MEMORY_BYTES = 16 << 20 };

typedef struct file_bytes {
    const uint8_t *bytes;
    size_t size;
} file_bytes;

static size_t read_bytes(void *context, uint64_t offset, void *dst, size_t n)
{
    const file_bytes *file = context;
    if (offset > file->size) return 0;
    const size_t there = n < file->size - offset ? n : (size_t)(file->size - offset);
    memcpy(dst, file->bytes + offset, there);
    return there;
}

static void *zeroed(uint64_t bytes)
{
    void *memory = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    if (memory == NULL) abort();
    memset(memory, 0, (size_t)(bytes + 63) / 64 * 64);
    return memory;
}

static void run_tokenizer(const el_gguf *gguf)
{
    static const char text[] = "<|im_start|>user\nThe 12 cats\xF0\x9F\x90\x88 don't \xff sleep   ";
    el_tokenizer *tok = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    if (el_tokenizer_from_gguf(&tok, gguf, NULL) != EL_OK) return;
    if (el_tokenizer_encode(tok, text, sizeof text, EL_ENCODE_PARSE_SPECIAL | EL_ENCODE_ADD_SPECIAL, &ids, &n,
                            NULL) == EL_OK) {
        for (size_t i = 0; i < n; i++) {
            el_view bytes;
            if (el_tokenizer_token(tok, ids[i], &bytes, NULL) != EL_OK) abort();
        }
    }
    el_ids_free(ids);
    el_tokenizer_free(tok);
}

static void evaluate(el_model *model, const el_plan *plan)
{
    const uint64_t bytes = el_plan_session_bytes(plan);
    void *memory = zeroed(bytes);
    el_session *session = NULL;
    const uint32_t vocab = el_model_config(model)->vocab;
    float *logits = malloc((size_t)vocab * 2 * sizeof *logits);
    const int32_t ids[3] = {0, (int32_t)(vocab - 1), (int32_t)(vocab / 2)};
    if (logits == NULL) abort();
    if (el_session_init(&session, model, CONTEXT, EL_KV_F16, memory, bytes, NULL) == EL_OK) {
        if (el_session_eval(session, ids, 3, 2, logits, NULL) != EL_OK) abort();
        if (el_session_eval(session, ids + 1, 1, 1, logits, NULL) != EL_OK) abort();
    }
    free(logits);
    free(memory);
}

static void run_model(const el_gguf *gguf, file_bytes file, el_pool *pool)
{
    el_plan plan;
    el_model *model = NULL;
    size_t isa = 0;
    el_error err;
    const el_source source = {read_bytes, &file};
    if (el_isa_find("ref", 0, &isa, NULL) != EL_OK) abort();
    if (el_model_plan(&plan, gguf, CONTEXT, EL_KV_F16, MICRO_BATCH, el_pool_threads(pool), &err) != EL_OK)
        return;
    const uint64_t bytes = el_plan_model_bytes(&plan);
    if (bytes > MEMORY_BYTES || el_plan_session_bytes(&plan) > MEMORY_BYTES) return;

    void *memory = zeroed(bytes);
    if (el_model_init(&model, gguf, &source, isa, MICRO_BATCH, pool, memory, bytes, &err) == EL_OK) {
        evaluate(model, &plan);
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static el_pool *pool = NULL;
    if (pool == NULL && el_pool_new(&pool, 1, NULL) != EL_OK) abort();
    el_gguf *gguf = NULL;
    uint64_t more = 0;
    if (el_gguf_parse(&gguf, bytes, size, size, &more, NULL) != EL_OK) return 0;
    run_tokenizer(gguf);
    run_model(gguf, (file_bytes){bytes, size}, pool);
    el_gguf_free(gguf);
    return 0;
}
