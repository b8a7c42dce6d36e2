"""Where drafts come from, and how many of them pay.

A draft is a guess of the next tokens. A generation evaluates it together with the last token, samples at
every position as it would have without, and keeps what agrees: the text is the plain one whatever is
guessed. Only the time depends on the guesses, and `Pace` keeps that in bounds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edgellm import _core
from edgellm.generation.choosing import REPEAT_WINDOW
from edgellm.generation.text import vocabulary

if TYPE_CHECKING:
    from edgellm.generation.request import Request
    from edgellm.model import Model

MOST_DRAFTED = 15  # with the last token a step of 16
LOOKUP = "lookup"


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def look(self, text: Sequence[int]) -> int:
        """Look at the text as it is now: how promising a guess is, from 0, or -1 if there is none."""

    def guess(self, count: int) -> list[int]:
        """At most `count` tokens to follow what was looked at."""


class StepCosts:
    """Seconds of a step by its number of tokens, as measured; shared by the generations of a model."""

    __slots__ = ("_ratios", "_seconds")

    _SLOPE = 0.06  # of a token more, in plain steps, where nothing was measured yet
    _WEIGHT = 0.2  # of a new measurement
    _OUTLIER = 2.5  # times what was expected: a pause of the machine, not a cost

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._ratios: list[float] = []  # empty where they are to be computed again

    @property
    def plain_s(self) -> float:
        """Of a step of one token; 0 until one was measured."""
        return self._seconds.get(1, 0.0)

    @property
    def ratios(self) -> list[float]:
        """Cost of 0, 1, ... tokens in plain steps, of which one must have been measured."""
        if not self._ratios:
            self._ratios = self._interpolated()
        return self._ratios

    def note(self, tokens: int, seconds: float) -> None:
        """Take in a measurement."""
        old = self._seconds.get(tokens)
        if old is None:
            self._seconds[tokens] = seconds
        else:
            self._seconds[tokens] = old + self._WEIGHT * (min(seconds, self._OUTLIER * old) - old)
        self._ratios = []

    def _interpolated(self) -> list[float]:
        plain = self.plain_s
        known = sorted((n, seconds / plain) for n, seconds in self._seconds.items())
        ratios = [0.0]
        for (n, low), (after, high) in itertools.pairwise(known):
            ratios += [low + (high - low) * i / (after - n) for i in range(after - n)]
        n, last = known[-1]
        return ratios + [last + self._SLOPE * i for i in range(MOST_DRAFTED + 2 - n)]


class Pace:
    """How many tokens to draft, so that drafting gains where it can and costs next to nothing elsewhere.

    The number is the one with the most tokens per second, by the acceptance seen so far (forgotten bit by
    bit, so that a text may change its nature) and the measured cost of steps. It is bounded by an account,
    in plain steps: what drafts gain or lose in comparison with plain steps is added to it, and a small share
    of all time. A step whose complete failure the account does not cover is not taken. So a text on which
    every guess fails costs that share and what there was at first, however promising the guesses look.
    """

    __slots__ = ("_account", "_costs", "_failed", "_granted_s", "_right")

    SHARE = 0.025  # of the time that may be lost on a text without a right guess
    FIRST = 0.5  # plain steps that may be lost at once
    MOST = 4.0  # plain steps of gains that may be lost again
    LEAST_S = 50e-6  # of a plain step: to think about drafts takes a twentieth of that
    _MEMORY = 0.85  # of what was seen at a level, per later guess at it
    _PRIORS = (0.4, 0.55, 0.7, 0.8, 0.9)  # probability that a guessed token is right, by level
    _WEIGHT = 1.5  # of the prior, in guesses

    def __init__(self, costs: StepCosts, prefill_s: float) -> None:
        self._costs = costs
        self._account = self.FIRST
        self._granted_s = self.SHARE * prefill_s
        self._right = [0.0] * len(self._PRIORS)
        self._failed = [0.0] * len(self._PRIORS)

    @property
    def solvent(self) -> bool:
        """Whether it is worth while to look for a guess at all."""
        return self._account > 0.0 and self._costs.plain_s > 0.0

    @property
    def hopeless(self) -> bool:
        """Whether steps are so short that drafts cannot pay."""
        return 0.0 < self._costs.plain_s < self.LEAST_S

    def length(self, level: int, most: int) -> int:
        """How many tokens to draft, 0 to `most`, where a guess is as promising as `level` says."""
        ratios = self._costs.ratios
        right, failed = self._right[level], self._failed[level]
        p = (right + self._WEIGHT * self._PRIORS[level]) / (right + failed + self._WEIGHT)
        best, count, tokens, chance = 1.0, 0, 1.0, 1.0
        for n in range(1, min(most, MOST_DRAFTED) + 1):
            chance *= p
            tokens += chance
            cost = ratios[n + 1]
            if cost - 1.0 > self._account:
                break
            if tokens > best * cost:
                best, count = tokens / cost, n
        return count

    def looked(self, seconds: float) -> None:
        """Time that went into looking where no draft came of it."""
        self._account -= seconds / self._costs.plain_s

    def stepped(self, level: int, drafted: int, accepted: int, seconds: float) -> None:
        """A step is over; `seconds` with what it took to draft."""
        self._costs.note(drafted + 1, seconds)
        if self._costs.plain_s == 0.0:
            return
        took = seconds / self._costs.plain_s
        gain = self.SHARE * min(took, 2.0) + self._granted_s / self._costs.plain_s
        self._granted_s = 0.0
        if drafted:
            gain += accepted + 1 - took
            self._right[level] = self._MEMORY * self._right[level] + accepted
            self._failed[level] = self._MEMORY * self._failed[level] + (accepted < drafted)
        self._account = min(self._account + gain, self.MOST)


class LookupDrafter:
    """Guesses that the text goes on as it did after its end was there before."""

    __slots__ = ("_found", "_index", "_known")

    _LEVELS = (0, 0, 0, 1, 2, 2, 3, 3, 3, 3)  # by the length that was found; 4 from ten tokens on

    def __init__(self, capacity: int) -> None:
        self._index = _core.Lookup(capacity)
        self._known = 0
        self._found: list[int] = []

    def look(self, text: Sequence[int]) -> int:
        """See `Drafter`."""
        self._index.push(text[self._known :])
        self._known = len(text)
        self._found, length = self._index.guess(MOST_DRAFTED)
        if length == 0:
            return -1
        return self._LEVELS[length] if length < len(self._LEVELS) else 4

    def guess(self, count: int) -> list[int]:
        """See `Drafter`."""
        return self._found[:count]


class ModelDrafter:
    """Lets a smaller model guess, with the random numbers that the text is sampled with.

    Where reading the whole prompt would take longer than `patience_s`, it sees only the end of it.
    """

    __slots__ = ("_held", "_model", "_patience_s", "_sampler", "_session", "_start", "_text")

    _LEVEL = 2  # it always has a guess; how good they are shows
    _LEAST = 16  # tokens of the text that it sees, whatever they take

    def __init__(self, model: Model, request: Request, capacity: int, patience_s: float) -> None:
        self._model = model
        self._patience_s = patience_s
        self._session = model.session(min(model.config.context, capacity + MOST_DRAFTED))
        self._sampler = request.sampler(model.config.vocab)
        self._start = 0  # where in the text the session begins
        self._held: list[int] = []  # what it holds: the text from there on, and guesses after it
        self._text: Sequence[int] = ()

    def look(self, text: Sequence[int]) -> int:
        """See `Drafter`. A long text is read here, all but its last token."""
        self._text = text
        room = self._session.context
        if not self._held or len(text) - self._start + MOST_DRAFTED > room:
            per_token_s = _READING_S.get(self._model)
            window = self._LEAST if per_token_s is None else int(self._patience_s / per_token_s)
            self._start = max(0, len(text) - min(max(window, self._LEAST), room // 2 + 1))
            self._keep(0)
        else:
            self._keep(self._agreed())
        behind = text[self._start + len(self._held) : -1]
        if len(behind) > MOST_DRAFTED:
            started_s = time.perf_counter()
            self._eval(behind, 0)
            _READING_S[self._model] = (time.perf_counter() - started_s) / len(behind)
        return self._LEVEL

    def guess(self, count: int) -> list[int]:
        """See `Drafter`."""
        text, drafts = self._text, list[int]()
        fresh = text[self._start + len(self._held) :]
        recent = list(text[-REPEAT_WINDOW:])
        for _ in range(count):
            logits = self._eval(fresh, 1)
            token = self._sampler.choose(logits, recent[-REPEAT_WINDOW:], len(text) + len(drafts))
            drafts.append(token)
            recent.append(token)
            fresh = [token]
        return drafts

    def _agreed(self) -> int:
        """How much of what the session holds is the text; what is to be read is left out."""
        own = min(len(self._held), len(self._text) - self._start - 1)
        at = max(0, own - MOST_DRAFTED - 1)  # only the last guesses can be wrong
        while at < own and self._held[at] == self._text[self._start + at]:
            at += 1
        return at

    def _keep(self, length: int) -> None:
        if length < len(self._held):
            try:
                self._session.truncate(length)
            except ValueError:  # further back than its sliding windows reach
                length = 0
                self._session.truncate(0)
            del self._held[length:]

    def _eval(self, ids: Sequence[int], rows: int) -> NDArray[np.float32]:
        session = self._session._core
        logits = _core.batch_eval(session.model, (session,), (ids,), (rows,))[0]
        self._held += ids
        return _NOTHING if logits is None else logits[-1]


_NOTHING = np.zeros(0, np.float32)
_READING_S: WeakKeyDictionary[Model, float] = WeakKeyDictionary()  # per token, of a long text
_LOOKUP_COSTS: WeakKeyDictionary[Model, StepCosts] = WeakKeyDictionary()
_MODEL_COSTS: WeakKeyDictionary[Model, WeakKeyDictionary[Model, StepCosts]] = WeakKeyDictionary()


def drafter(model: Model, request: Request, capacity: int, prefill_s: float) -> tuple[Drafter, Pace]:
    """What drafts a text of at most `capacity` tokens, and how much, as a request with a draft asks."""
    draft = request.draft
    if draft is None or isinstance(draft, str):
        costs = _LOOKUP_COSTS.setdefault(model, StepCosts())
        return LookupDrafter(capacity), Pace(costs, prefill_s)
    costs = _MODEL_COSTS.setdefault(model, WeakKeyDictionary()).setdefault(draft, StepCosts())
    return ModelDrafter(draft, request, capacity, Pace.SHARE * prefill_s), Pace(costs, prefill_s)


def check_draft(draft: object, model: Model) -> None:
    """ValueError or TypeError if `draft` cannot draft for this model."""
    if isinstance(draft, str):
        if draft != LOOKUP:
            raise ValueError(f"draft: expected {LOOKUP!r} or a Model, got {draft!r}")
        return
    from edgellm.model import Model

    if not isinstance(draft, Model):
        raise TypeError(f"draft: expected {LOOKUP!r} or a Model, got {type(draft).__name__}")
    if draft.closed:
        raise ValueError("draft: the model is closed")
    if draft is not model and _vocabulary(draft) != _vocabulary(model):
        raise ValueError("draft: its vocabulary is not that of the model")


_VOCABULARIES: WeakKeyDictionary[Model, bytes] = WeakKeyDictionary()


def _vocabulary(model: Model) -> bytes:
    known = _VOCABULARIES.get(model)
    if known is None:
        known = _VOCABULARIES[model] = vocabulary(model.tokenizer)
    return known
