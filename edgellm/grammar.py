"""Constrained decoding: texts that follow a grammar or a JSON schema, whatever the model would rather say.

`from_gbnf` takes a grammar in llama.cpp's notation and gives a `Grammar`, which is compiled once for a
vocabulary and shared by any number of texts and threads. A `Matcher` follows one text:

    matcher = grammar.matcher()
    matcher.mask(logits, tokens_left=100)   # what may not come next becomes -inf
    matcher.accept(token_id)

A text that stops where the matcher is `complete` is in the grammar and valid UTF-8, and with `tokens_left` it
gets there in time.
"""

from __future__ import annotations

from edgellm._core import Grammar, GrammarError, Matcher, Tokenizer

__all__ = ["Grammar", "GrammarError", "Matcher", "from_gbnf"]


def from_gbnf(tokenizer: Tokenizer, text: str, root: str = "root") -> Grammar:
    """Compile a grammar in GBNF, the notation of llama.cpp.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose tokens the texts are made of: `model.tokenizer`.
    text : str
        Rules, one `name ::= expression` each.
    root : str
        The rule that a whole text follows.

    Returns
    -------
    Grammar
        Immutable; `grammar.matcher()` starts a text.

    Raises
    ------
    GrammarError
        With line, column and rule: a syntax error, an undefined rule, left recursion (the cycle is named), a
        rule that can never end, a grammar that explodes, a byte that every text needs and no token has.

    Notes
    -----
    Source: the guide to GBNF in llama.cpp, `grammars/README.md`.

    Examples
    --------
    >>> letters = Tokenizer([*"abc", "<end>"], [1, 1, 1, 3], [], "gpt-2", eos=3)
    >>> matcher = from_gbnf(letters, 'root ::= "a" [bc]').matcher()
    >>> matcher.accept(0)
    >>> matcher.complete, matcher.shortest, matcher.forced(9)
    (False, 1, [])
    >>> matcher.accept(0)
    Traceback (most recent call last):
    edgellm.GrammarError: token 0, 'a', is not allowed here
    """
    return Grammar(tokenizer, text, root)
