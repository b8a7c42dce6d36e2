/* Byte strings of a file: compared, checked, sorted. */
#include <string.h>

#include "format/format.h"

int el_view_compare(const el_view *a, const el_view *b)
{
    const size_t shorter = a->size < b->size ? a->size : b->size;
    const int order = shorter == 0 ? 0 : memcmp(a->data, b->data, shorter);
    if (order != 0) return order;
    return (a->size > b->size) - (a->size < b->size);
}

/// Bytes of the UTF-8 character at s (RFC 3629, shortest form, no surrogates); 0 if it is none.
static size_t utf8_length(const uint8_t *s, size_t left)
{
    const uint8_t first = s[0];
    if (first < 0x80) return 1;
    const size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length == 0 || length > left) return 0;

    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
    }
    if (first == 0xE0 && s[1] < 0xA0) return 0;   // overlong
    if (first == 0xED && s[1] >= 0xA0) return 0;  // a surrogate
    if (first == 0xF0 && s[1] < 0x90) return 0;   // overlong
    if (first == 0xF4 && s[1] >= 0x90) return 0;  // above U+10FFFF
    return length;
}

bool el_view_is_text(el_view view)
{
    const uint8_t *s = (const uint8_t *)view.data;
    for (size_t i = 0; i < view.size;) {
        const size_t length = utf8_length(s + i, view.size - i);
        if (length == 0 || s[i] < 0x20 || s[i] == 0x7F) return false;
        if (length == 2 && s[i] == 0xC2 && s[i + 1] < 0xA0) return false;  // U+0080..U+009F
        i += length;
    }
    return true;
}

static void sift_down(const el_view **items, size_t root, size_t n, el_compare_fn *compare)
{
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= n) return;
        if (child + 1 < n && compare(items[child], items[child + 1]) < 0) child++;
        if (compare(items[root], items[child]) >= 0) return;
        const el_view *swapped = items[root];
        items[root] = items[child];
        items[child] = swapped;
        root = child;
    }
}

void el_sort_views(const el_view **items, size_t n, el_compare_fn *compare)
{
    for (size_t root = n / 2; root-- > 0;) sift_down(items, root, n, compare);
    for (size_t end = n; end-- > 1;) {
        const el_view *largest = items[0];
        items[0] = items[end];
        items[end] = largest;
        sift_down(items, 0, end, compare);
    }
}
