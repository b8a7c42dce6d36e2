/* Making one mask: all tokens that it is about are read from one place, bytes that they share only once. */
#include <string.h>

#include "text/grammar_local.h"
#include "text/grammar_masks.h"

enum { WALK_STEPS = 1 << 26 };  // beyond it a mask counts as exploded

/* Tokens that end at a node of the tree, in a set of stacks. */
typedef struct hit {
    uint32_t node, set;
} hit;

typedef struct maker {
    const el_grammar *g;
    el_local local;
    hit *hits;
    size_t n_hits, hits_capacity;
    el_pending *pending;
    size_t n_pending, pending_capacity;
    el_mask_class *classes;
    size_t n_classes, classes_capacity;
    el_token_step *named;  // tokens that the grammar names: id and cost
    size_t n_named, named_capacity;
    size_t steps;
} maker;

static el_status add_pending(maker *m, uint32_t node, uint32_t rounds)
{
    el_pending *pending = el_grown(m->pending, &m->pending_capacity, m->n_pending + 1, sizeof *pending);
    if (pending == NULL) return EL_ERR_NOMEM;
    m->pending = pending;
    pending[m->n_pending++] = (el_pending){node, rounds};
    return EL_OK;
}

/* Where the set has come down to the frame below, what follows in the tree goes on there. */
static el_status go_on_below(maker *m, uint32_t node, uint32_t number)
{
    const el_local_set *set = &m->local.sets[number];
    el_status st = set->complete ? add_pending(m, node, 0) : EL_OK;
    if (m->local.stacks.open == EL_NONE) return st;
    for (uint32_t c = 1; c <= EL_TOKEN_BYTES + 1 && st == EL_OK; c++) {
        if (set->exits[c / 64] >> c % 64 & 1) st = add_pending(m, node, c);
    }
    return st;
}

static el_status add_hit(maker *m, uint32_t node, uint32_t set)
{
    hit *hits = el_grown(m->hits, &m->hits_capacity, m->n_hits + 1, sizeof *hits);
    if (hits == NULL) return EL_ERR_NOMEM;
    m->hits = hits;
    hits[m->n_hits++] = (hit){node, set};
    return EL_OK;
}

/* All that is below a node of the tree, read from a set. */
static el_status walk(maker *m, uint32_t under, uint32_t from)
{
    const el_token_trie *t = m->g->trie;
    uint32_t path[EL_TOKEN_BYTES + 1];
    el_status st = EL_OK;
    path[t->depths[under]] = from;
    for (uint32_t i = under + 1; i < t->ends[under] && st == EL_OK;) {
        uint32_t at;
        st = el_local_step(&m->local, path[t->depths[i] - 1], t->bytes[i], &at);
        if (st != EL_OK) break;
        if (++m->steps > WALK_STEPS) return EL_ERR_CONTEXT;
        if (at == EL_LOCAL_DEAD) {
            i = t->ends[i];
            continue;
        }
        path[t->depths[i]] = at;
        if (t->rows[i + 1] > t->rows[i] && m->local.sets[at].n_ways > 0) st = add_hit(m, i, at);
        if (st == EL_OK && t->ends[i] > i + 1) st = go_on_below(m, i, at);
        i++;
    }
    return st;
}

/* Tokens that the grammar names can come only where no other token has begun. */
static el_status find_named(maker *m, el_top top)
{
    const el_automaton *a = m->local.stacks.a;
    const struct el_state *state = &a->states[top.state];
    el_status st = EL_OK;
    for (uint32_t i = state->token; i < state[1].token; i++) {
        const uint32_t cost = el_stacks_cost(&m->local.stacks, (el_top){a->tokens[i].to, top.frame});
        el_token_step *named = el_grown(m->named, &m->named_capacity, m->n_named + 1, sizeof *named);
        if (named == NULL) return EL_ERR_NOMEM;
        m->named = named;
        if (cost != EL_COST_NEVER) named[m->n_named++] = (el_token_step){a->tokens[i].id, cost};
    }
    for (uint32_t i = state->call; i < state[1].call && st == EL_OK; i++) {
        el_top callee = {a->calls[i].start, top.frame};
        if (a->calls[i].frame != EL_NONE) {
            st = el_stacks_push(&m->local.stacks, a->calls[i].frame, 0, top.frame, &callee.frame);
        }
        if (st == EL_OK) st = find_named(m, callee);
    }
    return st;
}

/* The place from which a mask's tokens are read. */
static el_status find_start(maker *m, const el_mask *above, el_mask_key key, uint32_t *start)
{
    const el_automaton *a = &m->g->a;
    el_set *set = &m->local.scratch;
    el_status st = EL_OK;
    uint32_t back = key.a, frame = 0;
    set->n = 0;
    set->complete = false;
    memset(set->exits, 0, sizeof set->exits);
    switch (key.kind) {
    case EL_MASK_TOP:  // what has come to its end here has gone on below already
        st = el_stacks_add(&m->local.stacks, set, key.a, 0);
        break;
    case EL_MASK_LOOP:
        m->local.stacks.open = key.a;
        set->exits[0] = 1u << 1;
        st = el_stacks_push(&m->local.stacks, key.a, 1, 0, &frame);
        if (st == EL_OK) st = el_stacks_add(&m->local.stacks, set, a->frames[key.a].loop, frame);
        break;
    case EL_MASK_LEAVE: back = a->frames[above->loop].back; /* fall through */
    case EL_MASK_FRAME:
        st = el_stacks_add(&m->local.stacks, set, back, 0);
        if (st == EL_OK) st = el_stacks_settle(&m->local.stacks, set);
        break;
    }
    return st == EL_OK ? el_local_number(&m->local, start) : st;
}

static int by_node(const void *a, const void *b)
{
    const el_pending *x = a;
    const el_pending *y = b;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return (x->rounds > y->rounds) - (x->rounds < y->rounds);
}

static void sort_pending(maker *m)
{
    size_t kept = 0;
    if (m->n_pending > 1) qsort(m->pending, m->n_pending, sizeof *m->pending, by_node);
    for (size_t i = 0; i < m->n_pending; i++) {
        if (i == 0 || by_node(&m->pending[i], &m->pending[kept - 1]) != 0) m->pending[kept++] = m->pending[i];
    }
    m->n_pending = kept;
}

static el_status read_all(maker *m, const el_mask *above, el_mask_key key)
{
    uint32_t start;
    el_status st = find_start(m, above, key, &start);
    if (st != EL_OK) return st;
    if (key.kind == EL_MASK_TOP) {
        st = walk(m, 0, start);
        if (st == EL_OK) st = find_named(m, (el_top){key.a, 0});
    }
    uint32_t done = EL_NONE;
    for (size_t i = 0; above != NULL && i < above->n_pending && st == EL_OK; i++) {
        const el_pending p = above->pending[i];
        const bool left = key.kind != EL_MASK_LEAVE || (p.rounds >= key.a && p.rounds <= key.b);
        if (!left || p.node == done) continue;
        done = p.node;
        st = go_on_below(m, p.node, start);
        if (st == EL_OK) st = walk(m, p.node, start);
    }
    sort_pending(m);
    return st;
}

static el_status class_of(maker *m, el_rounds way, size_t *out)
{
    for (*out = 0; *out < m->n_classes; ++*out) {
        if (m->classes[*out].rounds == way.rounds && m->classes[*out].cost == way.cost) return EL_OK;
    }
    el_mask_class *classes = el_grown(m->classes, &m->classes_capacity, m->n_classes + 1, sizeof *classes);
    if (classes == NULL) return EL_ERR_NOMEM;
    m->classes = classes;
    classes[m->n_classes++] = (el_mask_class){.rounds = way.rounds, .cost = way.cost};
    return EL_OK;
}

/* Each set's ways, from pairs to numbers of classes (in `cost`). Only sets that tokens end in. */
static el_status number_ways(maker *m)
{
    el_status st = EL_OK;
    uint8_t *used = calloc(m->local.n_sets, 1);
    if (used == NULL) return EL_ERR_NOMEM;
    for (size_t i = 0; i < m->n_hits; i++) used[m->hits[i].set] = 1;
    for (size_t s = 0; s < m->local.n_sets && st == EL_OK; s++) {
        const el_local_set *set = &m->local.sets[s];
        for (uint32_t w = set->ways; used[s] && w < set->ways + set->n_ways && st == EL_OK; w++) {
            size_t number;
            st = class_of(m, m->local.ways[w], &number);
            m->local.ways[w].cost = (uint32_t)number;
        }
    }
    free(used);
    return st;
}

typedef void visit(el_mask_class *class, int32_t id, void *data);

/* Every token of every class. */
static void each(maker *m, visit *call, void *data)
{
    const el_token_trie *t = m->g->trie;
    for (size_t i = 0; i < m->n_hits; i++) {
        const el_local_set *set = &m->local.sets[m->hits[i].set];
        for (uint32_t w = set->ways; w < set->ways + set->n_ways; w++) {
            el_mask_class *class = &m->classes[m->local.ways[w].cost];
            for (uint32_t r = t->rows[m->hits[i].node]; r < t->rows[m->hits[i].node + 1]; r++) {
                call(class, t->ids[r], data);
            }
        }
    }
    for (size_t i = 0; i < m->n_named; i++) {
        call(&m->classes[m->named[i].to], (int32_t)m->named[i].id, data);
    }
}

static void count(el_mask_class *class, int32_t id, void *data)
{
    (void)id;
    class->n++;
    ++*(size_t *)data;
}

static void put(el_mask_class *class, int32_t id, void *data)
{
    uint64_t *all = data;
    if (all != NULL) all[id / 64] |= (uint64_t)1 << id % 64;
    if (class->bits != NULL) {
        ((uint64_t *)(uintptr_t)class->bits)[id / 64] |= (uint64_t)1 << id % 64;
    } else {
        ((int32_t *)(uintptr_t)class->ids)[class->n++] = id;
    }
}

/* Cut one block of memory into a mask and its parts, and fill it. */
static el_status assemble(maker *m, el_mask_key key, el_mask **out)
{
    const size_t words = (m->g->trie->n_tokens + 63) / 64;
    size_t total = 0, bits = 0, ids = 0;
    each(m, count, &total);
    for (size_t i = 0; i < m->n_classes; i++) {
        const bool dense = m->classes[i].n > 2 * words;
        bits += dense;
        ids += dense ? 0 : m->classes[i].n;
    }
    const bool all = total > 2 * words && m->n_classes > 1;
    const size_t own = (sizeof(el_mask) + 7) / 8 * 8;  // words of 64 bits follow
    const size_t bytes = own + m->n_classes * sizeof(el_mask_class) + (bits + all) * words * 8 +
                         m->n_pending * sizeof(el_pending) + ids * 4;
    el_mask *mask = calloc(1, bytes);
    if (mask == NULL) return EL_ERR_NOMEM;
    uint64_t *next_bits = (uint64_t *)((char *)mask + own);
    uint64_t *union_bits = all ? next_bits : NULL;
    next_bits += all ? words : 0;
    el_mask_class *classes = (el_mask_class *)(next_bits + bits * words);
    el_pending *pending = (el_pending *)(classes + m->n_classes);
    int32_t *next_ids = (int32_t *)(pending + m->n_pending);
    *mask = (el_mask){.key = key,
                      .loop = key.kind == EL_MASK_LOOP ? key.a : EL_NONE,
                      .n_classes = m->n_classes,
                      .classes = classes,
                      .n_pending = m->n_pending,
                      .pending = pending,
                      .bytes = bytes};
    if (m->n_pending > 0) memcpy(pending, m->pending, m->n_pending * sizeof *pending);

    for (size_t i = 0; i < m->n_classes; i++) {
        el_mask_class *class = &m->classes[i];
        if (class->n > 2 * words) {
            class->bits = next_bits;
            next_bits += words;
        } else {
            class->ids = next_ids;
            next_ids += class->n;
            class->n = 0;  // counted again as they are put
        }
        if (class->cost > mask->worst) mask->worst = class->cost;
        if (class->rounds > mask->most_rounds) mask->most_rounds = class->rounds;
    }
    each(m, put, union_bits);
    if (m->n_classes > 0) memcpy(classes, m->classes, m->n_classes * sizeof *classes);
    mask->all = m->n_classes == 1 ? classes[0].bits : union_bits;
    *out = mask;
    return EL_OK;
}

el_status el_mask_make(const el_grammar *grammar, const el_mask *above, el_mask_key key, el_mask **out)
{
    maker m = {.g = grammar};
    *out = NULL;
    el_status st = el_local_init(&m.local, &grammar->a);
    if (st == EL_OK) st = read_all(&m, above, key);
    if (st == EL_OK) st = number_ways(&m);
    for (size_t i = 0; i < m.n_named && st == EL_OK; i++) {
        size_t number;
        st = class_of(&m, (el_rounds){0, m.named[i].to}, &number);
        m.named[i].to = (uint32_t)number;
    }
    if (st == EL_OK) st = assemble(&m, key, out);
    el_local_free(&m.local);
    free(m.hits);
    free(m.pending);
    free(m.classes);
    free(m.named);
    return st;
}
