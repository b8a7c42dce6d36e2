/* A compiled grammar: one automaton over bytes whose states may call others. Private to csrc/text.
 *
 * A text is read by a set of stacks. A stack has a state on top and frames below it. A state steps over a byte,
 * or calls the start of another part of the grammar and pushes a frame that says where to go on afterwards. A
 * frame of a counted repetition also holds how many rounds are done, so {0,5000} costs one state, not 5000.
 */
#ifndef EL_TEXT_GRAMMAR_AUTOMATON_H
#define EL_TEXT_GRAMMAR_AUTOMATON_H

#include "text/grammar_ast.h"

#define EL_COST_NEVER UINT32_MAX     ///< no end can be reached
#define EL_GRAMMAR_STATES (1u << 20)
#define EL_GRAMMAR_WORK (1u << 28)   ///< elementary steps of making sets of states

/// Bytes low..high lead to state `to`.
typedef struct el_step {
    uint32_t to;
    uint8_t low, high;
} el_step;

/// From a state to the start of a part. `frame` is EL_NONE where nothing remains to be done afterwards.
typedef struct el_call {
    uint32_t start, frame;
} el_call;

/// What is pushed. Plain: go on at `back`. With a loop: the part that starts there is read min..max times.
typedef struct el_frame_kind {
    uint32_t back;
    uint32_t loop;  // start state, or EL_NONE
    uint32_t min, max;
    uint32_t next;  // of the same `back`, or EL_NONE
} el_frame_kind;

typedef struct el_token_step {
    uint32_t id, to;
} el_token_step;

typedef struct el_automaton {
    size_t n_states, states_capacity;
    struct el_state {
        uint32_t step, call, token;  // first of its steps, calls, tokens; the next state's are behind them
        uint32_t frame;              // first kind of frame that comes back here, or EL_NONE
        uint32_t cost;               // tokens that surely suffice from here to the end of its part
        uint16_t depth;              // calls within calls that can begin here
        uint8_t final;
        uint64_t first[4];           // bytes that can be read here, through calls too
    } *states;                       // (n_states + 1,)
    el_step *steps;
    size_t n_steps, steps_capacity;
    el_call *calls;
    size_t n_calls, calls_capacity;
    el_token_step *tokens;
    size_t n_tokens, tokens_capacity;
    el_frame_kind *frames;
    size_t n_frames, frames_capacity;
    uint32_t start;
    uint8_t empty;  // the empty text is complete
} el_automaton;

/// Compile the checked grammar from rule `root` on. `a` is zeroed before; free it also after a failure.
/// EL_ERR_FORMAT, naming the rule, where it would be too large. Costs are not yet known.
el_status el_automaton_build(el_automaton *a, const el_ast *ast, const uint8_t *nullable, uint32_t root,
                             el_error *err);
void el_automaton_free(el_automaton *a);

/// Fill in the costs: the least number of bytes that lead to an end, each of them one of `bytes` (256 bits).
el_status el_automaton_cost(el_automaton *a, const uint64_t bytes[4]);

static inline uint32_t el_cost_add(uint32_t a, uint32_t b)
{
    return a > EL_COST_NEVER - b ? EL_COST_NEVER : a + b;
}

/// Cost of what a frame still asks for once the round that runs has ended, `done` rounds being done before it.
static inline uint32_t el_frame_cost(const el_automaton *a, const el_frame_kind *frame, uint32_t done)
{
    const uint32_t back = a->states[frame->back].cost;
    if (frame->loop == EL_NONE || done + 1 >= frame->min) return back;
    const uint64_t rounds = (uint64_t)(frame->min - done - 1) * a->states[frame->loop].cost;
    return rounds >= EL_COST_NEVER ? EL_COST_NEVER : el_cost_add((uint32_t)rounds, back);
}

#endif
