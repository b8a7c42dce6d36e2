/* snprintf and vsnprintf for a machine that has no room for the C library's: the conversions that the engine's
 * messages use, which are %s %c %d %u %x %% with a width or precision of digits or '*', and l, ll, z. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct sink {
    char *text;
    size_t size, used;
} sink;

static void put(sink *out, char c)
{
    if (out->used + 1 < out->size) out->text[out->used] = c;
    out->used++;
}

static void put_text(sink *out, const char *text, int precision, int width)
{
    size_t n = 0;
    while ((precision < 0 || n < (size_t)precision) && text[n] != '\0') n++;
    for (size_t i = n; width > 0 && i < (size_t)width; i++) put(out, ' ');
    for (size_t i = 0; i < n; i++) put(out, text[i]);
}

static void put_number(sink *out, uint64_t value, bool negative, unsigned base, int width, char fill)
{
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    if (negative && fill == '0') put(out, '-');
    for (int i = n + negative; i < width; i++) put(out, fill);
    if (negative && fill != '0') put(out, '-');
    while (n > 0) put(out, digits[--n]);
}

/// A number in the format, or '*' for one in the arguments.
static const char *read_number(const char *f, va_list *args, int *out)
{
    if (*f == '*') {
        *out = va_arg(*args, int);
        return f + 1;
    }
    for (*out = 0; *f >= '0' && *f <= '9'; f++) *out = *out * 10 + (*f - '0');
    return f;
}

/// One conversion, from behind its '%'; returns what follows it.
static const char *convert(sink *out, const char *f, va_list *args)
{
    int width = 0, precision = -1, longs = 0;
    const char fill = *f == '0' ? '0' : ' ';
    f = read_number(f, args, &width);
    if (*f == '.') f = read_number(f + 1, args, &precision);
    if (*f == 'z') longs = sizeof(size_t) > sizeof(unsigned long) ? 2 : 1;
    if (*f == 'z') f++;
    for (; *f == 'l'; f++) longs++;

    if (*f == 's') {
        put_text(out, va_arg(*args, const char *), precision, width);
    } else if (*f == 'c') {
        put(out, (char)va_arg(*args, int));
    } else if (*f == 'd') {
        const int64_t v = longs > 1    ? va_arg(*args, long long)
                          : longs == 1 ? va_arg(*args, long)
                                       : va_arg(*args, int);
        put_number(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, v < 0, 10, width, fill);
    } else if (*f == 'u' || *f == 'x') {
        const uint64_t v = longs > 1    ? va_arg(*args, unsigned long long)
                           : longs == 1 ? va_arg(*args, unsigned long)
                                        : va_arg(*args, unsigned);
        put_number(out, v, false, *f == 'x' ? 16 : 10, width, fill);
    } else if (*f != '\0') {
        put(out, *f);
    }
    return *f != '\0' ? f + 1 : f;
}

int vsnprintf(char *text, size_t size, const char *format, va_list given)
{
    va_list args;
    va_copy(args, given);
    sink out = {text, size, 0};
    while (*format != '\0') {
        if (*format == '%') {
            format = convert(&out, format + 1, &args);
        } else {
            put(&out, *format++);
        }
    }
    if (size > 0) text[out.used < size ? out.used : size - 1] = '\0';
    va_end(args);
    return (int)out.used;
}

int snprintf(char *text, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, size, format, args);
    va_end(args);
    return n;
}
