#ifndef EDGELLM_VOCAB_H
#define EDGELLM_VOCAB_H

#include "edgellm/gguf.h"
#include "edgellm/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Build the tokenizer that a GGUF's `tokenizer.ggml.*` keys describe. Everything is copied.
/// EL_ERR_FORMAT names the key that is wrong; other errors as el_tokenizer_new.
el_status el_tokenizer_from_gguf(el_tokenizer **out, const el_gguf *gguf, el_error *err);

#ifdef __cplusplus
}
#endif

#endif
