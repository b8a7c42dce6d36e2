/* SentencePiece BPE: two neighbours merge if what they spell together is a token; the token of the highest score
 * first, leftmost first. A text starts as one symbol per character, and the result does not depend on how tokens
 * came to be merged when the vocabulary was made.
 *
 * The text is first cut where no token reaches across (el_joins): between words, mostly. That changes nothing, since
 * nothing merges across such a place, and it keeps the heap small.
 *
 * A symbol is a stretch of the text, and the node that its bytes lead to. `pair` is the node of the symbol and its
 * right neighbour together, 0 if that is no token. An entry of the heap is (score, left symbol): it holds if that symbol
 * still has a pair of that score; if the pair is another one than when the entry was made, it has an equal entry. */
#include <string.h>

#include "text/encoder.h"
#include "text/trie.h"
#include "text/unicode.h"

typedef struct symbol {
    uint32_t start;  // where its bytes begin in the piece; they end where the next symbol's begin
    int32_t prev, next;
    uint32_t node, pair;
} symbol;

typedef struct piece {
    const el_tokenizer *tok;
    const uint8_t *s;
    size_t n;
    symbol *symbols;
    size_t count;
    el_heap heap;
} piece;

/* One symbol per byte, and one for the space that may be put in front. */
size_t el_scratch_spm(size_t n) { return (n + 1) * (2 * sizeof(uint64_t) + sizeof(symbol)); }

/* Ascends as the score falls; the same for 0 and -0. */
static uint32_t falling(float score)
{
    const float positive_zero = score + 0.0f;
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    return bits >> 31 != 0 ? bits : ~(bits | 0x80000000u);
}

static uint64_t entry_of(const piece *p, int32_t at)
{
    return (uint64_t)falling(p->tok->scores[p->tok->trie.ids[p->symbols[at].pair]]) << 32 | (uint32_t)at;
}

static size_t end_of(const piece *p, int32_t at)
{
    const int32_t next = p->symbols[at].next;
    return next >= 0 ? p->symbols[next].start : p->n;
}

/* Look at a symbol and its right neighbour anew. */
static void push_pair(piece *p, int32_t at)
{
    if (at < 0) return;
    symbol *left = &p->symbols[at];
    left->pair = 0;
    if (left->next < 0 || left->node == 0) return;
    const size_t start = p->symbols[left->next].start;
    const uint32_t node =
        el_trie_walk(&p->tok->trie, left->node, p->s + start, end_of(p, left->next) - start);
    if (node == 0 || p->tok->trie.ids[node] < 0) return;
    left->pair = node;
    el_heap_push(&p->heap, entry_of(p, at));
}

static void merge_top(piece *p)
{
    const uint64_t top = el_heap_pop(&p->heap);
    const int32_t at = (int32_t)(top & 0xFFFFFFFFu);
    symbol *left = &p->symbols[at];
    if (left->pair == 0 || entry_of(p, at) != top) return;
    symbol *right = &p->symbols[left->next];

    left->node = left->pair;
    left->next = right->next;
    right->pair = 0;
    if (left->next >= 0) p->symbols[left->next].prev = at;
    push_pair(p, left->prev);
    push_pair(p, at);
}

static void add_symbol(piece *p, size_t start, uint32_t node)
{
    const int32_t at = (int32_t)p->count++;
    p->symbols[at] = (symbol){.start = (uint32_t)start, .prev = at - 1, .next = at + 1, .node = node};
}

static size_t char_bytes(const uint8_t *s, size_t n)
{
    uint32_t point;
    return s[0] < 0x80 ? 1 : el_utf8_next(s, n, &point);
}

static el_status push_symbol(el_encoder *e, const piece *p, int32_t at)
{
    const symbol *one = &p->symbols[at];
    const int32_t id = one->node != 0 ? p->tok->trie.ids[one->node] : -1;
    if (id >= 0) {
        e->unknown = false;
        return el_push_id(e, id);
    }
    const uint8_t *bytes = p->s + one->start;
    const size_t n = end_of(p, at) - one->start;
    if (n == 0 || bytes[0] == ' ')
        return el_push_bytes(e, (const uint8_t *)EL_SPACE_MARK, EL_SPACE_MARK_BYTES);
    return el_push_bytes(e, bytes, n);
}

/* Append the tokens of s[0, n), with a space in front if asked for. */
static el_status encode_piece(el_encoder *e, const uint8_t *s, size_t n, bool space)
{
    const el_trie *trie = &e->tok->trie;
    el_status st = el_reserve_scratch(e, el_scratch_spm(n));
    if (st != EL_OK) return st;
    piece p = {.tok = e->tok, .s = s, .n = n, .heap = {.entries = (void *)e->scratch}};
    p.symbols = (void *)(e->scratch + 2 * sizeof(uint64_t) * (n + 1));

    if (space) add_symbol(&p, 0, el_trie_child(trie, 0, ' '));
    for (size_t pos = 0; pos < n;) {
        const size_t len = char_bytes(s + pos, n - pos);
        add_symbol(&p, pos, el_trie_walk(trie, 0, s + pos, len));
        pos += len;
    }
    if (p.count == 0) return EL_OK;
    p.symbols[p.count - 1].next = -1;

    for (size_t i = 0; i < p.count; i++) push_pair(&p, (int32_t)i);
    while (p.heap.n > 0) merge_top(&p);
    for (int32_t i = 0; i >= 0 && st == EL_OK; i = p.symbols[i].next) st = push_symbol(e, &p, i);
    return st;
}

/* Length of the longest start of s[0, n) inside which tokens may merge; `last` is the byte before it. */
static size_t next_piece(const el_tokenizer *tok, const uint8_t *s, size_t n, bool space)
{
    uint8_t last = ' ';
    for (size_t pos = 0; pos < n;) {
        const size_t len = char_bytes(s + pos, n - pos);
        const bool mark = el_is_space_mark(s + pos, n - pos);
        if ((pos > 0 || space) && !el_joins(tok->joins, last, mark ? ' ' : s[pos])) return pos;
        last = mark ? ' ' : s[pos + len - 1];
        pos += len;
    }
    return n;
}

el_status el_encode_spm(el_encoder *e, const uint8_t *s, size_t n, bool starts)
{
    bool space = starts && n > 0 && e->tok->info.add_space_prefix;
    el_status st = EL_OK;
    e->unknown = false;
    for (size_t pos = 0; pos < n && st == EL_OK;) {
        const size_t len = next_piece(e->tok, s + pos, n - pos, space);
        st = encode_piece(e, s + pos, len, space);
        pos += len;
        space = false;
    }
    return st;
}
