/* Building a tokenizer from what a model file says. The file is hostile until each claim has been checked. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/unicode.h"
#include "text/vocab.h"

#define MAX_TOKENS ((size_t)1 << 24)  // ids and ranks fit in 32 bits with room to spare
#define MAX_MERGES ((size_t)1 << 26)

/* Control tokens at which chat models stop, by text, as the file names only one or two of them. */
static const char *const end_texts[] = {
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>",
};

/* What only building needs. */
typedef struct builder {
    el_tokenizer *tok;
    const el_vocab_source *source;
    int32_t *sorted;  // (n_tokens,) ids by raw text
    int32_t *spare;  // (n_tokens,)
    char *scratch;  // room for any merge's two parts joined
} builder;

/* Zeroed memory for `count` things that stay in the tokenizer. At least one byte, so NULL means failure. */
static void *keep(el_tokenizer *tok, size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);
    if (p != NULL) tok->info.memory_bytes += count * size;
    return p;
}

static el_status check_source(const el_vocab_source *source, el_error *err)
{
    if (source->n_tokens == 0) return el_fail(err, EL_ERR_FORMAT, "the vocabulary is empty");
    if (source->n_tokens > MAX_TOKENS || source->n_merges > MAX_MERGES) {
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

/* Bytes that a token text stands for, written to `out` (at most text.size of them). A normal text is in the byte
 * alphabet; one that is not, and any special text, stands for itself. `*spelt` is 1 if it was in the alphabet. */
static size_t decode_text(el_view text, unsigned type, char *out, int *spelt)
{
    const uint8_t *s = (const uint8_t *)text.data;
    *spelt = 0;
    if (type == EL_TOKEN_BYTE && text.size == 6 && memcmp(text.data, "<0x", 3) == 0 && text.data[5] == '>') {
        const int high = hex_digit(text.data[3]);
        const int low = hex_digit(text.data[4]);
        if (high >= 0 && low >= 0) {
            out[0] = (char)(high * 16 + low);
            return 1;
        }
    }

    size_t n = 0;
    int plain = type == EL_TOKEN_NORMAL;
    for (size_t pos = 0; plain && pos < text.size;) {
        uint32_t point;
        pos += el_utf8_next(s + pos, text.size - pos, &point);
        const int byte = el_point_to_byte(point);
        plain = byte >= 0;
        if (plain) out[n++] = (char)byte;
    }
    *spelt = plain;
    if (plain) return n;
    if (text.size > 0) memcpy(out, text.data, text.size);
    return text.size;
}

static int is_end_text(el_view text)
{
    for (size_t i = 0; i < sizeof end_texts / sizeof end_texts[0]; i++) {
        if (text.size == strlen(end_texts[i]) && memcmp(text.data, end_texts[i], text.size) == 0) return 1;
    }
    return 0;
}

/* Pool, starts, kinds, and the list of tokens to be found whole. */
static el_status copy_tokens(builder *b, el_error *err)
{
    el_tokenizer *tok = b->tok;
    const el_vocab_source *source = b->source;
    const size_t n = source->n_tokens;
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (source->tokens[i].size > UINT32_MAX - total) {
            return el_fail(err, EL_ERR_FORMAT, "the token texts have more than 2^32 bytes");
        }
        total += source->tokens[i].size;
    }

    tok->pool = keep(tok, total, 1);
    tok->starts = keep(tok, n + 1, sizeof *tok->starts);
    tok->kinds = keep(tok, n, 1);
    if (tok->pre->ignore_merges) tok->by_bytes = keep(tok, n, sizeof *tok->by_bytes);
    if (tok->pool == NULL || tok->starts == NULL || tok->kinds == NULL ||
        (tok->pre->ignore_merges && tok->by_bytes == NULL)) {
        return EL_ERR_NOMEM;
    }
    uint32_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned type = type_of(source, i);
        int spelt;
        tok->starts[i] = used;
        used += (uint32_t)decode_text(source->tokens[i], type, tok->pool + used, &spelt);
        tok->kinds[i] = (uint8_t)type;
        if (type == EL_TOKEN_CONTROL && is_end_text(source->tokens[i])) tok->kinds[i] |= EL_KIND_END;
        if (tok->by_bytes != NULL && spelt) tok->by_bytes[tok->n_by_bytes++] = (int32_t)i;
    }
    tok->starts[n] = used;
    if (source->eos >= 0) tok->kinds[source->eos] |= EL_KIND_END;
    if (source->eot >= 0) tok->kinds[source->eot] |= EL_KIND_END;
    if (tok->by_bytes != NULL) el_vocab_sort(tok, NULL, tok->by_bytes, b->spare, tok->n_by_bytes);
    return EL_OK;
}

static el_status index_specials(builder *b)
{
    el_tokenizer *tok = b->tok;
    for (size_t i = 0; i < tok->info.n_tokens; i++) {
        tok->n_specials += is_special(tok->kinds[i] & EL_TYPE_MASK) && b->source->tokens[i].size > 0;
    }
    tok->specials = keep(tok, tok->n_specials, sizeof *tok->specials);
    if (tok->specials == NULL) return EL_ERR_NOMEM;

    size_t used = 0;
    for (size_t i = 0; i < tok->info.n_tokens; i++) {
        const int listed = is_special(tok->kinds[i] & EL_TYPE_MASK) && b->source->tokens[i].size > 0;
        if (!listed) continue;
        tok->specials[used++] = (int32_t)i;
        tok->special_rows[(uint8_t)b->source->tokens[i].data[0] + 1]++;
    }
    for (size_t byte = 0; byte < 256; byte++) tok->special_rows[byte + 1] += tok->special_rows[byte];
    el_vocab_sort(tok, NULL, tok->specials, b->spare, tok->n_specials);
    return EL_OK;
}

/* Tokens by raw text, and the token of each byte. */
static void index_texts(builder *b)
{
    const size_t n = b->source->n_tokens;
    for (size_t i = 0; i < n; i++) b->sorted[i] = (int32_t)i;
    el_vocab_sort(b->tok, b->source->tokens, b->sorted, b->spare, n);

    for (unsigned byte = 0; byte < 256; byte++) {
        const uint32_t point = el_byte_to_point((uint8_t)byte);
        char text[2] = {(char)point, 0};
        size_t len = 1;
        if (point >= 0x80) {
            text[0] = (char)(0xC0u | point >> 6);
            text[1] = (char)(0x80u | (point & 0x3Fu));
            len = 2;
        }
        b->tok->byte_ids[byte] = el_vocab_find(b->tok, b->source->tokens, b->sorted, n, (el_view){text, len});
    }
}

static int32_t find_text(const builder *b, const char *ptr, size_t len)
{
    return el_vocab_find(b->tok, b->source->tokens, b->sorted, b->source->n_tokens, (el_view){ptr, len});
}

/* One merge, "left right"; the first space after the first byte parts them, as in llama.cpp. */
static el_status parse_merge(builder *b, size_t rank, el_error *err)
{
    const el_view text = b->source->merges[rank];
    const char *space = text.size > 2 ? memchr(text.data + 1, ' ', text.size - 2) : NULL;
    if (space == NULL) return el_fail(err, EL_ERR_FORMAT, "merge %zu is not two texts and a space", rank);

    const size_t left = (size_t)(space - text.data);
    const size_t right = text.size - left - 1;
    memcpy(b->scratch, text.data, left);
    memcpy(b->scratch + left, space + 1, right);
    const el_merge merge = {find_text(b, b->scratch, left), find_text(b, b->scratch + left, right),
                            find_text(b, b->scratch, left + right)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        return el_fail(err, EL_ERR_FORMAT, "merge %zu, '%.*s', has a part or a result that is no token", rank,
                       (int)(text.size < 100 ? text.size : 100), text.data);
    }
    b->tok->merges[rank] = merge;
    return EL_OK;
}

/* partners by (left, right, rank): two stable counting sorts, by right and then by left. */
static el_status sort_merges(builder *b)
{
    el_tokenizer *tok = b->tok;
    const size_t n = tok->info.n_tokens;
    const size_t n_merges = b->source->n_merges;
    el_status st = EL_ERR_NOMEM;
    uint32_t *by_right = calloc(n_merges > 0 ? n_merges : 1, sizeof *by_right);
    uint32_t *next = calloc(n + 1, sizeof *next);
    if (by_right == NULL || next == NULL) goto done;

    for (size_t i = 0; i < n_merges; i++) next[tok->merges[i].right + 1]++;
    for (size_t i = 0; i < n; i++) next[i + 1] += next[i];
    for (size_t i = 0; i < n_merges; i++) by_right[next[tok->merges[i].right]++] = (uint32_t)i;

    for (size_t i = 0; i < n_merges; i++) tok->rows[tok->merges[i].left + 1]++;
    for (size_t i = 0; i < n; i++) tok->rows[i + 1] += tok->rows[i];
    memcpy(next, tok->rows, (n + 1) * sizeof *next);
    for (size_t i = 0; i < n_merges; i++) {
        const uint32_t rank = by_right[i];
        const el_merge *merge = &tok->merges[rank];
        tok->partners[next[merge->left]++] = (el_partner){.right = merge->right, .rank = rank};
    }
    st = EL_OK;

done:
    free(by_right);
    free(next);
    return st;
}

static el_status copy_merges(builder *b, el_error *err)
{
    el_tokenizer *tok = b->tok;
    const size_t n_merges = b->source->n_merges;
    size_t longest = 1;
    for (size_t i = 0; i < n_merges; i++) {
        if (b->source->merges[i].size > longest) longest = b->source->merges[i].size;
    }
    b->scratch = malloc(longest);
    tok->merges = keep(tok, n_merges, sizeof *tok->merges);
    tok->partners = keep(tok, n_merges, sizeof *tok->partners);
    tok->rows = keep(tok, tok->info.n_tokens + 1, sizeof *tok->rows);
    if (b->scratch == NULL || tok->merges == NULL || tok->partners == NULL || tok->rows == NULL) {
        return EL_ERR_NOMEM;
    }
    for (size_t i = 0; i < n_merges; i++) {
        const el_status st = parse_merge(b, i, err);
        if (st != EL_OK) return st;
    }
    return sort_merges(b);
}

static el_status build(builder *b, el_error *err)
{
    const size_t n = b->source->n_tokens;
    b->sorted = calloc(n, sizeof *b->sorted);
    b->spare = calloc(n, sizeof *b->spare);
    if (b->sorted == NULL || b->spare == NULL) return EL_ERR_NOMEM;

    el_status st = copy_tokens(b, err);
    if (st != EL_OK) return st;
    st = index_specials(b);
    if (st != EL_OK) return st;
    index_texts(b);
    return copy_merges(b, err);
}

el_status el_tokenizer_new(el_tokenizer **out, const el_vocab_source *source, el_error *err)
{
    *out = NULL;
    const el_pre *pre = NULL;
    el_status st = check_source(source, err);
    if (st == EL_OK) st = find_pre(source, &pre, err);
    if (st != EL_OK) return st;

    builder b = {.source = source};
    st = EL_ERR_NOMEM;
    b.tok = calloc(1, sizeof *b.tok);
    if (b.tok == NULL) goto done;
    b.tok->pre = pre;
    b.tok->info = (el_tokenizer_info){
        .n_tokens = source->n_tokens,
        .memory_bytes = sizeof *b.tok,
        .bos = source->bos,
        .eos = source->eos,
        .eot = source->eot,
        .unk = source->unk,
        .pad = source->pad,
        .add_bos = source->add_bos < 0 ? pre->add_bos : source->add_bos != 0,
        .add_eos = source->add_eos > 0,
    };
    st = build(&b, err);

done:
    free(b.sorted);
    free(b.spare);
    free(b.scratch);
    if (st == EL_OK) {
        *out = b.tok;
    } else {
        el_tokenizer_free(b.tok);
        if (st == EL_ERR_NOMEM)
            el_fail(err, st, "no memory for a vocabulary of %zu tokens", source->n_tokens);
    }
    return st;
}

void el_tokenizer_free(el_tokenizer *tok)
{
    if (tok == NULL) return;
    free(tok->pool);
    free(tok->starts);
    free(tok->kinds);
    free(tok->merges);
    free(tok->rows);
    free(tok->partners);
    free(tok->specials);
    free(tok->by_bytes);
    free(tok);
}

el_status el_tokenizer_token(const el_tokenizer *tok, int32_t id, el_view *out, el_error *err)
{
    if (id < 0 || (size_t)id >= tok->info.n_tokens) {
        return el_fail(err, EL_ERR_ARG, "id %d is not in 0..%zu", (int)id, tok->info.n_tokens - 1);
    }
    *out = el_vocab_bytes(tok, id);
    return EL_OK;
}
