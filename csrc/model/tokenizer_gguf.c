/* From the keys of a GGUF to the source of a tokenizer. */
#include "edgellm/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"

/// An array of `element` values under `key`; *out is NULL if the key is absent.
static el_status find_array(const el_gguf *g, const char *key, el_gguf_type element, const el_gguf_kv **out,
                            el_error *err)
{
    *out = el_gguf_find(g, key);
    if (*out != NULL && ((*out)->type != EL_GGUF_ARRAY || (*out)->element != element)) {
        return el_fail(err, EL_ERR_FORMAT, "%s is not an array of %s", key,
                       element == EL_GGUF_STRING ? "strings" : "int32");
    }
    return EL_OK;
}

static el_status read_strings(const el_gguf *g, const char *key, el_view **out, size_t *count, el_error *err)
{
    const el_gguf_kv *kv;
    const el_status st = find_array(g, key, EL_GGUF_STRING, &kv, err);
    *out = NULL;
    *count = 0;
    if (st != EL_OK || kv == NULL || kv->count == 0) return st;

    // The parser has checked that `count` strings are really there.
    el_view *list = calloc((size_t)kv->count, sizeof *list);
    if (list == NULL)
        return el_fail(err, EL_ERR_NOMEM, "%s: no memory for %llu strings", key,
                       (unsigned long long)kv->count);
    const uint8_t *cursor = kv->value;
    el_view view;
    size_t n = 0;
    while (n < kv->count && el_gguf_next_string(kv, &cursor, &view)) {
        list[n++] = view;
    }
    *out = list;
    *count = n;
    return EL_OK;
}

static el_status read_types(const el_gguf *g, size_t n_tokens, int32_t **out, el_error *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    const el_gguf_kv *kv;
    el_status st = find_array(g, key, EL_GGUF_I32, &kv, err);
    *out = NULL;
    if (st != EL_OK || kv == NULL || n_tokens == 0) return st;
    if (kv->count != n_tokens) {
        return el_fail(err, EL_ERR_FORMAT, "%s has %llu entries for %zu tokens", key,
                       (unsigned long long)kv->count, n_tokens);
    }
    int32_t *types = malloc(n_tokens * sizeof *types);
    if (types == NULL) return el_fail(err, EL_ERR_NOMEM, "%s: no memory", key);
    memcpy(types, kv->value, n_tokens * sizeof *types);
    *out = types;
    return EL_OK;
}

/// Scores as float; a few files have them as int32.
static el_status read_scores(const el_gguf *g, size_t n_tokens, float **out, el_error *err)
{
    static const char key[] = "tokenizer.ggml.scores";
    const el_gguf_kv *kv = el_gguf_find(g, key);
    *out = NULL;
    if (kv == NULL || n_tokens == 0) return EL_OK;
    if (kv->type != EL_GGUF_ARRAY || (kv->element != EL_GGUF_F32 && kv->element != EL_GGUF_I32))
        return el_fail(err, EL_ERR_FORMAT, "%s is not an array of float32", key);
    if (kv->count != n_tokens) {
        return el_fail(err, EL_ERR_FORMAT, "%s has %llu entries for %zu tokens", key,
                       (unsigned long long)kv->count, n_tokens);
    }
    float *scores = malloc(n_tokens * sizeof *scores);
    if (scores == NULL) return el_fail(err, EL_ERR_NOMEM, "%s: no memory", key);
    for (size_t i = 0; i < n_tokens; i++) {
        int32_t whole;
        memcpy(&scores[i], kv->value + 4 * i, 4);
        memcpy(&whole, kv->value + 4 * i, 4);
        if (kv->element == EL_GGUF_I32) scores[i] = (float)whole;
    }
    *out = scores;
    return EL_OK;
}

static el_status read_id(const el_gguf *g, const char *key, size_t n_tokens, int32_t *out, el_error *err)
{
    *out = -1;
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    uint64_t id = 0;
    const el_status st = el_gguf_get_u64(g, key, &id, err);
    if (st != EL_OK) return st;
    if (id >= n_tokens) {
        return el_fail(err, EL_ERR_FORMAT, "%s is %llu, outside the vocabulary of %zu", key,
                       (unsigned long long)id, n_tokens);
    }
    *out = (int32_t)id;
    return EL_OK;
}

static el_status read_flag(const el_gguf *g, const char *key, int *out, el_error *err)
{
    *out = -1;
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    bool flag = false;
    const el_status st = el_gguf_get_bool(g, key, &flag, err);
    if (st == EL_OK) *out = flag;
    return st;
}

static el_status read_text(const el_gguf *g, const char *key, el_view *out, el_error *err)
{
    el_view view;
    *out = (el_view){0};
    if (el_gguf_find(g, key) == NULL) return EL_OK;
    const el_status st = el_gguf_get_string(g, key, &view, err);
    if (st == EL_OK) *out = view;
    return st;
}

static el_status read_ids(const el_gguf *g, el_vocab_source *src, el_error *err)
{
    el_status st = read_id(g, "tokenizer.ggml.bos_token_id", src->n_tokens, &src->bos, err);
    if (st == EL_OK) st = read_id(g, "tokenizer.ggml.eos_token_id", src->n_tokens, &src->eos, err);
    if (st == EL_OK) st = read_id(g, "tokenizer.ggml.eot_token_id", src->n_tokens, &src->eot, err);
    if (st == EL_OK) st = read_id(g, "tokenizer.ggml.unknown_token_id", src->n_tokens, &src->unk, err);
    if (st == EL_OK) st = read_id(g, "tokenizer.ggml.padding_token_id", src->n_tokens, &src->pad, err);
    if (st == EL_OK) st = read_flag(g, "tokenizer.ggml.add_bos_token", &src->add_bos, err);
    if (st == EL_OK) st = read_flag(g, "tokenizer.ggml.add_eos_token", &src->add_eos, err);
    if (st == EL_OK) st = read_flag(g, "tokenizer.ggml.add_space_prefix", &src->add_space_prefix, err);
    if (st == EL_OK)
        st = read_flag(g, "tokenizer.ggml.remove_extra_whitespaces", &src->remove_extra_whitespaces, err);
    return st;
}

static el_status read_charsmap(const el_gguf *g, el_view *out, el_error *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const el_gguf_kv *kv = el_gguf_find(g, key);
    *out = (el_view){0};
    if (kv == NULL) return EL_OK;
    if (kv->type != EL_GGUF_ARRAY || (kv->element != EL_GGUF_U8 && kv->element != EL_GGUF_I8))
        return el_fail(err, EL_ERR_FORMAT, "%s is not an array of bytes", key);
    *out = (el_view){(const char *)kv->value, (size_t)kv->count};
    return EL_OK;
}

static bool equals(el_view text, const char *other)
{
    return text.size == strlen(other) && memcmp(text.data, other, text.size) == 0;
}

static void default_id(const el_gguf *g, const char *key, int32_t id, size_t n_tokens, int32_t *out)
{
    if (el_gguf_find(g, key) == NULL && (size_t)id < n_tokens) *out = id;
}

/// What a SentencePiece file leaves unsaid: the ids that its trainer gives, and how Phi-3 spells its turns.
static el_status read_habits(const el_gguf *g, el_vocab_source *src, el_error *err)
{
    el_view architecture;
    const bool unigram = equals(src->model, "t5");
    if (!unigram && !equals(src->model, "llama")) return EL_OK;
    default_id(g, "tokenizer.ggml.unknown_token_id", unigram ? 2 : 0, src->n_tokens, &src->unk);
    default_id(g, "tokenizer.ggml.eos_token_id", unigram ? 1 : 2, src->n_tokens, &src->eos);
    if (unigram) {
        default_id(g, "tokenizer.ggml.padding_token_id", 0, src->n_tokens, &src->pad);
    } else {
        default_id(g, "tokenizer.ggml.bos_token_id", 1, src->n_tokens, &src->bos);
    }
    const el_status st = read_text(g, "general.architecture", &architecture, err);
    src->strip_after_special = equals(architecture, "phi3");
    return st;
}

el_status el_tokenizer_from_gguf(el_tokenizer **out, const el_gguf *g, el_error *err)
{
    *out = NULL;
    el_view *tokens = NULL, *merges = NULL;
    int32_t *types = NULL;
    float *scores = NULL;
    el_vocab_source src = {0};

    el_status st = read_text(g, "tokenizer.ggml.model", &src.model, err);
    if (st == EL_OK) st = read_text(g, "tokenizer.ggml.pre", &src.pre, err);
    if (st == EL_OK) st = read_strings(g, "tokenizer.ggml.tokens", &tokens, &src.n_tokens, err);
    if (st == EL_OK) st = read_types(g, src.n_tokens, &types, err);
    if (st == EL_OK) st = read_strings(g, "tokenizer.ggml.merges", &merges, &src.n_merges, err);
    if (st == EL_OK) st = read_scores(g, src.n_tokens, &scores, err);
    if (st == EL_OK) st = read_ids(g, &src, err);
    if (st == EL_OK) st = read_charsmap(g, &src.charsmap, err);
    if (st == EL_OK) st = read_habits(g, &src, err);
    if (st == EL_OK && src.n_tokens == 0)
        st = el_fail(err, EL_ERR_FORMAT, "tokenizer.ggml.tokens is missing or empty");
    if (st == EL_OK) {
        src.tokens = tokens;
        src.types = types;
        src.scores = scores;
        src.merges = merges;
        st = el_tokenizer_new(out, &src, err);
    }
    free(tokens);
    free(merges);
    free(types);
    free(scores);
    return st;
}
