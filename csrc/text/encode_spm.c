/* SentencePiece BPE: two neighbours merge if what they spell together is a token; the token of the highest score
 * first, leftmost first. A piece starts as one symbol per character, and the result does not depend on how tokens
 * came to be merged when the vocabulary was made.
 *
 * A symbol is a stretch of the piece, and the node that its bytes lead to. `pair` is the node of the symbol and its
 * right neighbour together, 0 if that is no token. An entry of the heap is (score, left symbol): it holds if that symbol
 * still has a pair of that score; if the pair is another one than when the entry was made, it has an equal entry. */
#include <string.h>

#include "text/encoder.h"
#include "text/trie.h"

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
    el_heap heap;
} piece;

static size_t text_room(size_t n) { return (n + 7) / 8 * 8; }

size_t el_scratch_spm(size_t n) { return text_room(n) + n * (2 * sizeof(uint64_t) + sizeof(symbol)); }

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

static el_status push_symbol(el_encoder *e, const piece *p, int32_t at)
{
    const symbol *one = &p->symbols[at];
    const int32_t id = one->node != 0 ? p->tok->trie.ids[one->node] : -1;
    if (id < 0) return el_push_unknown(e, p->s + one->start, end_of(p, at) - one->start);
    e->unknown = false;
    return el_push_id(e, id);
}

el_status el_encode_spm(el_encoder *e, size_t n)
{
    const el_trie *trie = &e->tok->trie;
    el_status st = el_reserve_scratch(e, el_scratch_spm(n));
    if (st != EL_OK) return st;
    piece p = {
        .tok = e->tok, .s = e->scratch, .n = n, .heap = {.entries = (void *)(e->scratch + text_room(n))}};
    p.symbols = (void *)(p.heap.entries + 2 * n);

    int32_t count = 0;
    for (size_t pos = 0, len; pos < n; pos += len, count++) {
        len = el_char_bytes(p.s + pos, n - pos);
        p.symbols[count] = (symbol){.start = (uint32_t)pos,
                                    .prev = count - 1,
                                    .next = pos + len < n ? count + 1 : -1,
                                    .node = el_trie_walk(trie, 0, p.s + pos, len)};
    }
    for (int32_t i = 0; i < count; i++) push_pair(&p, i);
    while (p.heap.n > 0) merge_top(&p);
    for (int32_t i = 0; i >= 0 && st == EL_OK; i = p.symbols[i].next) st = push_symbol(e, &p, i);
    return st;
}
