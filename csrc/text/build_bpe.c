/* Building byte-level BPE: the byte alphabet, merges, and words to be found whole. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/build.h"
#include "text/unicode.h"

size_t el_build_spell_bpe(el_view text, unsigned type, char *out, int *spelt)
{
    const uint8_t *s = (const uint8_t *)text.data;
    const int value = type == EL_TOKEN_BYTE ? el_build_byte(text) : -1;
    *spelt = 0;
    if (value >= 0) {
        if (out != NULL) out[0] = (char)value;
        return 1;
    }

    size_t n = 0;
    int plain = type == EL_TOKEN_NORMAL;
    for (size_t pos = 0; plain && pos < text.size;) {
        int byte = s[pos];
        if (byte > 0x20 && byte < 0x7F) {  // spelt by itself
            pos++;
        } else {
            uint32_t point;
            pos += el_utf8_next(s + pos, text.size - pos, &point);
            byte = el_point_to_byte(point);
        }
        plain = byte >= 0;
        if (plain && out != NULL) out[n] = (char)byte;
        n += plain != 0;
    }
    *spelt = plain;
    if (plain) return n;
    if (out != NULL && text.size > 0) memcpy(out, text.data, text.size);
    return text.size;
}

static int32_t find_text(const el_builder *b, el_view text)
{
    return el_text_find(&b->index, text, (el_view){"", 0}, el_text_hash(0, text));
}

static void find_bytes(el_builder *b)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint32_t point = el_byte_to_point((uint8_t)byte);
        char text[2] = {(char)point, 0};
        size_t len = 1;
        if (point >= 0x80) {
            text[0] = (char)(0xC0u | point >> 6);
            text[1] = (char)(0x80u | (point & 0x3Fu));
            len = 2;
        }
        b->byte_ids[byte] = find_text(b, (el_view){text, len});
    }
}

/* One merge, "left right"; the first space after the first byte parts them, as in llama.cpp. */
static el_status parse_merge(el_builder *b, size_t rank, el_error *err)
{
    const el_view text = b->source->merges[rank];
    const char *space = text.size > 2 ? memchr(text.data + 1, ' ', text.size - 2) : NULL;
    if (space == NULL) return el_fail(err, EL_ERR_FORMAT, "merge %zu is not two texts and a space", rank);

    const el_view left = {text.data, (size_t)(space - text.data)};
    const el_view right = {space + 1, text.size - left.size - 1};
    const uint64_t hash = el_text_hash(0, left);
    const int32_t guess = rank > 0 ? b->merges[rank - 1].result + 1 : 0;  // vocabularies list them in order
    const el_merge merge = {el_text_find(&b->index, left, (el_view){"", 0}, hash), find_text(b, right),
                            el_text_is(&b->index, guess, left, right)
                                ? guess
                                : el_text_find(&b->index, left, right, el_text_hash(hash, right))};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        return el_fail(err, EL_ERR_FORMAT, "merge %zu, '%.*s', has a part or a result that is no token", rank,
                       (int)(text.size < 100 ? text.size : 100), text.data);
    }
    b->merges[rank] = merge;
    return EL_OK;
}

/* partners by (left, right, rank): two stable counting sorts, by right and then by left. */
static el_status sort_merges(el_builder *b)
{
    const size_t n = b->head.n_tokens;
    const size_t n_merges = b->head.n_merges;
    el_status st = EL_ERR_NOMEM;
    uint32_t *by_right = calloc(n_merges > 0 ? n_merges : 1, sizeof *by_right);
    uint32_t *next = calloc(n + 1, sizeof *next);
    if (by_right == NULL || next == NULL) goto done;

    for (size_t i = 0; i < n_merges; i++) next[b->merges[i].right + 1]++;
    for (size_t i = 0; i < n; i++) next[i + 1] += next[i];
    for (size_t i = 0; i < n_merges; i++) by_right[next[b->merges[i].right]++] = (uint32_t)i;

    for (size_t i = 0; i < n_merges; i++) b->rows[b->merges[i].left + 1]++;
    for (size_t i = 0; i < n; i++) b->rows[i + 1] += b->rows[i];
    memcpy(next, b->rows, (n + 1) * sizeof *next);
    for (size_t i = 0; i < n_merges; i++) {
        const uint32_t rank = by_right[i];
        const el_merge *merge = &b->merges[rank];
        b->partners[next[merge->left]++] = (el_partner){.right = merge->right, .rank = rank};
    }
    st = EL_OK;

done:
    free(by_right);
    free(next);
    return st;
}

/* by_bytes by the bytes of the tokens, which are in the pool by now. */
static el_status sort_words(el_builder *b)
{
    const size_t n = b->head.n_by_bytes;
    if (n == 0) return EL_OK;
    el_view *texts = calloc(b->head.n_tokens, sizeof *texts);
    if (texts == NULL) return EL_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) texts[b->by_bytes[i]] = el_vocab_bytes(b->tok, b->by_bytes[i]);
    const el_status st = el_text_sort(texts, b->by_bytes, n);
    free(texts);
    return st;
}

el_status el_build_fill_bpe(el_builder *b, el_error *err)
{
    el_status st = el_text_index_build(&b->index, b->source->tokens, b->source->n_tokens);
    if (st != EL_OK) return st;
    find_bytes(b);
    for (size_t i = 0; i < b->source->n_merges && st == EL_OK; i++) st = parse_merge(b, i, err);
    if (st == EL_OK) st = sort_merges(b);
    if (st == EL_OK) st = sort_words(b);
    return st;
}
