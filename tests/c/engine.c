/* The engine without Python: load a model, evaluate tokens, print a hash of the logits.
 *
 *   engine FILE THREADS ISA FAIL_AT ROUNDS ID...      THREADS 0: without a pool
 *
 * The linker wraps the allocator and pthread_create: request number FAIL_AT (from 1) is refused, and
 * what was taken but not given back is counted. Prints "status=NAME hash=HEX requests=N live=N text".
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm/cpu.h"
#include "edgellm/gguf.h"
#include "edgellm/model.h"
#include "edgellm/pool.h"
#include "whole_file.h"

static atomic_long requests, live, fail_at;

static int refused(void) { return atomic_fetch_add(&requests, 1) + 1 == atomic_load(&fail_at); }

static void *counted(void *memory)
{
    if (memory != NULL) atomic_fetch_add(&live, 1);
    return memory;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *old, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **out, size_t align, size_t n);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

void *__wrap_malloc(size_t n) { return refused() ? NULL : counted(__real_malloc(n)); }

void *__wrap_calloc(size_t n, size_t each) { return refused() ? NULL : counted(__real_calloc(n, each)); }

void *__wrap_realloc(void *old, size_t n)
{
    if (refused()) return NULL;
    void *memory = __real_realloc(old, n);
    return old == NULL ? counted(memory) : memory;
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refused() ? NULL : counted(__real_aligned_alloc(align, n));
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
    if (refused()) return 12;
    const int rc = __real_posix_memalign(out, align, n);
    if (rc == 0) (void)counted(*out);
    return rc;
}

void __wrap_free(void *memory)
{
    if (memory != NULL) atomic_fetch_sub(&live, 1);
    __real_free(memory);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    return refused() ? 11 : __real_pthread_create(thread, attr, run, arg);
}

typedef struct job {
    const int32_t *ids;
    size_t n;
    size_t rounds;
    size_t threads;
    const char *isa;
    uint64_t hash;
} job;

/// Evaluate the tokens at once, then again one by one; the last logits must be the same bits.
static el_status evaluate(el_session *session, job *j, float *logits, size_t vocab, el_error *err)
{
    el_status st = EL_OK;
    j->hash = 0xcbf29ce484222325u;
    for (size_t round = 0; round < j->rounds && st == EL_OK; round++) {
        const size_t step = round % 2 == 0 ? j->n : 1;
        st = el_session_truncate(session, 0, err);
        for (size_t i = 0; i < j->n && st == EL_OK; i += step) {
            st = el_session_eval(session, j->ids + i, step, i + step == j->n ? 1 : 0, logits, err);
        }
        uint64_t hash = 0xcbf29ce484222325u;
        for (size_t i = 0; i < vocab * sizeof *logits; i++) {
            hash = (hash ^ ((const uint8_t *)logits)[i]) * 0x100000001b3u;
        }
        if (round > 0 && st == EL_OK && hash != j->hash) {
            (void)snprintf(err->text, sizeof err->text, "round %zu gives other bits", round);
            st = EL_ERR_ARG;
        }
        j->hash = hash;
    }
    return st;
}

static el_status run(const whole_file *f, job *j, el_error *err)
{
    el_gguf *gguf = NULL;
    el_pool *pool = NULL;
    el_model *model = NULL;
    el_session *session = NULL;
    void *weights = NULL, *cache = NULL;
    float *logits = NULL;
    const el_source source = {whole_file_read, (void *)(uintptr_t)f};
    el_plan plan;
    el_config config;
    const size_t planned = j->threads > 0 ? j->threads : 1;
    size_t isa = 0;
    uint64_t more = 0;

    el_status st = el_gguf_parse(&gguf, f->bytes, f->size, f->size, &more, err);
    if (st == EL_OK) st = el_config_from_gguf(&config, gguf, err);
    if (st == EL_OK) st = el_model_plan(&plan, gguf, j->n, EL_KV_F16, j->n, planned, err);
    if (st == EL_OK) st = el_isa_find(j->isa, el_cpu_features(), &isa, err);
    if (st == EL_OK && j->threads > 0) st = el_pool_new(&pool, j->threads, err);
    if (st != EL_OK) goto done;

    weights = zeroed(__real_aligned_alloc, el_plan_model_bytes(&plan));
    cache = zeroed(__real_aligned_alloc, el_plan_session_bytes(&plan));
    logits = zeroed(__real_aligned_alloc, config.vocab * sizeof *logits);
    st = el_model_init(&model, gguf, &source, isa, j->n, pool, weights, el_plan_model_bytes(&plan), err);
    if (st == EL_OK) {
        st = el_session_init(&session, model, j->n, EL_KV_F16, cache, el_plan_session_bytes(&plan), err);
    }
    if (st == EL_OK) st = evaluate(session, j, logits, config.vocab, err);

done:
    el_pool_free(pool);
    el_gguf_free(gguf);
    __real_free(weights);
    __real_free(cache);
    __real_free(logits);
    return st;
}

int main(int argc, char **argv)
{
    whole_file f = {0};
    if (argc < 7 || whole_file_load(&f, argv[1], __real_aligned_alloc) != 0) return 2;
    int32_t ids[512];
    job j = {ids, 0, (size_t)atol(argv[5]), (size_t)atol(argv[2]), argv[3], 0};
    for (int i = 6; i < argc && j.n < 512; i++) {
        ids[j.n++] = (int32_t)atol(argv[i]);
    }
    el_error err = {{0}};

    atomic_store(&fail_at, atol(argv[4]));
    atomic_store(&requests, 0);
    atomic_store(&live, 0);
    const el_status st = run(&f, &j, &err);
    const long asked = atomic_load(&requests), left = atomic_load(&live);

    printf("status=%s hash=%016llx requests=%ld live=%ld %s\n", el_status_name(st),
           (unsigned long long)j.hash, asked, left, err.text);
    __real_free(f.bytes);
    return 0;
}
