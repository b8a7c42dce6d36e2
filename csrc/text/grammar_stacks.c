#include "text/grammar_stacks.h"

#include <string.h>

enum { BUCKETS_AT_FIRST = 64 };

el_status el_stacks_init(el_stacks *s, const el_automaton *a)
{
    s->a = a;
    s->open = EL_NONE;
    s->buckets = malloc(BUCKETS_AT_FIRST * sizeof *s->buckets);
    s->frames = el_grown(NULL, &s->capacity, 1, sizeof *s->frames);
    if (s->buckets == NULL || s->frames == NULL) return EL_ERR_NOMEM;
    s->n_buckets = BUCKETS_AT_FIRST;
    for (size_t i = 0; i < s->n_buckets; i++) s->buckets[i] = EL_NONE;
    s->frames[0] = (el_frame){EL_NONE, 0, 0, 0, EL_NONE};
    s->n_frames = 1;
    return EL_OK;
}

void el_stacks_free(el_stacks *s)
{
    free(s->frames);
    free(s->buckets);
    *s = (el_stacks){0};
}

static size_t bucket_of(const el_stacks *s, uint32_t kind, uint32_t done, uint32_t below)
{
    uint64_t hash = ((uint64_t)kind << 32 | below) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 29 ^ done) * 0xBF58476D1CE4E5B9u;
    return (size_t)(hash >> 33) & (s->n_buckets - 1);
}

static el_status rehash(el_stacks *s)
{
    uint32_t *buckets = realloc(s->buckets, 4 * s->n_buckets * sizeof *buckets);
    if (buckets == NULL) return EL_ERR_NOMEM;
    s->buckets = buckets;
    s->n_buckets *= 4;
    for (size_t i = 0; i < s->n_buckets; i++) buckets[i] = EL_NONE;
    for (uint32_t i = 1; i < s->n_frames; i++) {  // oldest first: a chain goes from new to old
        el_frame *f = &s->frames[i];
        const size_t bucket = bucket_of(s, f->kind, f->done, f->below);
        f->next = buckets[bucket];
        buckets[bucket] = i;
    }
    return EL_OK;
}

el_status el_stacks_push(el_stacks *s, uint32_t kind, uint32_t done, uint32_t below, uint32_t *out)
{
    const size_t bucket = bucket_of(s, kind, done, below);
    for (uint32_t i = s->buckets[bucket]; i != EL_NONE; i = s->frames[i].next) {
        const el_frame *f = &s->frames[i];
        if (f->kind == kind && f->done == done && f->below == below) {
            *out = i;
            return EL_OK;
        }
    }
    if (s->n_frames >= EL_GRAMMAR_FRAMES) return EL_ERR_CONTEXT;
    el_frame *frames = el_grown(s->frames, &s->capacity, s->n_frames + 1, sizeof *frames);
    if (frames == NULL) return EL_ERR_NOMEM;
    s->frames = frames;
    const bool open = kind == s->open && below == 0;
    const uint32_t own = open ? 0 : el_frame_cost(s->a, &s->a->frames[kind], done);
    *out = (uint32_t)s->n_frames;
    frames[s->n_frames++] =
        (el_frame){kind, done, below, el_cost_add(own, frames[below].cost), s->buckets[bucket]};
    s->buckets[bucket] = *out;
    return s->n_frames > 2 * s->n_buckets ? rehash(s) : EL_OK;
}

void el_stacks_truncate(el_stacks *s, size_t n_frames)
{
    while (s->n_frames > n_frames) {
        const el_frame *f = &s->frames[--s->n_frames];
        s->buckets[bucket_of(s, f->kind, f->done, f->below)] = f->next;
    }
}

/* Whether whatever may follow stack `y` may also follow `x`, at the same cost: they are equal, or in the same
 * loop, and `x` has done fewer rounds of it but as many as it must. */
static bool covers(const el_stacks *s, el_top x, el_top y)
{
    if (x.state != y.state) return false;
    if (x.frame == y.frame) return true;
    const el_frame *f = &s->frames[x.frame];
    const el_frame *g = &s->frames[y.frame];
    if (x.frame == 0 || f->kind != g->kind || f->below != g->below || f->done > g->done) return false;
    return f->done + 1 >= s->a->frames[f->kind].min && !(f->kind == s->open && f->below == 0);
}

el_status el_stacks_add(const el_stacks *s, el_set *set, uint32_t state, uint32_t frame)
{
    for (size_t i = 0; i < set->n; i++) {
        if (covers(s, set->tops[i], (el_top){state, frame})) return EL_OK;
    }
    if (set->n >= EL_GRAMMAR_STACKS) return EL_ERR_CONTEXT;
    el_top *tops = el_grown(set->tops, &set->capacity, set->n + 1, sizeof *tops);
    if (tops == NULL) return EL_ERR_NOMEM;
    set->tops = tops;
    tops[set->n++] = (el_top){state, frame};
    return EL_OK;
}

/* A round of what frame `index` waits for is over. */
static el_status come_back(el_stacks *s, el_set *set, uint32_t index)
{
    if (index == 0) {
        set->complete = true;
        return EL_OK;
    }
    const el_frame f = s->frames[index];
    const el_frame_kind *kind = &s->a->frames[f.kind];
    if (kind->loop == EL_NONE) return el_stacks_add(s, set, kind->back, f.below);

    const bool open = f.kind == s->open && f.below == 0;
    const uint32_t done = f.done + 1;
    el_status st = EL_OK;
    if (open ? done <= EL_TOKEN_BYTES : done < kind->max) {
        uint32_t frame;
        st = el_stacks_push(s, f.kind, done, f.below, &frame);
        if (st == EL_OK) st = el_stacks_add(s, set, kind->loop, frame);
    }
    if (open) {
        set->exits[done / 64] |= (uint64_t)1 << done % 64;
    } else if (st == EL_OK && done >= kind->min) {
        st = el_stacks_add(s, set, kind->back, f.below);
    }
    return st;
}

el_status el_stacks_settle(el_stacks *s, el_set *set)
{
    const struct el_state *states = s->a->states;
    el_status st = EL_OK;
    for (size_t i = 0; i < set->n && st == EL_OK; i++) {
        const el_top top = set->tops[i];
        if (states[top.state].final) st = come_back(s, set, top.frame);
    }
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        const struct el_state *at = &states[set->tops[i].state];
        if (at->step == at[1].step && at->call == at[1].call && at->token == at[1].token) continue;
        size_t j = i + 1;  // what came later may cover it
        while (j < set->n && !covers(s, set->tops[j], set->tops[i])) j++;
        if (j == set->n) set->tops[kept++] = set->tops[i];
    }
    set->n = kept;
    return st;
}

static bool reads(const struct el_state *state, uint8_t byte)
{
    return state->first[byte / 64] >> byte % 64 & 1;
}

/* A call within a call within a call ... is at most EL_GRAMMAR_DEPTH deep (the automaton says so). */
static el_status step_from(el_stacks *s, el_top top, uint8_t byte, el_set *to)
{
    const el_automaton *a = s->a;
    const struct el_state *state = &a->states[top.state];
    el_status st = EL_OK;
    for (uint32_t i = state->step; i < state[1].step && st == EL_OK; i++) {
        const el_step *step = &a->steps[i];
        if (step->low <= byte && byte <= step->high) st = el_stacks_add(s, to, step->to, top.frame);
    }
    for (uint32_t i = state->call; i < state[1].call && st == EL_OK; i++) {
        const el_call *call = &a->calls[i];
        el_top callee = {call->start, top.frame};
        if (!reads(&a->states[call->start], byte)) continue;
        if (call->frame != EL_NONE) st = el_stacks_push(s, call->frame, 0, top.frame, &callee.frame);
        if (st == EL_OK) st = step_from(s, callee, byte, to);
    }
    return st;
}

el_status el_stacks_step(el_stacks *s, const el_top *tops, size_t n, uint8_t byte, el_set *to)
{
    el_status st = EL_OK;
    to->n = 0;
    to->complete = false;
    memset(to->exits, 0, sizeof to->exits);
    for (size_t i = 0; i < n && st == EL_OK; i++) {
        if (reads(&s->a->states[tops[i].state], byte)) st = step_from(s, tops[i], byte, to);
    }
    return st == EL_OK ? el_stacks_settle(s, to) : st;
}

el_status el_stacks_name(el_stacks *s, el_top top, uint32_t id, el_set *to)
{
    const el_automaton *a = s->a;
    const struct el_state *state = &a->states[top.state];
    el_status st = EL_OK;
    for (uint32_t i = state->token; i < state[1].token && st == EL_OK; i++) {
        if (a->tokens[i].id == id) st = el_stacks_add(s, to, a->tokens[i].to, top.frame);
    }
    for (uint32_t i = state->call; i < state[1].call && st == EL_OK; i++) {
        el_top callee = {a->calls[i].start, top.frame};
        if (a->calls[i].frame != EL_NONE)
            st = el_stacks_push(s, a->calls[i].frame, 0, top.frame, &callee.frame);
        if (st == EL_OK) st = el_stacks_name(s, callee, id, to);
    }
    return st;
}
