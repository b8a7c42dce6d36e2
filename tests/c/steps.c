/* What a decode step asks of the system: nothing, beyond the waits of the pool.
 *
 *   steps FILE THREADS SLIP      SLIP: none, or what the program itself does wrong: call, memory
 *
 * A child evaluates 100 tokens, of one session and then of two at once. Meanwhile the linker's wrapped
 * allocator counts, and a seccomp filter over all threads stops at the first system call that is not on
 * its list. Prints "steps=N requests=N call=NUMBER", call -1 for none; exit code 77 where the system has
 * no such filter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "edgellm/cpu.h"
#include "edgellm/gguf.h"
#include "edgellm/model.h"
#include "edgellm/pool.h"
#include "whole_file.h"

enum { STEPS = 100, WARM = 10, NO_FILTER = 77 };

/// Seen by both processes.
typedef struct report {
    atomic_long requests, call, steps;
} report;

static report *shared;
static atomic_bool counting;

static void count(void)
{
    if (atomic_load(&counting)) atomic_fetch_add(&shared->requests, 1);
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *old, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **out, size_t align, size_t n);
void __real_free(void *memory);

void *__wrap_malloc(size_t n)
{
    count();
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
    count();
    return __real_calloc(n, each);
}

void *__wrap_realloc(void *old, size_t n)
{
    count();
    return __real_realloc(old, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    count();
    return __real_aligned_alloc(align, n);
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
    count();
    return __real_posix_memalign(out, align, n);
}

void __wrap_free(void *memory)
{
    count();
    __real_free(memory);
}

static void caught(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    atomic_store(&shared->call, info->si_syscall);
    _exit(0);
}

/// From now on every thread may only leave and, where there are several, wait.
static int forbid(bool waits)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, waits ? SYS_futex : SYS_exit_group, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, waits ? SYS_sched_yield : SYS_exit_group, 3, 0),
        // a call only on the few machines whose clock cannot be read without one
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, waits ? SYS_clock_gettime : SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof code / sizeof *code, code};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = caught;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

typedef struct engine {
    el_pool *pool;
    el_model *model;
    el_session *session[2];
    float *logits;
} engine;

static el_status start(engine *e, const whole_file *f, size_t threads, el_error *err)
{
    const el_source source = {whole_file_read, (void *)(uintptr_t)f};
    el_gguf *gguf = NULL;
    el_plan plan;
    uint64_t more = 0;
    el_status st = el_gguf_parse(&gguf, f->bytes, f->size, f->size, &more, err);
    if (st == EL_OK) st = el_model_plan(&plan, gguf, 256, EL_KV_F16, 32, threads, err);
    if (st == EL_OK) st = el_pool_new(&e->pool, threads, err);
    if (st != EL_OK) return st;
    const uint64_t bytes = el_plan_model_bytes(&plan), each = el_plan_session_bytes(&plan);
    st = el_model_init(&e->model, gguf, &source, el_isa_best(el_cpu_features()), 32, e->pool,
                       zeroed(aligned_alloc, bytes), bytes, err);
    for (int i = 0; i < 2 && st == EL_OK; i++) {
        st =
            el_session_init(&e->session[i], e->model, 256, EL_KV_F16, zeroed(aligned_alloc, each), each, err);
    }
    if (st == EL_OK)
        e->logits = zeroed(aligned_alloc, 2 * (uint64_t)el_model_config(e->model)->vocab * sizeof(float));
    return st;
}

static el_status step(engine *e, int i, bool both, el_error *err)
{
    const int32_t id = 3 + i % 100;
    const el_segment segments[] = {{e->session[0], &id, 1, 1, NULL}, {e->session[1], &id, 1, 1, NULL}};
    if (!both) return el_session_eval(e->session[0], &id, 1, 1, e->logits, err);
    return el_batch_eval(e->model, segments, 2, e->logits, err);
}

static int child(const char *path, size_t threads, const char *slip)
{
    whole_file f = {0};
    engine e = {0};
    el_error err = {{0}};
    if (whole_file_load(&f, path, aligned_alloc) != 0) return 2;
    el_status st = start(&e, &f, threads, &err);
    for (int i = 0; i < WARM && st == EL_OK; i++) st = step(&e, i, i % 2 == 1, &err);
    if (st != EL_OK) return 3;
    if (forbid(threads > 1) != 0) return NO_FILTER;

    atomic_store(&counting, true);
    for (int i = 0; i < STEPS && st == EL_OK; i++) {
        st = step(&e, i, i >= STEPS / 2, &err);
        atomic_fetch_add(&shared->steps, 1);
        if (i == 70 && strcmp(slip, "call") == 0) (void)getppid();
        if (i == 70 && strcmp(slip, "memory") == 0) free(malloc(1));
    }
    _exit(st == EL_OK ? 0 : 4);
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 2;
    atomic_store(&shared->call, -1);

    const pid_t pid = fork();
    if (pid == 0) _exit(child(argv[1], (size_t)atol(argv[2]), argv[3]));
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    printf("steps=%ld requests=%ld call=%ld\n", atomic_load(&shared->steps), atomic_load(&shared->requests),
           atomic_load(&shared->call));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
