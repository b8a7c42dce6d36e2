/* Encoding: special tokens are cut out, and what is between them goes to the encoder of the vocabulary's kind. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/encoder.h"
#include "text/trie.h"
#include "text/unicode.h"

static el_status encode_plain(el_encoder *e, const uint8_t *s, size_t n, bool starts)
{
    if (n == 0) return EL_OK;
    return e->tok->kind == EL_VOCAB_BPE ? el_encode_bpe(e, s, n) : el_encode_pieces(e, s, n, starts);
}

static size_t skip_spaces(const uint8_t *s, size_t n)
{
    size_t pos = 0;
    while (pos < n) {
        uint32_t point;
        const size_t len = el_utf8_next(s + pos, n - pos, &point);
        if (el_unicode_class(point) != EL_CHAR_SPACE) break;
        pos += len;
    }
    return pos;
}

/* Special token that s[pos, n) starts with, or -1: the longest, be it user-defined or a control token of the stretch
 * that ends at `trusted`. */
static int32_t special_at(const el_tokenizer *tok, const uint8_t *s, size_t n, size_t pos, size_t trusted)
{
    if (trusted == n) return el_vocab_special_at(tok, s + pos, n - pos, 1);
    const int32_t user = el_vocab_special_at(tok, s + pos, n - pos, 0);
    if (trusted <= pos) return user;
    const int32_t any = el_vocab_special_at(tok, s + pos, trusted - pos, 1);
    if (any < 0 || user < 0) return any < 0 ? user : any;
    return el_vocab_bytes(tok, any).size >= el_vocab_bytes(tok, user).size ? any : user;
}

/* The whole text: special tokens, leftmost and longest first, and the plain text between them. */
static el_status encode_text(el_encoder *e, const uint8_t *s, size_t n, const el_stretch *control,
                             size_t n_control)
{
    size_t plain = 0;
    size_t pos = 0;
    size_t at = 0;  // first stretch that does not end before `pos`
    bool starts = true;
    while (pos < n) {
        while (at < n_control && control[at].end <= pos) at++;
        const bool inside = at < n_control && control[at].begin <= pos;
        const int32_t id = special_at(e->tok, s, n, pos, inside ? control[at].end : 0);
        if (id < 0) {
            pos++;
            continue;
        }
        el_status st = encode_plain(e, s + plain, pos - plain, starts);
        if (st == EL_OK) st = el_push_id(e, id);
        if (st != EL_OK) return st;
        starts = true;
        pos += el_vocab_bytes(e->tok, id).size;
        if ((e->tok->kinds[id] & EL_KIND_STRIP) != 0) pos += skip_spaces(s + pos, n - pos);
        plain = pos;
    }
    return encode_plain(e, s + plain, n - plain, starts);
}

static el_status check_text(const char *text, size_t n_bytes, el_error *err)
{
    if (n_bytes > EL_MAX_TEXT_BYTES) {
        return el_fail(err, EL_ERR_ARG, "text has %zu bytes, at most %zu are encoded at once", n_bytes,
                       EL_MAX_TEXT_BYTES);
    }
    if (text == NULL && n_bytes > 0) return el_fail(err, EL_ERR_ARG, "text is NULL");
    return EL_OK;
}

static el_status encode_all(el_encoder *e, const char *text, size_t n_bytes, unsigned flags)
{
    const el_tokenizer_info *info = &e->tok->info;
    const int special = (flags & EL_ENCODE_ADD_SPECIAL) != 0;
    el_status st = EL_OK;
    if (special && info->add_bos && info->bos >= 0) st = el_push_id(e, info->bos);
    if (st == EL_OK && n_bytes > 0) {
        const el_stretch all = {0, n_bytes};
        st = encode_text(e, (const uint8_t *)text, n_bytes, &all, (flags & EL_ENCODE_PARSE_SPECIAL) != 0);
    }
    if (st == EL_OK && special && info->add_eos && info->eos >= 0) st = el_push_id(e, info->eos);
    return st;
}

static el_status grow_ids(el_encoder *e, size_t more)
{
    const size_t cap = e->n_ids + more + e->cap_ids / 2 + 16;  // below 2^31 by EL_MAX_TEXT_BYTES
    if (cap > SIZE_MAX / sizeof *e->ids) return EL_ERR_NOMEM;
    int32_t *grown = realloc(e->ids, cap * sizeof *grown);
    if (grown == NULL) return EL_ERR_NOMEM;
    e->ids = grown;
    e->cap_ids = cap;
    return EL_OK;
}

static el_status grow_scratch(el_encoder *e, size_t bytes)
{
    uint8_t *grown = realloc(e->scratch, bytes < 4096 ? 4096 : bytes);
    if (grown == NULL) return EL_ERR_NOMEM;
    e->scratch = grown;
    e->scratch_bytes = bytes < 4096 ? 4096 : bytes;
    return EL_OK;
}

static const el_growth growing = {grow_ids, grow_scratch};

/* Hand over what was encoded, or nothing. */
static el_status finish(el_encoder *e, el_status st, size_t n_bytes, int32_t **ids, size_t *n_ids,
                        el_error *err)
{
    if (st == EL_OK && e->n_ids > 0) {
        *ids = e->ids;
        *n_ids = e->n_ids;
    } else {
        free(e->ids);
    }
    free(e->scratch);
    if (st != EL_OK) return el_fail(err, st, "no memory to encode a text of %zu bytes", n_bytes);
    return EL_OK;
}

el_status el_tokenizer_encode(const el_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                              int32_t **ids, size_t *n_ids, el_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    const el_status st = check_text(text, n_bytes, err);
    if (st != EL_OK) return st;
    el_encoder e = {.tok = tok, .grow = &growing};
    return finish(&e, encode_all(&e, text, n_bytes, flags), n_bytes, ids, n_ids, err);
}

el_status el_tokenizer_encode_trusted(const el_tokenizer *tok, const char *text, size_t n_bytes,
                                      const el_stretch *control, size_t n_control, int32_t **ids,
                                      size_t *n_ids, el_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    const el_status st = check_text(text, n_bytes, err);
    if (st != EL_OK || n_bytes == 0) return st;
    for (size_t i = 0, from = 0; i < n_control; from = control[i++].end) {
        if (control[i].begin < from || control[i].end < control[i].begin || control[i].end > n_bytes)
            return el_fail(err, EL_ERR_ARG, "stretch %zu overlaps the one before or the end of the text", i);
    }
    el_encoder e = {.tok = tok, .grow = &growing};
    return finish(&e, encode_text(&e, (const uint8_t *)text, n_bytes, control, n_control), n_bytes, ids,
                  n_ids, err);
}

static el_status ids_too_small(el_encoder *e, size_t more)
{
    (void)more;
    e->short_of = "ids";
    return EL_ERR_ARG;
}

static el_status scratch_too_small(el_encoder *e, size_t bytes)
{
    (void)bytes;
    e->short_of = "scratch";
    return EL_ERR_ARG;
}

/* n * each + more, or SIZE_MAX. */
static size_t bound(size_t n, size_t each, size_t more)
{
    return n > EL_MAX_TEXT_BYTES || n > (SIZE_MAX - more) / each ? SIZE_MAX : n * each + more;
}

/* A byte becomes so many as normalising makes of it. One space may stand in front of the text, and of what follows each
 * special token, which has a byte at least. A space is one token, or the bytes of U+2581. */
size_t el_tokenizer_max_ids(const el_tokenizer *tok, size_t n_bytes)
{
    if (tok->kind == EL_VOCAB_BPE) return bound(n_bytes, 1, 2);
    const uint32_t space = el_trie_child(&tok->trie, 0, ' ');
    const bool is_token = space != 0 && tok->trie.ids[space] >= 0;
    return bound(n_bytes, (el_pieces_growth(tok) + 1) * (is_token ? 1 : EL_SPACE_MARK_BYTES), 5);
}

size_t el_tokenizer_scratch_bytes(const el_tokenizer *tok, size_t n_bytes)
{
    if (tok->kind == EL_VOCAB_BPE) return bound(n_bytes, el_scratch_bpe(1), 0);
    const size_t piece = bound(n_bytes, el_pieces_growth(tok), 1);
    const size_t each = tok->kind == EL_VOCAB_SPM ? el_scratch_spm(8) : el_scratch_unigram(8);
    return piece == SIZE_MAX ? SIZE_MAX : bound(piece / 8 + 1, each, 0);
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

    static const el_growth fixed = {ids_too_small, scratch_too_small};
    el_encoder e = {
        .tok = tok,
        .ids = ids,
        .cap_ids = ids != NULL ? capacity : 0,
        .scratch = scratch,
        .scratch_bytes = scratch != NULL ? scratch_bytes : 0,
        .grow = &fixed,
    };
    st = encode_all(&e, text, n_bytes, flags);
    if (st != EL_OK) return el_fail(err, st, "%s: too small for a text of %zu bytes", e.short_of, n_bytes);
    *n_ids = e.n_ids;
    return EL_OK;
}

void el_ids_free(int32_t *ids) { free(ids); }
