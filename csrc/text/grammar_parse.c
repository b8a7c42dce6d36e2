/* GBNF, as llama.cpp's guide to grammars describes it, to a tree. The text is hostile: everything is bounded. */
#include "text/grammar_parse.h"

#include <string.h>

#include "core/error.h"

enum { MAX_POSTFIX = 8 };

el_status el_ast_fail(const el_ast *ast, size_t at, uint32_t rule, el_error *err, const char *message,
                      const char *detail, size_t detail_bytes)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at && i < ast->text_bytes; i++) {
        if (ast->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    char owner[80] = "";
    if (rule != EL_NONE) {
        el_error name = {{0}};
        const el_rule *r = &ast->rules[rule];
        (void)el_fail(&name, EL_OK, ", rule '%.*s'", (int)(r->name_bytes < 60 ? r->name_bytes : 60),
                      ast->text + r->name);
        memcpy(owner, name.text, sizeof owner - 1);
    }
    if (detail_bytes > 80) detail_bytes = 80;
    return el_fail(err, EL_ERR_FORMAT, "line %zu, column %zu%s: %s%.*s", line, at - start + 1, owner, message,
                   (int)detail_bytes, detail);
}

el_status el_gbnf_fail(const el_gbnf *p, size_t at, const char *message)
{
    return el_ast_fail(p->ast, at, p->rule, p->err, message, "", 0);
}

static bool is_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static void skip_space(el_gbnf *p, bool newlines)
{
    for (int c = el_gbnf_peek(p); c >= 0; c = el_gbnf_peek(p)) {
        if (c == '#') {
            while (el_gbnf_peek(p) >= 0 && el_gbnf_peek(p) != '\n' && el_gbnf_peek(p) != '\r') p->pos++;
        } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
            p->pos++;
        } else {
            return;
        }
    }
}

el_status el_gbnf_add(el_gbnf *p, el_node node, uint32_t *out)
{
    el_ast *ast = p->ast;
    if (ast->n_nodes >= EL_GRAMMAR_NODES) return el_gbnf_fail(p, p->pos, "the grammar is too large");
    el_node *nodes = el_grown(ast->nodes, &ast->nodes_capacity, ast->n_nodes + 1, sizeof *nodes);
    if (nodes == NULL) return EL_ERR_NOMEM;
    ast->nodes = nodes;
    node.next = EL_NONE;
    *out = (uint32_t)ast->n_nodes;
    nodes[ast->n_nodes++] = node;
    return EL_OK;
}

static el_status read_number(el_gbnf *p, uint32_t *out)
{
    const size_t at = p->pos;
    uint32_t value = 0;
    for (int c = el_gbnf_peek(p); c >= '0' && c <= '9'; c = el_gbnf_peek(p)) {
        value = value * 10 + (uint32_t)(c - '0');
        if (value > EL_GRAMMAR_COUNT) return el_gbnf_fail(p, at, "a number over 1048576");
        p->pos++;
    }
    if (p->pos == at) return el_gbnf_fail(p, at, "a number was expected");
    *out = value;
    return EL_OK;
}

/* `<[id]>` or `<text>`. */
static el_status read_token(el_gbnf *p, uint32_t *out)
{
    const size_t at = p->pos;
    uint32_t id = EL_NONE;
    const char *text = p->ast->text;
    const char *close = memchr(text + at, '>', p->ast->text_bytes - at);
    if (close == NULL) return el_gbnf_fail(p, at, "'<' without '>'");
    if (close - (text + at) >= 2 && text[at + 1] == '[') {
        p->pos = at + 2;
        const el_status st = read_number(p, &id);
        if (st != EL_OK) return st;
        if (el_gbnf_peek(p) != ']' || text + p->pos + 1 != close)
            return el_gbnf_fail(p, at, "a token id is written <[id]>");
        if (p->tok != NULL && el_tokenizer_type(p->tok, (int32_t)id) == 0) {
            return el_gbnf_fail(p, at, "a token id that the vocabulary does not have");
        }
    } else {
        const int32_t found =
            p->tok == NULL ? -1
                           : el_tokenizer_find_special(p->tok, text + at, (size_t)(close + 1 - (text + at)));
        if (found < 0) return el_gbnf_fail(p, at, "no special token of the vocabulary has this text");
        id = (uint32_t)found;
    }
    p->pos = (size_t)(close + 1 - text);
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_TOKEN, .first = id}, out);
}

static void name_here(el_gbnf *p, size_t *at, size_t *bytes)
{
    *at = p->pos;
    while (is_name(el_gbnf_peek(p))) p->pos++;
    *bytes = p->pos - *at;
}

uint32_t el_ast_find(const el_ast *ast, const char *name, size_t name_bytes)
{
    uint32_t node = 0;
    for (size_t i = 0; i < name_bytes && node != EL_NONE && ast->n_names > 0; i++) {
        node = ast->names[node].child;
        while (node != EL_NONE && ast->names[node].byte != (uint8_t)name[i]) node = ast->names[node].sibling;
    }
    return node == EL_NONE || ast->n_names == 0 ? EL_NONE : ast->names[node].rule;
}

static el_status add_name(el_ast *ast, uint32_t parent, uint8_t byte, uint32_t *out)
{
    el_name_node *names = el_grown(ast->names, &ast->names_capacity, ast->n_names + 1, sizeof *names);
    if (names == NULL) return EL_ERR_NOMEM;
    ast->names = names;
    *out = (uint32_t)ast->n_names;
    names[ast->n_names++] = (el_name_node){byte, EL_NONE, EL_NONE, EL_NONE};
    if (parent != EL_NONE) {
        names[*out].sibling = names[parent].child;
        names[parent].child = *out;
    }
    return EL_OK;
}

/* The rule of a name, which is added where it is new. */
static el_status rule_of(el_gbnf *p, size_t at, size_t bytes, uint32_t *out)
{
    el_ast *ast = p->ast;
    el_status st = EL_OK;
    uint32_t node = 0;
    if (bytes > 1024) return el_gbnf_fail(p, at, "a name of more than 1024 bytes");
    if (ast->n_names == 0) st = add_name(ast, EL_NONE, 0, &node);
    for (size_t i = 0; i < bytes && st == EL_OK; i++) {
        const uint8_t byte = (uint8_t)ast->text[at + i];
        uint32_t child = ast->names[node].child;
        while (child != EL_NONE && ast->names[child].byte != byte) child = ast->names[child].sibling;
        if (child == EL_NONE) st = add_name(ast, node, byte, &child);
        node = child;
    }
    if (st != EL_OK) return st;
    *out = ast->names[node].rule;
    if (*out != EL_NONE) return EL_OK;

    if (ast->n_rules >= EL_GRAMMAR_RULES) return el_gbnf_fail(p, at, "more than 65536 rules");
    el_rule *rules = el_grown(ast->rules, &ast->rules_capacity, ast->n_rules + 1, sizeof *rules);
    if (rules == NULL) return EL_ERR_NOMEM;
    ast->rules = rules;
    *out = ast->names[node].rule = (uint32_t)ast->n_rules;
    rules[ast->n_rules++] = (el_rule){(uint32_t)at, (uint32_t)bytes, EL_NONE, (uint32_t)at};
    return EL_OK;
}

static el_status read_name(el_gbnf *p, uint32_t *out)
{
    size_t at, bytes;
    uint32_t rule;
    name_here(p, &at, &bytes);
    const el_status st = rule_of(p, at, bytes, &rule);
    if (st != EL_OK) return st;
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_RULE, .first = rule}, out);
}

static el_status read_choice(el_gbnf *p, bool nested, uint32_t *out);

static el_status read_group(el_gbnf *p, uint32_t *out)
{
    const size_t at = p->pos;
    if (++p->groups > EL_GRAMMAR_GROUPS) return el_gbnf_fail(p, at, "more than 200 groups within each other");
    p->pos++;
    skip_space(p, true);
    const el_status st = read_choice(p, true, out);
    if (st != EL_OK) return st;
    if (el_gbnf_peek(p) != ')') return el_gbnf_fail(p, at, "'(' without ')'");
    p->pos++;
    p->groups--;
    return EL_OK;
}

/* One element, or EL_NONE where none starts here. */
static el_status read_item(el_gbnf *p, uint32_t *out)
{
    const int c = el_gbnf_peek(p);
    *out = EL_NONE;
    if (c == '"') return el_gbnf_literal(p, out);
    if (c == '[') return el_gbnf_class(p, out);
    if (c == '(') return read_group(p, out);
    if (c == '.') return el_gbnf_any(p, out);
    if (c == '<') return read_token(p, out);
    if (is_name(c)) return read_name(p, out);
    if (c == '!') return el_gbnf_fail(p, p->pos, "negated tokens are not supported");
    if (c == '*' || c == '+' || c == '?' || c == '{') {
        return el_gbnf_fail(p, p->pos, "a repetition of nothing");
    }
    return EL_OK;
}

/* `{m}`, `{m,}` or `{m,n}`, behind the brace. */
static el_status read_bounds(el_gbnf *p, bool nested, uint32_t *min, uint32_t *max)
{
    const size_t at = p->pos;
    skip_space(p, nested);
    el_status st = read_number(p, min);
    if (st != EL_OK) return st;
    skip_space(p, nested);
    *max = *min;
    if (el_gbnf_peek(p) == ',') {
        p->pos++;
        skip_space(p, nested);
        *max = EL_NONE;
        if (el_gbnf_peek(p) != '}') st = read_number(p, max);
        if (st != EL_OK) return st;
        skip_space(p, nested);
    }
    if (el_gbnf_peek(p) != '}') return el_gbnf_fail(p, at, "'{' without '}'");
    p->pos++;
    if (*max < *min) return el_gbnf_fail(p, at, "a repetition with more at least than at most");
    return EL_OK;
}

/* What follows an element: any of * + ? {m,n}. */
static el_status read_postfix(el_gbnf *p, bool nested, uint32_t *node)
{
    for (int count = 0;; count++) {
        skip_space(p, nested);
        const int c = el_gbnf_peek(p);
        uint32_t min = c == '+', max = c == '?' ? 1 : EL_NONE;
        if (c != '*' && c != '+' && c != '?' && c != '{') return EL_OK;
        if (count == MAX_POSTFIX)
            return el_gbnf_fail(p, p->pos, "a repetition of a repetition of a repetition ...");
        p->pos++;
        el_status st = c == '{' ? read_bounds(p, nested, &min, &max) : EL_OK;
        if (st != EL_OK) return st;
        const el_node repeat = {.kind = EL_NODE_REPEAT, .first = *node, .min = min, .max = max};
        st = el_gbnf_add(p, repeat, node);
        if (st != EL_OK) return st;
    }
}

static el_status read_sequence(el_gbnf *p, bool nested, uint32_t *out)
{
    uint32_t last = EL_NONE, item;
    el_status st = el_gbnf_add(p, (el_node){.kind = EL_NODE_SEQUENCE, .first = EL_NONE}, out);
    while (st == EL_OK) {
        st = read_item(p, &item);
        if (st != EL_OK || item == EL_NONE) break;
        st = read_postfix(p, nested, &item);
        if (st != EL_OK) break;
        if (last == EL_NONE) {
            p->ast->nodes[*out].first = item;
        } else {
            p->ast->nodes[last].next = item;
        }
        last = item;
    }
    return st;
}

static el_status read_choice(el_gbnf *p, bool nested, uint32_t *out)
{
    uint32_t first, last, item;
    el_status st = read_sequence(p, nested, &first);
    *out = last = first;
    while (st == EL_OK && el_gbnf_peek(p) == '|') {
        p->pos++;
        skip_space(p, true);
        st = read_sequence(p, nested, &item);
        if (st != EL_OK) break;
        p->ast->nodes[last].next = item;
        last = item;
    }
    if (st != EL_OK || last == first) return st;
    return el_gbnf_add(p, (el_node){.kind = EL_NODE_CHOICE, .first = first}, out);
}

static el_status read_rule(el_gbnf *p)
{
    size_t at, bytes;
    uint32_t rule, node;
    p->rule = EL_NONE;
    name_here(p, &at, &bytes);
    if (bytes == 0) return el_gbnf_fail(p, at, "the name of a rule was expected");
    el_status st = rule_of(p, at, bytes, &rule);
    if (st != EL_OK) return st;
    skip_space(p, false);
    const bool defines = p->ast->text_bytes - p->pos >= 3 && memcmp(p->ast->text + p->pos, "::=", 3) == 0;
    if (!defines) return el_gbnf_fail(p, p->pos, "'::=' was expected");
    p->pos += 3;
    p->rule = rule;
    if (p->ast->rules[rule].node != EL_NONE) return el_gbnf_fail(p, at, "the rule is defined twice");
    p->ast->rules[rule].at = (uint32_t)at;

    skip_space(p, true);
    st = read_choice(p, false, &node);
    if (st != EL_OK) return st;
    p->ast->rules[rule].node = node;
    const int c = el_gbnf_peek(p);
    if (c >= 0 && c != '\n' && c != '\r') return el_gbnf_fail(p, p->pos, "unexpected text in a rule");
    skip_space(p, true);
    return EL_OK;
}

el_status el_ast_parse(el_ast *ast, const char *text, size_t text_bytes, const el_tokenizer *tok,
                       el_error *err)
{
    if (text_bytes > EL_GRAMMAR_TEXT_BYTES) {
        return el_fail(err, EL_ERR_FORMAT, "a grammar of %zu bytes is too large", text_bytes);
    }
    ast->text = text;
    ast->text_bytes = text_bytes;
    el_gbnf p = {.ast = ast, .tok = tok, .rule = EL_NONE, .err = err};
    skip_space(&p, true);
    el_status st = EL_OK;
    while (st == EL_OK && el_gbnf_peek(&p) >= 0) st = read_rule(&p);
    if (st == EL_ERR_NOMEM) return el_fail(err, st, "no memory for a grammar of %zu bytes", text_bytes);
    return st;
}

void el_ast_free(el_ast *ast)
{
    free(ast->nodes);
    free(ast->ranges);
    free(ast->bytes);
    free(ast->rules);
    free(ast->names);
    *ast = (el_ast){0};
}
