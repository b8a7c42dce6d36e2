"""Constrained decoding: texts that follow a grammar or a JSON schema, whatever the model would rather say.

`from_gbnf` takes a grammar in llama.cpp's notation, `from_json_schema` a schema; both give a `Grammar`, which
is compiled once for a vocabulary and shared by any number of texts and threads. A `Matcher` follows one text:

    matcher = grammar.matcher()
    matcher.mask(logits, tokens_left=100)   # what may not come next becomes -inf
    matcher.accept(token_id)

A text that stops where the matcher is `complete` is in the grammar and valid UTF-8, and with `tokens_left` it
gets there in time. docs/grammar.md has the notation, what of JSON schema is supported, and the costs.
"""

from __future__ import annotations

import json
from typing import Any

from edgellm._core import Grammar, GrammarError, Matcher, Tokenizer
from edgellm._json_schema import compile_schema

__all__ = ["JSON", "Grammar", "GrammarError", "Matcher", "from_gbnf", "from_json_schema", "schema_to_gbnf"]

Schema = dict[str, Any] | bool | str

JSON: Schema = True  # any value fits


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


def schema_to_gbnf(schema: Schema, *, spaces: bool = True) -> str:
    """The grammar of a JSON schema: every text of it is JSON that fits the schema.

    Parameters
    ----------
    schema : dict, bool or str
        Draft 2020-12; a str is its JSON text.
    spaces : bool
        Allow one space after each comma and colon; otherwise the texts are compact.

    Raises
    ------
    GrammarError
        With a JSON pointer: it is not JSON schema, nothing fits it, or it asserts what no grammar holds.

    Examples
    --------
    >>> print(schema_to_gbnf({"enum": ["yes", 1]}), end="")
    root ::= "\\"yes\\"" | "1"
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise GrammarError(f"#: the schema is not JSON: {error}") from None
    return compile_schema(schema, spaces=spaces)


def from_json_schema(tokenizer: Tokenizer, schema: Schema, *, spaces: bool = True) -> Grammar:
    """Compile a JSON schema for a vocabulary.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose tokens the texts are made of: `model.tokenizer`.
    schema : dict, bool or str
        Draft 2020-12; a str is its JSON text. `JSON` is the schema of any value.
    spaces : bool
        Allow one space after each comma and colon.

    Returns
    -------
    Grammar

    Raises
    ------
    GrammarError
        As `schema_to_gbnf` and `from_gbnf` do.
    """
    return Grammar(tokenizer, schema_to_gbnf(schema, spaces=spaces))
