/* libFuzzer harness of an edge image from its bytes to logits and text, with no allocation of the core. From the
 * repository root:
 *
 *   clang -g -O1 -std=c11 -ffp-contract=off -pthread -fsanitize=fuzzer,address,undefined \
 *       -fno-sanitize-recover=all -Icsrc/include -Icsrc tests/fuzz/fuzz_edge.c csrc/model/[a-z]*.c \
 *       csrc/text/[a-z]*.c csrc/format/[a-z]*.c csrc/core/[a-z]*.c csrc/kernels/ref/[a-z]*.c -o build/fuzz_edge
 *   build/fuzz_edge -max_len=60000 -max_total_time=300 build/fuzz_corpus FOLDER_WITH_TINY_IMAGES
 *
 * tests/fuzz/mutants_edge.py makes tiny images. Only the reference kernels are built in.
 */
#include <stdlib.h>
#include <string.h>

#include "edgellm/cpu.h"
#include "edgellm/edge.h"

enum { CONTEXT = 8, MICRO_BATCH = 4, MEMORY_BYTES = 16 << 20 };

static void *copy_of(const void *bytes, uint64_t size)
{
    uint8_t *memory = aligned_alloc(64, (size_t)(size + 63) / 64 * 64 + 64);
    if (memory == NULL) abort();
    memset(memory, 0, (size_t)(size + 63) / 64 * 64 + 64);
    if (bytes != NULL) memcpy(memory, bytes, (size_t)size);
    return memory;
}

static void run_tokenizer(const el_edge *edge)
{
    static const char text[] = "<|im_start|>user\nThe 12 cats\xF0\x9F\x90\x88 don't \xff sleep   ";
    static uint64_t scratch[28 * sizeof text / 8 + 1];
    int32_t ids[sizeof text + 2];
    size_t n = 0;
    const el_tokenizer *tok;
    el_tokenizer_place place;
    if (el_edge_tokenizer(&tok, edge, &place, NULL) != EL_OK) return;
    if (el_tokenizer_encode_into(tok, text, sizeof text, EL_ENCODE_PARSE_SPECIAL | EL_ENCODE_ADD_SPECIAL, ids,
                                 sizeof ids / sizeof *ids, &n, scratch, sizeof scratch, NULL) != EL_OK)
        abort();
    for (size_t i = 0; i < n; i++) {
        el_view bytes;
        if (el_tokenizer_token(tok, ids[i], &bytes, NULL) != EL_OK) abort();
    }
}

static void evaluate(el_model *model, const el_plan *plan)
{
    void *memory = copy_of(NULL, el_plan_session_bytes(plan));
    el_session *session = NULL;
    const uint32_t vocab = el_model_config(model)->vocab;
    float *logits = malloc((size_t)vocab * 2 * sizeof *logits);
    const int32_t ids[3] = {0, (int32_t)(vocab - 1), (int32_t)(vocab / 2)};
    if (logits == NULL) abort();
    if (el_session_init(&session, model, CONTEXT, EL_KV_F16, memory, el_plan_session_bytes(plan), NULL) ==
        EL_OK) {
        if (el_session_eval(session, ids, 3, 2, logits, NULL) != EL_OK) abort();
        if (el_session_eval(session, ids + 1, 1, 1, logits, NULL) != EL_OK) abort();
    }
    free(logits);
    free(memory);
}

static void run_model(const el_edge *edge)
{
    el_plan plan;
    el_model *model = NULL;
    size_t isa = 0;
    if (el_isa_find("ref", 0, &isa, NULL) != EL_OK) abort();
    if (el_edge_plan(&plan, edge, CONTEXT, EL_KV_F16, MICRO_BATCH, 1, NULL) != EL_OK) return;
    const uint64_t bytes = el_plan_model_bytes(&plan);
    if (bytes > MEMORY_BYTES || el_plan_session_bytes(&plan) > MEMORY_BYTES) return;
    void *memory = copy_of(NULL, bytes);
    if (el_model_from_edge(&model, edge, isa, MICRO_BATCH, NULL, memory, bytes, NULL) == EL_OK)
        evaluate(model, &plan);
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    el_edge edge;
    uint8_t *image = copy_of(bytes, size);
    if (el_edge_parse(&edge, image, size, NULL) == EL_OK) {
        run_tokenizer(&edge);
        run_model(&edge);
    }
    free(image);
    return 0;
}
