/* The microcontroller's snprintf beside the C library's, on the conversions of the engine's messages. */
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define snprintf small_snprintf
#define vsnprintf small_vsnprintf
int small_snprintf(char *text, size_t size, const char *format, ...);
int small_vsnprintf(char *text, size_t size, const char *format, va_list given);
#include "examples/mcu/small_printf.c"
#undef snprintf
#undef vsnprintf

static int wrong;

static void same(size_t size, const char *format, ...)
{
    char ours[64], theirs[64];
    memset(ours, '#', sizeof ours);
    memset(theirs, '#', sizeof theirs);
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int a = small_vsnprintf(ours, size, format, args);
    const int b = vsnprintf(theirs, size, format, again);
    va_end(args);
    va_end(again);
    if (a == b && (size == 0 || strcmp(ours, theirs) == 0)) return;
    printf("'%s' in %zu bytes: %d '%.60s', not %d '%.60s'\n", format, size, a, size > 0 ? ours : "", b,
           size > 0 ? theirs : "");
    wrong = 1;
}

int main(void)
{
    static const size_t sizes[] = {0, 1, 2, 5, 9, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        same(sizes[i], "plain");
        same(sizes[i], "100 %% of %c", 'x');
        same(sizes[i], "%s is %.3s, %.40s", "name", "truncated", "short");
        same(sizes[i], "%.*s|%.*s", 2, "abcdef", 0, "gone");
        same(sizes[i], "%5s|%2s", "ab", "abcd");
        same(sizes[i], "%d %d %d", 0, INT_MAX, INT_MIN);
        same(sizes[i], "%u %u", 0u, UINT_MAX);
        same(sizes[i], "%zu %zu", (size_t)0, SIZE_MAX);
        same(sizes[i], "%ld %lu", LONG_MIN, ULONG_MAX);
        same(sizes[i], "%lld", LLONG_MIN);
        same(sizes[i], "%llu", ULLONG_MAX);
        same(sizes[i], "%x %016llx", 0xBEEFu, 0x123456789ABCDEFull);
        same(sizes[i], "%4d|%04d", -7, -7);
    }
    if (wrong == 0) puts("ok");
    return wrong;
}
