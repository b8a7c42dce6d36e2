/* Sets of stacks over an automaton: how a text, or one token, is read. Private to csrc/text. */
#ifndef EL_TEXT_GRAMMAR_STACKS_H
#define EL_TEXT_GRAMMAR_STACKS_H

#include "text/grammar_automaton.h"

#define EL_TOKEN_BYTES 255u        ///< longer tokens are never allowed
#define EL_GRAMMAR_STACKS 512u     ///< in one set
#define EL_GRAMMAR_FRAMES (1u << 24)

/// A frame and all below it: equal stacks share their frames, and equal frames are one.
typedef struct el_frame {
    uint32_t kind;
    uint32_t done;   // rounds of a loop that are over
    uint32_t below;  // frame, 0 is the bottom
    uint32_t cost;   // of everything from here down
    uint32_t next;   // of the same hash, an older one, or EL_NONE
} el_frame;

/// One stack.
typedef struct el_top {
    uint32_t state, frame;
} el_top;

typedef struct el_stacks {
    const el_automaton *a;
    el_frame *frames;
    size_t n_frames, capacity;
    uint32_t *buckets;  // (n_buckets,) newest frame of a hash
    size_t n_buckets;
    uint32_t open;      // kind of frame at the bottom whose rounds have no bounds (masks), or EL_NONE
} el_stacks;

/// Stacks that a text has led to. Those on which nothing can be read are not kept.
typedef struct el_set {
    el_top *tops;
    size_t n, capacity;
    bool complete;      // one of them has come to its bottom
    uint64_t exits[5];  // rounds after which the open loop may be left here, bit by bit
} el_set;

/// A bottom and nothing else. `s` is zeroed before; free it also after a failure.
el_status el_stacks_init(el_stacks *s, const el_automaton *a);
void el_stacks_free(el_stacks *s);

/// The frame of this kind on top of `below`.
el_status el_stacks_push(el_stacks *s, uint32_t kind, uint32_t done, uint32_t below, uint32_t *out);

/// Forget the frames from `n_frames` on.
void el_stacks_truncate(el_stacks *s, size_t n_frames);

/// `to` becomes the stacks that are there after `byte`. EL_ERR_CONTEXT for more stacks, or frames, than a cap.
el_status el_stacks_step(el_stacks *s, const el_top *tops, size_t n, uint8_t byte, el_set *to);

/// Add to `to`, without settling it, where the stack goes over a token that the grammar names.
el_status el_stacks_name(el_stacks *s, el_top top, uint32_t id, el_set *to);

/// Add a stack to a set, then el_stacks_settle: what has come to its end goes on below.
el_status el_stacks_add(const el_stacks *s, el_set *set, uint32_t state, uint32_t frame);
el_status el_stacks_settle(el_stacks *s, el_set *set);

/// Least cost of one stack.
static inline uint32_t el_stacks_cost(const el_stacks *s, el_top top)
{
    return el_cost_add(s->a->states[top.state].cost, s->frames[top.frame].cost);
}

#endif
