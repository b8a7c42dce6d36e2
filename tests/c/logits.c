/* One number for all logits of a model, on which every machine, instruction set, number of threads, chunking
 * and batch must agree.
 *
 *   logits TOKENS FILE...        GGUF files and edge images
 *
 * Prints "HASH isas=A,B,... FILE" per file, or what differs; exit code 1 then. The hash is FNV-1a over the
 * float32 logits of all positions, lowest byte first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm/cpu.h"
#include "edgellm/edge.h"
#include "edgellm/gguf.h"
#include "edgellm/model.h"
#include "edgellm/pool.h"
#include "whole_file.h"

enum { MOST_TOKENS = 512 };
enum { AT_ONCE, ONE_BY_ONE, IN_CHUNKS, IN_BATCH, F32_CACHE, MODES };
static const char *const mode_names[MODES] = {"at once", "one by one", "in chunks", "in a batch",
                                              "f32 cache"};

typedef struct subject {
    const whole_file *f;
    el_gguf *gguf;  ///< NULL for an image
    el_edge edge;
    el_config config;
    size_t isa, n;
    el_pool *pool;
    int32_t ids[MOST_TOKENS];
    el_error err;
} subject;

static uint64_t hash_logits(const float *logits, size_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        for (int b = 0; b < 4; b++) hash = (hash ^ (bits >> 8 * b & 0xFF)) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static el_status plan_of(subject *s, el_kv_type kv, el_plan *plan)
{
    const size_t threads = el_pool_threads(s->pool);
    if (s->gguf == NULL) return el_edge_plan(plan, &s->edge, s->n, kv, s->n + 4, threads, &s->err);
    return el_model_plan(plan, s->gguf, s->n, kv, s->n + 4, threads, &s->err);
}

static el_status make_model(subject *s, el_model **model, void *memory, uint64_t bytes)
{
    const el_source source = {whole_file_read, (void *)(uintptr_t)s->f};
    if (s->gguf == NULL) {
        return el_model_from_edge(model, &s->edge, s->isa, s->n + 4, s->pool, memory, bytes, &s->err);
    }
    return el_model_init(model, s->gguf, &source, s->isa, s->n + 4, s->pool, memory, bytes, &s->err);
}

/// All tokens in chunks of these two sizes in turn.
static el_status in_chunks(subject *s, el_session *session, size_t first, size_t second, float *logits)
{
    el_status st = EL_OK;
    size_t i = 0;
    for (size_t turn = 0; i < s->n && st == EL_OK; turn++) {
        const size_t want = turn % 2 == 0 ? first : second, n = s->n - i < want ? s->n - i : want;
        st = el_session_eval(session, s->ids + i, n, n, logits + i * s->config.vocab, &s->err);
        i += n;
    }
    return st;
}

/// Beside another session, which reads other tokens at another pace.
static el_status in_batch(subject *s, el_model *model, el_session *session, el_session *other, float *logits)
{
    float *both = zeroed(aligned_alloc, 2 * s->config.vocab * sizeof *both);
    el_status st = both != NULL ? EL_OK : EL_ERR_NOMEM;
    for (size_t i = 0; i < s->n && st == EL_OK; i++) {
        const el_segment segments[] = {
            {other, s->ids + (s->n - 1 - i), 1, 1, NULL},
            {session, s->ids + i, 1, 1, NULL},
        };
        const size_t skip = i % 3 == 0 ? 1 : 0;  // the other rests every third step
        st = el_batch_eval(model, segments + skip, 2 - skip, both, &s->err);
        memcpy(logits + i * s->config.vocab, both + (1 - skip) * s->config.vocab,
               s->config.vocab * sizeof *both);
    }
    free(both);
    return st;
}

static el_status evaluate(subject *s, int mode, uint64_t *hash)
{
    const el_kv_type kv = mode == F32_CACHE ? EL_KV_F32 : EL_KV_F16;
    void *memory = NULL, *cache[2] = {NULL, NULL};
    float *logits = NULL;
    el_model *model;
    el_session *session, *other;
    el_plan plan;

    el_status st = plan_of(s, kv, &plan);
    if (st != EL_OK) return st;
    const uint64_t session_bytes = el_plan_session_bytes(&plan);
    memory = zeroed(aligned_alloc, el_plan_model_bytes(&plan));
    for (int i = 0; i < 2; i++) cache[i] = zeroed(aligned_alloc, session_bytes);
    logits = zeroed(aligned_alloc, (uint64_t)s->n * s->config.vocab * sizeof *logits);
    if (memory == NULL || cache[0] == NULL || cache[1] == NULL || logits == NULL) st = EL_ERR_NOMEM;
    if (st == EL_OK) st = make_model(s, &model, memory, el_plan_model_bytes(&plan));
    if (st == EL_OK) st = el_session_init(&session, model, s->n, kv, cache[0], session_bytes, &s->err);
    if (st == EL_OK) st = el_session_init(&other, model, s->n, kv, cache[1], session_bytes, &s->err);
    if (st == EL_OK && mode == IN_BATCH) st = in_batch(s, model, session, other, logits);
    if (st == EL_OK && mode != IN_BATCH) {
        const size_t first = mode == ONE_BY_ONE ? 1 : mode == IN_CHUNKS ? 3 : s->n;
        st = in_chunks(s, session, first, mode == ONE_BY_ONE ? 1 : 5, logits);
    }
    *hash = hash_logits(logits, s->n * s->config.vocab);
    free(memory);
    free(cache[0]);
    free(cache[1]);
    free(logits);
    return st;
}

/// Whether an evaluation is worth its time, which under an emulator is long: a GGUF in every mode at one thread and in
/// two at three, an image in one.
static bool wanted(const subject *s, size_t threads, int mode)
{
    return mode == AT_ONCE || (s->gguf != NULL && (threads == 1 || mode == IN_BATCH));
}

static int differs(const subject *s, const char *path, int mode, uint64_t got, uint64_t hash)
{
    printf("%s: %s, %zu threads, %s: %016llx, not %016llx\n", path, el_isa_name(s->isa),
           el_pool_threads(s->pool), mode_names[mode], (unsigned long long)got, (unsigned long long)hash);
    return 1;
}

/// Without a pool, then with one of three threads.
static int agree(subject *s, const char *path, uint64_t *hash, bool *have)
{
    int rc = 0;
    for (size_t threads = 1; threads <= 3 && rc == 0; threads += 2) {
        s->pool = NULL;
        if (threads > 1 && el_pool_new(&s->pool, threads, &s->err) != EL_OK) return 1;
        for (int mode = 0; mode < MODES && rc == 0; mode++) {
            uint64_t got = 0;
            if (!wanted(s, threads, mode)) continue;
            const el_status st = evaluate(s, mode, &got);
            if (st != EL_OK) {
                printf("%s: %s: %s\n", path, el_status_name(st), s->err.text);
                rc = 1;
            }
            if (mode == F32_CACHE) continue;  // gives other bits; it only has to run
            if (rc == 0 && *have && got != *hash) rc = differs(s, path, mode, got, *hash);
            *hash = got;
            *have = true;
        }
        el_pool_free(s->pool);
    }
    return rc;
}

static int check(const char *path, size_t tokens)
{
    static subject s;
    whole_file f = {0};
    uint64_t more = 0, hash = 0;
    bool have = false;
    char isas[128] = "";
    if (whole_file_load(&f, path, aligned_alloc) != 0) return 1;
    s = (subject){.f = &f, .n = tokens};

    el_status st;
    if (f.size > 4 && memcmp(f.bytes, "GGUF", 4) == 0) {
        st = el_gguf_parse(&s.gguf, f.bytes, (size_t)f.size, f.size, &more, &s.err);
        if (st == EL_OK) st = el_config_from_gguf(&s.config, s.gguf, &s.err);
    } else {
        st = el_edge_parse(&s.edge, f.bytes, f.size, &s.err);
        s.config = s.edge.config;
    }
    if (st != EL_OK) printf("%s: %s: %s\n", path, el_status_name(st), s.err.text);
    int rc = st == EL_OK ? 0 : 1;
    for (size_t i = 0; i < tokens; i++)
        s.ids[i] = (int32_t)((i * 7919 + 13) % (rc == 0 ? s.config.vocab : 1));

    const char *name;
    for (size_t isa = 0; rc == 0 && (name = el_isa_name(isa)) != NULL; isa++) {
        if (el_isa_find(name, el_cpu_features(), &s.isa, &s.err) != EL_OK) continue;
        (void)snprintf(isas + strlen(isas), sizeof isas - strlen(isas), "%s%s", *isas != '\0' ? "," : "",
                       name);
        rc = agree(&s, path, &hash, &have);
    }
    if (rc == 0) printf("%016llx isas=%s %s\n", (unsigned long long)hash, isas, path);
    el_gguf_free(s.gguf);
    free(f.bytes);
    return rc;
}

int main(int argc, char **argv)
{
    const long tokens = argc > 2 ? atol(argv[1]) : 0;
    if (tokens < 1 || tokens > MOST_TOKENS - 4) return 2;
    int rc = 0;
    for (int i = 2; i < argc && rc == 0; i++) {
        rc = check(argv[i], (size_t)tokens);
        (void)fflush(stdout);
    }
    return rc;
}
