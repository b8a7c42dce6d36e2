/* Generate text from an edge image, in C alone.
 *
 *   hello_desktop IMAGE [--prompt TEXT] [--threads N] [--isa NAME] [--tokens N] [--context N] [--batch N]
 *                       [--temperature X] [--top-k N] [--seed N]
 *
 * The image is mapped and used where it lies; all other memory is one block, taken before the first
 * token. The last line says how many tokens were read and made, and a hash of their logits, which is the same
 * on every machine and at every number of threads. Exit code 2 on bad usage, 1 when something failed.
 */
#define _DEFAULT_SOURCE  // MAP_ANONYMOUS
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edgellm/cpu.h"
#include "examples/talk.h"

static const char usage[] =
    "usage: hello_desktop IMAGE [--prompt TEXT] [--threads N] [--isa NAME] [--tokens N] [--context N]\n"
    "                     [--batch N] [--temperature X] [--top-k N] [--seed N]\n";

typedef struct arguments {
    const char *image, *isa;
    size_t threads;
    talk_options talk;
} arguments;

static bool parse_count(const char *text, size_t most, size_t *out)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > most) return false;
    *out = (size_t)value;
    return true;
}

static bool parse_real(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0';
}

static bool parse_option(arguments *a, const char *name, const char *value)
{
    size_t n = 0;
    bool ok = true;
    if (strcmp(name, "--prompt") == 0) {
        a->talk.prompt = value;
    } else if (strcmp(name, "--isa") == 0) {
        a->isa = value;
    } else if (strcmp(name, "--threads") == 0) {
        ok = parse_count(value, 256, &a->threads) && a->threads > 0;
    } else if (strcmp(name, "--tokens") == 0) {
        ok = parse_count(value, SIZE_MAX, &a->talk.max_tokens);
    } else if (strcmp(name, "--context") == 0) {
        ok = parse_count(value, SIZE_MAX, &a->talk.context);
    } else if (strcmp(name, "--batch") == 0) {
        ok = parse_count(value, 512, &a->talk.micro_batch) && a->talk.micro_batch > 0;
    } else if (strcmp(name, "--temperature") == 0) {
        ok = parse_real(value, &a->talk.sampling.temperature);
    } else if (strcmp(name, "--top-k") == 0) {
        ok = parse_count(value, 1 << 30, &n);
        a->talk.sampling.top_k = (int64_t)n;
    } else if (strcmp(name, "--seed") == 0) {
        ok = parse_count(value, SIZE_MAX, &n);
        a->talk.seed = n;
    } else {
        return false;
    }
    if (!ok) fprintf(stderr, "hello_desktop: %s cannot be '%s'\n", name, value);
    return ok;
}

static bool parse_arguments(arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (a->image != NULL) return false;
            a->image = argv[i];
        } else if (i + 1 == argc || !parse_option(a, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    return a->image != NULL;
}

/// Map a file for reading; a map starts at a page, so it is aligned for el_edge_parse.
static const void *map_file(const char *path, uint64_t *bytes)
{
    struct stat info;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0 || info.st_size <= 0 || (uint64_t)info.st_size > SIZE_MAX) {
        fprintf(stderr, "hello_desktop: %s: %s\n", path, errno != 0 ? strerror(errno) : "no image");
        if (file >= 0) (void)close(file);
        return NULL;
    }
    *bytes = (uint64_t)info.st_size;
    const void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, file, 0);
    (void)close(file);
    if (map != MAP_FAILED) return map;
    fprintf(stderr, "hello_desktop: %s: %s\n", path, strerror(errno));
    return NULL;
}

static void print(void *to, const char *text, size_t bytes)
{
    (void)fwrite(text, 1, bytes, to);
    (void)fflush(to);
}

static el_status run(arguments *a, const void *image, uint64_t image_bytes, talk_result *result,
                     el_error *err)
{
    el_edge edge;
    el_pool *pool = NULL;
    void *memory = MAP_FAILED;
    uint64_t needed = 0;
    const uint64_t cpu = el_cpu_features();
    a->talk.isa = el_isa_best(cpu);

    el_status st = el_edge_parse(&edge, image, image_bytes, err);
    if (st == EL_OK && a->isa != NULL) st = el_isa_find(a->isa, cpu, &a->talk.isa, err);
    if (st == EL_OK && a->threads > 1) st = el_pool_new(&pool, a->threads, err);
    a->talk.pool = pool;
    if (st == EL_OK) st = talk_plan(&needed, &edge, &a->talk, err);
    if (st != EL_OK) goto done;

    if (needed <= SIZE_MAX) {
        memory = mmap(NULL, (size_t)needed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (memory == MAP_FAILED) {
        st = EL_ERR_NOMEM;
        (void)snprintf(err->text, sizeof err->text, "%llu bytes were refused", (unsigned long long)needed);
        goto done;
    }
    st = talk(&edge, &a->talk, memory, needed, print, stdout, result, err);

done:
    if (memory != MAP_FAILED) (void)munmap(memory, (size_t)needed);
    el_pool_free(pool);
    return st;
}

int main(int argc, char **argv)
{
    static char output[1 << 12];  // so that stdio takes no memory of its own
    (void)setvbuf(stdout, output, _IOFBF, sizeof output);
    arguments a = {
        .threads = 1,
        .talk = {.prompt = "Turn on the kitchen light and lock the front door",
                 .max_tokens = 64,
                 .micro_batch = 64},
    };
    a.talk.sampling = (el_sampler_params){.top_p = 1.0, .repeat_penalty = 1.0};
    if (!parse_arguments(&a, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    uint64_t image_bytes = 0;
    talk_result result = {0};
    el_error err = {{0}};
    const void *image = map_file(a.image, &image_bytes);
    if (image == NULL) return 1;
    const el_status st = run(&a, image, image_bytes, &result, &err);
    if (st != EL_OK) {
        fprintf(stderr, "hello_desktop: %s: %s\n", el_status_name(st), err.text);
        return 1;
    }
    printf("\n[%zu tokens read, %zu made, logits %016llx]\n", result.prompt_tokens, result.tokens,
           (unsigned long long)result.hash);
    return fflush(stdout) == 0 ? 0 : 1;
}
