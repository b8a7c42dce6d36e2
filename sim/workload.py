"""Requests of a scenario: when they arrive, where, how long they are, and what they may take.

Arrivals are open (nobody waits for an answer before asking): homogeneous or diurnal Poisson processes, or a
trace. Everything random is drawn from the generator that the caller passes, in a fixed order, so that the
same seed gives the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .fleet import Fleet, FleetError

#: Bytes of text per token where nothing better is known: English with a vocabulary of about 50,000.
BYTES_PER_TOKEN = 4.0
#: Kinds of user data, for the privacy ledger (DESIGN.md, section 8).
DATA_CLASSES = ("none", "metadata", "text", "activations", "adapter", "gradient")

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class WorkloadError(ValueError):
    """A workload that cannot be generated."""


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request as it arrives: lengths in tokens and bytes, and what it is allowed to take."""

    id: int
    node: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prompt_bytes: int
    answer_bytes: int
    data_class: str
    deadline_s: float | None  # after the arrival
    model: str  # name of the default variant
    kind: str
    text: str = ""  # of a real prompt, else empty


class Lengths(Protocol):
    """A distribution of positive whole lengths, in tokens."""

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths, each at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same length."""

    value: int

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Return n times the value; nothing is drawn."""
        return np.full(n, self.value, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, equally likely."""

    low: int
    high: int

    def sample(self, rng: np.random.Generator, n: int) -> _Ints:
        """Draw n lengths."""
        return rng.integers(self.low, self.high + 1, size=n, dtype=np.int64)


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


@dataclass(frozen=True, slots=True)
class Workload:
    """All streams of requests of a scenario."""

    streams: tuple[Stream, ...]

    def requests(self, fleet: Fleet, duration_s: float, rng: np.random.Generator) -> list[RequestSpec]:
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
        list of RequestSpec
            Sorted by (arrival_s, id); ids count from 0.

        Raises
        ------
        WorkloadError
            If a stream has no node to arrive at, or a trace names a node or kind that is not there.

        Examples
        --------
        >>> w = Workload(())
        >>> w.requests(Fleet((), ()), 60.0, np.random.default_rng(1))
        []
        """
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise WorkloadError(f"the duration must be positive and finite, got {duration_s}")
        drawn: list[_Row] = []
        for stream in self.streams:
            # a child per stream: adding a stream at the end leaves the others as they were
            child = np.random.default_rng(rng.integers(0, 2**63, size=4))
            drawn.extend(_draw(stream, fleet, duration_s, child))
        drawn.sort(key=lambda row: row[0])  # stable: ties keep the order of streams and rows
        return [_spec(i, row) for i, row in enumerate(drawn)]

    def expected(self, fleet: Fleet, duration_s: float) -> dict[str, float]:
        """Return how many requests each stream makes on average; a trace counts all its rows."""
        found: dict[str, float] = {}
        for stream in self.streams:
            if isinstance(stream.arrivals, Trace):
                found[stream.name] = float(len(stream.arrivals.rows))
            else:
                nodes = sum(node.key == stream.key for node in fleet.of_site(stream.site))
                found[stream.name] = stream.arrivals.expected(duration_s) * nodes
        return found

    def with_model(self, model: str) -> Workload:
        """Return the same workload in which every kind asks for the variant `model`."""
        return Workload(
            tuple(replace(s, kinds=tuple(replace(k, model=model) for k in s.kinds)) for s in self.streams)
        )


#: arrival_s, node, kind, prompt tokens without prefix, output tokens, prompt bytes, text, deadline_s
_Row = tuple[float, str, Kind, int, int, int, str, float | None]


def _spec(number: int, row: _Row) -> RequestSpec:
    arrival_s, node, kind, tokens, output, nbytes, text, deadline_s = row
    return RequestSpec(
        id=number,
        node=node,
        arrival_s=arrival_s,
        prompt_tokens=kind.prefix_tokens + tokens,
        output_tokens=output,
        prompt_bytes=nbytes,
        answer_bytes=math.ceil(output * kind.bytes_per_token),
        data_class=kind.data_class,
        deadline_s=deadline_s,
        model=kind.model,
        kind=kind.name,
        text=text,
    )


def _draw(stream: Stream, fleet: Fleet, duration_s: float, rng: np.random.Generator) -> list[_Row]:
    nodes = [n.name for n in fleet.of_site(stream.site) if n.key == stream.key]
    if not nodes:
        raise WorkloadError(f"workload.{stream.name}: no node {stream.site}/{stream.key} in the fleet")
    rows: Sequence[TraceRow] | None = None
    if isinstance(stream.arrivals, Trace):
        rows = [row for row in stream.arrivals.rows if row.arrival_s < duration_s]
        times = np.array([row.arrival_s for row in rows], dtype=np.float64)
        where = rng.integers(0, len(nodes), size=len(rows))
    else:
        times, where = stream.arrivals.times(duration_s, len(nodes), rng)
    edges = np.cumsum([kind.weight for kind in stream.kinds])
    which = np.searchsorted(edges, rng.random(len(times)) * edges[-1], side="right")
    if rows is not None:
        _apply_trace_kinds(stream, rows, which)
    found: list[_Row] = []
    order: list[int] = []
    for k, kind in enumerate(stream.kinds):
        picked = np.flatnonzero(which == k)
        order.extend(picked.tolist())
        lengths = _lengths(kind, len(picked), rng)
        for i, (tokens, output, nbytes, text) in zip(picked.tolist(), lengths, strict=True):
            found.append(
                (float(times[i]), nodes[where[i]], kind, tokens, output, nbytes, text, kind.deadline_s)
            )
    in_order = [found[i] for i in np.argsort(np.asarray(order, dtype=np.int64), kind="stable")]
    if rows is None:
        return in_order
    return [_override(drawn, row, fleet, stream) for drawn, row in zip(in_order, rows, strict=True)]


def _lengths(kind: Kind, n: int, rng: np.random.Generator) -> list[tuple[int, int, int, str]]:
    """Draw (prompt tokens, output tokens, prompt bytes, text) of n requests of a kind."""
    outputs = kind.output_tokens.sample(rng, n).tolist()
    if not kind.prompts:
        drawn = kind.prompt_tokens.sample(rng, n).tolist()
        return [
            (tokens, output, math.ceil(tokens * kind.bytes_per_token), "")
            for tokens, output in zip(drawn, outputs, strict=True)
        ]
    chosen = [kind.prompts[i] for i in rng.integers(0, len(kind.prompts), size=n)]
    return [
        (
            prompt.tokens,
            output if prompt.output_tokens is None else prompt.output_tokens,
            len(prompt.text.encode()),
            prompt.text,
        )
        for prompt, output in zip(chosen, outputs, strict=True)
    ]


def _apply_trace_kinds(stream: Stream, rows: Sequence[TraceRow], which: _Ints) -> None:
    index = {kind.name: k for k, kind in enumerate(stream.kinds)}
    for i, row in enumerate(rows):
        if row.kind is None:
            continue
        if row.kind not in index:
            known = ", ".join(index)
            raise WorkloadError(f"workload.{stream.name}: the trace names kind {row.kind!r}; known: {known}")
        which[i] = index[row.kind]


def _override(drawn: _Row, row: TraceRow, fleet: Fleet, stream: Stream) -> _Row:
    arrival_s, node, kind, tokens, output, nbytes, text, deadline_s = drawn
    if row.node is not None:
        try:
            node = fleet.node(row.node).name
        except FleetError as err:
            raise WorkloadError(f"workload.{stream.name}: the trace at {row.arrival_s} s: {err}") from None
    if row.prompt_tokens is not None:
        tokens, text = row.prompt_tokens, ""
        nbytes = math.ceil(tokens * kind.bytes_per_token)
    if row.output_tokens is not None:
        output = row.output_tokens
    if row.deadline_s is not None:
        deadline_s = row.deadline_s
    return (arrival_s, node, kind, tokens, output, nbytes, text, deadline_s)
