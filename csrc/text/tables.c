/* Tables of a tokenizer that somebody else wrote: checked, then used in place. What cannot be seen
 * in a linear walk (whether lists are sorted, whether partners agree with merges) can only make the
 * tokens wrong: look-ups stay inside the tables and encoding ends whatever they hold. */
#include "text/tables.h"

#include <string.h>

#include "core/error.h"
#include "text/charsmap.h"
#include "text/trie.h"

_Static_assert(sizeof(el_tables_head) == 128, "part of the image format");
_Static_assert(sizeof(el_merge) == 12 && sizeof(el_partner) == 8, "part of the image format");
_Static_assert(sizeof(struct el_tokenizer) <= sizeof(el_tokenizer_place), "a place holds a tokenizer");

static uint64_t claim(uint64_t *at, uint64_t count, uint64_t size)
{
    const uint64_t start = *at;
    *at += (count * size + 63) / 64 * 64;
    return start;
}

el_tables_map el_tables_place(const el_tables_head *head)
{
    el_tables_map map;
    uint64_t at = sizeof *head;
    const int bpe = head->kind == EL_VOCAB_BPE;
    map.byte_ids = claim(&at, 256, sizeof(int32_t));
    map.special_rows = claim(&at, 257, sizeof(uint32_t));
    map.starts = claim(&at, (uint64_t)head->n_tokens + 1, sizeof(uint32_t));
    map.merges = claim(&at, head->n_merges, sizeof(el_merge));
    map.rows = claim(&at, bpe ? (uint64_t)head->n_tokens + 1 : 0, sizeof(uint32_t));
    map.partners = claim(&at, head->n_merges, sizeof(el_partner));
    map.specials = claim(&at, head->n_specials, sizeof(int32_t));
    map.by_bytes = claim(&at, head->n_by_bytes, sizeof(int32_t));
    map.scores = claim(&at, bpe ? 0 : head->n_tokens, sizeof(float));
    map.first = claim(&at, bpe ? 0 : (uint64_t)head->n_nodes + 1, sizeof(uint32_t));
    map.node_ids = claim(&at, head->n_nodes, sizeof(int32_t));
    map.labels = claim(&at, head->n_nodes, 1);
    map.joins = claim(&at, bpe ? 0 : EL_JOINS_BYTES, 1);
    map.charsmap = claim(&at, head->charsmap_bytes, 1);
    map.kinds = claim(&at, head->n_tokens, 1);
    map.pool = claim(&at, head->pool_bytes, 1);
    map.end = at;
    return map;
}

void el_tables_attach(el_tokenizer *tok, const uint8_t *block, const el_pre *pre)
{
    const el_tables_head *head = (const void *)block;
    const el_tables_map map = el_tables_place(head);
    *tok = (el_tokenizer){
        .kind = (el_vocab_kind)head->kind,
        .pre = pre,
        .info = {.n_tokens = head->n_tokens,
                 .memory_bytes = (size_t)map.end,
                 .bos = head->bos,
                 .eos = head->eos,
                 .eot = head->eot,
                 .unk = head->unk,
                 .pad = head->pad,
                 .add_bos = (int)head->add_bos,
                 .add_eos = (int)head->add_eos,
                 .add_space_prefix = (int)head->add_space_prefix,
                 .remove_extra_whitespaces = (int)head->remove_extra_whitespaces},
        .block = block,
        .pool = (const char *)block + map.pool,
        .starts = (const void *)(block + map.starts),
        .kinds = block + map.kinds,
        .byte_ids = (const void *)(block + map.byte_ids),
        .merges = (const void *)(block + map.merges),
        .rows = (const void *)(block + map.rows),
        .partners = (const void *)(block + map.partners),
        .specials = (const void *)(block + map.specials),
        .n_specials = head->n_specials,
        .special_rows = (const void *)(block + map.special_rows),
        .by_bytes = (const void *)(block + map.by_bytes),
        .n_by_bytes = head->n_by_bytes,
        .scores = (const void *)(block + map.scores),
        .trie = {(const void *)(block + map.first), block + map.labels, (const void *)(block + map.node_ids)},
        .joins = block + map.joins,
        .charsmap = {(const char *)block + map.charsmap, head->charsmap_bytes},
        .unknown_score = head->unknown_score,
    };
}

/// What depends on the kind of the vocabulary.
static el_status check_kind(const el_tables_head *head, const el_pre **pre, el_error *err)
{
    const char *end = memchr(head->pre, 0, sizeof head->pre);
    const size_t length = end != NULL ? (size_t)(end - head->pre) : sizeof head->pre;
    *pre = NULL;
    if (head->kind == EL_VOCAB_SPM || head->kind == EL_VOCAB_UNIGRAM) {
        if (head->n_merges == 0 && head->n_by_bytes == 0 && head->n_nodes > 0 &&
            head->n_nodes <= EL_MAX_NODES && length == 0)
            return EL_OK;
        return el_fail(err, EL_ERR_FORMAT, "the tokenizer has the tables of two kinds");
    }
    if (head->kind != EL_VOCAB_BPE)
        return el_fail(err, EL_ERR_UNSUPPORTED, "kind %u of tokenizer is not supported", head->kind);
    if (head->n_nodes != 0 || head->add_space_prefix != 0 || head->charsmap_bytes != 0)
        return el_fail(err, EL_ERR_FORMAT, "the tokenizer has the tables of two kinds");
    *pre = el_pre_find(head->pre, length);
    if (*pre != NULL) return EL_OK;
    return el_fail(err, EL_ERR_UNSUPPORTED, "pre-tokenizer '%.*s' is not supported", (int)length, head->pre);
}

static el_status check_head(const el_tables_head *head, uint64_t bytes, const el_pre **pre, el_error *err)
{
    if (head->n_tokens < 1 || head->n_tokens > EL_MAX_TOKENS || head->n_merges > EL_MAX_MERGES ||
        head->n_specials > head->n_tokens || head->n_by_bytes > head->n_tokens) {
        return el_fail(err, EL_ERR_FORMAT,
                       "the tokenizer counts %u tokens, %u merges, %u special and %u more", head->n_tokens,
                       head->n_merges, head->n_specials, head->n_by_bytes);
    }
    const int32_t ids[] = {head->bos, head->eos, head->eot, head->unk, head->pad};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        if (ids[i] < -1 || (ids[i] >= 0 && (uint32_t)ids[i] >= head->n_tokens))
            return el_fail(err, EL_ERR_FORMAT, "the tokenizer names token %d of %u", (int)ids[i],
                           head->n_tokens);
    }
    if (head->add_bos > 1 || head->add_eos > 1 || head->add_space_prefix > 1 ||
        head->remove_extra_whitespaces > 1)
        return el_fail(err, EL_ERR_FORMAT, "a switch of the tokenizer is neither 0 nor 1");
    for (size_t i = 0; i < sizeof head->reserved / sizeof *head->reserved; i++) {
        if (head->reserved[i] != 0)
            return el_fail(err, EL_ERR_FORMAT, "the tokenizer's reserved bytes are not zero");
    }
    const el_status st = check_kind(head, pre, err);
    if (st != EL_OK) return st;
    const uint64_t end_of_tables = el_tables_place(head).end;
    if (end_of_tables != bytes)
        return el_fail(err, EL_ERR_FORMAT, "the tokenizer's tables take %llu bytes, the section has %llu",
                       (unsigned long long)end_of_tables, (unsigned long long)bytes);
    return EL_OK;
}

/// Offsets that never fall, from 0 to `last`.
static int rises(const uint32_t *offsets, size_t n, uint32_t last)
{
    int sound = offsets[0] == 0 && offsets[n] == last;
    for (size_t i = 0; i < n; i++) sound &= offsets[i] <= offsets[i + 1];
    return sound;
}

/// Ids from `least` to below `n_tokens`. Branch-free, so that the walk runs at the speed of memory.
static int ids_below(const int32_t *ids, size_t n, int32_t least, uint32_t n_tokens)
{
    int sound = 1;
    for (size_t i = 0; i < n; i++) sound &= ids[i] >= least && ids[i] < (int64_t)n_tokens;
    return sound;
}

static int sound_merges(const el_tokenizer *tok, const el_tables_head *head)
{
    int sound = ids_below((const void *)tok->merges, (size_t)head->n_merges * 3, 0, head->n_tokens);
    for (size_t i = 0; i < head->n_merges; i++) {
        const el_partner partner = tok->partners[i];
        sound &=
            partner.rank < head->n_merges && partner.right >= 0 && (uint32_t)partner.right < head->n_tokens;
    }
    return sound;
}

static int sound_kinds(const el_tokenizer *tok, const el_tables_head *head)
{
    unsigned worst = 0, odd = 0;
    for (size_t i = 0; i < head->n_tokens; i++) {
        const unsigned kind = tok->kinds[i];
        odd |= kind & ~(EL_TYPE_MASK | EL_KIND_END | EL_KIND_STRIP);
        worst = (kind & EL_TYPE_MASK) > worst ? kind & EL_TYPE_MASK : worst;
    }
    return odd == 0 && worst <= EL_TOKEN_BYTE;
}

/// Special tokens are cut out of a text at their length, which must not be 0. Sorted, and at most two of a text
/// (list_specials), they are found in a number of steps that does not depend on the file.
static int sound_specials(const el_tokenizer *tok, const el_tables_head *head)
{
    if (!ids_below(tok->specials, head->n_specials, 0, head->n_tokens)) return 0;
    for (size_t i = 0; i < head->n_specials; i++) {
        const el_view text = el_vocab_bytes(tok, tok->specials[i]);
        const int order = i > 0 ? el_vocab_compare(el_vocab_bytes(tok, tok->specials[i - 1]), text) : -1;
        if (text.size == 0 || order > 0) return 0;
        if (order == 0 && i > 1 && el_vocab_compare(el_vocab_bytes(tok, tok->specials[i - 2]), text) == 0)
            return 0;
    }
    return rises(tok->special_rows, 256, head->n_specials);
}

/// A walk in the tree takes one byte of a text per step and stays inside it if these hold.
static int sound_tree(const el_tokenizer *tok, const el_tables_head *head)
{
    const uint32_t *first = tok->trie.first;
    int sound = first[0] >= 1 && first[head->n_nodes] == head->n_nodes;
    for (size_t i = 0; i < head->n_nodes; i++) sound &= first[i] <= first[i + 1];
    return sound && ids_below(tok->trie.ids, head->n_nodes, -1, head->n_tokens);
}

static int is_finite(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

static int sound_scores(const el_tokenizer *tok, const el_tables_head *head)
{
    int sound = is_finite(head->unknown_score);
    for (size_t i = 0; i < head->n_tokens; i++) sound &= is_finite(tok->scores[i]);
    return sound;
}

/// What is wrong with the tables of one kind alone, or NULL.
static const char *find_damage(const el_tokenizer *tok, const el_tables_head *head)
{
    if (head->kind != EL_VOCAB_BPE) {
        if (!sound_scores(tok, head)) return "scores";
        if (!el_charsmap_sound(tok->charsmap)) return "normal forms";
        return sound_tree(tok, head) ? NULL : "texts as a tree";
    }
    if (!rises(tok->rows, head->n_tokens, head->n_merges)) return "rows of merges";
    if (!sound_merges(tok, head)) return "merges";
    return ids_below(tok->by_bytes, head->n_by_bytes, 0, head->n_tokens) ? NULL : "whole words";
}

el_status el_tables_open(const el_tokenizer **out, const uint8_t *tables, uint64_t bytes,
                         el_tokenizer_place *place, el_error *err)
{
    *out = NULL;
    const el_tables_head *head = (const void *)tables;
    const el_pre *pre = NULL;
    if (bytes < sizeof *head || bytes > SIZE_MAX)
        return el_fail(err, EL_ERR_FORMAT, "a tokenizer does not have %llu bytes", (unsigned long long)bytes);
    const el_status st = check_head(head, bytes, &pre, err);
    if (st != EL_OK) return st;

    el_tokenizer *tok = (void *)place;
    el_tables_attach(tok, tables, pre);
    const char *wrong = NULL;
    if (!rises(tok->starts, head->n_tokens, head->pool_bytes))
        wrong = "texts";
    else if (!sound_kinds(tok, head))
        wrong = "types";
    else if (!ids_below(tok->byte_ids, 256, -1, head->n_tokens))
        wrong = "bytes";
    else if (!sound_specials(tok, head))
        wrong = "special tokens";
    else
        wrong = find_damage(tok, head);
    if (wrong != NULL) return el_fail(err, EL_ERR_FORMAT, "the tokenizer's table of %s is damaged", wrong);

    *out = tok;
    return EL_OK;
}

el_view el_tables_of(const el_tokenizer *tok)
{
    return (el_view){(const char *)tok->block, (size_t)el_tables_place((const void *)tok->block).end};
}
