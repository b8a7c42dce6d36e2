/* One text within a grammar: its stacks after each token, so that tokens can be taken back. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "text/grammar_masks.h"
#include "text/vocab.h"

/* After some number of tokens. */
typedef struct moment {
    size_t top, n;     // in `tops`
    size_t n_frames;
    bool complete;
} moment;

struct el_matcher {
    el_grammar *g;
    el_stacks stacks;
    el_top *tops;
    size_t tops_capacity;
    moment *moments;  // (n_moments,); the first is the start
    size_t n_moments, moments_capacity;
    el_set from, to;  // while a token is read
};

static const moment *now(const el_matcher *m) { return &m->moments[m->n_moments - 1]; }

/* The set becomes what is there after one more token. */
static el_status add_moment(el_matcher *m, const el_set *set)
{
    const size_t top = m->n_moments == 0 ? 0 : now(m)->top + now(m)->n;
    moment *moments = el_grown(m->moments, &m->moments_capacity, m->n_moments + 1, sizeof *moments);
    if (moments == NULL) return EL_ERR_NOMEM;
    m->moments = moments;
    el_top *tops = el_grown(m->tops, &m->tops_capacity, top + set->n + 1, sizeof *tops);
    if (tops == NULL) return EL_ERR_NOMEM;
    m->tops = tops;
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {  // what no tokens lead to an end is no place to stop at
        if (el_stacks_cost(&m->stacks, set->tops[i]) != EL_COST_NEVER) tops[top + n++] = set->tops[i];
    }
    if (n == 0 && !set->complete) return EL_ERR_FORMAT;
    moments[m->n_moments++] = (moment){top, n, m->stacks.n_frames, set->complete};
    return EL_OK;
}

el_status el_matcher_new(el_matcher **out, el_grammar *grammar, el_error *err)
{
    *out = NULL;
    el_matcher *m = calloc(1, sizeof *m);
    el_status st = m == NULL ? EL_ERR_NOMEM : EL_OK;
    if (st == EL_OK) {
        m->g = grammar;
        st = el_stacks_init(&m->stacks, &grammar->a);
    }
    if (st == EL_OK) st = el_stacks_add(&m->stacks, &m->to, grammar->a.start, 0);
    if (st == EL_OK) st = el_stacks_settle(&m->stacks, &m->to);
    if (st == EL_OK) {
        m->to.complete = grammar->a.empty;
        st = add_moment(m, &m->to);
    }
    if (st != EL_OK) {
        el_matcher_free(m);
        return el_fail(err, st, "no memory for a matcher");
    }
    *out = m;
    return EL_OK;
}

void el_matcher_free(el_matcher *m)
{
    if (m == NULL) return;
    el_stacks_free(&m->stacks);
    free(m->tops);
    free(m->moments);
    free(m->from.tops);
    free(m->to.tops);
    free(m);
}

static void *copy_of(const void *items, size_t n, size_t item_bytes)
{
    void *made = malloc((n > 0 ? n : 1) * item_bytes);
    if (made != NULL && n > 0) memcpy(made, items, n * item_bytes);
    return made;
}

el_status el_matcher_copy(el_matcher **out, const el_matcher *from, el_error *err)
{
    *out = NULL;
    el_matcher *m = calloc(1, sizeof *m);
    if (m == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a matcher");
    const size_t n_tops = now(from)->top + now(from)->n;
    m->g = from->g;
    m->stacks = from->stacks;
    m->stacks.frames = copy_of(from->stacks.frames, from->stacks.n_frames, sizeof *m->stacks.frames);
    m->stacks.buckets = copy_of(from->stacks.buckets, from->stacks.n_buckets, sizeof *m->stacks.buckets);
    m->tops = copy_of(from->tops, n_tops, sizeof *m->tops);
    m->moments = copy_of(from->moments, from->n_moments, sizeof *m->moments);
    m->stacks.capacity = m->stacks.n_frames;
    m->tops_capacity = n_tops;
    m->n_moments = m->moments_capacity = from->n_moments;
    if (!m->stacks.frames || !m->stacks.buckets || !m->tops || !m->moments) {
        el_matcher_free(m);
        return el_fail(err, EL_ERR_NOMEM, "no memory for a matcher");
    }
    *out = m;
    return EL_OK;
}

size_t el_matcher_words(const el_matcher *m) { return (m->g->trie->n_tokens + 63) / 64; }

static void put_class(const el_mask_class *class, uint64_t *bits, size_t words)
{
    if (class->bits != NULL) {
        for (size_t w = 0; w < words; w++) bits[w] |= class->bits[w];
    } else {
        for (size_t i = 0; i < class->n; i++) bits[class->ids[i] / 64] |= (uint64_t)1 << class->ids[i] % 64;
    }
}

/* Tokens of a mask whose cost is at most `budget`. */
static void put_mask(const el_mask *mask, uint64_t budget, uint64_t *bits, size_t words)
{
    if (mask->worst <= budget && mask->all != NULL) {
        for (size_t w = 0; w < words; w++) bits[w] |= mask->all[w];
        return;
    }
    for (size_t i = 0; i < mask->n_classes; i++) {
        if (mask->classes[i].cost <= budget) put_class(&mask->classes[i], bits, words);
    }
}

/* Of a loop of which `done` rounds are over, and which may cost `budget` with all below it. */
static void put_loop(const el_matcher *m, const el_mask *mask, const el_frame *frame, uint64_t budget,
                     uint64_t *bits, size_t words)
{
    const el_automaton *a = &m->g->a;
    const el_frame_kind *kind = &a->frames[frame->kind];
    const uint32_t most = el_frame_cost(a, kind, frame->done);
    if (frame->done + mask->most_rounds < kind->max && mask->worst + (uint64_t)most <= budget &&
        mask->all != NULL) {
        put_mask(mask, EL_COST_NEVER, bits, words);
        return;
    }
    for (size_t i = 0; i < mask->n_classes; i++) {
        const el_mask_class *class = &mask->classes[i];
        const uint32_t done = frame->done + class->rounds;
        if (done >= kind->max) continue;
        if (class->cost + (uint64_t)el_frame_cost(a, kind, done) <= budget) put_class(class, bits, words);
    }
}

/* Tokens that a loop is left by, after as many rounds as it asks for. `*out` is NULL where there are none. */
static el_status leave_loop(el_matcher *m, const el_mask *mask, const el_frame *frame, const el_mask **out)
{
    const el_frame_kind *kind = &m->g->a.frames[frame->kind];
    uint32_t most = 0;
    for (size_t i = 0; i < mask->n_pending; i++) {
        if (mask->pending[i].rounds > most) most = mask->pending[i].rounds;
    }
    const uint32_t low = kind->min > frame->done + 1 ? kind->min - frame->done : 1;
    const uint32_t high = kind->max - frame->done < most ? kind->max - frame->done : most;
    *out = NULL;
    return low > high ? EL_OK : el_mask_get(m->g, mask, EL_MASK_LEAVE, low, high, out);
}

/* One stack: its top, then what goes on below, level by level. */
static el_status put_stack(el_matcher *m, el_top top, uint64_t limit, uint64_t *bits)
{
    const size_t words = el_matcher_words(m);
    const el_mask *mask = NULL, *lower = NULL, *loop = NULL;
    const el_frame *frame = &m->stacks.frames[top.frame];
    el_status st = el_mask_get(m->g, NULL, EL_MASK_TOP, top.state, 0, &mask);
    if (st == EL_OK && frame->cost <= limit) put_mask(mask, limit - frame->cost, bits, words);
    while (st == EL_OK && mask != NULL && mask->n_pending > 0 && frame != m->stacks.frames) {
        const el_frame *below = &m->stacks.frames[frame->below];
        const el_frame_kind *kind = &m->g->a.frames[frame->kind];
        loop = lower = NULL;
        if (kind->loop == EL_NONE) {
            st = el_mask_get(m->g, mask, EL_MASK_FRAME, kind->back, 0, &lower);
        } else {
            st = el_mask_get(m->g, mask, EL_MASK_LOOP, frame->kind, 0, &loop);
            if (st == EL_OK && below->cost <= limit)
                put_loop(m, loop, frame, limit - below->cost, bits, words);
            if (st == EL_OK) st = leave_loop(m, loop, frame, &lower);
        }
        if (st == EL_OK && lower != NULL && below->cost <= limit) {
            put_mask(lower, limit - below->cost, bits, words);
        }
        el_mask_release(loop);
        el_mask_release(mask);
        mask = lower;
        frame = below;
    }
    el_mask_release(mask);
    return st;
}

el_status el_matcher_allowed(el_matcher *m, size_t tokens_left, uint64_t *bits, el_error *err)
{
    const el_token_trie *trie = m->g->trie;
    const size_t words = el_matcher_words(m);
    const uint64_t limit = tokens_left < EL_COST_NEVER ? tokens_left - 1 : EL_COST_NEVER - 1;
    const moment at = *now(m);
    memset(bits, 0, words * sizeof *bits);
    for (size_t i = 0; i < at.n && tokens_left > 0; i++) {
        const el_status st = put_stack(m, m->tops[at.top + i], limit, bits);
        if (st == EL_ERR_CONTEXT) {
            return el_fail(err, EL_ERR_FORMAT, "the grammar explodes: too many ways to read one token");
        }
        if (st != EL_OK) return el_fail(err, st, "no memory for a mask");
    }
    for (size_t i = 0; at.complete && i < trie->n_ends; i++) {
        bits[trie->end_ids[i] / 64] |= (uint64_t)1 << trie->end_ids[i] % 64;
    }
    for (size_t w = 0; w < words; w++) {
        if (bits[w] != 0) return EL_OK;
    }
    if (at.complete) return EL_OK;  // it may end, only the vocabulary has no token for that
    return el_fail(err, EL_ERR_FORMAT, "no token is allowed: the text needs up to %zu more and %zu are left",
                   el_matcher_shortest(m), tokens_left);
}

el_status el_matcher_mask(el_matcher *m, size_t tokens_left, float *logits, size_t n_logits, el_error *err)
{
    const size_t words = el_matcher_words(m);
    uint64_t *bits = malloc((words + 1) * sizeof *bits);
    if (bits == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a mask");
    const el_status st = el_matcher_allowed(m, tokens_left, bits, err);
    for (size_t first = 0; st == EL_OK && first < n_logits; first += 64) {
        const size_t n = n_logits - first < 64 ? n_logits - first : 64;
        const uint64_t allowed = first / 64 < words ? bits[first / 64] : 0;
        if (allowed == UINT64_MAX) continue;
        if (allowed == 0) {
            for (size_t i = 0; i < n; i++) logits[first + i] = -INFINITY;
            continue;
        }
        for (size_t i = 0; i < n; i += 8) {  // most groups of eight are all allowed or all not
            const unsigned eight = (unsigned)(allowed >> i) & 0xFF;
            for (size_t j = i; eight != 0xFF && j < n && j < i + 8; j++) {
                if (!(eight >> (j - i) & 1)) logits[first + j] = -INFINITY;
            }
        }
    }
    free(bits);
    return st;
}

static el_status fail_token(const el_matcher *m, int32_t id, el_error *err)
{
    const el_view text = el_vocab_bytes(m->g->trie->tok, id);
    return el_fail(err, EL_ERR_FORMAT, "token %d, '%.*s', is not allowed here", (int)id,
                   (int)(text.size < 60 ? text.size : 60), text.data);
}

static bool is_end(const el_token_trie *trie, int32_t id)
{
    for (size_t i = 0; i < trie->n_ends; i++) {
        if (trie->end_ids[i] == id) return true;
    }
    return false;
}

/* Stacks after the token's bytes, and after the token where the grammar names it. */
static el_status read_token(el_matcher *m, int32_t id)
{
    const el_view text = el_vocab_bytes(m->g->trie->tok, id);
    const moment at = *now(m);
    el_status st = EL_OK;
    m->to.n = 0;
    m->to.complete = false;
    if (el_trie_has(m->g->trie, id)) {
        m->from.n = 0;
        for (size_t i = 0; i < at.n && st == EL_OK; i++) {
            st = el_stacks_add(&m->stacks, &m->from, m->tops[at.top + i].state, m->tops[at.top + i].frame);
        }
        for (size_t i = 0; i < text.size && st == EL_OK; i++) {
            const el_set before = m->from;
            if (i > 0) {
                m->from = m->to;
                m->to = before;
            }
            st = el_stacks_step(&m->stacks, m->from.tops, m->from.n, (uint8_t)text.data[i], &m->to);
        }
    }
    if (m->g->a.n_tokens == 0 || st != EL_OK) return st;
    for (size_t i = 0; i < at.n && st == EL_OK; i++) {
        st = el_stacks_name(&m->stacks, m->tops[at.top + i], (uint32_t)id, &m->to);
    }
    return st == EL_OK ? el_stacks_settle(&m->stacks, &m->to) : st;
}

el_status el_matcher_accept(el_matcher *m, int32_t id, el_error *err)
{
    if (id < 0 || (size_t)id >= m->g->trie->n_tokens) {
        return el_fail(err, EL_ERR_ARG, "id %d is not in 0..%zu", (int)id, m->g->trie->n_tokens - 1);
    }
    el_status st = EL_OK;
    const size_t n_frames = m->stacks.n_frames;
    if (is_end(m->g->trie, id) && now(m)->complete) {
        m->to.n = 0;
        m->to.complete = true;
    } else {
        st = read_token(m, id);
    }
    if (st == EL_OK) st = add_moment(m, &m->to);
    if (st == EL_OK) return EL_OK;
    el_stacks_truncate(&m->stacks, n_frames);
    if (st == EL_ERR_FORMAT) return fail_token(m, id, err);
    if (st != EL_ERR_CONTEXT) return el_fail(err, st, "no memory for a token");
    return el_fail(err, EL_ERR_FORMAT, "the grammar explodes: more than %u ways to read the text",
                   EL_GRAMMAR_STACKS);
}

el_status el_matcher_rollback(el_matcher *m, size_t n, el_error *err)
{
    if (n >= m->n_moments) {
        return el_fail(err, EL_ERR_ARG, "%zu tokens cannot be taken back: there are %zu", n,
                       m->n_moments - 1);
    }
    m->n_moments -= n;
    el_stacks_truncate(&m->stacks, now(m)->n_frames);
    return EL_OK;
}

el_status el_matcher_forced(el_matcher *m, size_t limit, int32_t *ids, size_t *n_ids, el_error *err)
{
    const size_t words = el_matcher_words(m);
    uint64_t *bits = malloc((words + 1) * sizeof *bits);
    el_status st = bits == NULL ? el_fail(err, EL_ERR_NOMEM, "no memory for a mask") : EL_OK;
    *n_ids = 0;
    while (st == EL_OK && *n_ids < limit && !now(m)->complete) {
        size_t found = 0;
        st = el_matcher_allowed(m, EL_TOKENS_UNLIMITED, bits, err);
        for (size_t w = 0; w < words && st == EL_OK && found < 2; w++) {
            if (bits[w] == 0) continue;
            found += (bits[w] & (bits[w] - 1)) == 0 ? 1 : 2;
            ids[*n_ids] = (int32_t)(w * 64);
            while ((bits[w] >> (ids[*n_ids] % 64) & 1) == 0) ids[*n_ids]++;
        }
        if (st != EL_OK || found != 1) break;
        st = el_matcher_accept(m, ids[*n_ids], err);
        *n_ids += st == EL_OK;
    }
    free(bits);
    const el_status back = el_matcher_rollback(m, *n_ids, NULL);
    return st == EL_OK ? back : st;
}

int el_matcher_complete(const el_matcher *m) { return now(m)->complete; }

int el_matcher_finished(const el_matcher *m) { return now(m)->complete && now(m)->n == 0; }

size_t el_matcher_shortest(const el_matcher *m)
{
    uint32_t least = now(m)->complete ? 0 : EL_COST_NEVER;
    for (size_t i = 0; i < now(m)->n; i++) {
        const uint32_t cost = el_stacks_cost(&m->stacks, m->tops[now(m)->top + i]);
        if (cost < least) least = cost;
    }
    return least;
}

size_t el_matcher_length(const el_matcher *m) { return m->n_moments - 1; }
