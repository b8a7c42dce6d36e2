/* Building a tokenizer from what a model file says. The file is hostile until each claim has been checked. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/index.h"
#include "text/tables.h"
#include "text/unicode.h"

/* Control tokens at which chat models stop, by text, as the file names only one or two of them. */
static const char *const end_texts[] = {
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>",
};

/* What only building needs. The tables are written through these pointers; the tokenizer reads them. */
typedef struct builder {
    const el_vocab_source *source;
    const el_pre *pre;
    el_text_index index;
    el_tables_head head;
    int32_t *listed;  // (head.n_specials,)
    el_tokenizer *tok;
    uint8_t *block;
    int32_t *byte_ids;
    uint32_t *special_rows, *starts, *rows;
    el_merge *merges;
    el_partner *partners;
    int32_t *specials, *by_bytes;
    uint8_t *kinds;
    char *pool;
} builder;

static el_status check_source(const el_vocab_source *source, el_error *err)
{
    if (source->n_tokens == 0) return el_fail(err, EL_ERR_FORMAT, "the vocabulary is empty");
    if (source->n_tokens > EL_MAX_TOKENS || source->n_merges > EL_MAX_MERGES) {
        return el_fail(err, EL_ERR_FORMAT, "a vocabulary of %zu tokens and %zu merges is too large",
                       source->n_tokens, source->n_merges);
    }
    if (source->tokens == NULL || (source->merges == NULL && source->n_merges > 0)) {
        return el_fail(err, EL_ERR_ARG, "tokens or merges are NULL");
    }
    for (size_t i = 0; source->types != NULL && i < source->n_tokens; i++) {
        if (source->types[i] < 0 || source->types[i] > EL_TOKEN_BYTE) {
            return el_fail(err, EL_ERR_FORMAT, "token %zu has the unknown type %d", i, (int)source->types[i]);
        }
    }
    const int32_t ids[] = {source->bos, source->eos, source->eot, source->unk, source->pad};
    static const char *const names[] = {"bos", "eos", "eot", "unk", "pad"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        if (ids[i] < -1 || (ids[i] >= 0 && (size_t)ids[i] >= source->n_tokens)) {
            return el_fail(err, EL_ERR_FORMAT, "%s id %d is not in the vocabulary of %zu tokens", names[i],
                           (int)ids[i], source->n_tokens);
        }
    }
    return EL_OK;
}

static el_status find_pre(const el_vocab_source *source, const el_pre **out, el_error *err)
{
    const el_view model = source->model;
    if (model.size != 4 || memcmp(model.data, "gpt2", 4) != 0) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "tokenizer model '%.*s' is not supported, only 'gpt2'",
                       (int)(model.size < 64 ? model.size : 64), model.size > 0 ? model.data : "");
    }
    const el_view pre = source->pre.size > 0 ? source->pre : (el_view){"default", 7};
    *out = el_pre_find(pre.data, pre.size);
    if (*out == NULL) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "pre-tokenizer '%.*s' is not supported",
                       (int)(pre.size < 64 ? pre.size : 64), pre.data);
    }
    return EL_OK;
}

static unsigned type_of(const el_vocab_source *source, size_t id)
{
    if (source->types == NULL || source->types[id] == 0) return EL_TOKEN_NORMAL;
    return (unsigned)source->types[id];
}

static int is_special(unsigned type)
{
    return type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN || type == EL_TOKEN_USER_DEFINED;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes that a token text stands for, at most text.size of them, written to `out` where that is not NULL. A
 * normal text is in the byte alphabet; one that is not, and any special text, stands for itself. `*spelt` is 1 if
 * it was in the alphabet. */
static size_t decode_text(el_view text, unsigned type, char *out, int *spelt)
{
    const uint8_t *s = (const uint8_t *)text.data;
    *spelt = 0;
    if (type == EL_TOKEN_BYTE && text.size == 6 && memcmp(text.data, "<0x", 3) == 0 && text.data[5] == '>') {
        const int high = hex_digit(text.data[3]);
        const int low = hex_digit(text.data[4]);
        if (high >= 0 && low >= 0) {
            if (out != NULL) out[0] = (char)(high * 16 + low);
            return 1;
        }
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

static int is_end_text(el_view text)
{
    for (size_t i = 0; i < sizeof end_texts / sizeof end_texts[0]; i++) {
        if (text.size == strlen(end_texts[i]) && memcmp(text.data, end_texts[i], text.size) == 0) return 1;
    }
    return 0;
}

static int is_listed(const el_vocab_source *source, size_t id)
{
    return is_special(type_of(source, id)) && source->tokens[id].size > 0;
}

/* Special tokens by text. Of equal texts the last is the one that counts, and the last user-defined one where
 * control tokens are not looked for: the others are left out, so that no place of a text has many to try. */
static el_status list_specials(builder *b)
{
    const el_vocab_source *source = b->source;
    size_t n = 0, used = 0, kept = 0;
    for (size_t i = 0; i < source->n_tokens; i++) n += is_listed(source, i) != 0;
    b->listed = calloc(n > 0 ? n : 1, sizeof *b->listed);
    int32_t *spare = calloc(n > 0 ? n : 1, sizeof *spare);
    if (b->listed != NULL && spare != NULL) {
        for (size_t i = 0; i < source->n_tokens; i++) {
            if (is_listed(source, i)) b->listed[used++] = (int32_t)i;
        }
        el_vocab_sort(NULL, source->tokens, b->listed, spare, n);
    }
    for (size_t i = 0; i < used; i++) {
        const size_t id = (size_t)b->listed[i];
        for (; kept > 0; kept--) {
            const size_t last = (size_t)b->listed[kept - 1];
            if (el_vocab_compare(source->tokens[last], source->tokens[id]) != 0) break;
            if (type_of(source, id) != EL_TOKEN_USER_DEFINED &&
                type_of(source, last) == EL_TOKEN_USER_DEFINED)
                break;
        }
        b->listed[kept++] = (int32_t)id;
    }
    b->head.n_specials = (uint32_t)kept;
    const bool taken = b->listed != NULL && spare != NULL;
    free(spare);
    return taken ? EL_OK : EL_ERR_NOMEM;
}

/* Counts that decide how large the tables are. */
static el_status measure(builder *b, el_error *err)
{
    const el_vocab_source *source = b->source;
    el_tables_head *head = &b->head;
    *head = (el_tables_head){
        .n_tokens = (uint32_t)source->n_tokens,
        .n_merges = (uint32_t)source->n_merges,
        .bos = source->bos,
        .eos = source->eos,
        .eot = source->eot,
        .unk = source->unk,
        .pad = source->pad,
        .add_bos = source->add_bos < 0 ? b->pre->add_bos != 0 : source->add_bos != 0,
        .add_eos = source->add_eos > 0,
    };
    memcpy(head->pre, b->pre->name, strlen(b->pre->name));  // a constant of ours, shorter than 32

    // the pool is last in the block: it may turn out smaller than the texts, which are longer than their bytes
    size_t total = 0;
    for (size_t i = 0; i < source->n_tokens; i++) {
        const el_view text = source->tokens[i];
        int spelt = 0;
        if (text.size > UINT32_MAX - total)
            return el_fail(err, EL_ERR_FORMAT, "the token texts have more than 2^32 bytes");
        total += text.size;
        if (b->pre->ignore_merges) (void)decode_text(text, type_of(source, i), NULL, &spelt);
        head->n_by_bytes += spelt != 0;
    }
    head->pool_bytes = (uint32_t)total;
    return list_specials(b);
}

/* One block for the tokenizer and its tables. */
static el_status take_block(builder *b)
{
    const el_tables_map map = el_tables_place(&b->head);
    const size_t own = (sizeof *b->tok + 63) / 64 * 64;
    if (map.end > SIZE_MAX - own) return EL_ERR_NOMEM;
    b->tok = calloc(1, own + (size_t)map.end);
    if (b->tok == NULL) return EL_ERR_NOMEM;

    uint8_t *const block = b->block = (uint8_t *)b->tok + own;
    memcpy(block, &b->head, sizeof b->head);
    el_tables_attach(b->tok, block, b->pre);
    b->tok->info.memory_bytes += own;
    b->byte_ids = (void *)(block + map.byte_ids);
    b->special_rows = (void *)(block + map.special_rows);
    b->starts = (void *)(block + map.starts);
    b->merges = (void *)(block + map.merges);
    b->rows = (void *)(block + map.rows);
    b->partners = (void *)(block + map.partners);
    b->specials = (void *)(block + map.specials);
    b->by_bytes = (void *)(block + map.by_bytes);
    b->kinds = block + map.kinds;
    b->pool = (char *)block + map.pool;
    return EL_OK;
}

/* Pool, starts, kinds, and the list of tokens to be found whole. */
static void copy_tokens(builder *b)
{
    const el_vocab_source *source = b->source;
    uint32_t used = 0, whole = 0;
    for (size_t i = 0; i < source->n_tokens; i++) {
        const unsigned type = type_of(source, i);
        int spelt;
        b->starts[i] = used;
        used += (uint32_t)decode_text(source->tokens[i], type, b->pool + used, &spelt);
        b->kinds[i] = (uint8_t)type;
        if (type == EL_TOKEN_CONTROL && is_end_text(source->tokens[i])) b->kinds[i] |= EL_KIND_END;
        if (b->pre->ignore_merges && spelt) b->by_bytes[whole++] = (int32_t)i;
    }
    b->starts[source->n_tokens] = used;
    b->head.pool_bytes = used;
    memcpy(b->block, &b->head, sizeof b->head);
    if (source->eos >= 0) b->kinds[source->eos] |= EL_KIND_END;
    if (source->eot >= 0) b->kinds[source->eot] |= EL_KIND_END;
}

static void copy_specials(builder *b)
{
    for (size_t i = 0; i < b->head.n_specials; i++) {
        b->specials[i] = b->listed[i];
        b->special_rows[(uint8_t)b->source->tokens[b->listed[i]].data[0] + 1]++;
    }
    for (size_t byte = 0; byte < 256; byte++) b->special_rows[byte + 1] += b->special_rows[byte];
}

static int32_t find_text(const builder *b, el_view text)
{
    return el_text_find(&b->index, text, (el_view){"", 0}, el_text_hash(0, text));
}

static void find_bytes(builder *b)
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
static el_status parse_merge(builder *b, size_t rank, el_error *err)
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
static el_status sort_merges(builder *b)
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

static el_status sort_words(builder *b)
{
    const size_t n = b->head.n_by_bytes;
    int32_t *spare = calloc(n > 0 ? n : 1, sizeof *spare);
    if (spare == NULL) return EL_ERR_NOMEM;
    el_vocab_sort(b->tok, NULL, b->by_bytes, spare, n);
    free(spare);
    return EL_OK;
}

static el_status build(builder *b, el_error *err)
{
    el_status st = measure(b, err);
    if (st == EL_OK) st = take_block(b);
    if (st == EL_OK) st = el_text_index_build(&b->index, b->source->tokens, b->source->n_tokens);
    if (st != EL_OK) return st;
    copy_tokens(b);
    copy_specials(b);
    find_bytes(b);
    for (size_t i = 0; i < b->source->n_merges && st == EL_OK; i++) st = parse_merge(b, i, err);
    if (st == EL_OK) st = sort_merges(b);
    if (st == EL_OK) st = sort_words(b);
    return st;
}

el_status el_tokenizer_new(el_tokenizer **out, const el_vocab_source *source, el_error *err)
{
    *out = NULL;
    builder b = {.source = source};
    el_status st = check_source(source, err);
    if (st == EL_OK) st = find_pre(source, &b.pre, err);
    if (st != EL_OK) return st;

    st = build(&b, err);
    el_text_index_free(&b.index);
    free(b.listed);
    if (st == EL_OK) {
        *out = b.tok;
        return EL_OK;
    }
    el_tokenizer_free(b.tok);
    if (st == EL_ERR_NOMEM) el_fail(err, st, "no memory for a vocabulary of %zu tokens", source->n_tokens);
    return st;
}

void el_tokenizer_free(el_tokenizer *tok) { free(tok); }

el_status el_tokenizer_token(const el_tokenizer *tok, int32_t id, el_view *out, el_error *err)
{
    if (id < 0 || (size_t)id >= tok->info.n_tokens) {
        return el_fail(err, EL_ERR_ARG, "id %d is not in 0..%zu", (int)id, tok->info.n_tokens - 1);
    }
    *out = el_vocab_bytes(tok, id);
    return EL_OK;
}
