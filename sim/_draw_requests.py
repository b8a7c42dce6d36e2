"""Draws the requests of a workload: all that is random about them, beforehand, as columns.

Each stream of requests has random streams of its own for arrivals, kinds, lengths, turns, thinking and
patience, keyed by its name and the purpose: another stream, another key of the same stream or another
strategy changes none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .fleet import Fleet, FleetError
from .request_table import Columns, RequestTable
from .workload import Conversation, Kind, Stream, Trace, TraceRow, WorkloadError

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class _Streams:
    """Random streams of one stream of requests, by purpose."""

    def __init__(self, root: Sequence[int], name: str) -> None:
        self._root, self._name = root, name

    def of(self, purpose: str) -> np.random.Generator:
        digest = hashlib.blake2b(f"{purpose}/{self._name}".encode(), digest_size=16).digest()
        words = tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(self._root), spawn_key=words)))


def draw(
    streams: Sequence[Stream], fleet: Fleet, duration_s: float, rng: np.random.Generator
) -> RequestTable:
    """Return the requests of a run, sorted by arrival; turns follow the first of their conversation."""
    root = [int(word) for word in rng.integers(0, 2**32, size=4)]
    names = [node.name for node in fleet.nodes]
    place = {name: i for i, name in enumerate(names)}
    kinds: list[Kind] = []
    manners: list[Conversation | None] = []
    parts: list[Columns] = []
    for stream in streams:
        part = _draw(stream, fleet, duration_s, _Streams(root, stream.name), place, len(kinds))
        parts.append(part)
        kinds.extend(stream.kinds)
        manners.extend([stream.conversation] * len(stream.kinds))
    if not parts:
        return RequestTable(_empty(), names, kinds, manners)
    columns = Columns.joined(parts) if len(parts) > 1 else parts[0]
    begins = np.flatnonzero(columns.turn == 0)
    order = np.argsort(columns.arrival_s[begins], kind="stable")  # ties keep the order of streams and rows
    if len(begins) < len(columns.turn):
        lengths = np.diff(np.append(begins, len(columns.turn)))[order]
        rows = np.repeat(begins[order], lengths) + _count_up(lengths)
    else:
        rows = order
    return RequestTable(columns.take(rows), names, kinds, manners)


def _count_up(lengths: _Ints) -> _Ints:
    """Return 0, 1, ... length - 1 for each of the lengths, one after the other."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)


def _empty() -> Columns:
    whole, real = np.empty(0, dtype=np.int64), np.empty(0)
    few = whole.astype(np.int32)
    return Columns(real, few, few, whole, whole, whole, whole, whole, real, real, real, None)


def _draw(
    stream: Stream, fleet: Fleet, duration_s: float, streams: _Streams, place: dict[str, int], first_kind: int
) -> Columns:
    nodes = [place[n.name] for n in fleet.of_site(stream.site) if n.key == stream.key]
    if not nodes:
        raise WorkloadError(f"workload.{stream.name}: no node {stream.site}/{stream.key} in the fleet")
    rows: list[TraceRow] | None = None
    rng = streams.of("arrivals")
    if isinstance(stream.arrivals, Trace):
        rows = [row for row in stream.arrivals.rows if row.arrival_s < duration_s]
        times = np.array([row.arrival_s for row in rows], dtype=np.float64)
        where = rng.integers(0, len(nodes), size=len(rows))
    else:
        times, where = stream.arrivals.times(duration_s, len(nodes), rng)
    if stream.backlog:
        times = np.concatenate([times, np.zeros(stream.backlog * len(nodes))])
        where = np.concatenate([where, np.repeat(np.arange(len(nodes)), stream.backlog)])
    edges = np.cumsum([kind.weight for kind in stream.kinds])
    which = np.searchsorted(edges, streams.of("kinds").random(len(times)) * edges[-1], side="right")
    which = np.minimum(which, len(stream.kinds) - 1)
    if rows is not None:
        _apply_trace_kinds(stream, rows, which)
    node = np.asarray(nodes, dtype=np.int32)[where]
    columns = _turns(stream, times, node, which, streams)
    if rows is not None:
        _override(columns, rows, fleet, stream, place)
    if stream.conversation is not None:
        _add_history(stream, columns)
    columns.prompt_tokens[:] += np.array([k.prefix_tokens for k in stream.kinds])[columns.kind]
    columns.kind[:] += first_kind
    return columns


def _turns(
    stream: Stream, times: _Floats, node: NDArray[np.int32], which: _Ints, streams: _Streams
) -> Columns:
    """Return the columns with lengths, one row per turn; prompts without prefix and history."""
    manner, n = stream.conversation, len(times)
    turn = np.zeros(n, dtype=np.int64)
    if manner is not None:
        count = manner.turns.sample(streams.of("turns"), n)
        turn = _count_up(count)
        times, node, which = np.repeat(times, count), np.repeat(node, count), np.repeat(which, count)
        n = len(times)
    never = np.full(n, np.inf)
    patient = manner is None or manner.patience is None
    found = Columns(
        arrival_s=np.where(turn == 0, times, np.nan),
        node=node,
        kind=which.astype(np.int32),
        prompt_tokens=np.empty(n, dtype=np.int64),
        output_tokens=np.empty(n, dtype=np.int64),
        context_tokens=np.zeros(n, dtype=np.int64),
        turn=turn,
        prompt_bytes=np.empty(n, dtype=np.int64),
        deadline_s=np.empty(n),
        think_s=np.zeros(n) if manner is None else manner.think_time.sample(streams.of("think time"), n),
        patience_s=never if patient else manner.patience.sample(streams.of("patience"), n),  # type: ignore[union-attr]  # not patient: it is there
        text=np.full(n, "", dtype=object) if any(kind.prompts for kind in stream.kinds) else None,
    )
    for k, kind in enumerate(stream.kinds):
        picked = np.flatnonzero(which == k)
        found.deadline_s[picked] = np.nan if kind.deadline_s is None else kind.deadline_s
        _lengths(kind, picked, found, streams.of(f"lengths/{kind.name}"))
    return found


def _lengths(kind: Kind, picked: _Ints, found: Columns, rng: np.random.Generator) -> None:
    """Draw the lengths of the requests of one kind, and their texts."""
    outputs = kind.output_tokens.sample(rng, len(picked))
    if not kind.prompts:
        tokens = kind.prompt_tokens.sample(rng, len(picked))
        nbytes = np.ceil(tokens * kind.bytes_per_token).astype(np.int64)
    else:
        chosen = rng.integers(0, len(kind.prompts), size=len(picked))
        said = [-1 if p.output_tokens is None else p.output_tokens for p in kind.prompts]
        tokens = np.array([p.tokens for p in kind.prompts], dtype=np.int64)[chosen]
        nbytes = np.array([len(p.text.encode()) for p in kind.prompts], dtype=np.int64)[chosen]
        outputs = np.where(np.array(said)[chosen] < 0, outputs, np.array(said)[chosen])
        assert found.text is not None, "a kind has prompts"
        texts = np.empty(len(kind.prompts), dtype=object)
        texts[:] = [p.text for p in kind.prompts]
        found.text[picked] = texts[chosen]
    found.prompt_tokens[picked], found.output_tokens[picked] = tokens, outputs
    found.prompt_bytes[picked] = nbytes


def _add_history(stream: Stream, found: Columns) -> None:
    """Put questions and answers of earlier turns in front of each prompt, as far back as is kept."""
    assert stream.conversation is not None, "only conversations have a history"
    said = found.prompt_tokens + found.output_tokens
    before = np.cumsum(said) - said  # of the whole column; from here on of the conversation
    starts = np.flatnonzero(found.turn == 0)
    before -= np.repeat(before[starts], np.diff(np.append(starts, len(said))))
    found.context_tokens[:] = np.minimum(before, stream.conversation.context_tokens)
    per_token = np.array([kind.bytes_per_token for kind in stream.kinds])[found.kind]
    found.prompt_tokens[:] += found.context_tokens
    found.prompt_bytes[:] += np.ceil(found.context_tokens * per_token).astype(np.int64)


def _apply_trace_kinds(stream: Stream, rows: Sequence[TraceRow], which: _Ints) -> None:
    index = {kind.name: k for k, kind in enumerate(stream.kinds)}
    for i, row in enumerate(rows):
        if row.kind is None:
            continue
        if row.kind not in index:
            known = ", ".join(index)
            raise WorkloadError(f"workload.{stream.name}: the trace names kind {row.kind!r}; known: {known}")
        which[i] = index[row.kind]


def _override(
    found: Columns, rows: Sequence[TraceRow], fleet: Fleet, stream: Stream, place: dict[str, int]
) -> None:
    """Write what the trace says into the first turns; a node counts for the whole conversation."""
    starts = np.append(np.flatnonzero(found.turn == 0), len(found.turn)).tolist()
    for row, at, end in zip(rows, starts, starts[1:], strict=False):  # a backlog follows the trace
        if row.node is not None:
            try:
                found.node[at:end] = place[fleet.node(row.node).name]
            except FleetError as err:
                where = f"workload.{stream.name}: the trace at {row.arrival_s} s"
                raise WorkloadError(f"{where}: {err}") from None
        if row.prompt_tokens is not None:
            found.prompt_tokens[at] = row.prompt_tokens
            per_token = stream.kinds[found.kind[at]].bytes_per_token
            found.prompt_bytes[at] = np.ceil(row.prompt_tokens * per_token)
            if found.text is not None:
                found.text[at] = ""
        if row.output_tokens is not None:
            found.output_tokens[at] = row.output_tokens
        if row.deadline_s is not None:
            found.deadline_s[at] = row.deadline_s
