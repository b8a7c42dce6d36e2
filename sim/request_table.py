"""The requests of a run, kept as columns: a million of them take tens of megabytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .workload import Conversation, Kind

#: Rows that are turned into Python objects at a time.
_CHUNK = 4096


@dataclass(slots=True)
class RequestSpec:
    """One request as it arrives: lengths in tokens and bytes, and what it is allowed to take.

    `prompt_tokens` includes `context_tokens`, the part that earlier turns of its conversation are. `row` is
    its place in the `RequestTable`, -1 where nothing can follow it (no turn, no other attempt, no leaving).
    """

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
    conversation: int = 0
    turn: int = 0
    attempt: int = 0
    context_tokens: int = 0
    row: int = -1


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of requests, in which the turns of a conversation follow each other.

    Attributes
    ----------
    arrival_s : (n,) ndarray of float64
        Of a first turn; later ones arrive when the answer before has been read.
    node, kind : (n,) ndarray of int32
        Indices.
    prompt_tokens, output_tokens, context_tokens, turn : (n,) ndarray of int64
    prompt_bytes : (n,) ndarray of int64
    deadline_s, think_s, patience_s : (n,) ndarray of float64
        NaN for no deadline; think_s is the time since the answer before; infinite patience never leaves.
    text : (n,) ndarray of object or None
        None where there is no text at all.
    """

    arrival_s: NDArray[np.float64]
    node: NDArray[np.int32]
    kind: NDArray[np.int32]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    context_tokens: NDArray[np.int64]
    turn: NDArray[np.int64]
    prompt_bytes: NDArray[np.int64]
    deadline_s: NDArray[np.float64]
    think_s: NDArray[np.float64]
    patience_s: NDArray[np.float64]
    text: NDArray[Any] | None

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """Return these rows, in this order."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        found: dict[str, Any] = {name: None if v is None else v[rows] for name, v in values.items()}
        return Columns(**found)

    @staticmethod
    def joined(parts: Sequence[Columns]) -> Columns:
        """Return the rows of all of them, in this order."""
        found: dict[str, Any] = {}
        for name in Columns.__slots__:
            values = [getattr(part, name) for part in parts]
            if name == "text" and any(v is not None for v in values):
                values = [np.full(len(p.node), "", dtype=object) if p.text is None else p.text for p in parts]
            found[name] = None if name == "text" and values[0] is None else np.concatenate(values)
        return Columns(**found)


class RequestTable(Sequence[RequestSpec]):
    """All requests that may arrive in a run, in order of conversations, each made when it is asked for.

    Which later turns do arrive, and when, depends on the answers; which attempts are made, too. Ids are given
    beforehand, so that the same request has the same id under every strategy: they count rows, and leave room
    for the attempts of those that may be tried again.

    Parameters
    ----------
    columns : Columns
    nodes : sequence of str
    kinds : sequence of Kind
    manners : sequence of Conversation or None
        How the users of each kind behave; None where every request is alone.
    """

    def __init__(
        self,
        columns: Columns,
        nodes: Sequence[str],
        kinds: Sequence[Kind],
        manners: Sequence[Conversation | None],
    ) -> None:
        self._columns, self._nodes, self._kinds, self._manners = columns, nodes, kinds, manners
        tries = np.array([1 + (m.retries if m is not None else 0) for m in manners], dtype=np.int64)
        first = columns.turn == 0
        self._conversation = np.cumsum(first) - 1
        self._first = np.flatnonzero(first)
        self._id = np.arange(len(columns.node), dtype=np.int64)
        if tries.size and tries.max() > 1:
            self._id = np.concatenate([[0], np.cumsum(tries[columns.kind])[:-1]])

    def __len__(self) -> int:
        return len(self._columns.node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestTable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any list

    @overload
    def __getitem__(self, index: int) -> RequestSpec: ...

    @overload
    def __getitem__(self, index: slice) -> list[RequestSpec]: ...

    def __getitem__(self, index: int | slice) -> RequestSpec | list[RequestSpec]:
        rows = np.arange(len(self))[index]
        return list(self._specs(rows)) if isinstance(index, slice) else next(self._specs(rows[None]))

    def __iter__(self) -> Iterator[RequestSpec]:
        return self._specs(np.arange(len(self)))

    @property
    def conversations(self) -> int:
        """How many conversations (requests on their own included) there are."""
        return len(self._first)

    def openings(self) -> Iterator[RequestSpec]:
        """Return the first requests of all conversations, in order of arrival."""
        return self._specs(self._first)

    def manner(self, row: int) -> Conversation:
        """Return how the user of a row behaves; of a row that something can follow."""
        manner = self._manners[int(self._columns.kind[row])]
        assert manner is not None, "nothing follows a request on its own"
        return manner

    def patience_s(self, row: int) -> float:
        """Return how long the user of a row waits; infinite where for ever."""
        return float(self._columns.patience_s[row])

    def think_s(self, row: int) -> float:
        """Return the time from the answer before to the arrival of a row that is a later turn."""
        return float(self._columns.think_s[row])

    def next_turn(self, row: int) -> int | None:
        """Return the row of the turn after; None after the last."""
        after = row + 1
        return after if after < len(self) and self._columns.turn[after] > 0 else None

    def _specs(self, rows: NDArray[np.int64]) -> Iterator[RequestSpec]:
        columns = self._columns
        alone = [manner is None for manner in self._manners]
        for start in range(0, len(rows), _CHUNK):
            at = rows[start : start + _CHUNK]
            text = [""] * len(at) if columns.text is None else columns.text[at].tolist()
            lengths = (columns.prompt_tokens, columns.output_tokens, columns.prompt_bytes)
            for row, id_, node, kind_, date_s, prompt, output, nbytes, limit_s, said, talk, turn, old in zip(
                at.tolist(), self._id[at].tolist(), columns.node[at].tolist(), columns.kind[at].tolist(),
                columns.arrival_s[at].tolist(), *(values[at].tolist() for values in lengths),
                columns.deadline_s[at].tolist(), text, self._conversation[at].tolist(),
                columns.turn[at].tolist(), columns.context_tokens[at].tolist(), strict=True,
            ):  # fmt: skip
                kind = self._kinds[kind_]
                yield RequestSpec(
                    id_, self._nodes[node], date_s, prompt, output, nbytes,
                    math.ceil(output * kind.bytes_per_token), kind.data_class,
                    None if limit_s != limit_s else limit_s, kind.model, kind.name, said, talk, turn, 0,
                    old, -1 if alone[kind_] else row,
                )  # fmt: skip
