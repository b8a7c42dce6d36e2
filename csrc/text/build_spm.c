/* Building SentencePiece vocabularies, of both kinds: scores, byte tokens, and the tree of what may be a token of plain text. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/build.h"
#include "text/charsmap.h"
#include "text/trie.h"

/* A pair of symbols is looked up by walking over the right one, so that the longest token bounds the time of a merge.
 * Those of known vocabularies have up to a hundred bytes. */
enum { MOST_TOKEN_BYTES = 1024 };

/* Text with spaces for U+2581; at most text.size bytes. */
static size_t unmark(el_view text, char *out)
{
    const uint8_t *s = (const uint8_t *)text.data;
    size_t n = 0;
    for (size_t pos = 0; pos < text.size;) {
        const bool mark = el_is_space_mark(s + pos, text.size - pos);
        out[n++] = mark ? ' ' : text.data[pos];
        pos += mark ? EL_SPACE_MARK_BYTES : 1;
    }
    return n;
}

size_t el_build_spell_spm(el_view text, unsigned type, char *out)
{
    const int value = type == EL_TOKEN_BYTE ? el_build_byte(text) : -1;
    if (value >= 0) {
        out[0] = (char)value;
        return 1;
    }
    if (type == EL_TOKEN_NORMAL || type == EL_TOKEN_UNUSED) return unmark(text, out);
    if (text.size > 0) memcpy(out, text.data, text.size);
    return text.size;
}

/* Whether plain text may become this token. Not control tokens, so that no text can forge one; and no text has a
 * space once it is marked, so that a token spelt with one is found, if at all, before that. */
static bool in_tree(const el_builder *b, size_t id)
{
    const unsigned type = el_build_type(b, id);
    const el_view text = b->source->tokens[id];
    if (text.size == 0 || memchr(text.data, ' ', text.size) != NULL) return false;
    if (type == EL_TOKEN_USER_DEFINED) return text.size <= MOST_TOKEN_BYTES;
    return type == EL_TOKEN_NORMAL || type == EL_TOKEN_UNUSED;
}

/* Below every normal token, as in sentencepiece; finite, since scores are. */
static float unknown_score(const el_builder *b)
{
    float least = FLT_MAX;
    for (size_t i = 0; i < b->source->n_tokens; i++) {
        const float score = b->source->scores != NULL ? b->source->scores[i] : 0.0f;
        if (el_build_type(b, i) == EL_TOKEN_NORMAL && score < least) least = score;
    }
    return least == FLT_MAX ? -10.0f : least < 10.0f - FLT_MAX ? -FLT_MAX : least - 10.0f;
}

el_status el_build_measure_tree(el_builder *b, el_error *err)
{
    const size_t n = b->source->n_tokens;
    if (b->source->charsmap.size > EL_MAX_CHARSMAP_BYTES || !el_charsmap_sound(b->source->charsmap))
        return el_fail(err, EL_ERR_FORMAT, "the precompiled map of characters is damaged");
    b->keys = calloc(n, sizeof *b->keys);
    b->key_bytes = malloc(b->head.pool_bytes > 0 ? b->head.pool_bytes : 1);
    b->order = malloc(n * sizeof *b->order);
    if (b->keys == NULL || b->key_bytes == NULL || b->order == NULL) return EL_ERR_NOMEM;

    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const el_view text = b->source->tokens[i];
        if (!in_tree(b, i)) continue;
        if (text.size > MOST_TOKEN_BYTES)
            return el_fail(err, EL_ERR_FORMAT, "token %zu has %zu bytes, at most %d are supported", i,
                           text.size, MOST_TOKEN_BYTES);
        b->keys[i] = (el_view){b->key_bytes + used, unmark(text, b->key_bytes + used)};
        used += b->keys[i].size;
        b->order[b->n_order++] = (int32_t)i;
    }
    const el_status st = el_text_sort(b->keys, b->order, b->n_order);
    if (st != EL_OK) return st;
    const uint64_t nodes = el_trie_count(b->keys, b->order, b->n_order);
    if (nodes > EL_MAX_NODES)
        return el_fail(err, EL_ERR_FORMAT, "the token texts are too many and too different");
    b->head.n_nodes = (uint32_t)nodes;
    b->head.charsmap_bytes = (uint32_t)b->source->charsmap.size;
    if (b->kind == EL_VOCAB_UNIGRAM) b->head.unknown_score = unknown_score(b);
    return EL_OK;
}

void el_build_fill_tree(el_builder *b)
{
    const el_vocab_source *source = b->source;
    if (source->charsmap.size > 0) memcpy(b->charsmap, source->charsmap.data, source->charsmap.size);
    el_trie_fill(b->keys, b->order, b->n_order, b->first, b->labels, b->node_ids);
    for (size_t i = 0; i < b->n_order; i++) {
        const el_view key = b->keys[b->order[i]];
        for (size_t at = 1; at < key.size; at++) {
            const size_t bit = (uint8_t)key.data[at - 1] * 256u + (uint8_t)key.data[at];
            b->joins[bit / 8] |= (uint8_t)(1u << bit % 8);
        }
    }
    for (size_t byte = 0; byte < 256; byte++) b->byte_ids[byte] = -1;
    for (size_t i = 0; i < source->n_tokens; i++) {
        const int value = el_build_type(b, i) == EL_TOKEN_BYTE ? el_build_byte(source->tokens[i]) : -1;
        if (value >= 0) b->byte_ids[value] = (int32_t)i;
        if (source->scores != NULL) b->scores[i] = source->scores[i];
    }
}
