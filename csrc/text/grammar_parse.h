/* Reading GBNF: what the reader of characters and the reader of rules share. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_PARSE_H
#define EL_TEXT_GRAMMAR_PARSE_H

#include "text/grammar_ast.h"

typedef struct el_gbnf {
    el_ast *ast;
    const el_tokenizer *tok;
    size_t pos;
    uint32_t rule;  // being defined, or EL_NONE
    uint32_t groups;
    el_error *err;
} el_gbnf;

/// The byte at `pos`, or -1 at the end.
static inline int el_gbnf_peek(const el_gbnf *p)
{
    return p->pos < p->ast->text_bytes ? (uint8_t)p->ast->text[p->pos] : -1;
}

/// EL_ERR_FORMAT with the place in front.
el_status el_gbnf_fail(const el_gbnf *p, size_t at, const char *message);

/// A node by itself; its index through `out`.
el_status el_gbnf_add(el_gbnf *p, el_node node, uint32_t *out);

/// `"..."`, `[...]` and `.`: each starts at `pos` and becomes a node.
el_status el_gbnf_literal(el_gbnf *p, uint32_t *out);
el_status el_gbnf_class(el_gbnf *p, uint32_t *out);
el_status el_gbnf_any(el_gbnf *p, uint32_t *out);

#endif
