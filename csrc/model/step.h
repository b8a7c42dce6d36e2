/* One step through the layers: what forward.c and attend.c share. */
#ifndef EL_MODEL_STEP_H
#define EL_MODEL_STEP_H

#include "model/model.h"

/// The tokens of all segments on their way through the layers, one row each.
typedef struct el_step {
    el_model *m;
    const el_segment *segments;
    size_t count;
    size_t rows;
    size_t logit_rows;  ///< those listed in scratch.logit_row
    bool hidden;        ///< some row has a place for its hidden state
    float *logits;      ///< (logit_rows, vocab)
    size_t unit;        ///< tiles of q, k and v that a thread takes at once
} el_step;

/// A place in the list of attention's query rows: units are (segment, key-value head), and the rows of one
/// are token after token, head of the group after head.
typedef struct el_place {
    size_t unit;
    size_t row;
} el_place;

/// Query rows from one place to before another.
typedef struct el_share {
    el_place from, to;
} el_share;

/// A thread's place in a step.
typedef struct el_lane {
    const el_step *step;
    size_t thread;
    size_t threads;
    el_share all, windowed;  ///< its query rows in layers that see everything, and in those with a window
} el_lane;

/// A thread's share of attention where rows see `window` positions at most; SIZE_MAX for all.
el_share el_attend_share(const el_step *step, size_t window, size_t thread, size_t threads);

/// Write this thread's columns [first, last) of the keys, or of the values, of every row to the cache.
void el_store_keys(const el_lane *at, size_t layer, size_t first, size_t last);
void el_store_values(const el_lane *at, size_t layer, size_t first, size_t last);

/// Attention over the cache for this thread's query rows. With `q8` the results are rounded to
/// scratch.act too, which needs a head size that EL_BLOCK divides.
void el_attend(const el_lane *at, size_t layer, bool q8);

#endif
