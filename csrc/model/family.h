/* What tells the families of decoders apart: one row of a table each, read by everything else here. */
#ifndef EL_MODEL_FAMILY_H
#define EL_MODEL_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgellm/status.h"

/// Whether a family's files have a tensor.
typedef enum el_need { EL_NEVER, EL_MAYBE, EL_ALWAYS } el_need;

/// What stands between the first products of the feed-forward part and the last.
typedef enum el_ffn {
    EL_FFN_SWIGLU,  ///< silu(gate) * up
    EL_FFN_GEGLU,   ///< gelu_tanh(gate) * up
    EL_FFN_GELU     ///< gelu_tanh(up); there is no gate
} el_ffn;

typedef struct el_family {
    const char *name;      ///< general.architecture
    const char *norm_eps;  ///< key of the epsilon of its norms
    el_ffn ffn;
    el_need qkv_bias, out_bias, ffn_bias;
    bool halves;            ///< a head's rotated values are two halves in the file, not neighbours
    bool layer_norm;        ///< with bias; otherwise rms_norm
    bool head_norm;         ///< each head of queries and keys is normalised before it is rotated
    bool post_norm;         ///< what attention and feed-forward give is normalised before it is added
    bool fused_gate;        ///< the rows of ffn_up are those of the gate, then the others
    bool positions;         ///< learned positions are added to the embedding; nothing is rotated
    bool scaled_embedding;  ///< by sqrt(width)
    uint32_t window_pattern;  ///< of el_config, where the file states a window and no pattern
    float local_base;         ///< el_config.rope_local_base of models with a window; 0 for none
    uint32_t width_scale_layers;  ///< scores are scaled by width / heads in models of so many layers; 0: none
} el_family;

/// The family of this name, of `size` bytes; NULL if there is none.
const el_family *el_family_find(const char *name, size_t size);

/// EL_ERR_UNSUPPORTED that names what was asked for and what there is.
el_status el_family_unknown(const char *name, size_t size, el_error *err);

#endif
