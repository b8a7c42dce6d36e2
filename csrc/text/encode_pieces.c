/* SentencePiece, both kinds: the text is normalised, cut into pieces, and each piece is encoded by itself.
 *
 * It is cut where no token reaches across (el_joins): between words, mostly. That changes nothing, since neither a merge
 * nor a path of tokens crosses such a place, and it keeps the memory for a piece small. A piece is at the start of the
 * scratch, with a space for every U+2581, and what its encoder needs comes after it. */
#include <string.h>

#include "text/charsmap.h"
#include "text/encoder.h"
#include "text/trie.h"
#include "text/unicode.h"

#define MOST_PIECE_BYTES ((size_t)1 << 30)

typedef struct pieces {
    el_encoder *e;
    size_t n;      // bytes of the piece so far
    bool put_any;  // something has been put since the plain text began
    bool pending;  // a space is to be put if more follows
} pieces;

static el_status flush(pieces *p)
{
    const size_t n = p->n;
    p->n = 0;
    if (n == 0) return EL_OK;
    return p->e->tok->kind == EL_VOCAB_SPM ? el_encode_spm(p->e, n) : el_encode_unigram(p->e, n);
}

/* Append one character. */
static el_status put(pieces *p, const uint8_t *s, size_t n)
{
    el_encoder *e = p->e;
    el_status st = EL_OK;
    if (p->n > 0 && !el_joins(e->tok->joins, e->scratch[p->n - 1], s[0])) st = flush(p);
    if (st == EL_OK && p->n + n > e->scratch_bytes)
        st = e->grow->scratch(e, p->n < MOST_PIECE_BYTES ? 2 * p->n + 256 : SIZE_MAX);
    if (st != EL_OK) return st;
    memcpy(e->scratch + p->n, s, n);
    p->n += n;
    p->put_any = true;
    return EL_OK;
}

el_status el_push_unknown(el_encoder *e, const uint8_t *s, size_t n)
{
    const el_tokenizer *tok = e->tok;
    if (s[0] == ' ') {
        s = (const uint8_t *)EL_SPACE_MARK;
        n = EL_SPACE_MARK_BYTES;
    }
    bool known = true;
    for (size_t i = 0; i < n; i++) known &= tok->byte_ids[s[i]] >= 0;
    if (!known) {
        const bool push = !e->unknown && tok->info.unk >= 0;
        e->unknown = true;
        return push ? el_push_id(e, tok->info.unk) : EL_OK;
    }
    e->unknown = false;
    const el_status st = el_reserve_ids(e, n);
    for (size_t i = 0; i < n && st == EL_OK; i++) e->ids[e->n_ids++] = tok->byte_ids[s[i]];
    return st;
}

static el_status put_pending(pieces *p)
{
    if (!p->pending) return EL_OK;
    p->pending = false;
    return put(p, (const uint8_t *)" ", 1);
}

static el_status put_space(pieces *p)
{
    if (!p->e->tok->info.remove_extra_whitespaces) return put(p, (const uint8_t *)" ", 1);
    p->pending |= p->put_any;
    return EL_OK;
}

/* Append s[0, n), which is normal; a U+2581 in it is no space that could be left out. */
static el_status put_text(pieces *p, const uint8_t *s, size_t n)
{
    el_status st = EL_OK;
    for (size_t pos = 0; pos < n && st == EL_OK;) {
        const size_t len = el_char_bytes(s + pos, n - pos);
        if (s[pos] == ' ') {
            st = put_space(p);
        } else {
            const bool mark = el_is_space_mark(s + pos, len);
            st = put_pending(p);
            if (st == EL_OK) st = mark ? put(p, (const uint8_t *)" ", 1) : put(p, s + pos, len);
        }
        pos += len;
    }
    return st;
}

/* Append what stands for the next character of s[0, n), or for several; `*used` is how many bytes those are. */
static el_status put_next(pieces *p, const uint8_t *s, size_t n, size_t *used)
{
    el_view normal;
    uint32_t point;
    *used = el_charsmap_match(p->e->tok->charsmap, s, n, &normal);
    if (*used > 0) return put_text(p, (const uint8_t *)normal.data, normal.size);
    *used = el_utf8_next(s, n, &point);
    if (point == EL_NOT_UTF8 && p->e->tok->kind == EL_VOCAB_UNIGRAM)
        return put_text(p, (const uint8_t *)"\xEF\xBF\xBD", 3);
    return put_text(p, s, *used);
}

el_status el_encode_pieces(el_encoder *e, const uint8_t *s, size_t n, bool starts)
{
    const el_tokenizer_info *info = &e->tok->info;
    pieces p = {.e = e};
    el_status st = EL_OK;
    e->unknown = false;
    if (starts && info->add_space_prefix) {
        p.pending = true;
        if (!info->remove_extra_whitespaces) st = put_pending(&p);
    }
    if (e->tok->charsmap.size == 0 && e->tok->kind == EL_VOCAB_SPM) {
        if (st == EL_OK) st = put_text(&p, s, n);
    } else {
        for (size_t pos = 0, used; pos < n && st == EL_OK; pos += used)
            st = put_next(&p, s + pos, n - pos, &used);
    }
    return st == EL_OK ? flush(&p) : st;
}

size_t el_pieces_growth(const el_tokenizer *tok)
{
    if (tok->charsmap.size > 0) return EL_CHARSMAP_GROWTH;
    return tok->kind == EL_VOCAB_SPM ? 1 : 3;  // U+FFFD for each byte that is no UTF-8
}
