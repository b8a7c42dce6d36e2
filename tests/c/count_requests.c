/* Linked with --wrap: counts what a program asks of the allocator and of pthread_create, and tells at its end. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long requests;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *old, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **out, size_t align, size_t n);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

void *__wrap_malloc(size_t n)
{
    atomic_fetch_add(&requests, 1);
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
    atomic_fetch_add(&requests, 1);
    return __real_calloc(n, each);
}

void *__wrap_realloc(void *old, size_t n)
{
    atomic_fetch_add(&requests, 1);
    return __real_realloc(old, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&requests, 1);
    return __real_aligned_alloc(align, n);
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
    atomic_fetch_add(&requests, 1);
    return __real_posix_memalign(out, align, n);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    atomic_fetch_add(&requests, 1);
    return __real_pthread_create(thread, attr, run, arg);
}

__attribute__((destructor)) static void tell(void)
{
    fprintf(stderr, "requests=%ld\n", atomic_load(&requests));
}
