/* Constrained decoding: which tokens may come next so that a text stays within a grammar.
 *
 * A vocabulary becomes an el_token_trie, once. Grammars (GBNF, the notation of llama.cpp; docs/grammar.md) are
 * compiled for it; they never change and any number of threads may use one. An el_matcher follows one text.
 */
#ifndef EDGELLM_GRAMMAR_H
#define EDGELLM_GRAMMAR_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/status.h"
#include "edgellm/tokenizer.h"

EL_API_BEGIN

typedef struct el_token_trie el_token_trie;
typedef struct el_grammar el_grammar;
typedef struct el_matcher el_matcher;

#define EL_TOKENS_UNLIMITED SIZE_MAX

/// Sort the tokens of a vocabulary by their bytes. `tok` must outlive it. EL_ERR_NOMEM.
/// Control, unknown and unused tokens are no text and are left out, as are tokens of more than 255 bytes.
el_status el_token_trie_new(el_token_trie **out, const el_tokenizer *tok, el_error *err);
void el_token_trie_free(el_token_trie *trie);
size_t el_token_trie_bytes(const el_token_trie *trie);

/// Compile `text`, `n_bytes` bytes of GBNF, from the rule named `root` on. `trie` must outlive it.
///
/// EL_ERR_FORMAT says line, column and rule: a syntax error, an undefined rule, left recursion (with the
/// cycle), a rule that can never end, a grammar that explodes, a needed byte that no token has. EL_ERR_NOMEM.
/// Time and memory are bounded for any text.
el_status el_grammar_new(el_grammar **out, const el_token_trie *trie, const char *text, size_t n_bytes,
                         const char *root, el_error *err);
void el_grammar_free(el_grammar *grammar);

/// Bytes it holds now: the automaton, and masks that were needed so far, which are kept up to a limit.
size_t el_grammar_bytes(const el_grammar *grammar);

/// A text of no tokens. `grammar` must outlive it.
el_status el_matcher_new(el_matcher **out, el_grammar *grammar, el_error *err);
void el_matcher_free(el_matcher *matcher);

/// The same text again, which goes on by itself.
el_status el_matcher_copy(el_matcher **out, const el_matcher *matcher, el_error *err);

/// Words of el_matcher_allowed: one bit for each token of the vocabulary.
size_t el_matcher_words(const el_matcher *matcher);

/// Which tokens may come next: bit id % 64 of bits[id / 64], el_matcher_words words, all written.
///
/// `tokens_left` is how many tokens may still come, the end token not counted: tokens after which the text
/// might not be completed within them are left out. EL_TOKENS_UNLIMITED for no such limit. End tokens are
/// allowed exactly where the text is complete. EL_ERR_FORMAT if nothing is allowed, which happens only with
/// fewer tokens left than el_matcher_shortest says.
el_status el_matcher_allowed(el_matcher *matcher, size_t tokens_left, uint64_t *bits, el_error *err);

/// The same, on logits: (n_logits,) float32, where forbidden ones, and any beyond the vocabulary, become minus
/// infinity.
el_status el_matcher_mask(el_matcher *matcher, size_t tokens_left, float *logits, size_t n_logits,
                          el_error *err);

/// Go on by one token. EL_ERR_FORMAT, and nothing changes, if it is not allowed; EL_ERR_ARG for no token.
el_status el_matcher_accept(el_matcher *matcher, int32_t id, el_error *err);

/// Take back the last `n` tokens. EL_ERR_ARG if there are fewer.
el_status el_matcher_rollback(el_matcher *matcher, size_t n, el_error *err);

/// The tokens that must come next because each time only one is allowed, up to `limit` of them; the text itself
/// does not change.
/// @param[out] ids    (limit,)
/// @param[out] n_ids  how many were written
el_status el_matcher_forced(el_matcher *matcher, size_t limit, int32_t *ids, size_t *n_ids, el_error *err);

/// 1 where the text may end; where nothing but the end is possible; tokens that surely suffice to complete it.
int el_matcher_complete(const el_matcher *matcher);
int el_matcher_finished(const el_matcher *matcher);
size_t el_matcher_shortest(const el_matcher *matcher);

/// Tokens accepted and not taken back.
size_t el_matcher_length(const el_matcher *matcher);

EL_API_END

#endif
