/* Rotary positions: what a file states of them, the frequencies, and the rotation itself. */
#ifndef EL_MODEL_ROPE_H
#define EL_MODEL_ROPE_H

#include "edgellm/model.h"
#include "model/family.h"
#include "model/step.h"

/// The rope fields of a configuration whose heads and context are known; those of windows come after.
el_status el_rope_config(el_config *config, const el_family *family, const el_gguf *gguf, el_error *err);

/// Tables of frequencies: one, and a second for layers with a window or for long sessions; 0 without rotation.
size_t el_rope_tables(const el_config *config);

/// Tables that one session uses, which differ between layers: those of scratch.cs.
size_t el_rope_kinds(const el_config *config);

/// Whether the file's tensor of this name belongs to the frequencies.
bool el_rope_owns(const el_config *config, el_view name);

/// Frequencies, divided by the file's factors where it has them: (el_rope_tables, rope_dims / 2).
el_status el_rope_load(const el_config *config, const el_gguf *gguf, const el_source *source,
                       double *inv_freq, el_error *err);

/// Whether positions times f stay where el_sincos is defined; false for NaN.
bool el_rope_frequency_ok(double f);

/// Fill scratch.cs for one row.
void el_rope_angles(const el_model *model, size_t row);

/// Rotate this thread's columns [first, last) of the queries, or of the keys, of every row.
void el_rotate(const el_lane *at, size_t layer, float *x, size_t heads, size_t first, size_t last);

#endif
