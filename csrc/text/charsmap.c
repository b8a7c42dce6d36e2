/* The trie is an array of units, a compact double array: a unit's child by byte c is at (index ^ base ^ c), if that unit
 * is labelled c. A unit with a value has it in the child by byte 0. */
#include "text/charsmap.h"

#include <string.h>

/* Beyond what any normaliser has, and a bound on the time that a hostile one takes. */
enum { MOST_KEY_BYTES = 64 };

static uint32_t read_u32(const char *at)
{
    const uint8_t *b = (const uint8_t *)at;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

bool el_charsmap_sound(el_view map)
{
    if (map.size == 0) return true;
    if (map.size < 6) return false;
    const uint32_t trie_bytes = read_u32(map.data);
    return trie_bytes % 4 == 0 && trie_bytes >= 4 && trie_bytes < map.size - 4 &&
           map.data[map.size - 1] == '\0';
}

static uint32_t base_of(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

size_t el_charsmap_match(el_view map, const uint8_t *s, size_t n, el_view *out)
{
    if (map.size == 0) return 0;
    const uint32_t trie_bytes = read_u32(map.data);
    const char *units = map.data + 4, *texts = units + trie_bytes;
    const size_t n_units = trie_bytes / 4, text_bytes = map.size - 4 - trie_bytes;
    const size_t most = n < MOST_KEY_BYTES ? n : MOST_KEY_BYTES;
    size_t length = 0;
    uint32_t at = base_of(read_u32(units));
    for (size_t i = 0; i < most && s[i] != 0; i++) {
        at ^= s[i];
        if (at >= n_units) break;
        const uint32_t unit = read_u32(units + 4 * (size_t)at);
        if ((unit & 0x800000FFu) != s[i]) break;
        at ^= base_of(unit);
        if ((unit & 0x100u) == 0 || at >= n_units) continue;

        const uint32_t start = read_u32(units + 4 * (size_t)at) & 0x7FFFFFFFu;
        if (start >= text_bytes) continue;
        const size_t room = EL_CHARSMAP_GROWTH * (i + 1) + 1;
        const size_t left = text_bytes - start;
        const char *end = memchr(texts + start, 0, room < left ? room : left);
        if (end == NULL) continue;
        length = i + 1;
        *out = (el_view){texts + start, (size_t)(end - (texts + start))};
    }
    return length;
}
