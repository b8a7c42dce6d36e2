/* The least number of bytes from each state to an end of its part: Knuth's generalisation of Dijkstra's way.
 *
 * A state may end, or step over a byte (1 more), or call (what the callee costs, times the rounds that must be,
 * and what comes after). No cost is less than a cost it is made of, so states are settled cheapest first.
 */
#include "text/grammar_automaton.h"

typedef struct use {
    uint32_t state, call;  // that may get cheaper; by which call, or EL_NONE: by one step
} use;

typedef struct entry {
    uint32_t cost, state;
} entry;

typedef struct search {
    el_automaton *a;
    uint32_t *rows;  // (n_states + 1,) first use of a state
    use *uses;
    entry *heap;
    size_t n_heap, heap_capacity;
    uint8_t *settled;
} search;

static bool usable(const el_step *step, const uint64_t bytes[4])
{
    for (unsigned byte = step->low; byte <= step->high; byte++) {
        if (bytes[byte / 64] >> byte % 64 & 1) return true;
    }
    return false;
}

static el_status push(search *s, uint32_t cost, uint32_t state)
{
    if (cost >= s->a->states[state].cost) return EL_OK;
    entry *heap = el_grown(s->heap, &s->heap_capacity, s->n_heap + 1, sizeof *heap);
    if (heap == NULL) return EL_ERR_NOMEM;
    s->heap = heap;
    s->a->states[state].cost = cost;
    size_t i = s->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].cost > cost; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = (entry){cost, state};
    return EL_OK;
}

static entry pop(search *s)
{
    const entry top = s->heap[0];
    const entry last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < s->n_heap; child = 2 * i + 1) {
        if (child + 1 < s->n_heap && s->heap[child + 1].cost < s->heap[child].cost) child++;
        if (s->heap[child].cost >= last.cost) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static uint32_t call_cost(const el_automaton *a, const el_call *call)
{
    const uint32_t once = a->states[call->start].cost;
    if (call->frame == EL_NONE || once == EL_COST_NEVER) return once;
    return el_cost_add(once, el_frame_cost(a, &a->frames[call->frame], 0));
}

/* The states that a call's cost is made of; the count of them. */
static size_t parts_of(const el_automaton *a, const el_call *call, uint32_t parts[2])
{
    parts[0] = call->start;
    if (call->frame == EL_NONE) return 1;
    parts[1] = a->frames[call->frame].back;
    return 2;
}

/* One use of each state that what leaves `state` is made of: counted, or with `put` written down. */
static void index_state(search *s, uint32_t state, const uint64_t bytes[4], bool put)
{
    const el_automaton *a = s->a;
    const struct el_state *at = &a->states[state];
    uint32_t parts[2];
    for (uint32_t i = at->step; i < at[1].step; i++) {
        if (!usable(&a->steps[i], bytes)) continue;
        if (put) s->uses[s->rows[a->steps[i].to + 1]] = (use){state, EL_NONE};
        s->rows[a->steps[i].to + (put ? 1 : 2)]++;
    }
    for (uint32_t i = at->token; i < at[1].token; i++) {  // a token that the grammar names is one step
        if (put) s->uses[s->rows[a->tokens[i].to + 1]] = (use){state, EL_NONE};
        s->rows[a->tokens[i].to + (put ? 1 : 2)]++;
    }
    for (uint32_t i = at->call; i < at[1].call; i++) {
        const size_t n = parts_of(a, &a->calls[i], parts);
        for (size_t j = 0; j < n; j++) {
            if (put) s->uses[s->rows[parts[j] + 1]] = (use){state, i};
            s->rows[parts[j] + (put ? 1 : 2)]++;
        }
    }
}

/* rows and uses: who must be looked at when a state is settled. */
static el_status index_uses(search *s, const uint64_t bytes[4])
{
    const el_automaton *a = s->a;
    s->rows = calloc(a->n_states + 2, sizeof *s->rows);
    s->uses = calloc(a->n_steps + a->n_tokens + 2 * a->n_calls + 1, sizeof *s->uses);
    s->settled = calloc(a->n_states + 1, 1);
    if (s->rows == NULL || s->uses == NULL || s->settled == NULL) return EL_ERR_NOMEM;
    for (uint32_t i = 0; i < a->n_states; i++) index_state(s, i, bytes, false);
    for (size_t i = 1; i < a->n_states + 2; i++) s->rows[i] += s->rows[i - 1];
    for (uint32_t i = 0; i < a->n_states; i++) index_state(s, i, bytes, true);
    return EL_OK;
}

static el_status settle(search *s)
{
    el_automaton *a = s->a;
    el_status st = EL_OK;
    while (s->n_heap > 0 && st == EL_OK) {
        const entry top = pop(s);
        if (s->settled[top.state]) continue;
        s->settled[top.state] = 1;
        for (uint32_t i = s->rows[top.state]; i < s->rows[top.state + 1] && st == EL_OK; i++) {
            const use u = s->uses[i];
            if (s->settled[u.state]) continue;
            const uint32_t cost =
                u.call == EL_NONE ? el_cost_add(top.cost, 1) : call_cost(a, &a->calls[u.call]);
            st = push(s, cost, u.state);
        }
    }
    return st;
}

el_status el_automaton_cost(el_automaton *a, const uint64_t bytes[4])
{
    search s = {.a = a};
    for (size_t i = 0; i < a->n_states; i++) a->states[i].cost = EL_COST_NEVER;
    el_status st = index_uses(&s, bytes);
    for (uint32_t i = 0; i < a->n_states && st == EL_OK; i++) {
        if (a->states[i].final) st = push(&s, 0, i);
    }
    if (st == EL_OK) st = settle(&s);
    free(s.rows);
    free(s.uses);
    free(s.heap);
    free(s.settled);
    return st;
}
