#include "text/grammar_local.h"

#include <string.h>

el_status el_local_init(el_local *local, const el_automaton *a)
{
    for (size_t i = 0; i < 256; i++) local->buckets[i] = EL_NONE;
    el_status st = el_stacks_init(&local->stacks, a);
    uint32_t dead;
    return st == EL_OK ? el_local_number(local, &dead) : st;  // of an empty scratch: number 0
}

void el_local_free(el_local *local)
{
    el_stacks_free(&local->stacks);
    free(local->scratch.tops);
    free(local->sets);
    free(local->tops);
    free(local->ways);
    free(local->steps);
}

static int by_stack(const void *a, const void *b)
{
    const el_top *x = a;
    const el_top *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return (x->frame > y->frame) - (x->frame < y->frame);
}

static uint32_t hash_of(const el_set *set)
{
    uint32_t hash = (uint32_t)set->exits[0] ^ (set->complete ? 0x55u : 0);
    for (size_t i = 0; i < set->n; i++)
        hash = (hash ^ set->tops[i].state ^ set->tops[i].frame << 13) * 0x9E3779B1u;
    return hash >> 24;
}

static bool is_set(const el_local *local, const el_local_set *known, const el_set *set)
{
    return known->n == set->n && known->complete == set->complete &&
           memcmp(known->exits, set->exits, sizeof set->exits) == 0 &&
           (set->n == 0 || memcmp(local->tops + known->top, set->tops, set->n * sizeof *set->tops) == 0);
}

/* Rounds that are over in a stack with an open loop at its bottom. */
static uint32_t rounds_of(const el_stacks *s, uint32_t frame)
{
    while (frame != 0 && s->frames[frame].below != 0) frame = s->frames[frame].below;
    return frame != 0 && s->frames[frame].kind == s->open ? s->frames[frame].done : 0;
}

/* Keep the ways that no other beats. One round less costs at most one round more. */
static el_status add_way(el_local *local, uint32_t first, el_rounds way)
{
    const el_stacks *s = &local->stacks;
    const uint64_t round = s->open == EL_NONE ? 0 : s->a->states[s->a->frames[s->open].loop].cost;
    if (way.cost == EL_COST_NEVER) return EL_OK;
    size_t kept = first;
    for (size_t i = first; i < local->n_ways; i++) {
        const el_rounds w = local->ways[i];
        if (w.rounds <= way.rounds && w.cost + (way.rounds - w.rounds) * round <= way.cost) return EL_OK;
        const bool beaten = way.rounds <= w.rounds && way.cost + (w.rounds - way.rounds) * round <= w.cost;
        if (!beaten) local->ways[kept++] = w;
    }
    local->n_ways = kept;
    el_rounds *ways = el_grown(local->ways, &local->ways_capacity, kept + 1, sizeof *ways);
    if (ways == NULL) return EL_ERR_NOMEM;
    local->ways = ways;
    ways[local->n_ways++] = way;
    return EL_OK;
}

static el_status find_ways(el_local *local, const el_set *set)
{
    const el_stacks *s = &local->stacks;
    const uint32_t first = (uint32_t)local->n_ways;
    el_status st = set->complete ? add_way(local, first, (el_rounds){0, 0}) : EL_OK;
    for (uint32_t c = 1; c <= EL_TOKEN_BYTES + 1 && st == EL_OK; c++) {
        if (set->exits[c / 64] >> c % 64 & 1) st = add_way(local, first, (el_rounds){c - 1, 0});
    }
    for (size_t i = 0; i < set->n && st == EL_OK; i++) {
        const el_rounds way = {rounds_of(s, set->tops[i].frame), el_stacks_cost(s, set->tops[i])};
        st = add_way(local, first, way);
    }
    return st;
}

el_status el_local_number(el_local *local, uint32_t *out)
{
    el_set *set = &local->scratch;
    if (set->n > 1) qsort(set->tops, set->n, sizeof *set->tops, by_stack);
    const uint32_t hash = hash_of(set);
    for (uint32_t i = local->buckets[hash]; i != EL_NONE; i = local->sets[i].next) {
        if (is_set(local, &local->sets[i], set)) {
            *out = i;
            return EL_OK;
        }
    }
    if (local->n_sets >= EL_LOCAL_SETS) return EL_ERR_CONTEXT;
    el_local_set *sets = el_grown(local->sets, &local->sets_capacity, local->n_sets + 1, sizeof *sets);
    if (sets != NULL) local->sets = sets;
    uint32_t *steps =
        el_grown(local->steps, &local->steps_capacity, 256 * (local->n_sets + 1), sizeof *steps);
    if (steps != NULL) local->steps = steps;
    el_top *tops = el_grown(local->tops, &local->tops_capacity, local->n_tops + set->n, sizeof *tops);
    if (tops != NULL) local->tops = tops;
    if (sets == NULL || steps == NULL || (tops == NULL && set->n > 0)) return EL_ERR_NOMEM;

    const uint32_t ways = (uint32_t)local->n_ways;
    const el_status st = find_ways(local, set);
    if (st != EL_OK) return st;
    *out = (uint32_t)local->n_sets++;
    el_local_set *made = &sets[*out];
    *made = (el_local_set){.top = (uint32_t)local->n_tops,
                           .n = (uint32_t)set->n,
                           .ways = ways,
                           .n_ways = (uint32_t)local->n_ways - ways,
                           .complete = set->complete,
                           .next = local->buckets[hash]};
    memcpy(made->exits, set->exits, sizeof made->exits);
    if (set->n > 0) memcpy(tops + local->n_tops, set->tops, set->n * sizeof *tops);
    local->n_tops += set->n;
    local->buckets[hash] = *out;
    memset(steps + 256 * (size_t)*out, 0xFF, 256 * sizeof *steps);  // EL_NONE
    return EL_OK;
}

el_status el_local_step(el_local *local, uint32_t from, uint8_t byte, uint32_t *to)
{
    const size_t at = 256 * (size_t)from + byte;
    *to = local->steps[at];
    if (*to != EL_NONE) return EL_OK;
    const el_local_set *set = &local->sets[from];
    el_status st = el_stacks_step(&local->stacks, local->tops + set->top, set->n, byte, &local->scratch);
    if (st == EL_OK) st = el_local_number(local, to);
    if (st == EL_OK) local->steps[at] = *to;
    return st;
}
