#include "text/index.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PROBES = 64 };  // beyond it the texts were chosen to collide

uint64_t el_text_hash(uint64_t before, el_view text)
{
    uint64_t h = before == 0 ? UINT64_C(0xcbf29ce484222325) : before;
    for (size_t i = 0; i < text.size; i++) h = (h ^ (uint8_t)text.data[i]) * UINT64_C(0x100000001b3);
    return h;
}

/// FNV's high bits are weak: mixed before use.
static uint64_t mixed(uint64_t h)
{
    h ^= h >> 32;
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static bool is_text(el_view text, el_view a, el_view b)
{
    return text.size == a.size + b.size && (a.size == 0 || memcmp(text.data, a.data, a.size) == 0) &&
           (b.size == 0 || memcmp(text.data + a.size, b.data, b.size) == 0);
}

static const el_view nothing = {"", 0};

/// Put one text in; false if its place is crowded. Of equal texts the last stays.
static bool insert(el_text_index *index, size_t id)
{
    const uint64_t hash = mixed(el_text_hash(0, index->texts[id]));
    const uint64_t tag = hash & UINT64_C(0xFFFFFFFF00000000);
    size_t at = (size_t)hash & index->mask;
    for (size_t probe = 0; probe < MOST_PROBES; probe++, at = (at + 1) & index->mask) {
        const uint64_t slot = index->slots[at];
        const bool same = slot != 0 && (slot & UINT64_C(0xFFFFFFFF00000000)) == tag &&
                          is_text(index->texts[(uint32_t)slot - 1], index->texts[id], nothing);
        if (same) index->distinct = false;
        if (same || slot == 0) {
            index->slots[at] = tag | (uint32_t)(id + 1);
            return true;
        }
    }
    return false;
}

/// A text by its first bytes, which decide most comparisons without a look at the text.
typedef struct card {
    uint64_t head;  // eight bytes, the first one highest, zeros where there are fewer
    int32_t id;
} card;

static uint64_t head_of(el_view text)
{
    uint64_t head = 0;
    for (size_t i = 0; i < 8; i++) head = head << 8 | (i < text.size ? (uint8_t)text.data[i] : 0u);
    return head;
}

static bool in_order(const el_view *texts, const card *a, const card *b)
{
    if (a->head != b->head) return a->head < b->head;
    return el_vocab_compare(texts[a->id], texts[b->id]) <= 0;
}

el_status el_text_sort(const el_view *texts, int32_t *ids, size_t n)
{
    if (n > SIZE_MAX / (2 * sizeof(card))) return EL_ERR_NOMEM;
    card *const cards = malloc((n > 0 ? n : 1) * 2 * sizeof *cards);
    if (cards == NULL) return EL_ERR_NOMEM;
    card *from = cards, *to = cards + n;
    for (size_t i = 0; i < n; i++) from[i] = (card){head_of(texts[ids[i]]), ids[i]};

    // bottom-up merge sort: sorted runs of `width` become runs of twice that
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            const size_t mid = n - low < width ? n : low + width;
            const size_t high = n - low < 2 * width ? n : low + 2 * width;
            size_t a = low;
            size_t b = mid;
            for (size_t out = low; out < high; out++)
                to[out] =
                    b == high || (a < mid && in_order(texts, &from[a], &from[b])) ? from[a++] : from[b++];
        }
        card *const done = to;
        to = from;
        from = done;
    }
    for (size_t i = 0; i < n; i++) ids[i] = from[i].id;
    free(cards);
    return EL_OK;
}

static el_status sort_instead(el_text_index *index)
{
    free(index->slots);
    index->slots = NULL;
    index->distinct = false;
    index->sorted = malloc(index->n * sizeof *index->sorted);
    if (index->sorted == NULL) return EL_ERR_NOMEM;
    for (size_t i = 0; i < index->n; i++) index->sorted[i] = (int32_t)i;
    return el_text_sort(index->texts, index->sorted, index->n);
}

el_status el_text_index_build(el_text_index *index, const el_view *texts, size_t n)
{
    size_t slots = 64;
    while (slots < 2 * n) slots *= 2;
    *index = (el_text_index){.texts = texts, .n = n, .mask = slots - 1, .distinct = true};
    index->slots = calloc(slots, sizeof *index->slots);
    if (index->slots == NULL) return EL_ERR_NOMEM;
    for (size_t id = 0; id < n; id++) {
        if (!insert(index, id)) return sort_instead(index);
    }
    return EL_OK;
}

void el_text_index_free(el_text_index *index)
{
    free(index->slots);
    free(index->sorted);
    *index = (el_text_index){0};
}

/// Order of a text and of a followed by b.
static int compare(el_view text, el_view a, el_view b)
{
    const size_t head = text.size < a.size ? text.size : a.size;
    const int order = head > 0 ? memcmp(text.data, a.data, head) : 0;
    if (order != 0) return order;
    if (text.size < a.size) return -1;
    return el_vocab_compare((el_view){text.data + a.size, text.size - a.size}, b);
}

static int32_t find_sorted(const el_text_index *index, el_view a, el_view b)
{
    size_t low = 0;  // sorted[0, low) are not after the text, sorted[high, n) are
    size_t high = index->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (compare(index->texts[index->sorted[mid]], a, b) <= 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low > 0 && is_text(index->texts[index->sorted[low - 1]], a, b) ? index->sorted[low - 1] : -1;
}

int32_t el_text_find(const el_text_index *index, el_view a, el_view b, uint64_t fnv)
{
    if (index->sorted != NULL) return find_sorted(index, a, b);
    const uint64_t hash = mixed(fnv);
    const uint64_t tag = hash & UINT64_C(0xFFFFFFFF00000000);
    size_t at = (size_t)hash & index->mask;
    for (size_t probe = 0; probe < MOST_PROBES; probe++, at = (at + 1) & index->mask) {
        const uint64_t slot = index->slots[at];
        if (slot == 0) return -1;
        if ((slot & UINT64_C(0xFFFFFFFF00000000)) == tag && is_text(index->texts[(uint32_t)slot - 1], a, b))
            return (int32_t)(uint32_t)slot - 1;
    }
    return -1;
}

bool el_text_is(const el_text_index *index, int32_t id, el_view a, el_view b)
{
    return index->distinct && (size_t)id < index->n && is_text(index->texts[id], a, b);
}
