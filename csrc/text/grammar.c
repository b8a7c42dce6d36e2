/* A grammar: from its text to the automaton that all its texts share. */
#include "edgellm/grammar.h"

#include <string.h>

#include "core/error.h"
#include "text/grammar_masks.h"

enum { BLAME_STATES = 20000 };  // larger grammars are refused without naming the byte

/* Why no text can be completed with the tokens there are. */
static el_status blame(el_grammar *g, el_error *err)
{
    const uint64_t every[4] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    el_status st = el_automaton_cost(&g->a, every);
    if (st != EL_OK) return st;
    if (g->a.states[g->a.start].cost == EL_COST_NEVER) {
        return el_fail(err, EL_ERR_FORMAT, "the shortest text of the grammar has more than 2^32 bytes");
    }
    for (unsigned byte = 0; byte < 256 && g->a.n_states < BLAME_STATES; byte++) {
        uint64_t more[4];
        memcpy(more, g->trie->single, sizeof more);
        if (more[byte / 64] >> byte % 64 & 1) continue;
        more[byte / 64] |= (uint64_t)1 << byte % 64;
        st = el_automaton_cost(&g->a, more);
        if (st != EL_OK) return st;
        if (g->a.states[g->a.start].cost != EL_COST_NEVER) {
            return el_fail(err, EL_ERR_FORMAT,
                           "every text of the grammar needs the byte 0x%02X, which is no token", byte);
        }
    }
    return el_fail(err, EL_ERR_FORMAT, "every text of the grammar needs bytes that are no tokens");
}

static el_status compile(el_grammar *g, el_ast *ast, const char *root, el_error *err)
{
    const uint32_t rule = el_ast_find(ast, root, strlen(root));
    if (rule == EL_NONE || ast->rules[rule].node == EL_NONE) {
        return el_fail(err, EL_ERR_FORMAT, "the grammar has no rule '%.60s'", root);
    }
    uint8_t *nullable = calloc(ast->n_nodes + 1, 1);
    if (nullable == NULL) return EL_ERR_NOMEM;
    el_status st = el_ast_check(ast, nullable, err);
    if (st == EL_OK) st = el_automaton_build(&g->a, ast, nullable, rule, err);
    if (st == EL_OK) st = el_automaton_cost(&g->a, g->trie->single);
    free(nullable);
    if (st != EL_OK) return st;
    return g->a.empty || g->a.states[g->a.start].cost != EL_COST_NEVER ? EL_OK : blame(g, err);
}

el_status el_grammar_new(el_grammar **out, const el_token_trie *trie, const char *text, size_t n_bytes,
                         const char *root, el_error *err)
{
    el_ast ast = {0};
    *out = NULL;
    el_grammar *g = calloc(1, sizeof *g);
    if (g == NULL) return el_fail(err, EL_ERR_NOMEM, "no memory for a grammar");
    g->trie = trie;
    el_status st = el_ast_parse(&ast, text, n_bytes, trie->tok, err);
    if (st == EL_OK) st = compile(g, &ast, root, err);
    el_ast_free(&ast);
    if (st != EL_OK) {
        el_grammar_free(g);
        return st == EL_ERR_NOMEM ? el_fail(err, st, "no memory for a grammar of %zu bytes", n_bytes) : st;
    }
    const el_automaton *a = &g->a;
    g->bytes = sizeof *g + a->states_capacity * sizeof *a->states + a->steps_capacity * sizeof *a->steps +
               a->calls_capacity * sizeof *a->calls + a->frames_capacity * sizeof *a->frames +
               a->tokens_capacity * sizeof *a->tokens;
    *out = g;
    return EL_OK;
}

void el_grammar_free(el_grammar *grammar)
{
    if (grammar == NULL) return;
    el_masks_free(grammar);
    el_automaton_free(&grammar->a);
    free(grammar);
}

size_t el_grammar_bytes(const el_grammar *grammar)
{
    return grammar->bytes + atomic_load(&((el_grammar *)(uintptr_t)grammar)->mask_bytes);
}
