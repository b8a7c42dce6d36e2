/* Talking to the model in an edge image, with the caller's memory and without any allocation.
 * What the desktop and the microcontroller example share. */
#ifndef EL_EXAMPLES_TALK_H
#define EL_EXAMPLES_TALK_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/edge.h"
#include "edgellm/sampler.h"

typedef struct talk_options {
    const char *prompt;
    size_t max_tokens;   ///< of the answer
    size_t context;      ///< positions of the cache; 0 for what the model was trained for
    size_t micro_batch;  ///< tokens of the prompt evaluated together; more is faster and takes more memory
    size_t isa;          ///< index of el_isa_find
    el_pool *pool;       ///< NULL: this thread alone
    uint64_t seed;
    el_sampler_params sampling;
} talk_options;

/// What came of it. `hash` is FNV-1a over all logits that chose a token: the same on every machine.
typedef struct talk_result {
    size_t prompt_tokens;
    size_t tokens;
    uint64_t hash;
} talk_result;

/// Takes a piece of the answer: not NUL-terminated, and maybe only part of a UTF-8 character.
typedef void talk_out_fn(void *to, const char *text, size_t bytes);

/// Bytes of memory that `talk` needs for these options.
el_status talk_plan(uint64_t *needed, const el_edge *edge, const talk_options *options, el_error *err);

/// Answer the prompt until the model ends its turn, max_tokens are made or the context is full.
///
/// @param[in] memory  at least what talk_plan said, at a multiple of 64; its contents do not matter
/// A model that knows "<|im_start|>" gets the prompt as a user's message, any other as text to go on with.
el_status talk(const el_edge *edge, const talk_options *options, void *memory, uint64_t bytes,
               talk_out_fn *out, void *to, talk_result *result, el_error *err);

#endif
