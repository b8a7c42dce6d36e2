/* SentencePiece unigram: of all ways to spell a piece with tokens, the one with the highest sum of scores.
 *
 * best[end] is the best way to spell the first `end` bytes, found by going through the places where a character starts, and
 * at each over all tokens that start there. A character that is no token by itself can be unknown, at a score below any
 * token's, so that each such place has a way to it. Sums are double, and the first of equal ways stays, as in sentencepiece,
 * `tokenizers` and llama.cpp. */
#include <float.h>

#include "text/encoder.h"
#include "text/trie.h"

typedef struct way {
    double score;
    uint32_t from;  // where its last token starts
    int32_t id;     // its last token; -1: unknown
} way;

static size_t text_room(size_t n) { return (n + 7) / 8 * 8; }

size_t el_scratch_unigram(size_t n) { return text_room(n) + (n + 1) * sizeof(way); }

static void offer(way *best, size_t from, size_t end, double score, int32_t id)
{
    if (score > best[end].score) best[end] = (way){score, (uint32_t)from, id};
}

/* Ways over every token that starts at `at`. */
static void extend(const el_tokenizer *tok, const uint8_t *s, size_t n, size_t at, size_t len, way *best)
{
    const double before = best[at].score;
    bool whole = false;  // the character is a token
    uint32_t node = 0;
    for (size_t end = at; end < n;) {
        node = el_trie_child(&tok->trie, node, s[end++]);
        if (node == 0) break;
        const int32_t id = tok->trie.ids[node];
        if (id < 0) continue;
        whole |= end == at + len;
        const bool user = (tok->kinds[id] & EL_TYPE_MASK) == EL_TOKEN_USER_DEFINED;
        offer(best, at, end, before + (user ? 0.0 : (double)tok->scores[id]), id);
    }
    if (!whole) offer(best, at, at + len, before + (double)tok->unknown_score, -1);
}

static el_status push_way(el_encoder *e, size_t start, size_t end, int32_t id)
{
    if (id >= 0) {
        e->unknown = false;
        return el_push_id(e, id);
    }
    return el_push_unknown(e, e->scratch + start, end - start);
}

el_status el_encode_unigram(el_encoder *e, size_t n)
{
    el_status st = el_reserve_scratch(e, el_scratch_unigram(n));
    if (st != EL_OK) return st;
    const uint8_t *s = e->scratch;
    way *best = (void *)(e->scratch + text_room(n));
    best[0] = (way){0.0, 0, -1};
    for (size_t i = 1; i <= n; i++) best[i] = (way){-DBL_MAX, 0, -1};

    for (size_t at = 0, len; at < n; at += len) {
        len = el_char_bytes(s + at, n - at);
        extend(e->tok, s, n, at, len, best);
    }

    // turn the best way round: where a token starts, it and its end then stand
    way token = best[n];
    for (uint32_t end = (uint32_t)n;;) {
        const uint32_t start = token.from;
        const way earlier = best[start];
        best[start] = (way){0.0, end, token.id};
        if (start == 0) break;
        end = start;
        token = earlier;
    }
    for (size_t at = 0; at < n && st == EL_OK; at = best[at].from)
        st = push_way(e, at, best[at].from, best[at].id);
    return st;
}
