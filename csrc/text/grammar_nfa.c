/* Expressions to nondeterministic automata; characters to the bytes of their UTF-8. */
#include "text/grammar_nfa.h"

enum {
    INLINE_WEIGHT = 24,  // a rule up to this size is written out where it is used
    UNROLL_WEIGHT = 24   // and so is a repetition
};

static el_status new_node(el_nfa *nfa, uint32_t *out)
{
    uint32_t *heads = el_grown(nfa->heads, &nfa->heads_capacity, nfa->n_nodes + 1, sizeof *heads);
    if (heads == NULL) return EL_ERR_NOMEM;
    nfa->heads = heads;
    if (nfa->n_nodes >= EL_GRAMMAR_NODES) return EL_ERR_UNSUPPORTED;
    *out = (uint32_t)nfa->n_nodes;
    heads[nfa->n_nodes++] = EL_NONE;
    return EL_OK;
}

static el_status add_arc(el_nfa *nfa, uint32_t from, el_arc arc)
{
    el_arc *arcs = el_grown(nfa->arcs, &nfa->arcs_capacity, nfa->n_arcs + 1, sizeof *arcs);
    if (arcs == NULL) return EL_ERR_NOMEM;
    nfa->arcs = arcs;
    if (nfa->n_arcs >= EL_GRAMMAR_NODES) return EL_ERR_UNSUPPORTED;
    arc.next = nfa->heads[from];
    nfa->heads[from] = (uint32_t)nfa->n_arcs;
    arcs[nfa->n_arcs++] = arc;
    return EL_OK;
}

static el_status add_free(el_nfa *nfa, uint32_t from, uint32_t to)
{
    return add_arc(nfa, from, (el_arc){.kind = EL_ARC_FREE, .to = to});
}

static el_status add_bytes(el_nfa *nfa, uint32_t from, unsigned low, unsigned high, uint32_t to)
{
    return add_arc(nfa, from,
                   (el_arc){.kind = EL_ARC_BYTES, .low = (uint8_t)low, .high = (uint8_t)high, .to = to});
}

/* The node from which a byte low..high leads to `to`; the same one for every sequence of a class that ends so,
 * which keeps the states of a class few. */
static el_status tail_of(el_nfa *nfa, unsigned low, unsigned high, uint32_t to, uint32_t *out)
{
    for (size_t i = nfa->n_tails; i-- > 0;) {
        const el_arc *arc = &nfa->arcs[nfa->heads[nfa->tails[i]]];
        if (arc->low == low && arc->high == high && arc->to == to) {
            *out = nfa->tails[i];
            return EL_OK;
        }
        if (nfa->n_tails - i > 64) break;  // a near miss costs a state, a long search costs more
    }
    el_status st = new_node(nfa, out);
    if (st == EL_OK) st = add_bytes(nfa, *out, low, high, to);
    if (st != EL_OK) return st;
    uint32_t *tails = el_grown(nfa->tails, &nfa->tails_capacity, nfa->n_tails + 1, sizeof *tails);
    if (tails == NULL) return EL_ERR_NOMEM;
    nfa->tails = tails;
    tails[nfa->n_tails++] = *out;
    return EL_OK;
}

static unsigned utf8_byte(uint32_t point, unsigned size, unsigned i)
{
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    const uint32_t bits = point >> 6 * (size - 1 - i);
    if (size == 1) return point;
    return i == 0 ? leads[size] | bits : 0x80 | (bits & 0x3F);
}

/* Points first..last, of `size` bytes each, whose bytes from `i` + 1 on all run over their whole range, unless
 * the byte before is fixed: so each byte has one range. */
static el_status add_block(el_nfa *nfa, uint32_t from, uint32_t first, uint32_t last, unsigned size,
                           uint32_t to)
{
    el_status st = EL_OK;
    for (unsigned i = size; i-- > 1 && st == EL_OK;) {
        st = tail_of(nfa, utf8_byte(first, size, i), utf8_byte(last, size, i), to, &to);
    }
    if (st != EL_OK) return st;
    return add_bytes(nfa, from, utf8_byte(first, size, 0), utf8_byte(last, size, 0), to);
}

/* Cut first..last into blocks in which each byte has one range. */
static el_status add_points(el_nfa *nfa, uint32_t from, uint32_t first, uint32_t last, uint32_t to)
{
    static const uint32_t limits[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    el_status st = EL_OK;
    for (unsigned size = 1; size <= 4 && st == EL_OK && first <= last; size++) {
        const uint32_t top = last < limits[size - 1] ? last : limits[size - 1];
        while (first <= top && st == EL_OK) {
            uint32_t end = top;  // the largest block that starts at `first`
            for (unsigned low = 6 * (size - 1); low > 0; low -= 6) {
                const uint32_t mask = (1u << low) - 1;
                if ((first & ~mask) == (end & ~mask)) continue;  // the bytes above are fixed
                if ((first & mask) != 0) {
                    end = first | mask;
                } else if ((end & mask) != mask) {
                    end = (end & ~mask) - 1;
                }
            }
            st = add_block(nfa, from, first, end, size, to);
            first = end + 1;
        }
    }
    return st;
}

/* Size of an expression written out, or more than `budget` as soon as that is certain. */
static uint32_t weigh(const el_ast *ast, uint32_t index, uint32_t budget)
{
    const el_node *node = &ast->nodes[index];
    uint32_t weight = 1;
    switch (node->kind) {
    case EL_NODE_BYTES: return node->count;
    case EL_NODE_TOKEN: return 1;
    case EL_NODE_CLASS:
        return ast->ranges[node->first + node->count - 1].last < 0x80 ? node->count : 4 + 2 * node->count;
    case EL_NODE_RULE: return budget == 0 ? 1 : 1 + weigh(ast, ast->rules[node->first].node, budget - 1);
    case EL_NODE_REPEAT: {
        const uint64_t times = node->max == EL_NONE ? node->min : node->max;
        const uint32_t once = budget == 0 ? 1 : weigh(ast, node->first, budget - 1);
        const uint64_t unrolled = once * (times > 0 ? times : 1);
        return 1 + (unrolled <= UNROLL_WEIGHT ? (uint32_t)unrolled : once);
    }
    case EL_NODE_SEQUENCE:
    case EL_NODE_CHOICE:
        for (uint32_t c = node->first; c != EL_NONE && weight <= budget; c = ast->nodes[c].next) {
            weight += weigh(ast, c, budget - weight);
        }
        return weight;
    }
    return weight;
}

el_status el_parts_take(el_parts *parts, uint32_t node, uint32_t *part)
{
    *part = parts->of_node[node];
    if (*part != EL_NONE) return EL_OK;
    uint32_t *nodes = el_grown(parts->nodes, &parts->capacity, parts->n + 1, sizeof *nodes);
    if (nodes == NULL) return EL_ERR_NOMEM;
    parts->nodes = nodes;
    *part = parts->of_node[node] = (uint32_t)parts->n;
    nodes[parts->n++] = node;
    return EL_OK;
}

static el_status build(el_nfa *nfa, el_parts *parts, uint32_t index, uint32_t from, uint32_t *to);

/* `from` reads the part of `node` min..max times and is at a new node `to`. */
static el_status build_part(el_nfa *nfa, el_parts *parts, uint32_t node, uint32_t min, uint32_t max,
                            uint32_t from, uint32_t *to)
{
    uint32_t part;
    const el_node *n = &parts->ast->nodes[node];
    const uint32_t target = n->kind == EL_NODE_RULE ? parts->ast->rules[n->first].node : node;
    if (parts->nullable[target]) min = 0;
    el_status st = el_parts_take(parts, target, &part);
    if (st == EL_OK) st = new_node(nfa, to);
    if (st == EL_OK && min == 0) st = add_free(nfa, from, *to);
    if (max == 1) min = 1;  // a round that is read at all is not empty
    if (st != EL_OK) return st;
    return add_arc(nfa, from, (el_arc){.kind = EL_ARC_PART, .part = part, .min = min, .max = max, .to = *to});
}

/* x*: `to` is a node that x leads back to. */
static el_status build_star(el_nfa *nfa, el_parts *parts, uint32_t x, uint32_t from, uint32_t *to)
{
    uint32_t end;
    el_status st = new_node(nfa, to);
    if (st == EL_OK) st = add_free(nfa, from, *to);
    if (st == EL_OK) st = build(nfa, parts, x, *to, &end);
    return st == EL_OK ? add_free(nfa, end, *to) : st;
}

static el_status build_optional(el_nfa *nfa, el_parts *parts, uint32_t x, uint32_t from, uint32_t *to)
{
    uint32_t end;
    el_status st = build(nfa, parts, x, from, &end);
    if (st == EL_OK) st = new_node(nfa, to);
    if (st == EL_OK) st = add_free(nfa, end, *to);
    return st == EL_OK ? add_free(nfa, from, *to) : st;
}

static el_status build_repeat(el_nfa *nfa, el_parts *parts, const el_node *node, uint32_t from, uint32_t *to)
{
    const uint32_t x = node->first;
    const bool open = node->max == EL_NONE;
    const uint32_t min = node->min;
    const uint32_t times = open ? min : node->max;
    el_status st = EL_OK;
    *to = from;
    if (node->max == 0) return EL_OK;
    const bool unroll = times <= 1 || (uint64_t)weigh(parts->ast, x, UNROLL_WEIGHT) * times <= UNROLL_WEIGHT;
    if (!unroll) {
        st = build_part(nfa, parts, x, min, times, from, to);
        return st == EL_OK && open ? build_star(nfa, parts, x, *to, to) : st;
    }
    for (uint32_t i = 0; i < min && st == EL_OK; i++) st = build(nfa, parts, x, *to, to);
    for (uint32_t i = min; i < times && st == EL_OK; i++) st = build_optional(nfa, parts, x, *to, to);
    return st == EL_OK && open ? build_star(nfa, parts, x, *to, to) : st;
}

static el_status build_class(el_nfa *nfa, const el_ast *ast, const el_node *node, uint32_t from, uint32_t *to)
{
    el_status st = new_node(nfa, to);
    nfa->n_tails = 0;
    for (uint32_t i = 0; i < node->count && st == EL_OK; i++) {
        const el_range range = ast->ranges[node->first + i];
        st = add_points(nfa, from, range.first, range.last, *to);
    }
    return st;
}

static el_status build_choice(el_nfa *nfa, el_parts *parts, const el_node *node, uint32_t from, uint32_t *to)
{
    el_status st = new_node(nfa, to);
    for (uint32_t c = node->first; c != EL_NONE && st == EL_OK; c = parts->ast->nodes[c].next) {
        uint32_t end;
        st = build(nfa, parts, c, from, &end);
        if (st == EL_OK) st = add_free(nfa, end, *to);
    }
    return st;
}

/* Arcs out of `from` that read the expression; `*to` is where it has been read. No arc leads back to `from`. */
static el_status build(el_nfa *nfa, el_parts *parts, uint32_t index, uint32_t from, uint32_t *to)
{
    const el_ast *ast = parts->ast;
    const el_node *node = &ast->nodes[index];
    el_status st = EL_OK;
    *to = from;
    switch (node->kind) {
    case EL_NODE_BYTES:
        for (uint32_t i = 0; i < node->count && st == EL_OK; i++) {
            const unsigned byte = ast->bytes[node->first + i];
            const uint32_t at = *to;
            st = new_node(nfa, to);
            if (st == EL_OK) st = add_bytes(nfa, at, byte, byte, *to);
        }
        return st;
    case EL_NODE_CLASS: return build_class(nfa, ast, node, from, to);
    case EL_NODE_TOKEN:
        st = new_node(nfa, to);
        if (st != EL_OK) return st;
        return add_arc(nfa, from, (el_arc){.kind = EL_ARC_TOKEN, .part = node->first, .to = *to});
    case EL_NODE_RULE:
        if (weigh(ast, index, INLINE_WEIGHT) <= INLINE_WEIGHT) {
            return build(nfa, parts, ast->rules[node->first].node, from, to);
        }
        return build_part(nfa, parts, index, 1, 1, from, to);
    case EL_NODE_SEQUENCE:
        for (uint32_t c = node->first; c != EL_NONE && st == EL_OK; c = ast->nodes[c].next) {
            st = build(nfa, parts, c, *to, to);
        }
        return st;
    case EL_NODE_CHOICE: return build_choice(nfa, parts, node, from, to);
    case EL_NODE_REPEAT: return build_repeat(nfa, parts, node, from, to);
    }
    return st;
}

el_status el_nfa_build(el_nfa *nfa, el_parts *parts, uint32_t node)
{
    nfa->n_nodes = nfa->n_arcs = nfa->n_tails = 0;
    const el_status st = new_node(nfa, &nfa->start);
    return st == EL_OK ? build(nfa, parts, node, nfa->start, &nfa->end) : st;
}

void el_nfa_free(el_nfa *nfa)
{
    free(nfa->heads);
    free(nfa->arcs);
    free(nfa->tails);
    *nfa = (el_nfa){0};
}
