#include "edgellm/lookup.h"

#include <string.h>

#define NONE UINT32_MAX
#define MAX_CAPACITY ((size_t)1 << 30)

enum {
    OCCURRENCES = 48,  // that are looked at: a pair such as ", the" may have thousands
    LONGEST = 64       // of the end that is compared: beyond it all are as good
};

// Chains as in LZ77: `head` has the latest place of a pair's hash, `before` the one before each.
struct el_lookup {
    size_t capacity;
    size_t n;
    size_t buckets;    // a power of two
    uint32_t *head;    // (buckets,) index of the pair's second token
    uint32_t *before;  // (capacity,)
    int32_t *ids;      // (capacity,)
};

static size_t buckets_for(size_t capacity)
{
    size_t buckets = 64;
    while (buckets < capacity) buckets *= 2;
    return buckets;
}

size_t el_lookup_bytes(size_t capacity)
{
    if (capacity > MAX_CAPACITY) return 0;
    return sizeof(el_lookup) + sizeof(uint32_t) * (buckets_for(capacity) + 2 * capacity);
}

el_lookup *el_lookup_init(void *memory, size_t capacity)
{
    el_lookup *lookup = memory;
    const size_t buckets = buckets_for(capacity);
    uint32_t *head = (uint32_t *)(lookup + 1);
    *lookup = (el_lookup){.capacity = capacity,
                          .buckets = buckets,
                          .head = head,
                          .before = head + buckets,
                          .ids = (int32_t *)(head + buckets + capacity)};
    memset(head, 0xFF, buckets * sizeof *head);  // NONE
    return lookup;
}

static size_t bucket_of(const el_lookup *lookup, size_t second)
{
    const uint64_t pair = (uint64_t)(uint32_t)lookup->ids[second - 1] << 32 | (uint32_t)lookup->ids[second];
    return (size_t)((pair * 0x9E3779B97F4A7C15u) >> 32) & (lookup->buckets - 1);
}

void el_lookup_push(el_lookup *lookup, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n && lookup->n < lookup->capacity; i++) {
        const size_t at = lookup->n++;
        lookup->ids[at] = ids[i];
        if (at == 0) continue;
        uint32_t *head = &lookup->head[bucket_of(lookup, at)];
        lookup->before[at] = *head;
        *head = (uint32_t)at;
    }
}

/// How many tokens up to and with `at` are those that the text ends with.
static size_t agreement(const el_lookup *lookup, size_t at)
{
    size_t length = 0;
    const size_t last = lookup->n - 1, most = at + 1 < LONGEST ? at + 1 : LONGEST;
    while (length < most && lookup->ids[at - length] == lookup->ids[last - length]) length++;
    return length;
}

size_t el_lookup_guess(const el_lookup *lookup, size_t limit, int32_t *out, size_t *length)
{
    *length = 0;
    if (lookup->n < 3 || limit == 0) return 0;

    const size_t last = lookup->n - 1;
    size_t best = 0, longest = 0;
    uint32_t at = lookup->before[last];  // the end itself is the head of its chain
    for (int seen = 0; at != NONE && seen < OCCURRENCES && longest < LONGEST; seen++) {
        const size_t found = agreement(lookup, at);
        if (found > longest) {
            longest = found;
            best = at;
        }
        at = lookup->before[at];
    }
    if (longest < 2) return 0;  // another pair of the same hash

    const size_t period = last - best;
    for (size_t i = 0; i < limit; i++) out[i] = i < period ? lookup->ids[best + 1 + i] : out[i - period];
    *length = longest;
    return limit;
}
