/* Which tokens each place of a grammar allows, found once and shared by all texts. Private to csrc/text.
 *
 * What is on top of a stack decides nearly every token; a few go on below it. So a mask belongs to one level:
 *
 *   TOP(state)              tokens that stay above the first frame, and where the others have come down to it
 *   FRAME(mask, back)       of those: what goes on in the state that the frame comes back to
 *   LOOP(mask, kind)        of those: what a loop reads in further rounds, by the number of rounds
 *   LEAVE(mask, low, high)  of those: what goes on behind the loop after low..high rounds
 *
 * and so on down the stack, each with fewer tokens than the one before. A stack's mask is the union of its
 * levels, so that all stacks with a string on top share the mask of the string, however deep they are.
 *
 * The tokens of a mask stand by classes of equal cost (tokens that surely suffice to come to the frame below),
 * which is what a limit on the length of the text asks for.
 */
#ifndef EL_TEXT_GRAMMAR_MASKS_H
#define EL_TEXT_GRAMMAR_MASKS_H

#include <stdatomic.h>

#include "text/grammar_stacks.h"
#include "text/grammar_trie.h"

#define EL_MASK_BUCKETS 4096u
#define EL_MASK_BYTES ((size_t)64 << 20)  ///< kept; beyond it masks are made anew each time

typedef enum el_mask_kind { EL_MASK_TOP, EL_MASK_FRAME, EL_MASK_LOOP, EL_MASK_LEAVE } el_mask_kind;

typedef struct el_mask_key {
    el_mask_kind kind;
    uint32_t above;  // serial number of the mask that it goes on from
    uint32_t a, b;
} el_mask_key;

/// Tokens of one cost, and of one number of rounds of the loop.
typedef struct el_mask_class {
    uint32_t rounds, cost;
    size_t n;
    const int32_t *ids;    // (n,), or NULL:
    const uint64_t *bits;  // (words,)
} el_mask_class;

/// Tokens that go on below: those under `node` of the tree, after `rounds` of the loop.
typedef struct el_pending {
    uint32_t node, rounds;
} el_pending;

typedef struct el_mask {
    struct el_mask *next;  // of the same bucket
    el_mask_key key;
    uint32_t serial;
    bool kept;             // by the grammar; else by who asked for it
    uint32_t worst;        // cost and
    uint32_t most_rounds;  // rounds over all classes
    uint32_t loop;         // kind of frame (LOOP)
    const uint64_t *all;   // union of all classes, or NULL where it is cheaper to go through them
    size_t n_classes;
    const el_mask_class *classes;
    size_t n_pending;
    const el_pending *pending;  // by node
    size_t bytes;
} el_mask;

struct el_grammar {
    el_automaton a;
    const el_token_trie *trie;
    _Atomic(el_mask *) masks[EL_MASK_BUCKETS];
    atomic_size_t mask_bytes;
    atomic_uint serial;
    size_t bytes;
};

/// The mask of a key; `above` is the mask that the key names, NULL for TOP. Made if it is not there.
el_status el_mask_get(el_grammar *grammar, const el_mask *above, el_mask_kind kind, uint32_t a, uint32_t b,
                      const el_mask **out);

/// What was got and is not needed any more.
void el_mask_release(const el_mask *mask);

void el_masks_free(el_grammar *grammar);

/// Make one; `key` is complete. EL_ERR_CONTEXT where reading its tokens explodes.
el_status el_mask_make(const el_grammar *grammar, const el_mask *above, el_mask_key key, el_mask **out);

#endif
