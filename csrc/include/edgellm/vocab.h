#ifndef EDGELLM_VOCAB_H
#define EDGELLM_VOCAB_H

#include "edgellm/api.h"
#include "edgellm/gguf.h"
#include "edgellm/tokenizer.h"

EL_API_BEGIN

/// Build the tokenizer that a GGUF's `tokenizer.ggml.*` keys describe. Everything is copied.
/// EL_ERR_FORMAT names the key that is wrong; other errors as el_tokenizer_new.
el_status el_tokenizer_from_gguf(el_tokenizer **out, const el_gguf *gguf, el_error *err);

EL_API_END

#endif
