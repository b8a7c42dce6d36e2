/* Tokenizers, byte-level BPE and SentencePiece: text to token ids and back. Thread-safe: a built one never changes. */
#ifndef EDGELLM_TOKENIZER_H
#define EDGELLM_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"
#include "edgellm/view.h"

EL_API_BEGIN

typedef struct el_tokenizer el_tokenizer;

/// Memory for a tokenizer that uses the tables of an image in place; opaque.
typedef struct el_tokenizer_place {
    uint64_t words[40];
} el_tokenizer_place;

/// GGUF's `tokenizer.ggml.token_type`.
enum {
    EL_TOKEN_NORMAL = 1,
    EL_TOKEN_UNKNOWN = 2,
    EL_TOKEN_CONTROL = 3,
    EL_TOKEN_USER_DEFINED = 4,
    EL_TOKEN_UNUSED = 5,
    EL_TOKEN_BYTE = 6
};

/// What a model file says about its vocabulary. Everything is copied; nothing is trusted.
typedef struct el_vocab_source {
    el_view
        model;  ///< `tokenizer.ggml.model`: "gpt2" (byte-level BPE), "llama" or "t5" (SentencePiece: BPE, unigram)
    el_view pre;  ///< `tokenizer.ggml.pre`, of BPE only; empty means "default"
    const el_view *tokens;  ///< (n_tokens,) texts; normal ones of BPE in GPT-2's byte alphabet, UTF-8
    size_t n_tokens;
    const int32_t *types;  ///< (n_tokens,) EL_TOKEN_*, or NULL: all normal
    const float *scores;  ///< (n_tokens,) finite, or NULL: all 0; not of BPE
    const el_view *merges;  ///< (n_merges,) "left right", best first; of BPE only
    size_t n_merges;
    int32_t bos, eos, eot, unk, pad;  ///< ids, or -1 where the file has none
    int add_bos, add_eos;  ///< 0, 1, or -1: the habit of its kind (llama and llama-bpe add BOS, t5 adds EOS)
    int add_space_prefix;  ///< 0, 1, or -1: the habit (only llama does); whether a text is encoded with a space in front
    int remove_extra_whitespaces;  ///< 1: no spaces at both ends, and no two in a row; not of BPE
    el_view charsmap;  ///< `tokenizer.ggml.precompiled_charsmap`, the normaliser; may be empty; not of BPE
    int strip_after_special;  ///< 1: special tokens but <unk>, <s> and <|endoftext|> take in the spaces after them
} el_vocab_source;

/// Facts about a built tokenizer.
typedef struct el_tokenizer_info {
    size_t n_tokens;
    size_t memory_bytes;  ///< heap bytes it holds
    int32_t bos, eos, eot, unk, pad;  ///< -1 where absent
    int add_bos, add_eos;  ///< 0 or 1
    int remove_extra_whitespaces;  ///< 0 or 1
    int add_space_prefix;  ///< 0 or 1: a text, and what follows a special token, is encoded with a space in front
} el_tokenizer_info;

/// Flags of el_tokenizer_encode.
enum {
    EL_ENCODE_ADD_SPECIAL = 1u,  ///< add BOS and EOS where the vocabulary asks for them
    EL_ENCODE_PARSE_SPECIAL = 2u  ///< texts of control tokens in the input become those tokens
};

/// Build a tokenizer. `*out` is NULL on failure.
///
/// EL_ERR_UNSUPPORTED names a model or pre-tokenizer that we do not have; EL_ERR_FORMAT a vocabulary that
/// contradicts itself (a merge of texts that are no tokens, an id out of range); EL_ERR_ARG a NULL array
/// with a count; EL_ERR_NOMEM. Time O(bytes log n), whatever the bytes.
el_status el_tokenizer_new(el_tokenizer **out, const el_vocab_source *source, el_error *err);

/// Accepts NULL.
void el_tokenizer_free(el_tokenizer *tok);

/// Most ids that a text of `n_bytes` bytes can have: n_bytes + 2 of byte-level BPE. SIZE_MAX beyond 2^29 bytes.
size_t el_tokenizer_max_ids(const el_tokenizer *tok, size_t n_bytes);

/// Encode `n_bytes` bytes of UTF-8; bytes that are not UTF-8 count as characters of no class, one each.
///
/// Control (and unknown) tokens are recognised only with EL_ENCODE_PARSE_SPECIAL, user-defined ones always,
/// as llama.cpp does; of several at one place the longest wins. What the vocabulary has no token for becomes
/// byte tokens if it has them, else one unknown token for all of it in a row, else nothing, as the `tokenizers`
/// package does; byte-level BPE only drops it. U+2581 in a text of SentencePiece is a space.
///
/// @param[out] ids    allocated; free with el_ids_free. NULL when n_ids is 0 or on failure
/// @param[out] n_ids  at most el_tokenizer_max_ids
/// Time O(n log n), memory O(n). EL_ERR_ARG beyond 2^29 bytes.
el_status el_tokenizer_encode(const el_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                              int32_t **ids, size_t *n_ids, el_error *err);

/// Bytes of a text from `begin` to before `end`.
typedef struct el_stretch {
    size_t begin, end;
} el_stretch;

/// As el_tokenizer_encode without EL_ENCODE_ADD_SPECIAL, of a text whose texts of control tokens become tokens only
/// where they lie wholly inside one of the stretches: a prompt of which only parts may be trusted.
///
/// @param[in] control  (n_control,) ascending, not overlapping
el_status el_tokenizer_encode_trusted(const el_tokenizer *tok, const char *text, size_t n_bytes,
                                      const el_stretch *control, size_t n_control, int32_t **ids,
                                      size_t *n_ids, el_error *err);

/// Bytes of scratch with which el_tokenizer_encode_into encodes any text of `n_bytes` bytes. Less is enough
/// for usual texts: what counts is the longest piece that no token crosses an end of (a word).
size_t el_tokenizer_scratch_bytes(const el_tokenizer *tok, size_t n_bytes);

/// As el_tokenizer_encode, into the caller's memory, with no allocation.
///
/// @param[out] ids      (capacity,); el_tokenizer_max_ids is always enough
/// @param[out] n_ids    how many were written; 0 on failure
/// @param[in]  scratch  scratch_bytes bytes, 8-byte aligned
/// EL_ERR_ARG, saying which, if `ids` or `scratch` is too small; what `ids` holds then means nothing.
el_status el_tokenizer_encode_into(const el_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                                   int32_t *ids, size_t capacity, size_t *n_ids, void *scratch,
                                   size_t scratch_bytes, el_error *err);

/// Free what el_tokenizer_encode gave; accepts NULL.
void el_ids_free(int32_t *ids);

/// Bytes that a token stands for (its raw text for control tokens), valid as long as `tok`.
/// Not NUL-terminated, and one token's bytes need not be whole UTF-8. EL_ERR_ARG if `id` is out of range.
el_status el_tokenizer_token(const el_tokenizer *tok, int32_t id, el_view *out, el_error *err);

/// EL_TOKEN_* of an id in range, else 0.
int32_t el_tokenizer_type(const el_tokenizer *tok, int32_t id);

/// Id of the special (control, unknown or user-defined) token with this text, or -1.
int32_t el_tokenizer_find_special(const el_tokenizer *tok, const char *text, size_t len);

/// 1 if generation ends at this id: EOS, EOT, or a control token known to end a turn ("<|im_end|>", ...).
int el_tokenizer_is_end(const el_tokenizer *tok, int32_t id);

void el_tokenizer_get_info(const el_tokenizer *tok, el_tokenizer_info *out);

EL_API_END

#endif
