/* Reading many tokens from one place: sets of stacks by number, with their steps remembered. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_LOCAL_H
#define EL_TEXT_GRAMMAR_LOCAL_H

#include "text/grammar_stacks.h"

#define EL_LOCAL_SETS (1u << 14)

enum { EL_LOCAL_DEAD = 0 };  ///< the set of no stacks, from which nothing is read

/// Rounds of the open loop that are over, and cost to the end of the round that runs.
typedef struct el_rounds {
    uint32_t rounds, cost;
} el_rounds;

typedef struct el_local_set {
    uint32_t top, n;  // in `tops`
    uint32_t ways, n_ways;  // in `ways`: what a token that ends here leaves to do; none if it cannot end here
    bool complete;  // the frame below is reached
    uint64_t exits[5];
    uint32_t next;  // of the same hash
} el_local_set;

typedef struct el_local {
    el_stacks stacks;
    el_set scratch;
    el_local_set *sets;
    size_t n_sets, sets_capacity;
    el_top *tops;
    size_t n_tops, tops_capacity;
    el_rounds *ways;
    size_t n_ways, ways_capacity;
    uint32_t *steps;  // (n_sets, 256) set, or EL_NONE where it is not known yet
    size_t steps_capacity;
    uint32_t buckets[256];
} el_local;

/// `local` is zeroed before; free it also after a failure.
el_status el_local_init(el_local *local, const el_automaton *a);
void el_local_free(el_local *local);

/// The number of the set in `scratch`.
el_status el_local_number(el_local *local, uint32_t *out);

/// The set after a byte.
el_status el_local_step(el_local *local, uint32_t from, uint8_t byte, uint32_t *to);

#endif
