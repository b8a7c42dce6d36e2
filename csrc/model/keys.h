/* Reading the metadata of a model, whose keys start with its architecture. */
#ifndef EL_MODEL_KEYS_H
#define EL_MODEL_KEYS_H

#include "edgellm/gguf.h"

/// Entry `<arch>.<field>`; NULL if absent.
const el_gguf_kv *el_key_find(const el_gguf *gguf, const char *arch, const char *field);

/// An integer within bounds. EL_ERR_FORMAT names the key.
el_status el_key_u32(const el_gguf *gguf, const char *arch, const char *field, uint32_t min, uint32_t max,
                     uint32_t *out, el_error *err);

/// As el_key_u32, but an absent key leaves *out as it is.
el_status el_key_u32_or(const el_gguf *gguf, const char *arch, const char *field, uint32_t min, uint32_t max,
                        uint32_t *out, el_error *err);

/// A positive number below 1e30; an absent key leaves *out as it is.
el_status el_key_f32_or(const el_gguf *gguf, const char *arch, const char *field, float *out, el_error *err);

/// A string; an absent key leaves *out as it is.
el_status el_key_string_or(const el_gguf *gguf, const char *arch, const char *field, el_view *out,
                           el_error *err);

/// Whether a view is this text.
bool el_view_equals(el_view view, const char *text);

#endif
