"""Requests of a scenario: when they arrive, where, how long they are, and what they may take.

Conversations arrive openly (nobody waits for another's answer): homogeneous or diurnal Poisson processes, or
a trace. The turns of one are closed: the next comes when the answer has been read. Everything random is drawn
beforehand, from the generator that the caller passes, so that the same seed gives the same requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .fleet import Fleet
from .request_table import RequestSpec, RequestTable

#: Bytes of text per token where nothing better is known: English with a vocabulary of about 50,000.
BYTES_PER_TOKEN = 4.0
#: Kinds of user data, for the privacy ledger (DESIGN.md, section 8).
DATA_CLASSES = ("none", "metadata", "text", "activations", "adapter", "gradient")

__all__ = [
    "BYTES_PER_TOKEN", "DATA_CLASSES", "Conversation", "Empirical", "Exponential", "Fixed", "FixedTime",
    "Kind", "Lengths", "LogNormal", "LogNormalTime", "Poisson", "Prompt", "RequestSpec", "RequestTable",
    "Stream", "Times", "Trace", "TraceRow", "Uniform", "Workload", "WorkloadError",
]  # fmt: skip

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class WorkloadError(ValueError):
    """A workload that cannot be generated."""


class Lengths(Protocol):
    """A distribution of positive whole lengths, in tokens."""

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths, each at least 1."""
        ...

    def mean(self) -> float:
        """Return a bound on the mean, near enough to tell whether a run is too big."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same length."""

    value: int

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Return n times the value; nothing is drawn."""
        return np.full(n, self.value, dtype=np.int64)

    def mean(self) -> float:
        """Return the value."""
        return float(self.value)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, equally likely."""

    low: int
    high: int

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths."""
        return rng.integers(self.low, self.high + 1, size=n, dtype=np.int64)

    def mean(self) -> float:
        """Return the middle."""
        return (self.low + self.high) / 2.0


@dataclass(frozen=True, slots=True)
class LogNormal:
    """exp of a normal variable, rounded and clipped; `sigma` is the deviation of the logarithm."""

    median: float
    sigma: float
    low: int = 1
    high: int = 2**31 - 1

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths."""
        with np.errstate(over="ignore"):  # what overflows is clipped below
            drawn = np.exp(math.log(self.median) + self.sigma * rng.standard_normal(n))
        return np.clip(np.rint(np.minimum(drawn, 2.0**31)), self.low, self.high).astype(np.int64)

    def mean(self) -> float:
        """Return the mean without clipping, clipped."""
        exponent = min(math.log(self.median) + self.sigma**2 / 2.0, 50.0)
        return float(min(max(math.exp(exponent), self.low), self.high))


@dataclass(frozen=True, slots=True)
class Empirical:
    """Lengths that were seen, drawn with replacement; `weights` may be empty (all equal)."""

    values: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths."""
        values = np.asarray(self.values, dtype=np.int64)
        if not self.weights:
            even: _Ints = values[rng.integers(0, len(values), size=n)]
            return even
        edges = np.cumsum(np.asarray(self.weights, dtype=np.float64))
        index = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
        weighted: _Ints = values[np.minimum(index, len(values) - 1)]
        return weighted

    def mean(self) -> float:
        """Return the weighted mean."""
        return float(np.average(self.values, weights=self.weights or None))


class Times(Protocol):
    """A distribution of lengths of time, in seconds."""

    def sample(self, rng: np.random.Generator, n: int) -> _Floats:
        """Draw n times, each at least 0."""
        ...


@dataclass(frozen=True, slots=True)
class FixedTime:
    """Always the same time."""

    value_s: float

    def sample(self, rng: np.random.Generator, n: int) -> _Floats:
        """Return n times the value; nothing is drawn."""
        return np.full(n, self.value_s)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponentially distributed times."""

    mean_s: float

    def sample(self, rng: np.random.Generator, n: int) -> _Floats:
        """Draw n times."""
        return rng.exponential(self.mean_s, n)


@dataclass(frozen=True, slots=True)
class LogNormalTime:
    """exp of a normal variable; `sigma` is the deviation of the logarithm."""

    median_s: float
    sigma: float

    def sample(self, rng: np.random.Generator, n: int) -> _Floats:
        """Draw n times; what would be longer than a century is a century."""
        with np.errstate(over="ignore"):
            drawn = self.median_s * np.exp(self.sigma * rng.standard_normal(n))
        return np.minimum(drawn, 3.2e9)


@dataclass(frozen=True, slots=True)
class Conversation:
    """How the users of a stream behave: what they ask next, how long they wait, and how often they try.

    Attributes
    ----------
    turns : Lengths
        Requests of one conversation.
    think_time : Times
        From an answer to the next turn.
    context_tokens : int
        How many tokens of earlier questions and answers a prompt repeats at most.
    patience : Times or None
        After how long without an answer the user leaves; None: never.
    until : {"answer", "first token"}
        What the user waits for.
    retries : int
        How often a request that was rejected or failed is tried again.
    backoff_s : float
        Mean wait before the first of these; it doubles from one to the next.
    """

    turns: Lengths = Fixed(1)
    think_time: Times = FixedTime(0.0)
    context_tokens: int = 0
    patience: Times | None = None
    until: str = "answer"
    retries: int = 0
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A real prompt with its length; `output_tokens` is None where the kind's distribution decides."""

    text: str
    tokens: int
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request and how often it comes among the others of its stream."""

    name: str
    weight: float
    model: str
    prompt_tokens: Lengths
    output_tokens: Lengths
    prefix_tokens: int = 0  # system prompt and template: computed, but not sent by the user
    prompts: tuple[Prompt, ...] = ()
    data_class: str = "text"
    deadline_s: float | None = None
    bytes_per_token: float = BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Poisson:
    """Arrivals at a rate per node that follows the hour of the day.

    `hours` are 24 relative weights with mean 1 (all 1: homogeneous); the day begins at `start_hour`.
    """

    rate_per_s: float
    hours: tuple[float, ...] = (1.0,) * 24
    start_hour: float = 0.0

    def times(self, duration_s: float, nodes: int, rng: np.random.Generator) -> tuple[_Floats, _Ints]:
        """Draw the arrivals of all nodes together: times in seconds, and the index of the node of each.

        The sum of independent Poisson processes is one, and each arrival belongs to a node drawn uniformly;
        times invert the integral of the rate (Devroye 1986, "Non-Uniform Random Variate Generation", VI.1.3).
        """
        edges, mass = self._integral(duration_s)
        n = int(rng.poisson(mass[-1] * self.rate_per_s * nodes)) if nodes else 0
        times = np.interp(rng.random(n) * mass[-1], mass, edges)
        return np.minimum(times, np.nextafter(duration_s, 0.0)), rng.integers(0, max(nodes, 1), size=n)

    def expected(self, duration_s: float) -> float:
        """Return the mean number of arrivals at one node."""
        return float(self._integral(duration_s)[1][-1]) * self.rate_per_s

    def _integral(self, duration_s: float) -> tuple[_Floats, _Floats]:
        first = math.floor(self.start_hour)
        marks = (np.arange(first + 1, first + 2 + math.ceil(duration_s / 3600.0)) - self.start_hour) * 3600.0
        edges = np.concatenate([[0.0], marks[marks < duration_s], [duration_s]])
        hour = np.floor(self.start_hour + (edges[:-1] + edges[1:]) / 7200.0).astype(np.int64) % 24
        weights = np.asarray(self.hours, dtype=np.float64)[hour]
        return edges, np.concatenate([[0.0], np.cumsum(weights * np.diff(edges))])


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One line of a trace; what is None comes from the stream's distributions."""

    arrival_s: float
    node: str | None = None
    kind: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals read from a file. Rows at or after the end of the run are left out."""

    rows: tuple[TraceRow, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests that arrive at one kind of node: `site` and `key` name it ("home", "device")."""

    name: str
    site: str
    key: str
    arrivals: Poisson | Trace
    kinds: tuple[Kind, ...]
    conversation: Conversation | None = None  # None: every request is alone
    backlog: int = 0  # requests that wait at each node when the run begins


@dataclass(frozen=True, slots=True)
class Workload:
    """All streams of requests of a scenario."""

    streams: tuple[Stream, ...]

    def requests(self, fleet: Fleet, duration_s: float, rng: np.random.Generator) -> RequestTable:
        """Return the requests of a run.

        Parameters
        ----------
        fleet : Fleet
            Where they arrive.
        duration_s : float
            Length of the run in seconds, positive; arrivals are in [0, duration_s).
        rng : numpy.random.Generator
            Source of all randomness.

        Returns
        -------
        RequestTable
            A sequence of `RequestSpec`, sorted by arrival of the conversation, then by turn. Later turns have
            no arrival yet (NaN).

        Raises
        ------
        WorkloadError
            If a stream has no node to arrive at, or a trace names a node or kind that is not there.

        Examples
        --------
        >>> len(Workload(()).requests(Fleet((), ()), 60.0, np.random.default_rng(1)))
        0
        """
        from ._draw_requests import draw

        if not (math.isfinite(duration_s) and duration_s > 0):
            raise WorkloadError(f"the duration must be positive and finite, got {duration_s}")
        return draw(self.streams, fleet, duration_s, rng)

    def expected(self, fleet: Fleet, duration_s: float) -> dict[str, float]:
        """Return how many requests each stream makes on average, if every conversation is held to its end.

        A trace counts all its rows.
        """
        found: dict[str, float] = {}
        for stream in self.streams:
            nodes = sum(node.key == stream.key for node in fleet.of_site(stream.site))
            if isinstance(stream.arrivals, Trace):
                count = float(len(stream.arrivals.rows))
            else:
                count = stream.arrivals.expected(duration_s) * nodes
            turns = 1.0 if stream.conversation is None else stream.conversation.turns.mean()
            found[stream.name] = (count + stream.backlog * nodes) * turns
        return found

    def with_model(self, model: str) -> Workload:
        """Return the same workload in which every kind asks for the variant `model`."""
        return Workload(
            tuple(replace(s, kinds=tuple(replace(k, model=model) for k in s.kinds)) for s in self.streams)
        )
