"""What a caller asks of a generation, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import numpy as np

from edgellm import _core


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; `edgellm.Model.generate` explains each field."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0


class Options(TypedDict, total=False):
    """Keyword arguments of `edgellm.Model.generate` that its relatives take too."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int
    stop: str | Sequence[str]
    context: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be generated, apart from its prompt."""

    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    stream: int = 0  # which text of the seed: its random numbers are its own

    @classmethod
    def of(cls, max_tokens: int, options: Mapping[str, Any]) -> Request:
        """The request that keyword arguments of `generate` describe, `context` left aside.

        Raises
        ------
        ValueError, TypeError
            If an argument is out of range or unknown.
        """
        rest = {name: value for name, value in options.items() if name != "context"}
        stop = rest.pop("stop", ())
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        request = cls(max_tokens, Sampling(**rest), stops)
        request.check()
        return request

    def check(self) -> None:
        """ValueError if a field is out of range."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise ValueError("stop: expected non-empty strings")
        s = self.sampling
        _core.sample(
            np.zeros(1, np.float32),
            temperature=s.temperature,
            top_k=s.top_k,
            top_p=s.top_p,
            min_p=s.min_p,
            repeat_penalty=s.repeat_penalty,
            seed=s.seed,
            stream=self.stream,
        )


class TokenLogprob(NamedTuple):
    """How likely a token was."""

    id: int
    text: str  # of the token alone
    logprob: float  # natural logarithm of its probability before penalties, bias and grammar
    top: tuple[TokenLogprob, ...] = ()  # the likeliest tokens there, the best first


class Token(NamedTuple):
    """What a step of a generation gave."""

    id: int | None  # None for text that was held back and became sure only by the end
    text: str  # what became sure with it: whole characters, no beginning of a stop string; may be ""
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one generation went. All in seconds of wall time."""

    prompt_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float
    ttft_s: float  # from the call to the first token

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; nan if there was at most one."""
        steps = self.generated_tokens - 1
        return self.decode_s / steps if steps > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generation gave."""

    text: str
    ids: list[int]
    timings: Timings
    finish_reason: str  # "stop": an end token or stop string; "length": max_tokens or a full context


@dataclass(frozen=True, slots=True)
class ChatCompletion(Completion):
    """What a model answered."""

    @property
    def message(self) -> dict[str, str]:
        """The answer as a message, ready to be appended to the conversation."""
        return {"role": "assistant", "content": self.text}
