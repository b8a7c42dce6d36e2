/* Building a tokenizer from what a model file says. The file is hostile until each claim has been checked. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "text/build.h"
#include "text/trie.h"

/* Control tokens at which chat models stop, by text, as the file names only one or two of them: llama.cpp's list. */
static const char *const end_texts[] = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|return|>",
    "<|call|>",
    "<end_of_utterance>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
};

/* Special tokens of Phi-3 after which spaces stay, unlike after its others. */
static const char *const keeping_texts[] = {"<unk>", "<s>", "<|endoftext|>"};

static int equals(el_view text, const char *other)
{
    return text.size == strlen(other) && memcmp(text.data, other, text.size) == 0;
}

static int is_among(el_view text, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (equals(text, texts[i])) return 1;
    }
    return 0;
}

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
    for (size_t i = 0; source->scores != NULL && i < source->n_tokens; i++) {
        if (!(source->scores[i] >= -FLT_MAX && source->scores[i] <= FLT_MAX))
            return el_fail(err, EL_ERR_FORMAT, "the score of token %zu is not finite", i);
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

static el_status find_kind(el_builder *b, el_error *err)
{
    const el_view model = b->source->model;
    if (equals(model, "llama") || equals(model, "t5")) {
        b->kind = equals(model, "t5") ? EL_VOCAB_UNIGRAM : EL_VOCAB_SPM;
        return EL_OK;
    }
    if (!equals(model, "gpt2")) {
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "tokenizer model '%.*s' is not supported, only 'gpt2', 'llama' and 't5'",
                       (int)(model.size < 64 ? model.size : 64), model.size > 0 ? model.data : "");
    }
    b->kind = EL_VOCAB_BPE;
    const el_view pre = b->source->pre.size > 0 ? b->source->pre : (el_view){"default", 7};
    b->pre = el_pre_find(pre.data, pre.size);
    if (b->pre == NULL) {
        return el_fail(err, EL_ERR_UNSUPPORTED, "pre-tokenizer '%.*s' is not supported",
                       (int)(pre.size < 64 ? pre.size : 64), pre.data);
    }
    return EL_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int el_build_byte(el_view text)
{
    if (text.size != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') return -1;
    const int high = hex_digit(text.data[3]);
    const int low = hex_digit(text.data[4]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

unsigned el_build_type(const el_builder *b, size_t id)
{
    const el_vocab_source *source = b->source;
    if (source->types != NULL) return source->types[id] == 0 ? EL_TOKEN_NORMAL : (unsigned)source->types[id];
    return b->kind != EL_VOCAB_BPE && el_build_byte(source->tokens[id]) >= 0 ? EL_TOKEN_BYTE
                                                                             : EL_TOKEN_NORMAL;
}

static int is_special(unsigned type)
{
    return type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN || type == EL_TOKEN_USER_DEFINED;
}

static int is_listed(const el_builder *b, size_t id)
{
    return is_special(el_build_type(b, id)) && b->source->tokens[id].size > 0;
}

/* Special tokens by text. Of equal texts the last is the one that counts, and the last user-defined one where
 * control tokens are not looked for: the others are left out, so that no place of a text has many to try. */
static el_status list_specials(el_builder *b)
{
    const el_vocab_source *source = b->source;
    size_t n = 0, used = 0, kept = 0;
    for (size_t i = 0; i < source->n_tokens; i++) n += is_listed(b, i) != 0;
    b->listed = calloc(n > 0 ? n : 1, sizeof *b->listed);
    if (b->listed == NULL) return EL_ERR_NOMEM;
    for (size_t i = 0; i < source->n_tokens; i++) {
        if (is_listed(b, i)) b->listed[used++] = (int32_t)i;
    }
    const el_status st = el_text_sort(source->tokens, b->listed, n);
    if (st != EL_OK) return st;
    for (size_t i = 0; i < used; i++) {
        const size_t id = (size_t)b->listed[i];
        for (; kept > 0; kept--) {
            const size_t last = (size_t)b->listed[kept - 1];
            if (el_vocab_compare(source->tokens[last], source->tokens[id]) != 0) break;
            if (el_build_type(b, id) != EL_TOKEN_USER_DEFINED &&
                el_build_type(b, last) == EL_TOKEN_USER_DEFINED)
                break;
        }
        b->listed[kept++] = (int32_t)id;
    }
    b->head.n_specials = (uint32_t)kept;
    return EL_OK;
}

/* Counts that decide how large the tables are. */
static el_status measure(el_builder *b, el_error *err)
{
    const el_vocab_source *source = b->source;
    const bool bpe = b->kind == EL_VOCAB_BPE;
    const bool spm = b->kind == EL_VOCAB_SPM;
    const int adds_bos = bpe ? b->pre->add_bos : spm;
    el_tables_head *head = &b->head;
    *head = (el_tables_head){
        .kind = b->kind,
        .n_tokens = (uint32_t)source->n_tokens,
        .n_merges = bpe ? (uint32_t)source->n_merges : 0,
        .bos = source->bos,
        .eos = source->eos,
        .eot = source->eot,
        .unk = source->unk,
        .pad = source->pad,
        .add_bos = (source->add_bos < 0 ? adds_bos : source->add_bos) != 0,
        .add_eos = source->add_eos < 0 ? b->kind == EL_VOCAB_UNIGRAM : source->add_eos != 0,
        .add_space_prefix = !bpe && (source->add_space_prefix < 0 ? spm : source->add_space_prefix != 0),
        .remove_extra_whitespaces = !bpe && source->remove_extra_whitespaces > 0,
    };
    if (bpe) memcpy(head->pre, b->pre->name, strlen(b->pre->name));  // a constant of ours, shorter than 32

    // the pool is last in the block: it may turn out smaller than the texts, which are longer than their bytes
    size_t total = 0;
    for (size_t i = 0; i < source->n_tokens; i++) {
        const el_view text = source->tokens[i];
        int spelt = 0;
        if (text.size > UINT32_MAX - total)
            return el_fail(err, EL_ERR_FORMAT, "the token texts have more than 2^32 bytes");
        total += text.size;
        if (bpe && b->pre->ignore_merges) (void)el_build_spell_bpe(text, el_build_type(b, i), NULL, &spelt);
        head->n_by_bytes += spelt != 0;
    }
    head->pool_bytes = (uint32_t)total;
    const el_status st = list_specials(b);
    return st == EL_OK && !bpe ? el_build_measure_tree(b, err) : st;
}

/* One block for the tokenizer and its tables. */
static el_status take_block(el_builder *b)
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
    b->scores = (void *)(block + map.scores);
    b->first = (void *)(block + map.first);
    b->node_ids = (void *)(block + map.node_ids);
    b->labels = block + map.labels;
    b->joins = block + map.joins;
    b->charsmap = block + map.charsmap;
    b->kinds = block + map.kinds;
    b->pool = (char *)block + map.pool;
    return EL_OK;
}

/* Pool, starts, kinds, and the list of tokens to be found whole. */
static void copy_tokens(el_builder *b)
{
    const el_vocab_source *source = b->source;
    const bool bpe = b->kind == EL_VOCAB_BPE;
    uint32_t used = 0, whole = 0;
    for (size_t i = 0; i < source->n_tokens; i++) {
        const el_view text = source->tokens[i];
        const unsigned type = el_build_type(b, i);
        int spelt = 0;
        b->starts[i] = used;
        used += (uint32_t)(bpe ? el_build_spell_bpe(text, type, b->pool + used, &spelt)
                               : el_build_spell_spm(text, type, b->pool + used));
        b->kinds[i] = (uint8_t)type;
        if (type == EL_TOKEN_CONTROL && is_among(text, end_texts, sizeof end_texts / sizeof end_texts[0]))
            b->kinds[i] |= EL_KIND_END;
        if (source->strip_after_special && is_special(type) &&
            !is_among(text, keeping_texts, sizeof keeping_texts / sizeof keeping_texts[0]))
            b->kinds[i] |= EL_KIND_STRIP;
        if (bpe && b->pre->ignore_merges && spelt) b->by_bytes[whole++] = (int32_t)i;
    }
    b->starts[source->n_tokens] = used;
    b->head.pool_bytes = used;
    memcpy(b->block, &b->head, sizeof b->head);
    if (source->eos >= 0) b->kinds[source->eos] |= EL_KIND_END;
    if (source->eot >= 0) b->kinds[source->eot] |= EL_KIND_END;
}

static void copy_specials(el_builder *b)
{
    for (size_t i = 0; i < b->head.n_specials; i++) {
        b->specials[i] = b->listed[i];
        b->special_rows[(uint8_t)b->source->tokens[b->listed[i]].data[0] + 1]++;
    }
    for (size_t byte = 0; byte < 256; byte++) b->special_rows[byte + 1] += b->special_rows[byte];
}

static el_status build(el_builder *b, el_error *err)
{
    el_status st = measure(b, err);
    if (st == EL_OK) st = take_block(b);
    if (st != EL_OK) return st;
    copy_tokens(b);
    copy_specials(b);
    if (b->kind == EL_VOCAB_BPE) return el_build_fill_bpe(b, err);
    el_build_fill_tree(b);
    return EL_OK;
}

el_status el_tokenizer_new(el_tokenizer **out, const el_vocab_source *source, el_error *err)
{
    *out = NULL;
    el_builder b = {.source = source};
    el_status st = check_source(source, err);
    if (st == EL_OK) st = find_kind(&b, err);
    if (st != EL_OK) return st;

    st = build(&b, err);
    el_text_index_free(&b.index);
    free(b.listed);
    free(b.keys);
    free(b.key_bytes);
    free(b.order);
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
