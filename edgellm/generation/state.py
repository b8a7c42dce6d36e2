"""One text on its way from logits to tokens, whoever evaluates the model for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgellm import _core
from edgellm.generation.results import Completion, Request, Timings, Token
from edgellm.generation.text import Assembler

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.session import Session

REPEAT_WINDOW = 64  # last tokens that the repetition penalty looks at, as in llama.cpp


class Generation:
    """One text that is being generated: a state machine without a driver of its own.

    A driver repeats three things until `done`: ask `wants` which tokens to append to `session`, evaluate
    them (alone or in a batch with others), and give the logits to `take`. The text does not depend on the
    limits and the company that the driver chooses.

    Parameters
    ----------
    model : Model
    ids : sequence of int
        The prompt. Tokens that `session` holds already are taken for its beginning and not evaluated again.
    request : Request
    session : Session
        For this generation alone until it is done.
    started_s : float, optional
        When the caller asked, by `clock`; now if not given.
    clock : callable
        Seconds, for the timings. It does not influence the text.

    Raises
    ------
    ValueError
        If the prompt is empty, holds what is no token, or the request is out of range.
    ContextError
        If the prompt does not fit in the session.

    Attributes
    ----------
    session : Session
    finish_reason : {"", "stop", "length", "cancelled"}
        Empty until `done`.

    Examples
    --------
    >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
    ...     ids, batch = m.tokenizer.encode("The capital of France is"), edgellm.Batch(m)
    ...     one = Generation(m, ids, Request(max_tokens=2), m.session(context=16))
    ...     while not one.done:
    ...         ids, rows = one.wants(3)
    ...         tokens = one.take(one.session.eval(ids)[None] if rows else one.session.eval(ids))
    ...     one.result().text
    ' Paris.'
    """

    __slots__ = (
        "_assembler",
        "_clock",
        "_ends",
        "_fed",
        "_first_s",
        "_ids",
        "_last_s",
        "_model",
        "_out",
        "_pieces",
        "_prefilled_s",
        "_request",
        "_started_s",
        "_wanted",
        "finish_reason",
        "session",
    )

    def __init__(
        self,
        model: Model,
        ids: Sequence[int],
        request: Request,
        session: Session,
        started_s: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        request.check()
        self._clock = clock
        self._started_s = clock() if started_s is None else started_s
        self._first_s = self._prefilled_s = self._last_s = self._started_s
        self._model = model
        self._ids = list(ids)
        self._request = request
        self.session = session
        self._assembler = Assembler(model.tokenizer, request.stop)
        self._ends = frozenset(model.tokenizer.end_ids)
        self._fed = session.position  # tokens of prompt and text that the session holds
        self._wanted = 0  # tokens that the last `wants` handed out
        self._out: list[int] = []
        self._pieces: list[str] = []
        self.finish_reason = ""
        check_prompt(self._ids, session.context)
        if self._fed >= len(self._ids):
            raise ValueError(f"prompt: the session holds {self._fed} tokens, the prompt has {len(self._ids)}")

    @property
    def done(self) -> bool:
        """Whether nothing is wanted any more."""
        return self.finish_reason != ""

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that were not evaluated yet."""
        return max(0, len(self._ids) - self._fed)

    @property
    def generated(self) -> int:
        """Tokens chosen so far."""
        return len(self._out)

    def wants(self, limit: int) -> tuple[list[int], int]:
        """Tokens to append to the session next.

        Parameters
        ----------
        limit : int
            Most tokens to ask for, at least 1.

        Returns
        -------
        ids : list of int
            Empty if the generation is done.
        rows : int
            For how many of the last of them `take` expects logits: 0 inside the prompt.
        """
        if self.finish_reason:
            return [], 0
        if self._fed < len(self._ids):
            ids = self._ids[self._fed : self._fed + limit]
            self._wanted = len(ids)
            return ids, int(self._fed + len(ids) == len(self._ids))
        self._wanted = 1
        return self._out[-1:], 1

    def take(self, logits: NDArray[np.float32] | None) -> list[Token]:
        """Go on with the logits of what was wanted.

        Parameters
        ----------
        logits : (rows, vocab) ndarray of float32, or None
            Of the last `rows` tokens that `wants` gave, anything if that was 0. May be overwritten.

        Returns
        -------
        tokens : list of Token
            What became known: none inside the prompt, and after an end token only text held back until then.
        """
        self._fed += self._wanted
        self._wanted = 0
        if self._fed < len(self._ids) or logits is None:
            return []
        now = self._clock()
        if not self._out:
            self._prefilled_s = now
        token = self._choose(logits[-1])
        self._last_s = self._clock()
        if not self._out:
            self._first_s = self._last_s
        return self._add(token)

    def cancel(self) -> None:
        """End here, unless it has ended already; `result` has what there is."""
        self.finish_reason = self.finish_reason or "cancelled"

    def result(self) -> Completion:
        """The text so far, with its timings."""
        prefill_s = self._prefilled_s - self._started_s
        decode_s = self._last_s - self._first_s
        ttft_s = self._first_s - self._started_s
        timings = Timings(len(self._ids), len(self._out), prefill_s, decode_s, ttft_s)
        return Completion("".join(self._pieces), self._out, timings, self.finish_reason)

    def _choose(self, logits: NDArray[np.float32]) -> int:
        s = self._request.sampling
        recent = (self._ids + self._out)[-REPEAT_WINDOW:] if s.repeat_penalty != 1.0 else ()
        return _core.sample(
            logits,
            temperature=s.temperature,
            top_k=s.top_k,
            top_p=s.top_p,
            min_p=s.min_p,
            repeat_penalty=s.repeat_penalty,
            recent=recent,
            seed=s.seed,
            stream=self._request.stream,
            position=len(self._ids) + len(self._out),
        )

    def _add(self, token: int) -> list[Token]:
        """Take over a chosen token; what it makes known."""
        if token in self._ends:
            return self._end("stop")
        self._out.append(token)
        piece = self._assembler.push(token)
        if piece:
            self._pieces.append(piece)
        tokens = [Token(token, piece)]
        if self._assembler.stopped:
            self.finish_reason = "stop"
        elif len(self._out) == self._request.max_tokens or self.session.position == self.session.context:
            tokens += self._end("length")
        return tokens

    def _end(self, reason: str) -> list[Token]:
        piece = self._assembler.finish()
        self.finish_reason = "stop" if self._assembler.stopped else reason
        if not piece:
            return []
        self._pieces.append(piece)
        return [Token(None, piece)]


def check_prompt(ids: Sequence[int], context: int) -> None:
    """ValueError or ContextError if a prompt cannot be evaluated in so many positions."""
    if not ids:
        raise ValueError("prompt: no tokens; give at least one")
    if len(ids) > context:
        raise _core.ContextError(f"prompt: {len(ids)} tokens do not fit in a context of {context}")
