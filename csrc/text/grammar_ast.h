/* A grammar as its text says it: rules and their expressions. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_AST_H
#define EL_TEXT_GRAMMAR_AST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "edgellm/status.h"
#include "edgellm/tokenizer.h"

#define EL_NONE UINT32_MAX       ///< no node, no rule, no upper bound of a repetition

/* What a grammar may need at most: beyond any of these it is refused by name. */
#define EL_GRAMMAR_TEXT_BYTES (16u << 20)
#define EL_GRAMMAR_RULES (1u << 16)
#define EL_GRAMMAR_NODES (1u << 22)
#define EL_GRAMMAR_GROUPS 200u       ///< parentheses within parentheses
#define EL_GRAMMAR_COUNT (1u << 20)  ///< a repetition's bound
#define EL_GRAMMAR_DEPTH 256u        ///< rules that begin with rules that begin with ...

typedef enum el_node_kind {
    EL_NODE_BYTES,     ///< literal: bytes[first, first + count)
    EL_NODE_CLASS,     ///< one character of ranges[first, first + count)
    EL_NODE_RULE,      ///< what rule `first` derives
    EL_NODE_TOKEN,     ///< the token of id `first`, whatever its bytes
    EL_NODE_SEQUENCE,  ///< the nodes of the list that starts at `first`
    EL_NODE_CHOICE,    ///< one of the nodes of that list
    EL_NODE_REPEAT     ///< node `first`, min..max times
} el_node_kind;

typedef struct el_node {
    el_node_kind kind;
    uint32_t first, count;
    uint32_t min, max;  // max: EL_NONE is no bound
    uint32_t next;      // in the list of its parent, or EL_NONE
} el_node;

/// Code points first..last, both valid characters' ends; sorted, disjoint and never adjacent in a class.
typedef struct el_range {
    uint32_t first, last;
} el_range;

typedef struct el_rule {
    uint32_t name, name_bytes;  // in `names`
    uint32_t node;              // EL_NONE while undefined
    uint32_t at;                // offset of its definition, or of its first use
} el_rule;

/// One byte of the names of rules: a tree, so that no choice of names makes a look-up slow.
typedef struct el_name_node {
    uint8_t byte;
    uint32_t child, sibling, rule;
} el_name_node;

typedef struct el_ast {
    const char *text;
    size_t text_bytes;
    el_node *nodes;
    size_t n_nodes, nodes_capacity;
    el_range *ranges;
    size_t n_ranges, ranges_capacity;
    uint8_t *bytes;
    size_t n_bytes, bytes_capacity;
    el_rule *rules;
    size_t n_rules, rules_capacity;
    el_name_node *names;
    size_t n_names, names_capacity;
} el_ast;

/// Room for `need` items of `item_bytes`, at least doubling; NULL, with `items` as it was, if memory is refused.
static inline void *el_grown(void *items, size_t *capacity, size_t need, size_t item_bytes)
{
    if (need <= *capacity) return items;
    size_t wanted = *capacity < 16 ? 16 : *capacity * 2;
    if (wanted < need) wanted = need;
    if (wanted > SIZE_MAX / item_bytes) return NULL;
    void *moved = realloc(items, wanted * item_bytes);
    if (moved != NULL) *capacity = wanted;
    return moved;
}

/// Read GBNF. `ast` is zeroed before; free it with el_ast_free also after a failure.
/// `tok` is asked for the ids of `<token>`s and may be NULL: then only `<[id]>` is known.
el_status el_ast_parse(el_ast *ast, const char *text, size_t text_bytes, const el_tokenizer *tok,
                       el_error *err);
void el_ast_free(el_ast *ast);

/// The rule of this name, or EL_NONE.
uint32_t el_ast_find(const el_ast *ast, const char *name, size_t name_bytes);

/// EL_ERR_FORMAT for a rule that is used and not defined, that can never end, or that is left-recursive.
/// @param[out] nullable  (n_nodes,) whether a node derives the empty text
el_status el_ast_check(const el_ast *ast, uint8_t *nullable, el_error *err);

/// EL_ERR_FORMAT with line, column and rule in front of the message (a printf format of one `%.*s`, or none).
el_status el_ast_fail(const el_ast *ast, size_t at, uint32_t rule, el_error *err, const char *message,
                      const char *detail, size_t detail_bytes);

#endif
