/* What must hold of a grammar before it is compiled. Each check takes time in proportion to the grammar. */
#include "text/grammar_ast.h"

#include <string.h>

#include "core/error.h"

/* Which nodes have a property that goes from parts to wholes: a sequence needs it of all its parts, a choice of
 * one, a repetition of its part or nothing where it may be left out, a rule of what defines it. */
typedef struct spread {
    const el_ast *ast;
    uint32_t *parents;  // (n_nodes,) node above, or EL_NONE; of the top of a rule: n_nodes + rule
    uint32_t *uses;  // (n_rules,) first node that names the rule, then `others`
    uint32_t *others;  // (n_nodes,)
    uint32_t *missing;  // (n_nodes,) parts that a sequence still waits for
    uint32_t *queue;  // (n_nodes,) nodes found and not yet told to their parents
    uint8_t *has;  // (n_nodes,)
    uint8_t *rules;  // (n_rules,)
    size_t queued;
} spread;

static void spread_free(spread *s)
{
    free(s->parents);
    free(s->uses);
    free(s->others);
    free(s->missing);
    free(s->queue);
    free(s->has);
    free(s->rules);
}

static el_status spread_new(spread *s, const el_ast *ast)
{
    const size_t n = ast->n_nodes + 1;
    *s = (spread){.ast = ast};
    s->parents = calloc(n, sizeof *s->parents);
    s->uses = calloc(ast->n_rules + 1, sizeof *s->uses);
    s->others = calloc(n, sizeof *s->others);
    s->missing = calloc(n, sizeof *s->missing);
    s->queue = calloc(n, sizeof *s->queue);
    s->has = calloc(n, 1);
    s->rules = calloc(ast->n_rules + 1, 1);
    const bool taken = s->parents && s->uses && s->others && s->missing && s->queue && s->has && s->rules;
    if (!taken) return EL_ERR_NOMEM;

    for (size_t i = 0; i < ast->n_rules; i++) s->uses[i] = EL_NONE;
    for (size_t i = 0; i < ast->n_nodes; i++) s->parents[i] = EL_NONE;
    for (uint32_t i = 0; i < ast->n_rules; i++) {
        if (ast->rules[i].node != EL_NONE) s->parents[ast->rules[i].node] = (uint32_t)ast->n_nodes + i;
    }
    for (uint32_t i = 0; i < ast->n_nodes; i++) {
        const el_node *node = &ast->nodes[i];
        if (node->kind == EL_NODE_RULE) {
            s->others[i] = s->uses[node->first];
            s->uses[node->first] = i;
        } else if (node->kind == EL_NODE_REPEAT) {
            s->parents[node->first] = i;
        } else if (node->kind == EL_NODE_SEQUENCE || node->kind == EL_NODE_CHOICE) {
            for (uint32_t c = node->first; c != EL_NONE; c = ast->nodes[c].next) {
                s->parents[c] = i;
                s->missing[i] += node->kind == EL_NODE_SEQUENCE;
            }
            if (node->kind == EL_NODE_CHOICE) s->missing[i] = 1;
        }
    }
    return EL_OK;
}

static void found(spread *s, uint32_t node)
{
    if (s->has[node]) return;
    s->has[node] = 1;
    s->queue[s->queued++] = node;
}

/* From the nodes that have it by themselves to all. */
static void spread_run(spread *s, bool letters)
{
    const el_ast *ast = s->ast;
    for (uint32_t i = 0; i < ast->n_nodes; i++) {
        const el_node *node = &ast->nodes[i];
        const bool leaf =
            node->kind == EL_NODE_BYTES || node->kind == EL_NODE_CLASS || node->kind == EL_NODE_TOKEN;
        const bool empty = (node->kind == EL_NODE_BYTES && node->count == 0) ||
                           (node->kind == EL_NODE_SEQUENCE && node->first == EL_NONE) ||
                           (node->kind == EL_NODE_REPEAT && node->min == 0);
        if (empty || (leaf && letters)) found(s, i);
    }
    while (s->queued > 0) {
        const uint32_t above = s->parents[s->queue[--s->queued]];
        if (above == EL_NONE) continue;
        if (above >= ast->n_nodes) {
            const uint32_t rule = above - (uint32_t)ast->n_nodes;
            s->rules[rule] = 1;
            for (uint32_t use = s->uses[rule]; use != EL_NONE; use = s->others[use]) found(s, use);
        } else if (s->missing[above] <= 1) {
            found(s, above);
        } else {
            s->missing[above]--;
        }
    }
}

/* Which rules a rule may begin with. */
typedef struct starts {
    const el_ast *ast;
    const uint8_t *has;  // (n_nodes,) of the property "derives the empty text"
    uint32_t *items;  // (n_nodes,) nodes that name a rule
    size_t n;
} starts;

static void collect_starts(starts *s, uint32_t index)
{
    const el_node *node = &s->ast->nodes[index];
    if (node->kind == EL_NODE_RULE) {
        s->items[s->n++] = index;
    } else if (node->kind == EL_NODE_REPEAT && node->max > 0) {
        collect_starts(s, node->first);
    } else if (node->kind == EL_NODE_SEQUENCE || node->kind == EL_NODE_CHOICE) {
        for (uint32_t c = node->first; c != EL_NONE; c = s->ast->nodes[c].next) {
            collect_starts(s, c);
            if (node->kind == EL_NODE_SEQUENCE && !s->has[c]) break;
        }
    }
}

/* "a -> b -> a", cut where it gets long. */
static el_status fail_cycle(const el_ast *ast, const uint32_t *path, size_t n, uint32_t again, el_error *err)
{
    char text[96];
    size_t used = 0, from = 0;
    while (from < n && path[from] != again) from++;
    for (size_t i = from; i <= n; i++) {
        const el_rule *rule = &ast->rules[i < n ? path[i] : again];
        const char *arrow = i > from ? " -> " : "";
        if (used + rule->name_bytes + 4 > sizeof text - 4) {
            for (const char *c = " ..."; *c != '\0'; c++) text[used++] = *c;
            break;
        }
        for (; *arrow != '\0'; arrow++) text[used++] = *arrow;
        for (size_t j = 0; j < rule->name_bytes; j++) text[used++] = ast->text[rule->name + j];
    }
    return el_ast_fail(ast, ast->rules[again].at, again, err, "left recursion, which never ends: ", text,
                       used);
}

/* Depth first over the rules, without recursion: the path is the stack. */
static el_status check_starts(const el_ast *ast, const uint8_t *has, el_error *err)
{
    const size_t n = ast->n_rules;
    el_status st = EL_ERR_NOMEM;
    starts s = {.ast = ast, .has = has, .items = calloc(ast->n_nodes + 1, sizeof *s.items)};
    uint32_t *begin = calloc(n + 1, sizeof *begin);  // of a rule's starts in items
    uint32_t *next = calloc(n + 1, sizeof *next);
    uint32_t *path = calloc(n + 1, sizeof *path);
    uint8_t *seen = calloc(n + 1, 1);  // 1: on the path, 2: done
    if (!s.items || !begin || !next || !path || !seen) goto done;
    st = EL_OK;
    for (uint32_t rule = 0; rule < n; rule++) {
        begin[rule] = next[rule] = (uint32_t)s.n;
        collect_starts(&s, ast->rules[rule].node);
    }
    begin[n] = (uint32_t)s.n;

    for (uint32_t rule = 0; rule < n && st == EL_OK; rule++) {
        size_t depth = 0;
        if (seen[rule] == 0) path[depth++] = rule;
        seen[rule] = seen[rule] == 0 ? 1 : seen[rule];
        while (depth > 0 && st == EL_OK) {
            const uint32_t at = path[depth - 1];
            if (next[at] == begin[at + 1]) {
                seen[at] = 2;
                depth--;
                continue;
            }
            const uint32_t to = ast->nodes[s.items[next[at]++]].first;
            if (seen[to] == 1) st = fail_cycle(ast, path, depth, to, err);
            if (seen[to] == 0) path[depth++] = to;
            seen[to] = seen[to] == 0 ? 1 : seen[to];
        }
    }

done:
    free(s.items);
    free(begin);
    free(next);
    free(path);
    free(seen);
    return st;
}

el_status el_ast_check(const el_ast *ast, uint8_t *nullable, el_error *err)
{
    for (uint32_t i = 0; i < ast->n_rules; i++) {
        const el_rule *rule = &ast->rules[i];
        if (rule->node != EL_NONE) continue;
        return el_ast_fail(ast, rule->at, EL_NONE, err,
                           "a rule that is used and not defined: ", ast->text + rule->name, rule->name_bytes);
    }
    spread s;
    el_status st = spread_new(&s, ast);
    if (st == EL_OK) {
        spread_run(&s, true);
        for (uint32_t i = 0; st == EL_OK && i < ast->n_rules; i++) {
            if (s.rules[i]) continue;
            st = el_ast_fail(ast, ast->rules[i].at, i, err, "the rule can never end: it always needs itself",
                             "", 0);
        }
    }
    spread_free(&s);
    if (st != EL_OK) return st;

    st = spread_new(&s, ast);
    if (st == EL_OK) {
        spread_run(&s, false);
        memcpy(nullable, s.has, ast->n_nodes);
        st = check_starts(ast, nullable, err);
    }
    spread_free(&s);
    return st;
}
