/* Look-ups in a built vocabulary. Sorted arrays and no hash table: a hostile file cannot make them slow. */
#include "text/vocab.h"

#include <string.h>

int el_vocab_compare(el_view a, el_view b)
{
    const size_t shared = a.size < b.size ? a.size : b.size;
    const int order = shared > 0 ? memcmp(a.data, b.data, shared) : 0;
    if (order != 0) return order;
    return (a.size > b.size) - (a.size < b.size);
}

int32_t el_vocab_find(const el_tokenizer *tok, const int32_t *ids, size_t n, el_view bytes)
{
    size_t low = 0;  // ids[0, low) are not after `bytes`, ids[high, n) are
    size_t high = n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (el_vocab_compare(el_vocab_bytes(tok, ids[mid]), bytes) <= 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (low == 0 || el_vocab_compare(el_vocab_bytes(tok, ids[low - 1]), bytes) != 0) return -1;
    return ids[low - 1];
}

uint32_t el_vocab_rank(const el_tokenizer *tok, int32_t left, int32_t right)
{
    const uint32_t first = tok->rows[left];
    uint32_t low = first;  // partners[first, low) are not after `right`
    uint32_t high = tok->rows[left + 1];
    while (low < high) {
        const uint32_t mid = low + (high - low) / 2;
        if (tok->partners[mid].right <= right) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (low == first || tok->partners[low - 1].right != right) return EL_NO_RANK;
    return tok->partners[low - 1].rank;
}

/* First of specials[low, high), which share their first `depth` bytes, whose next byte is at least `byte`. */
static size_t narrow(const el_tokenizer *tok, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const el_view text = el_vocab_bytes(tok, tok->specials[mid]);
        if (text.size <= depth || (uint8_t)text.data[depth] < byte) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

int32_t el_vocab_special_at(const el_tokenizer *tok, const uint8_t *s, size_t n, int parse_control)
{
    if (n == 0) return -1;
    size_t low = tok->special_rows[s[0]];
    size_t high = tok->special_rows[s[0] + 1];
    int32_t best = -1;

    for (size_t depth = 1; low < high; depth++) {
        // texts of exactly `depth` bytes come first
        for (; low < high && el_vocab_bytes(tok, tok->specials[low]).size == depth; low++) {
            const int32_t id = tok->specials[low];
            if (parse_control || (tok->kinds[id] & EL_TYPE_MASK) == EL_TOKEN_USER_DEFINED) best = id;
        }
        if (depth == n) break;
        low = narrow(tok, low, high, depth, s[depth]);
        high = narrow(tok, low, high, depth, s[depth] + 1u);
    }
    return best;
}

int32_t el_tokenizer_type(const el_tokenizer *tok, int32_t id)
{
    if (id < 0 || (size_t)id >= tok->info.n_tokens) return 0;
    return tok->kinds[id] & EL_TYPE_MASK;
}

int32_t el_tokenizer_find_special(const el_tokenizer *tok, const char *text, size_t len)
{
    return el_vocab_find(tok, tok->specials, tok->n_specials, (el_view){text, len});
}

int el_tokenizer_is_end(const el_tokenizer *tok, int32_t id)
{
    if (id < 0 || (size_t)id >= tok->info.n_tokens) return 0;
    return (tok->kinds[id] & EL_KIND_END) != 0;
}

void el_tokenizer_get_info(const el_tokenizer *tok, el_tokenizer_info *out) { *out = tok->info; }
