"""The choice of one token: grammar, bias, sampling, and how likely it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgellm import _core
from edgellm.generation.results import TokenLogprob

if TYPE_CHECKING:
    from edgellm.generation.request import Request
    from edgellm.tokenizer import Tokenizer

REPEAT_WINDOW = 64  # last tokens that the repetition penalty looks at, as in llama.cpp


class Matcher(Protocol):
    """What a generation needs of the state of a grammar; `edgellm.grammar` has it."""

    @property
    def finished(self) -> bool:
        """Whether nothing but the end is possible."""

    @property
    def shortest(self) -> int:
        """Tokens that surely suffice to complete the text."""

    def mask(self, logits: NDArray[np.float32], tokens_left: int | None = None) -> None:
        """Forbid in place what cannot follow, or could not be completed in so many tokens."""

    def accept(self, id: int) -> None:
        """Go on by a token; ValueError if the grammar does not allow it."""

    def copy(self) -> Matcher:
        """A state of its own."""

    def forced(self, limit: int) -> list[int]:
        """Ids that are the only possible ones from here, one after the other."""


class Penalties:
    """What is taken off the logits of tokens that were generated; the prompt does not count.

    Source: OpenAI's API reference, "presence_penalty" and "frequency_penalty": a token that was generated
    c > 0 times loses presence + c frequency.
    """

    __slots__ = ("_counts", "_frequency", "_off", "_presence", "_seen")

    def __init__(self, presence: float, frequency: float) -> None:
        self._presence = presence
        self._frequency = frequency
        self._counts: dict[int, int] = {}
        self._seen = 0  # tokens of prompt and text that were looked at
        self._off: NDArray[np.float32] | None = None  # (vocab,)

    def apply(self, logits: NDArray[np.float32], text: Sequence[int]) -> None:
        """Change the logits of the token after `text` and its prompt; the first call is after the prompt."""
        if self._off is None:
            self._off = np.zeros_like(logits)
            self._seen = len(text)
        for token in text[self._seen :]:
            count = self._counts[token] = self._counts.get(token, 0) + 1
            self._off[token] = self._presence + count * self._frequency
        self._seen = len(text)
        np.subtract(logits, self._off, out=logits)


class Chooser:
    """Chooses the tokens of one text, given the logits where each stands.

    The order is: log-probabilities of the raw logits, the grammar's mask, presence and frequency penalties,
    bias, repetition penalty, top-k, top-p, min-p, temperature.
    """

    __slots__ = ("_logprobs", "_penalised", "_penalties", "_sampler", "_tokenizer", "forbidden", "matcher")

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self._sampler = request.sampler()
        self._penalised = request.sampling.repeat_penalty != 1.0
        presence, frequency = request.sampling.presence_penalty, request.sampling.frequency_penalty
        self._penalties = Penalties(presence, frequency) if presence != 0.0 or frequency != 0.0 else None
        self._logprobs = request.logprobs
        self._tokenizer = tokenizer
        self.matcher: Matcher | None = None if request.grammar is None else request.grammar.matcher()
        self.forbidden = frozenset(i for i, value in request.logit_bias if value == -np.inf)

    def choose(
        self, logits: NDArray[np.float32], text: Sequence[int], position: int, left: int
    ) -> tuple[int, float | None, tuple[TokenLogprob, ...]]:
        """The token after `text`, its log-probability and the likeliest others.

        `left` tokens may still be generated, this one included; the logits, (vocab,), are overwritten.
        """
        raw = logits.copy() if self._logprobs is not None else None
        if self.matcher is not None:
            self.matcher.mask(logits, left)
        if self._penalties is not None:
            self._penalties.apply(logits, text)
        recent = text[-REPEAT_WINDOW:] if self._penalised else ()
        try:
            token = self._sampler.choose(logits, recent, position)
        except ValueError as error:
            if self.matcher is None or not (logits == -np.inf).all():
                raise
            raise ValueError("logit_bias forbids every token that the grammar allows") from error
        if raw is None or self._logprobs is None:
            return token, None, ()
        logprob, top = _core.logprobs(raw, token, self._logprobs)
        named = tuple(TokenLogprob(i, self._tokenizer.decode([i]), value) for i, value in top)
        return token, logprob, named

    def forced(self, limit: int) -> list[int]:
        """Tokens that follow whatever the logits are; their logits need not be computed."""
        if self.matcher is None or self._logprobs is not None or limit < 1:
            return []
        sure = self.matcher.forced(limit)
        stop = next((n for n, token in enumerate(sure) if token in self.forbidden), len(sure))
        return sure[:stop]

    def admissible(self, drafts: list[int]) -> list[int]:
        """The beginning of some drafts that the grammar allows."""
        if self.matcher is None or not drafts:
            return drafts
        ahead = self.matcher.copy()
        for n, token in enumerate(drafts):
            try:
                ahead.accept(token)
            except ValueError:
                return drafts[:n]
        return drafts
