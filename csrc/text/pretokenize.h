/* Cutting text into the pieces inside which BPE may merge. */
#ifndef EL_TEXT_PRETOKENIZE_H
#define EL_TEXT_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

#define EL_PRE_STAGES 4

/// Length, 1 to n, of the first piece of s[0, n), n > 0. Stands for one regex of a pre-tokenizer, matched in
/// a text that starts and ends where s does; what lies between two matches is a piece too.
typedef size_t el_split_fn(const uint8_t *s, size_t n);

/// A pre-tokenizer: each stage cuts the pieces of the stage before it.
typedef struct el_pre {
    const char *name;                    ///< as GGUF's tokenizer.ggml.pre has it
    el_split_fn *stages[EL_PRE_STAGES];  ///< ends at the first NULL
    int ignore_merges;  ///< a piece that is a token is that token, whatever the merges say
    int add_bos;  ///< default where the file does not say
} el_pre;

/// The pre-tokenizer of that name, or NULL.
const el_pre *el_pre_find(const char *name, size_t len);

/// Walk over the pieces of one text.
typedef struct el_pre_walk {
    const el_pre *pre;
    const uint8_t *s;
    size_t n;
    size_t pos;
    size_t ends[EL_PRE_STAGES];  ///< where the current piece of each stage ends
} el_pre_walk;

void el_pre_start(el_pre_walk *walk, const el_pre *pre, const uint8_t *s, size_t n);

/// Next piece, s[*start, *end), never empty; 0 when the text is used up. Pieces are adjacent and cover it.
int el_pre_next(el_pre_walk *walk, size_t *start, size_t *end);

#endif
