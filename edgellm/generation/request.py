"""What a caller asks of a generation."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from edgellm import _core
from edgellm.generation.text import vocabulary

if TYPE_CHECKING:
    from edgellm.generation.choosing import Matcher
    from edgellm.model import Model
    from edgellm.prefix_cache import PrefixCache
    from edgellm.session import Overflow


class Grammar(Protocol):
    """What a generation needs of a grammar; `edgellm.grammar` makes them."""

    def matcher(self) -> Matcher:
        """The state at the beginning of a text."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; `edgellm.Model.generate` explains each field."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class Options(TypedDict, total=False):
    """Keyword arguments of `edgellm.Model.generate` that its relatives take too."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int
    presence_penalty: float
    frequency_penalty: float
    stop: str | Sequence[str] | None
    context: int | None
    grammar: str | Grammar | None
    json_schema: dict[str, Any] | bool | str | None
    draft: str | Model | None
    logprobs: int | None
    logit_bias: Mapping[int, float] | None
    kv: str | None
    overflow: Overflow
    cache: PrefixCache | None


_SAMPLING = tuple(field.name for field in fields(Sampling))
MOST_PENALTY = 1e6  # far beyond any logit, and the penalty of a long text stays finite
_PLACES = ("context", "kv", "overflow", "cache")  # options that say where a text is generated, not which


@dataclass(frozen=True, slots=True)
class Place:
    """The session that a text is generated in."""

    context: int | None = None
    kv: str | None = None
    overflow: Overflow = "error"
    cache: PrefixCache | None = None

    @classmethod
    def of(cls, options: Options) -> Place:
        """The place that keyword arguments of `generate` describe."""
        where: Mapping[str, Any] = options
        return cls(**{name: where[name] for name in _PLACES if name in where})

    def room(self, model: Model, ids: Sequence[int], max_tokens: int) -> int:
        """Positions of the session; ValueError or ContextError if the prompt cannot be in it."""
        needed = len(ids) + max_tokens
        room = min(needed, model.config.context) if self.context is None else self.context
        check_prompt(ids, room)
        return room


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be generated, apart from its prompt. `Model.generate` explains the fields."""

    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    draft: str | Model | None = None
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()  # by ascending id
    stream: int = 0  # which text of the seed: its random numbers are its own

    @classmethod
    def of(cls, model: Model, max_tokens: int, options: Mapping[str, Any]) -> Request:
        """The request that keyword arguments of `generate` describe, those that say where left aside.

        Raises
        ------
        ValueError, TypeError
            If an argument is out of range or unknown.
        GrammarError
            If the grammar or the schema is no good.
        """
        rest = {name: value for name, value in options.items() if name not in _PLACES}
        sampling = Sampling(**{name: rest.pop(name) for name in _SAMPLING if name in rest})
        stop = rest.pop("stop", None) or ()
        bias = rest.pop("logit_bias", None) or {}
        grammar, schema = rest.pop("grammar", None), rest.pop("json_schema", None)
        request = cls(
            max_tokens,
            sampling,
            (stop,) if isinstance(stop, str) else tuple(stop),
            _compiled(model, grammar, schema),
            logit_bias=tuple(sorted((operator.index(i), float(value)) for i, value in bias.items())),
            **rest,
        )
        request.check(model)
        return request

    def check(self, model: Model) -> None:
        """ValueError or TypeError if a field is out of range for this model."""
        if operator.index(self.max_tokens) < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise ValueError("stop: expected non-empty strings")
        for name in ("presence_penalty", "frequency_penalty"):
            amount = getattr(self.sampling, name)
            if not abs(amount) <= MOST_PENALTY:
                raise ValueError(f"{name} must be in -{MOST_PENALTY:g}..{MOST_PENALTY:g}, got {amount}")
        vocab = model.config.vocab
        for i, value in self.logit_bias:
            if not 0 <= i < vocab or math.isnan(value):
                raise ValueError(f"logit_bias: {{{i}: {value}}}: expected ids in 0..{vocab - 1} and no NaN")
        if self.logprobs is not None and not 0 <= operator.index(self.logprobs) <= vocab:
            raise ValueError(f"logprobs is {self.logprobs}, not in 0..{vocab}")
        if self.grammar is not None:
            _check_grammar(self.grammar, model)
        if self.draft is not None:
            from edgellm.generation.drafts import check_draft

            check_draft(self.draft, model)
        self.sampler()

    def sampler(self, vocab: int | None = None) -> _core.Sampler:
        """What chooses its tokens, or those of a model with `vocab` tokens that drafts for it.

        Raises
        ------
        ValueError
            Names the first parameter that is out of range.
        """
        s = self.sampling
        bias = [(i, value) for i, value in self.logit_bias if vocab is None or i < vocab]
        return _core.Sampler(
            s.temperature,
            s.top_k,
            s.top_p,
            s.min_p,
            s.repeat_penalty,
            s.seed,
            self.stream,
            [i for i, _ in bias],
            tuple(value for _, value in bias),
        )


def _check_grammar(grammar: object, model: Model) -> None:
    if not callable(getattr(grammar, "matcher", None)):
        raise TypeError(f"grammar: expected GBNF or a Grammar, got {type(grammar).__name__}")
    own = getattr(grammar, "tokenizer", model.tokenizer)
    if own is not model.tokenizer and vocabulary(own) != vocabulary(model.tokenizer):
        raise ValueError("grammar: it was compiled for another vocabulary")


def _compiled(
    model: Model, grammar: str | Grammar | None, schema: dict[str, Any] | bool | str | None
) -> Grammar | None:
    if schema is None and not isinstance(grammar, str):
        return grammar
    from edgellm.grammar import from_gbnf, from_json_schema

    if schema is None:
        return from_gbnf(model.tokenizer, str(grammar))
    if grammar is not None:
        raise ValueError("grammar and json_schema: give one of them")
    return from_json_schema(model.tokenizer, schema)


def check_prompt(ids: Sequence[int], context: int) -> None:
    """ValueError or ContextError if a prompt cannot be evaluated in so many positions."""
    if not ids:
        raise ValueError("prompt: no tokens; give at least one")
    if len(ids) > context:
        raise _core.ContextError(f"prompt: {len(ids)} tokens do not fit in a context of {context}")
