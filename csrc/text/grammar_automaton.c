/* From the parts of a grammar to states: sets of nodes of a nondeterministic automaton, part by part. */
#include "text/grammar_automaton.h"

#include <string.h>

#include "core/error.h"
#include "text/grammar_nfa.h"

enum { SETS_PER_NODE = 16, SETS_AT_LEAST = 256 };

/* A state of the part in hand: nodes[at, at + n), sorted. */
typedef struct set {
    uint32_t at, n;
    uint32_t next;  // of the same hash, or EL_NONE
} set;

typedef struct builder {
    el_automaton *a;
    el_parts parts;
    el_nfa nfa;
    uint32_t *starts;  // (parts.n,) start state
    size_t starts_capacity;

    uint32_t *pool;  // nodes of the sets
    size_t pool_n, pool_capacity;
    set *sets;
    size_t n_sets, sets_capacity;
    uint32_t *buckets;  // (1 << bits,)
    uint32_t *stamps;   // (nfa.n_nodes,) in which closure a node was met
    size_t stamps_capacity;
    uint32_t stamp;
    uint32_t *stack, *found;  // of a closure
    size_t stack_capacity, found_capacity, n_found;

    el_arc *arcs;  // of the set in hand
    size_t n_arcs, arcs_capacity;
    uint32_t base;  // first state of the part
    size_t limit;   // sets of a part: beyond it, its states are not joined into sets
    bool apart;     // they are not
    uint64_t work;
    el_error *err;
} builder;

enum { BUCKET_BITS = 14 };

/* One node: through its free arcs to the nodes that read something, and the end, which go to `found`. */
static el_status close_over(builder *b, uint32_t node)
{
    size_t depth = 0;
    if (b->stamps[node] == b->stamp) return EL_OK;
    b->stamps[node] = b->stamp;
    b->stack[depth++] = node;
    while (depth > 0) {
        const uint32_t at = b->stack[--depth];
        bool reads = at == b->nfa.end;
        for (uint32_t i = b->nfa.heads[at]; i != EL_NONE; i = b->nfa.arcs[i].next) {
            const el_arc *arc = &b->nfa.arcs[i];
            b->work++;
            if (arc->kind != EL_ARC_FREE) {
                reads = true;
            } else if (b->stamps[arc->to] != b->stamp) {
                b->stamps[arc->to] = b->stamp;
                b->stack[depth++] = arc->to;
            }
        }
        if (reads) b->found[b->n_found++] = at;
    }
    return EL_OK;
}

static int by_value(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t hash_of(const uint32_t *items, size_t n)
{
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++) hash = (hash ^ items[i]) * 0x9E3779B97F4A7C15u + (hash >> 29);
    return (uint32_t)(hash >> 32) >> (32 - BUCKET_BITS);
}

/* A state without anything yet. */
static el_status add_state(builder *b, uint32_t *out)
{
    el_automaton *a = b->a;
    struct el_state *states = el_grown(a->states, &a->states_capacity, a->n_states + 2, sizeof *states);
    if (states == NULL) return EL_ERR_NOMEM;
    a->states = states;
    if (a->n_states >= EL_GRAMMAR_STATES) {
        return el_fail(b->err, EL_ERR_FORMAT, "the grammar explodes: it needs more than 2^20 states");
    }
    *out = (uint32_t)a->n_states++;
    states[*out] = (struct el_state){.cost = EL_COST_NEVER, .frame = EL_NONE};
    return EL_OK;
}

/* The state of the closure in `found`, added where it is new. `fresh`: it is, and never found again. */
static el_status state_of_found(builder *b, bool fresh, uint32_t *out)
{
    qsort(b->found, b->n_found, sizeof *b->found, by_value);
    b->work += b->n_found;
    if (b->work > EL_GRAMMAR_WORK) {
        return el_fail(b->err, EL_ERR_FORMAT, "the grammar explodes: its states take too long to make");
    }
    const uint32_t bucket = hash_of(b->found, b->n_found);
    for (uint32_t i = fresh ? EL_NONE : b->buckets[bucket]; i != EL_NONE; i = b->sets[i].next) {
        b->work++;
        const set *s = &b->sets[i];
        if (s->n == b->n_found && memcmp(b->pool + s->at, b->found, s->n * sizeof *b->pool) == 0) {
            *out = b->base + i;
            return EL_OK;
        }
    }
    uint32_t *pool = el_grown(b->pool, &b->pool_capacity, b->pool_n + b->n_found + 1, sizeof *pool);
    if (pool == NULL) return EL_ERR_NOMEM;
    b->pool = pool;
    set *sets = el_grown(b->sets, &b->sets_capacity, b->n_sets + 1, sizeof *sets);
    if (sets == NULL) return EL_ERR_NOMEM;
    b->sets = sets;

    memcpy(pool + b->pool_n, b->found, b->n_found * sizeof *pool);
    sets[b->n_sets] = (set){(uint32_t)b->pool_n, (uint32_t)b->n_found, fresh ? EL_NONE : b->buckets[bucket]};
    if (!fresh) b->buckets[bucket] = (uint32_t)b->n_sets;
    b->pool_n += b->n_found;
    b->n_sets++;
    return add_state(b, out);
}

static void start_closure(builder *b)
{
    b->n_found = 0;
    b->stamp++;
}

static el_status add_step(el_automaton *a, el_step step)
{
    el_step *steps = el_grown(a->steps, &a->steps_capacity, a->n_steps + 1, sizeof *steps);
    if (steps == NULL) return EL_ERR_NOMEM;
    a->steps = steps;
    steps[a->n_steps++] = step;
    return EL_OK;
}

/* Bytes of the set in hand, cut where an arc begins or ends: within a segment all lead to one set. */
static el_status add_segments(builder *b, size_t first, size_t end)
{
    bool cut[257] = {false};
    const uint32_t steps_from = (uint32_t)b->a->n_steps;
    for (size_t i = first; i < end; i++) cut[b->arcs[i].low] = cut[b->arcs[i].high + 1] = true;

    el_status st = EL_OK;
    for (unsigned low = 0; low < 256 && st == EL_OK;) {
        unsigned high = low;
        uint32_t to;
        while (high < 255 && !cut[high + 1]) high++;
        start_closure(b);
        for (size_t i = first; i < end; i++) {
            if (b->arcs[i].low <= low && b->arcs[i].high >= low) (void)close_over(b, b->arcs[i].to);
        }
        b->work += end - first;
        if (b->n_found > 0) {
            st = state_of_found(b, false, &to);
            el_step *last = b->a->n_steps > steps_from ? &b->a->steps[b->a->n_steps - 1] : NULL;
            if (st == EL_OK && last != NULL && last->to == to && last->high + 1u == low) {
                last->high = (uint8_t)high;
            } else if (st == EL_OK) {
                st = add_step(b->a, (el_step){.to = to, .low = (uint8_t)low, .high = (uint8_t)high});
            }
        }
        low = high + 1;
    }
    return st;
}

/* What a part of min..max rounds pushes; stacks are one where their frames are, so equal kinds are one. */
static el_status frame_of(el_automaton *a, el_frame_kind kind, uint32_t *out)
{
    uint32_t tries = 0;
    for (uint32_t i = a->states[kind.back].frame; i != EL_NONE && tries < 64;
         i = a->frames[i].next, tries++) {
        const el_frame_kind *f = &a->frames[i];
        if (f->loop == kind.loop && f->min == kind.min && f->max == kind.max) {
            *out = i;
            return EL_OK;
        }
    }
    el_frame_kind *frames = el_grown(a->frames, &a->frames_capacity, a->n_frames + 1, sizeof *frames);
    if (frames == NULL) return EL_ERR_NOMEM;
    a->frames = frames;
    *out = (uint32_t)a->n_frames;
    kind.next = a->states[kind.back].frame;
    a->states[kind.back].frame = *out;
    frames[a->n_frames++] = kind;
    return EL_OK;
}

/* Arcs [first, end) that read the same: one call, or one step over a token. */
static el_status add_together(builder *b, size_t first, size_t end)
{
    const el_arc arc = b->arcs[first];
    el_automaton *a = b->a;
    uint32_t to;
    start_closure(b);
    for (size_t i = first; i < end; i++) (void)close_over(b, b->arcs[i].to);
    el_status st = state_of_found(b, false, &to);
    if (st != EL_OK) return st;
    if (arc.kind == EL_ARC_TOKEN) {
        el_token_step *tokens = el_grown(a->tokens, &a->tokens_capacity, a->n_tokens + 1, sizeof *tokens);
        if (tokens == NULL) return EL_ERR_NOMEM;
        a->tokens = tokens;
        tokens[a->n_tokens++] = (el_token_step){arc.part, to};
        return EL_OK;
    }
    const bool once = arc.min == 1 && arc.max == 1;
    el_call call = {.start = arc.part};
    st = frame_of(a, (el_frame_kind){to, once ? EL_NONE : arc.part, arc.min, arc.max, EL_NONE}, &call.frame);
    el_call *calls = el_grown(a->calls, &a->calls_capacity, a->n_calls + 1, sizeof *calls);
    if (st != EL_OK) return st;
    if (calls == NULL) return EL_ERR_NOMEM;
    a->calls = calls;
    calls[a->n_calls++] = call;
    return EL_OK;
}

static int by_what_is_read(const void *a, const void *b)
{
    const el_arc *x = a;
    const el_arc *y = b;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    if (x->min != y->min) return x->min < y->min ? -1 : 1;
    if (x->max != y->max) return x->max < y->max ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

static bool reads_the_same(const el_arc *x, const el_arc *y)
{
    return x->kind == y->kind && x->part == y->part && x->min == y->min && x->max == y->max;
}

/* Everything that leaves one state. */
static el_status expand(builder *b, uint32_t index)
{
    el_automaton *a = b->a;
    struct el_state *state = &a->states[b->base + index];
    state->step = (uint32_t)a->n_steps;
    state->call = (uint32_t)a->n_calls;
    state->token = (uint32_t)a->n_tokens;
    b->n_arcs = 0;
    for (uint32_t i = 0; i < b->sets[index].n; i++) {
        const uint32_t node = b->pool[b->sets[index].at + i];
        if (node == b->nfa.end) state->final = 1;
        for (uint32_t j = b->nfa.heads[node]; j != EL_NONE; j = b->nfa.arcs[j].next) {
            if (b->nfa.arcs[j].kind == EL_ARC_FREE) continue;
            el_arc *arcs = el_grown(b->arcs, &b->arcs_capacity, b->n_arcs + 1, sizeof *arcs);
            if (arcs == NULL) return EL_ERR_NOMEM;
            b->arcs = arcs;
            arcs[b->n_arcs++] = b->nfa.arcs[j];
        }
    }
    if (b->n_arcs == 0) return EL_OK;
    qsort(b->arcs, b->n_arcs, sizeof *b->arcs, by_what_is_read);
    size_t n_bytes = 0;
    while (n_bytes < b->n_arcs && b->arcs[n_bytes].kind == EL_ARC_BYTES) n_bytes++;

    el_status st = EL_OK;
    if (!b->apart) {
        st = n_bytes > 0 ? add_segments(b, 0, n_bytes) : EL_OK;
    } else {
        for (size_t i = 0; i < n_bytes && st == EL_OK; i++) st = add_segments(b, i, i + 1);
    }
    for (size_t i = n_bytes, end; i < b->n_arcs && st == EL_OK; i = end) {
        for (end = i + 1; end < b->n_arcs && !b->apart && reads_the_same(&b->arcs[i], &b->arcs[end]);) end++;
        st = add_together(b, i, end);
    }
    return st;
}

static el_status reserve(builder *b)
{
    const size_t n = b->nfa.n_nodes;
    uint32_t *found = el_grown(b->found, &b->found_capacity, n, sizeof *found);
    if (found != NULL) b->found = found;
    uint32_t *stack = el_grown(b->stack, &b->stack_capacity, n, sizeof *stack);
    if (stack != NULL) b->stack = stack;
    uint32_t *stamps = el_grown(b->stamps, &b->stamps_capacity, n, sizeof *stamps);
    if (stamps != NULL) b->stamps = stamps;
    if (found == NULL || stack == NULL || stamps == NULL) return EL_ERR_NOMEM;
    memset(stamps, 0, n * sizeof *stamps);
    b->stamp = 0;
    return EL_OK;
}

/* States of the part whose automaton is in hand; EL_ERR_CONTEXT where they are more than the limit. */
static el_status make_states(builder *b, uint32_t *start)
{
    b->base = (uint32_t)b->a->n_states;
    b->pool_n = b->n_sets = 0;
    for (size_t i = 0; i < (size_t)1 << BUCKET_BITS; i++) b->buckets[i] = EL_NONE;
    start_closure(b);
    (void)close_over(b, b->nfa.start);
    // whoever calls a part steps over one that may be empty: its start is not an end, and no other state's
    bool empty = false;
    size_t kept = 0;
    for (size_t i = 0; i < b->n_found; i++) {
        empty |= b->found[i] == b->nfa.end;
        if (b->found[i] != b->nfa.end || b->nfa.heads[b->nfa.end] != EL_NONE) b->found[kept++] = b->found[i];
    }
    b->n_found = kept;
    el_status st = state_of_found(b, empty, start);
    for (uint32_t i = 0; i < b->n_sets && st == EL_OK; i++) {
        if (!b->apart && b->n_sets > b->limit) return EL_ERR_CONTEXT;
        st = expand(b, i);
        if (i == 0 && empty) b->a->states[*start].final = 0;
    }
    return st;
}

static el_status build_part(builder *b, uint32_t part)
{
    el_automaton *a = b->a;
    el_status st = el_nfa_build(&b->nfa, &b->parts, b->parts.nodes[part]);
    if (st == EL_OK) st = reserve(b);
    uint32_t *starts = el_grown(b->starts, &b->starts_capacity, b->parts.n, sizeof *starts);
    if (starts != NULL) b->starts = starts;
    if (st != EL_OK) return st;
    if (starts == NULL) return EL_ERR_NOMEM;

    const el_automaton before = *a;
    b->apart = false;
    b->limit = SETS_AT_LEAST + SETS_PER_NODE * b->nfa.n_nodes;
    st = make_states(b, &b->starts[part]);
    if (st == EL_ERR_CONTEXT) {  // sets of this part explode: nodes by themselves, and more stacks
        a->n_states = before.n_states;
        a->n_steps = before.n_steps;
        a->n_calls = before.n_calls;
        a->n_frames = before.n_frames;
        a->n_tokens = before.n_tokens;
        b->apart = true;
        st = reserve(b);
        if (st == EL_OK) st = make_states(b, &b->starts[part]);
    }
    return st;
}

/* Calls by states instead of parts; no frame where nothing is left to do afterwards. */
static void resolve(builder *b)
{
    el_automaton *a = b->a;
    for (size_t i = 0; i < a->n_frames; i++) {
        if (a->frames[i].loop != EL_NONE) a->frames[i].loop = b->starts[a->frames[i].loop];
    }
    for (size_t i = 0; i < a->n_calls; i++) {
        a->calls[i].start = b->starts[a->calls[i].start];
        const el_frame_kind *frame = &a->frames[a->calls[i].frame];
        const struct el_state *back = &a->states[frame->back];
        const bool last =
            back->step == back[1].step && back->call == back[1].call && back->token == back[1].token;
        if (frame->loop == EL_NONE && back->final && last) a->calls[i].frame = EL_NONE;
    }
}

/* Bytes that can be read at each state, and how deep its calls go at most: who reads follows them. */
static el_status find_first(el_automaton *a, el_error *err)
{
    for (size_t s = 0; s < a->n_states; s++) {
        for (uint32_t i = a->states[s].step; i < a->states[s + 1].step; i++) {
            for (unsigned byte = a->steps[i].low; byte <= a->steps[i].high; byte++) {
                a->states[s].first[byte / 64] |= (uint64_t)1 << byte % 64;
            }
        }
    }
    bool changed = true;
    while (changed) {  // a pass carries them through one more call at least
        changed = false;
        for (size_t s = a->n_states; s-- > 0;) {
            struct el_state *state = &a->states[s];
            for (uint32_t i = state->call; i < state[1].call; i++) {
                const struct el_state *start = &a->states[a->calls[i].start];
                for (unsigned w = 0; w < 4; w++) {
                    const uint64_t more = start->first[w] & ~state->first[w];
                    state->first[w] |= more;
                    changed |= more != 0;
                }
                if (start->depth < state->depth) continue;
                state->depth = (uint16_t)(start->depth + 1);
                changed = true;
                if (state->depth <= EL_GRAMMAR_DEPTH) continue;
                return el_fail(err, EL_ERR_FORMAT, "more than %u rules begin with each other",
                               EL_GRAMMAR_DEPTH);
            }
        }
    }
    return EL_OK;
}

static void builder_free(builder *b)
{
    el_nfa_free(&b->nfa);
    free(b->parts.nodes);
    free(b->parts.of_node);
    free(b->starts);
    free(b->pool);
    free(b->sets);
    free(b->buckets);
    free(b->stamps);
    free(b->stack);
    free(b->found);
    free(b->arcs);
}

el_status el_automaton_build(el_automaton *a, const el_ast *ast, const uint8_t *nullable, uint32_t root,
                             el_error *err)
{
    builder b = {.a = a, .parts = {.ast = ast, .nullable = nullable}, .err = err};
    uint32_t part, end;
    el_status st = EL_ERR_NOMEM;
    b.parts.of_node = malloc((ast->n_nodes + 1) * sizeof *b.parts.of_node);
    b.buckets = malloc(((size_t)1 << BUCKET_BITS) * sizeof *b.buckets);
    if (b.parts.of_node == NULL || b.buckets == NULL) goto done;
    for (size_t i = 0; i < ast->n_nodes; i++) b.parts.of_node[i] = EL_NONE;

    st = el_parts_take(&b.parts, ast->rules[root].node, &part);
    for (part = 0; st == EL_OK && part < b.parts.n; part++) st = build_part(&b, part);
    if (st == EL_OK) st = add_state(&b, &end);
    if (st != EL_OK) goto done;
    a->n_states--;  // the last only says where the others end
    a->states[end].step = (uint32_t)a->n_steps;
    a->states[end].call = (uint32_t)a->n_calls;
    a->states[end].token = (uint32_t)a->n_tokens;
    resolve(&b);
    a->start = b.starts[0];
    a->empty = nullable[ast->rules[root].node];
    st = find_first(a, err);

done:
    builder_free(&b);
    if (st == EL_ERR_NOMEM) el_fail(err, st, "no memory for the states of the grammar");
    if (st == EL_ERR_UNSUPPORTED) {
        return el_fail(err, EL_ERR_FORMAT, "the grammar explodes: one rule needs more than 2^22 nodes");
    }
    return st;
}

void el_automaton_free(el_automaton *a)
{
    free(a->states);
    free(a->steps);
    free(a->calls);
    free(a->frames);
    free(a->tokens);
    *a = (el_automaton){0};
}
