#include "text/unicode.h"

#include "text/unicode_case.h"
#include "text/unicode_table.h"

/* Value of the last run that starts at or before `point`; the first starts at 0. */
static unsigned value_at(const uint32_t *runs, size_t n, unsigned bits, uint32_t point)
{
    size_t low = 0;
    size_t high = n;
    while (high - low > 1) {
        const size_t mid = low + (high - low) / 2;
        if ((runs[mid] >> bits) <= point) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return runs[low] & ((1u << bits) - 1u);
}

el_char_class el_unicode_class(uint32_t point)
{
    if (point > 0x10FFFFu) return EL_CHAR_OTHER;
    return (el_char_class)value_at(el_unicode_runs, EL_UNICODE_RUNS, 3, point);
}

el_char_case el_unicode_case(uint32_t point)
{
    if (point > 0x10FFFFu) return EL_CASE_NONE;
    return (el_char_case)value_at(el_unicode_case_runs, EL_UNICODE_CASE_RUNS, 2, point);
}

size_t el_utf8_next(const uint8_t *s, size_t n, uint32_t *point)
{
    const uint8_t lead = s[0];
    *point = lead;
    if (lead < 0x80) return 1;

    *point = EL_NOT_UTF8;
    const size_t len = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || len > n) return 1;

    uint32_t value = lead & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0u) != 0x80u) return 1;
        value = value << 6 | (s[i] & 0x3Fu);
    }
    const uint32_t least = len == 4 ? 0x10000u : len == 3 ? 0x800u : 0x80u;
    if (value < least || value > 0x10FFFFu || (value >= 0xD800u && value <= 0xDFFFu)) return 1;
    *point = value;
    return len;
}

/* GPT-2 writes printable Latin-1 bytes as themselves and the other 68, in order, as U+0100 to U+0143. */
static int is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

uint32_t el_byte_to_point(uint8_t byte)
{
    if (is_printable(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143u;  // 0xAD, the last
}

int el_point_to_byte(uint32_t point)
{
    if (point < 0x100u) return is_printable(point) ? (int)point : -1;
    if (point <= 0x120u) return (int)(point - 0x100u);
    if (point <= 0x142u) return (int)(point - 0x121u + 0x7Fu);
    return point == 0x143u ? 0xAD : -1;
}
