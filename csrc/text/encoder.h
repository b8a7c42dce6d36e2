/* What the encoders of all kinds of vocabulary share: where ids go, memory to work in, a heap. Private to csrc/text. */
#ifndef EL_TEXT_ENCODER_H
#define EL_TEXT_ENCODER_H

#include <stdbool.h>

#include "text/unicode.h"
#include "text/vocab.h"

#define EL_MAX_TEXT_BYTES ((size_t)1 << 29)

typedef struct el_encoder el_encoder;

/// How ids and scratch grow; not at all where they are the caller's. Through pointers, so that a program which
/// only encodes into its own memory links no allocator.
typedef struct el_growth {
    el_status (*ids)(el_encoder *e, size_t more);
    el_status (*scratch)(el_encoder *e, size_t bytes);
} el_growth;

struct el_encoder {
    const el_tokenizer *tok;
    int32_t *ids;
    size_t n_ids, cap_ids;
    uint8_t *scratch;  ///< (scratch_bytes,), 8-byte aligned; it keeps what it holds when it grows
    size_t scratch_bytes;
    bool unknown;  ///< the last token of this plain text stands for what is unknown
    const el_growth *grow;
    const char *short_of;  ///< what was too small
};

/// Entries of `heap` ascend by key: u64[2 * n_symbols] never overflows, since at most n - 1 pairs are there at first
/// and each merge takes one and adds two.
typedef struct el_heap {
    uint64_t *entries;
    size_t n;
} el_heap;

static inline el_status el_reserve_ids(el_encoder *e, size_t more)
{
    return more <= e->cap_ids - e->n_ids ? EL_OK : e->grow->ids(e, more);
}

static inline el_status el_push_id(el_encoder *e, int32_t id)
{
    const el_status st = el_reserve_ids(e, 1);
    if (st == EL_OK) e->ids[e->n_ids++] = id;
    return st;
}

static inline el_status el_reserve_scratch(el_encoder *e, size_t bytes)
{
    return bytes <= e->scratch_bytes ? EL_OK : e->grow->scratch(e, bytes);
}

/// Bytes of the character that s[0, n), n > 0, starts with; 1 if it is no UTF-8.
static inline size_t el_char_bytes(const uint8_t *s, size_t n)
{
    uint32_t point;
    return s[0] < 0x80 ? 1 : el_utf8_next(s, n, &point);
}

static inline void el_heap_push(el_heap *heap, uint64_t entry)
{
    size_t i = heap->n++;
    while (i > 0 && heap->entries[(i - 1) / 2] > entry) {
        heap->entries[i] = heap->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->entries[i] = entry;
}

static inline uint64_t el_heap_pop(el_heap *heap)
{
    const uint64_t top = heap->entries[0];
    const uint64_t moved = heap->entries[--heap->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap->n) break;
        if (child + 1 < heap->n && heap->entries[child + 1] < heap->entries[child]) child++;
        if (heap->entries[child] >= moved) break;
        heap->entries[i] = heap->entries[child];
        i = child;
    }
    heap->entries[i] = moved;
    return top;
}

/// Append the tokens of plain text, s[0, n): no special token is looked for. `starts` is true at the start of the text
/// and after a special token, where a vocabulary may put a space in front.
el_status el_encode_bpe(el_encoder *e, const uint8_t *s, size_t n);
el_status el_encode_pieces(el_encoder *e, const uint8_t *s, size_t n, bool starts);

/// Append the tokens of a piece, n > 0 bytes at the start of the scratch.
el_status el_encode_spm(el_encoder *e, size_t n);
el_status el_encode_unigram(el_encoder *e, size_t n);

/// Scratch that each needs for a text, or for a piece and itself, of `n` bytes.
size_t el_scratch_bpe(size_t n);
size_t el_scratch_spm(size_t n);
size_t el_scratch_unigram(size_t n);

/// Most bytes of a piece that a byte of the text can become.
size_t el_pieces_growth(const el_tokenizer *tok);

/// Append what stands for a character without a token: its byte tokens if the vocabulary has all of them, else one
/// unknown token for all that is unknown in a row, else nothing.
el_status el_push_unknown(el_encoder *e, const uint8_t *s, size_t n);

#endif
