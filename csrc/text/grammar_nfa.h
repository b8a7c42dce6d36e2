/* One part of a grammar as a nondeterministic automaton: between its text and its states. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_NFA_H
#define EL_TEXT_GRAMMAR_NFA_H

#include "text/grammar_ast.h"

typedef enum el_arc_kind {
    EL_ARC_FREE,  ///< reads nothing
    EL_ARC_BYTES,  ///< reads a byte low..high
    EL_ARC_PART,  ///< reads part `part` min..max times
    EL_ARC_TOKEN  ///< reads the token `part`
} el_arc_kind;

typedef struct el_arc {
    el_arc_kind kind;
    uint8_t low, high;
    uint32_t part, min, max;
    uint32_t to;
    uint32_t next;  // of the same node, or EL_NONE
} el_arc;

/// The parts of a grammar that are compiled by themselves: rules too large to be written out where they are
/// used, and what is repeated a counted number of times.
typedef struct el_parts {
    const el_ast *ast;
    const uint8_t *nullable;  // (n_nodes,)
    uint32_t *nodes;  // (n,) the node that each part derives
    size_t n, capacity;
    uint32_t *of_node;  // (n_nodes,) part, or EL_NONE
} el_parts;

typedef struct el_nfa {
    uint32_t *heads;  // (n_nodes,) first arc, or EL_NONE
    size_t n_nodes, heads_capacity;
    el_arc *arcs;
    size_t n_arcs, arcs_capacity;
    uint32_t *tails;  // of a character class: nodes from which the same bytes end it
    size_t n_tails, tails_capacity;
    uint32_t start, end;
} el_nfa;

/// The part that derives `node`, added where it is new.
el_status el_parts_take(el_parts *parts, uint32_t node, uint32_t *part);

/// The automaton of one part; parts that it needs are added. Keeps the memory of `nfa` for the next.
el_status el_nfa_build(el_nfa *nfa, el_parts *parts, uint32_t node);
void el_nfa_free(el_nfa *nfa);

#endif
