"""One text on its way from logits to tokens, whoever evaluates the model for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgellm.generation.choosing import Chooser
from edgellm.generation.request import check_prompt
from edgellm.generation.results import Completion, Speculation, Timings, Token, TokenLogprob
from edgellm.generation.text import Assembler

if TYPE_CHECKING:
    from edgellm.generation.drafts import Drafter, Pace
    from edgellm.generation.request import Request
    from edgellm.model import Model
    from edgellm.session import Session


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
        Seconds, for the timings and the number of drafts. It does not influence the text.

    Raises
    ------
    ValueError
        If the prompt is empty, the request is out of range, or a text of its grammar needs more tokens.
    ContextError
        If the prompt does not fit in the session.

    Attributes
    ----------
    session : Session
    finish_reason : {"", "stop", "length", "cancelled"}
        Empty until `done`.

    Examples
    --------
    >>> from edgellm.generation import Request
    >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
    ...     session = m.session(context=16)
    ...     prompt = m.tokenizer.encode("The capital of France is")
    ...     one = Generation(m, prompt, Request(max_tokens=2), session)
    ...     while not one.done:
    ...         ids, rows = one.wants(3)
    ...         logits = session.eval(ids, logits="all")
    ...         tokens = one.take(logits[len(ids) - rows :])
    ...     one.result().text
    ' Paris.'
    """

    __slots__ = (
        "_accepted",
        "_all",
        "_assembler",
        "_chooser",
        "_clock",
        "_drafted",
        "_drafter",
        "_drafting",
        "_drafts",
        "_ends",
        "_fed",
        "_first_s",
        "_last_s",
        "_level",
        "_logprobs",
        "_model",
        "_most",
        "_pace",
        "_pieces",
        "_prefilled_s",
        "_prompt",
        "_request",
        "_rows",
        "_started_s",
        "_step_s",
        "_steps",
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
        request.check(model)
        check_prompt(ids, session.context)
        self._clock = clock
        self._started_s = clock() if started_s is None else started_s
        self._first_s = self._prefilled_s = self._last_s = self._step_s = self._started_s
        self._model = model
        self._request = request
        self.session = session
        self._all = list(ids)  # the prompt and the text
        self._prompt = len(self._all)
        room = session.context + 1 - self._prompt  # for tokens; the last needs no position
        self._most = request.max_tokens if session.overflow == "shift" else min(request.max_tokens, room)
        self._fed = session.position  # tokens of `_all` that the session holds
        if self._fed >= self._prompt:
            raise ValueError(f"prompt: the session holds {self._fed} tokens, the prompt has {self._prompt}")
        self._wanted = self._rows = 0  # what the last `wants` handed out
        self._drafts: list[int] = []  # its last tokens
        self._level = self._drafted = self._accepted = self._steps = 0
        self._drafting = request.draft is not None
        self._drafter: Drafter | None = None
        self._pace: Pace | None = None
        self._assembler = Assembler(model.tokenizer, self._all, request.stop)
        self._chooser = Chooser(request, model.tokenizer)
        self._ends = frozenset(model.tokenizer.end_ids)
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self.finish_reason = ""
        matcher = self._chooser.matcher
        if matcher is not None and matcher.shortest > self._most:
            raise ValueError(
                f"max_tokens: the grammar may need {matcher.shortest} tokens, room is for {self._most}"
            )

    @property
    def done(self) -> bool:
        """Whether nothing is wanted any more."""
        return self.finish_reason != ""

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that were not evaluated yet."""
        return max(0, self._prompt - self._fed)

    @property
    def generated(self) -> int:
        """Tokens chosen so far."""
        return len(self._all) - self._prompt

    @property
    def held(self) -> list[int]:
        """The tokens that the session holds: the beginning of prompt and text."""
        return self._all[: self._fed]

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
        ids = self._all[self._fed : self._fed + limit]
        self._rows = int(self._fed + len(ids) == len(self._all))
        self._drafts = []
        if self._rows and self._drafting and self.generated:
            self._drafts = self._draft(limit - len(ids))
            ids += self._drafts
            self._rows += len(self._drafts)
        self._wanted = len(ids)
        return ids, self._rows

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

        Raises
        ------
        ValueError
            If no token is allowed, because of a bias, or a logit is no number.
        """
        self._fed += self._wanted
        self._wanted = 0
        if not self._rows or logits is None or self.finish_reason:
            return []
        first = len(self._all) == self._prompt
        if first:
            self._prefilled_s = self._clock()
        else:
            self._steps += 1
        tokens: list[Token] = []
        right = 0
        for row, guess in zip(logits[-self._rows :], [*self._drafts, None], strict=True):
            token = self._add(row, tokens)
            if token != guess:
                break
            right += 1
            if self.finish_reason:
                break
        if not self.finish_reason:
            self._jump(tokens)
        self._last_s = self._clock()
        if first:
            self._first_s = self._last_s
        self._settle(right)
        return tokens

    def cancel(self) -> None:
        """End here, unless it has ended already; `result` has what there is."""
        self._close("cancelled")

    def result(self) -> Completion:
        """The text so far, with its timings."""
        prefill_s = self._prefilled_s - self._started_s
        decode_s = self._last_s - self._first_s
        ttft_s = self._first_s - self._started_s
        timings = Timings(self._prompt, self.generated, prefill_s, decode_s, ttft_s)
        drafts = Speculation(self._drafted, self._accepted, self._steps)
        return Completion(
            "".join(self._pieces),
            self._all[self._prompt :],
            timings,
            self.finish_reason,
            None if self._request.logprobs is None else list(self._logprobs),
            None if self._request.draft is None else drafts,
        )

    def _draft(self, limit: int) -> list[int]:
        """Guesses of the next tokens, as many as pay."""
        self._step_s = self._clock()
        free = self.session.context - self.session.position - (len(self._all) - self._fed)
        most = min(limit, self._most - self.generated - 1, free)
        if self._drafter is None or self._pace is None:
            from edgellm.generation.drafts import drafter

            capacity = self._prompt + self._most
            self._drafter, self._pace = drafter(
                self._model, self._request, capacity, self._prefilled_s - self._started_s
            )
        pace = self._pace
        if most < 1 or not pace.solvent:
            return []
        self._level = self._drafter.look(self._all)
        now = self._clock()
        pace.looked(now - self._step_s)
        self._step_s = now
        count = pace.length(self._level, most) if self._level >= 0 else 0
        guesses = self._drafter.guess(count) if count else []
        end = next((n for n, token in enumerate(guesses) if token in self._ends), len(guesses))
        return self._chooser.admissible(guesses[:end])

    def _settle(self, right: int) -> None:
        """Forget the drafts that were wrong, and learn from it."""
        drafts = len(self._drafts)
        wrong = drafts - right
        if wrong:
            self.session.truncate(self.session.position - wrong)
            self._fed -= wrong
        if self._pace is not None:
            self._drafted += drafts
            self._accepted += right
            self._pace.stepped(self._level, drafts, right, self._last_s - self._step_s)
            if self._pace.hopeless:
                self._drafting = False
                self._drafter = self._pace = None
        if self.finish_reason:
            self._close(self.finish_reason)

    def _add(self, logits: NDArray[np.float32], tokens: list[Token]) -> int:
        """Choose a token and take it over; `tokens` gets what that makes known."""
        left = self._most - self.generated
        token, logprob, top = self._chooser.choose(logits, self._all, len(self._all), left)
        if token in self._ends:
            self._end("stop", tokens)
            return token
        if logprob is not None:
            text = self._model.tokenizer.decode([token])
            self._logprobs.append(TokenLogprob(token, text, logprob, top))
        matcher = self._chooser.matcher
        if matcher is not None:
            matcher.accept(token)
        self._append(token, logprob, top, tokens)
        if matcher is not None and matcher.finished and not self.finish_reason:
            self._end("stop", tokens)
        return token

    def _jump(self, tokens: list[Token]) -> None:
        """Take over tokens that the grammar leaves no choice about; the next step evaluates them together."""
        matcher = self._chooser.matcher
        if matcher is None:
            return
        for sure in self._chooser.forced(self._most - self.generated):
            if self.finish_reason or sure in self._ends:
                return
            matcher.accept(sure)
            self._append(sure, None, (), tokens)
        if matcher.finished and not self.finish_reason:
            self._end("stop", tokens)

    def _append(
        self, token: int, logprob: float | None, top: tuple[TokenLogprob, ...], tokens: list[Token]
    ) -> None:
        self._all.append(token)
        piece = self._assembler.push(token)
        if piece:
            self._pieces.append(piece)
        tokens.append(Token(token, piece, logprob, top))
        if self._assembler.stopped:
            self.finish_reason = "stop"
        elif self.generated == self._most:
            self._end("length", tokens)

    def _end(self, reason: str, tokens: list[Token]) -> None:
        piece = self._assembler.finish()
        self.finish_reason = "stop" if self._assembler.stopped else reason
        if piece:
            self._pieces.append(piece)
            tokens.append(Token(None, piece))

    def _close(self, reason: str) -> None:
        self.finish_reason = self.finish_reason or reason
        self._drafter = self._pace = None  # with a session, perhaps
        self._chooser.matcher = None
