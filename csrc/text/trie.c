/* Building the tree of tokens from their sorted texts. */
#include "text/trie.h"

static size_t shared_bytes(el_view a, el_view b)
{
    const size_t most = a.size < b.size ? a.size : b.size;
    size_t n = 0;
    while (n < most && a.data[n] == b.data[n]) n++;
    return n;
}

uint64_t el_trie_count(const el_view *keys, const int32_t *order, size_t n)
{
    uint64_t nodes = 1;
    for (size_t i = 0; i < n; i++) {
        const el_view key = keys[order[i]];
        nodes += key.size - (i > 0 ? shared_bytes(keys[order[i - 1]], key) : 0);
    }
    return nodes;
}

void el_trie_fill(const el_view *keys, const int32_t *order, size_t n, uint32_t *first, uint8_t *labels,
                  int32_t *ids)
{
    // until a node is visited, order[first, ids) are the texts below it
    uint32_t next = 1, level_end = 1;
    size_t depth = 0;
    first[0] = 0;
    ids[0] = (int32_t)n;
    labels[0] = 0;
    for (uint32_t node = 0; node < next; node++) {
        if (node == level_end) {
            depth++;
            level_end = next;
        }
        int32_t low = (int32_t)first[node];
        const int32_t high = ids[node];
        ids[node] = -1;
        while (low < high && keys[order[low]].size == depth) ids[node] = order[low++];
        first[node] = next;
        while (low < high) {
            const uint8_t byte = (uint8_t)keys[order[low]].data[depth];
            first[next] = (uint32_t)low;
            while (low < high && (uint8_t)keys[order[low]].data[depth] == byte) low++;
            ids[next] = low;
            labels[next++] = byte;
        }
    }
    first[next] = next;
}
