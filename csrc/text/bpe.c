/* Encoding: special tokens are cut out, the rest is cut into pieces, and each piece is merged.
 *
 * A piece starts as one symbol per byte. A heap holds every adjacent pair that has a rank; the pair of the
 * lowest rank, leftmost first, is merged until none is left. A heap entry whose pair is gone is skipped when it
 * surfaces: symbols only ever grow, so a pair with the same two tokens at the same place is the same pair. */
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/vocab.h"

#define MAX_TEXT_BYTES ((size_t)1 << 29)

typedef struct symbol {
    int32_t id;    // -1 once it is merged into its left neighbour
    int32_t prev;  // index of a neighbour, or -1
    int32_t next;
} symbol;

typedef struct encoder encoder;

/// How ids, symbols and heap grow; not at all where they are the caller's. Through pointers, so that a program
/// which only encodes into its own memory links no allocator.
typedef struct growth {
    el_status (*ids)(encoder *e, size_t more);
    el_status (*symbols)(encoder *e, size_t n);
} growth;

struct encoder {
    const el_tokenizer *tok;
    int32_t *ids;
    size_t n_ids, cap_ids;
    symbol *symbols;  // (cap_symbols,)
    uint64_t *heap;  // (2 * cap_symbols,) rank << 32 | index of the left symbol
    size_t cap_symbols;
    size_t n_heap;
    const growth *grow;
    const char *short_of;  // what was too small
};

static el_status reserve_ids(encoder *e, size_t more)
{
    return more <= e->cap_ids - e->n_ids ? EL_OK : e->grow->ids(e, more);
}

static el_status push_id(encoder *e, int32_t id)
{
    const el_status st = reserve_ids(e, 1);
    if (st == EL_OK) e->ids[e->n_ids++] = id;
    return st;
}

static el_status reserve_symbols(encoder *e, size_t n)
{
    return n <= e->cap_symbols ? EL_OK : e->grow->symbols(e, n);
}

static void heap_push(encoder *e, uint64_t entry)
{
    size_t i = e->n_heap++;
    while (i > 0 && e->heap[(i - 1) / 2] > entry) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = entry;
}

static uint64_t heap_pop(encoder *e)
{
    const uint64_t top = e->heap[0];
    const uint64_t moved = e->heap[--e->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= e->n_heap) break;
        if (child + 1 < e->n_heap && e->heap[child + 1] < e->heap[child]) child++;
        if (e->heap[child] >= moved) break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = moved;
    return top;
}

static void push_pair(encoder *e, int32_t left)
{
    if (left < 0 || e->symbols[left].next < 0) return;
    const uint32_t rank = el_vocab_rank(e->tok, e->symbols[left].id, e->symbols[e->symbols[left].next].id);
    if (rank != EL_NO_RANK) heap_push(e, (uint64_t)rank << 32 | (uint32_t)left);
}

/* Merge what the heap's top says, if its pair is still there. */
static void merge_top(encoder *e)
{
    const uint64_t top = heap_pop(e);
    const el_merge *merge = &e->tok->merges[top >> 32];
    const int32_t at = (int32_t)(top & 0xFFFFFFFFu);
    symbol *left = &e->symbols[at];
    if (left->id != merge->left || left->next < 0) return;
    symbol *right = &e->symbols[left->next];
    if (right->id != merge->right) return;

    left->id = merge->result;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) e->symbols[left->next].prev = at;
    push_pair(e, left->prev);
    push_pair(e, at);
}

/* Append the tokens of one piece. */
static el_status encode_piece(encoder *e, const uint8_t *s, size_t n)
{
    const el_tokenizer *tok = e->tok;
    if (tok->pre->ignore_merges) {
        const int32_t whole =
            el_vocab_find(tok, NULL, tok->by_bytes, tok->n_by_bytes, (el_view){(const char *)s, n});
        if (whole >= 0) return push_id(e, whole);
    }

    el_status st = reserve_symbols(e, n);
    if (st != EL_OK) return st;
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = tok->byte_ids[s[i]];
        if (id < 0) continue;  // no token for this byte: dropped
        e->symbols[count] = (symbol){.id = id, .prev = count - 1, .next = count + 1};
        count++;
    }
    if (count == 0) return EL_OK;
    e->symbols[count - 1].next = -1;

    // at most count - 1 entries now, and each merge takes one and adds two: never more than 2 * count
    e->n_heap = 0;
    for (int32_t i = 0; i < count; i++) push_pair(e, i);
    while (e->n_heap > 0) merge_top(e);
    size_t left = 0;
    for (int32_t i = 0; i >= 0; i = e->symbols[i].next) left++;
    st = reserve_ids(e, left);
    for (int32_t i = 0; i >= 0 && st == EL_OK; i = e->symbols[i].next) e->ids[e->n_ids++] = e->symbols[i].id;
    return st;
}

static el_status encode_plain(encoder *e, const uint8_t *s, size_t n)
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

/* The whole text: special tokens, leftmost and longest first, and the plain text between them. */
static el_status encode_text(encoder *e, const uint8_t *s, size_t n, int parse_control)
{
    size_t plain = 0;
    size_t pos = 0;
    while (pos < n) {
        const int32_t id = el_vocab_special_at(e->tok, s + pos, n - pos, parse_control);
        if (id < 0) {
            pos++;
            continue;
        }
        el_status st = encode_plain(e, s + plain, pos - plain);
        if (st == EL_OK) st = push_id(e, id);
        if (st != EL_OK) return st;
        pos += el_vocab_bytes(e->tok, id).size;
        plain = pos;
    }
    return encode_plain(e, s + plain, n - plain);
}

static el_status check_text(const char *text, size_t n_bytes, el_error *err)
{
    if (n_bytes > MAX_TEXT_BYTES) {
        return el_fail(err, EL_ERR_ARG, "text has %zu bytes, at most %zu are encoded at once", n_bytes,
                       MAX_TEXT_BYTES);
    }
    if (text == NULL && n_bytes > 0) return el_fail(err, EL_ERR_ARG, "text is NULL");
    return EL_OK;
}

static el_status encode_all(encoder *e, const char *text, size_t n_bytes, unsigned flags)
{
    const el_tokenizer_info *info = &e->tok->info;
    const int special = (flags & EL_ENCODE_ADD_SPECIAL) != 0;
    el_status st = EL_OK;
    if (special && info->add_bos && info->bos >= 0) st = push_id(e, info->bos);
    if (st == EL_OK && n_bytes > 0) {
        st = encode_text(e, (const uint8_t *)text, n_bytes, (flags & EL_ENCODE_PARSE_SPECIAL) != 0);
    }
    if (st == EL_OK && special && info->add_eos && info->eos >= 0) st = push_id(e, info->eos);
    return st;
}

static el_status grow_ids(encoder *e, size_t more)
{
    const size_t cap = e->n_ids + more + e->cap_ids / 2 + 16;  // below 2^31 by MAX_TEXT_BYTES
    if (cap > SIZE_MAX / sizeof *e->ids) return EL_ERR_NOMEM;
    int32_t *grown = realloc(e->ids, cap * sizeof *grown);
    if (grown == NULL) return EL_ERR_NOMEM;
    e->ids = grown;
    e->cap_ids = cap;
    return EL_OK;
}

static el_status grow_symbols(encoder *e, size_t n)
{
    const size_t cap = n < 64 ? 64 : n;
    if (cap > SIZE_MAX / (2 * sizeof *e->heap)) return EL_ERR_NOMEM;
    free(e->symbols);
    free(e->heap);
    e->cap_symbols = 0;
    e->symbols = malloc(cap * sizeof *e->symbols);
    e->heap = malloc(2 * cap * sizeof *e->heap);
    if (e->symbols == NULL || e->heap == NULL) return EL_ERR_NOMEM;
    e->cap_symbols = cap;
    return EL_OK;
}

el_status el_tokenizer_encode(const el_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                              int32_t **ids, size_t *n_ids, el_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    el_status st = check_text(text, n_bytes, err);
    if (st != EL_OK) return st;

    static const growth growing = {grow_ids, grow_symbols};
    encoder e = {.tok = tok, .grow = &growing};
    st = encode_all(&e, text, n_bytes, flags);
    if (st == EL_OK && e.n_ids > 0) {
        *ids = e.ids;
        *n_ids = e.n_ids;
    } else {
        free(e.ids);
    }
    free(e.symbols);
    free(e.heap);
    if (st != EL_OK) return el_fail(err, st, "no memory to encode a text of %zu bytes", n_bytes);
    return EL_OK;
}

static el_status ids_too_small(encoder *e, size_t more)
{
    (void)more;
    e->short_of = "ids";
    return EL_ERR_ARG;
}

static el_status symbols_too_small(encoder *e, size_t n)
{
    (void)n;
    e->short_of = "scratch";
    return EL_ERR_ARG;
}

/* The heap of 2 n entries comes first, since it asks for the larger alignment. */
enum { SCRATCH_PER_BYTE = 2 * sizeof(uint64_t) + sizeof(symbol) };

size_t el_tokenizer_scratch_bytes(size_t n_bytes)
{
    return n_bytes > MAX_TEXT_BYTES ? SIZE_MAX : n_bytes * SCRATCH_PER_BYTE;
}

el_status el_tokenizer_encode_into(const el_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                                   int32_t *ids, size_t capacity, size_t *n_ids, void *scratch,
                                   size_t scratch_bytes, el_error *err)
{
    *n_ids = 0;
    el_status st = check_text(text, n_bytes, err);
    if (st != EL_OK) return st;
    if ((uintptr_t)scratch % sizeof(uint64_t) != 0)
        return el_fail(err, EL_ERR_ARG, "scratch is not 8-byte aligned");

    static const growth fixed = {ids_too_small, symbols_too_small};
    const size_t pieces = scratch != NULL ? scratch_bytes / SCRATCH_PER_BYTE : 0;
    encoder e = {.tok = tok, .ids = ids, .cap_ids = ids != NULL ? capacity : 0, .grow = &fixed};
    e.cap_symbols = pieces < MAX_TEXT_BYTES ? pieces : MAX_TEXT_BYTES;
    e.heap = scratch;
    if (pieces > 0) e.symbols = (void *)((uint8_t *)scratch + 2 * sizeof(uint64_t) * e.cap_symbols);
    st = encode_all(&e, text, n_bytes, flags);
    if (st != EL_OK) return el_fail(err, st, "%s: too small for a text of %zu bytes", e.short_of, n_bytes);
    *n_ids = e.n_ids;
    return EL_OK;
}

void el_ids_free(int32_t *ids) { free(ids); }
