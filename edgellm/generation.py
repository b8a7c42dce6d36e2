"""From logits to text: sampling, stop strings and timings, token by token."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from edgellm import _core
from edgellm.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from edgellm.model import Model

REPEAT_WINDOW = 64  # last tokens that the repetition penalty looks at, as in llama.cpp


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
    """Keyword arguments of `edgellm.Model.generate` that `stream` and `chat` take too."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int
    stop: str | Sequence[str]
    context: int | None


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


class _Text:
    """Turns tokens into text that is sure: whole characters, and no beginning of a stop string."""

    def __init__(self, model: Model, stop: Sequence[str]) -> None:
        self._decoder = StreamDecoder(model.tokenizer)
        self._stop = stop
        self._held = ""
        self._reserve = max((len(s) for s in stop), default=1) - 1
        self.stopped = False

    def _cut(self) -> int:
        """Index of the first stop string in what is held, or -1."""
        found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        return min(found, default=-1)

    def push(self, token: int) -> str:
        return self._release(self._decoder.push(token), self._reserve)

    def finish(self) -> str:
        return self._release(self._decoder.finish(), 0)

    def _release(self, piece: str, reserve: int) -> str:
        self._held += piece
        at = self._cut()
        if at >= 0:
            self.stopped = True
            ready, self._held = self._held[:at], ""
            return ready
        cut = len(self._held) - reserve
        ready, self._held = self._held[: max(cut, 0)], self._held[max(cut, 0) :]
        return ready


def _check(max_tokens: int, stop: str | Sequence[str]) -> list[str]:
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    stops = [stop] if isinstance(stop, str) else list(stop)
    if any(not isinstance(s, str) or not s for s in stops):
        raise ValueError("stop: expected non-empty strings")
    return stops


def stream(
    model: Model,
    ids: list[int],
    max_tokens: int,
    sampling: Sampling,
    stop: str | Sequence[str],
    context: int | None,
) -> Generator[str, None, Completion]:
    """Yield text as it becomes sure; return the `Completion`. Arguments are checked at the call."""
    stops = _check(max_tokens, stop)
    if not ids:
        raise ValueError("prompt: no tokens; give at least one")
    room = min(len(ids) + max_tokens, model.config.context) if context is None else context
    _core.sample(np.zeros(1, np.float32), **_options(sampling))  # bad arguments fail here, not later
    if len(ids) > room:
        raise _core.ContextError(f"prompt: {len(ids)} tokens do not fit in a context of {room}")
    return _run(model, ids, max_tokens, sampling, stops, room)


class _Options(TypedDict):
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int


def _options(sampling: Sampling) -> _Options:
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
    }


def _run(
    model: Model, ids: list[int], max_tokens: int, sampling: Sampling, stops: list[str], room: int
) -> Generator[str, None, Completion]:
    started = time.perf_counter()
    session = model.session(room)
    options = _options(sampling)
    text = _Text(model, stops)
    ends = frozenset(model.tokenizer.end_ids)
    out: list[int] = []
    pieces: list[str] = []
    reason = "length"

    logits = session.eval(ids)
    prefilled = first = time.perf_counter()
    while True:
        recent = (ids + out)[-REPEAT_WINDOW:] if sampling.repeat_penalty != 1.0 else []
        token = _core.sample(logits, **options, recent=recent, position=session.position)
        if not out:
            first = time.perf_counter()
        if token in ends:
            reason = "stop"
            break
        out.append(token)
        piece = text.push(token)
        if piece:
            pieces.append(piece)
            yield piece
        if text.stopped:
            reason = "stop"
            break
        if len(out) == max_tokens or session.position == room:
            break
        logits = session.eval([token])
    last = time.perf_counter()

    if not text.stopped:
        piece = text.finish()
        if piece:
            pieces.append(piece)
            yield piece
        if text.stopped:
            reason = "stop"
    timings = Timings(len(ids), len(out), prefilled - started, last - first, first - started)
    return Completion("".join(pieces), out, timings, reason)


def drain(steps: Generator[str, None, Completion]) -> Completion:
    """Run a stream to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            done: Completion = end.value
            return done
