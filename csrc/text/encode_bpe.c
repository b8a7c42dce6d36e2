/* Byte-level BPE: the text is cut into pieces by the pre-tokenizer, and each piece is merged.
 *
 * A piece starts as one symbol per byte. A heap holds every adjacent pair that has a rank; the pair of the
 * lowest rank, leftmost first, is merged until none is left. A heap entry whose pair is gone is skipped when it
 * surfaces: symbols only ever grow, so a pair with the same two tokens at the same place is the same pair. */
#include "text/encoder.h"

typedef struct symbol {
    int32_t id;    // -1 once it is merged into its left neighbour
    int32_t prev;  // index of a neighbour, or -1
    int32_t next;
} symbol;

/* Symbols of one piece, and the pairs that may be merged. */
typedef struct piece {
    const el_tokenizer *tok;
    symbol *symbols;
    el_heap heap;
} piece;

size_t el_scratch_bpe(size_t n) { return n * (2 * sizeof(uint64_t) + sizeof(symbol)); }

static void push_pair(piece *p, int32_t left)
{
    if (left < 0 || p->symbols[left].next < 0) return;
    const uint32_t rank = el_vocab_rank(p->tok, p->symbols[left].id, p->symbols[p->symbols[left].next].id);
    if (rank != EL_NO_RANK) el_heap_push(&p->heap, (uint64_t)rank << 32 | (uint32_t)left);
}

/* Merge what the heap's top says, if its pair is still there. */
static void merge_top(piece *p)
{
    const uint64_t top = el_heap_pop(&p->heap);
    const el_merge *merge = &p->tok->merges[top >> 32];
    const int32_t at = (int32_t)(top & 0xFFFFFFFFu);
    symbol *left = &p->symbols[at];
    if (left->id != merge->left || left->next < 0) return;
    symbol *right = &p->symbols[left->next];
    if (right->id != merge->right) return;

    left->id = merge->result;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) p->symbols[left->next].prev = at;
    push_pair(p, left->prev);
    push_pair(p, at);
}

/* Append the tokens of one piece. */
static el_status encode_piece(el_encoder *e, const uint8_t *s, size_t n)
{
    const el_tokenizer *tok = e->tok;
    if (tok->pre->ignore_merges) {
        const int32_t whole =
            el_vocab_find(tok, tok->by_bytes, tok->n_by_bytes, (el_view){(const char *)s, n});
        if (whole >= 0) return el_push_id(e, whole);
    }

    el_status st = el_reserve_scratch(e, el_scratch_bpe(n));
    if (st != EL_OK) return st;
    piece p = {.tok = tok,
               .heap = {.entries = (void *)e->scratch}};  // first, since it asks for the larger alignment
    p.symbols = (void *)(e->scratch + 2 * sizeof(uint64_t) * n);
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = tok->byte_ids[s[i]];
        if (id < 0) continue;  // no token for this byte: dropped
        p.symbols[count] = (symbol){.id = id, .prev = count - 1, .next = count + 1};
        count++;
    }
    if (count == 0) return EL_OK;
    p.symbols[count - 1].next = -1;

    for (int32_t i = 0; i < count; i++) push_pair(&p, i);
    while (p.heap.n > 0) merge_top(&p);
    size_t left = 0;
    for (int32_t i = 0; i >= 0; i = p.symbols[i].next) left++;
    st = el_reserve_ids(e, left);
    for (int32_t i = 0; i >= 0 && st == EL_OK; i = p.symbols[i].next) e->ids[e->n_ids++] = p.symbols[i].id;
    return st;
}

el_status el_encode_bpe(el_encoder *e, const uint8_t *s, size_t n)
{
    el_pre_walk walk;
    size_t start;
    size_t end;
    el_pre_start(&walk, e->tok->pre, s, n);
    while (el_pre_next(&walk, &start, &end)) {
        const el_status st = encode_piece(e, s + start, end - start);
        if (st != EL_OK) return st;
    }
    return EL_OK;
}
