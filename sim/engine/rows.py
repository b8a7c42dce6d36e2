"""The table of requests: a row is written when a request is settled, and the request is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgellm.sim.texts import Texts

from .request import LEDGER_CLASSES

if TYPE_CHECKING:
    from .request import Request

#: Columns of `RunResult.requests` in their order; docs/study.md says what they mean.
REQUEST_COLUMNS = (
    "id",
    "conversation",
    "turn",
    "attempt",
    "node",
    "arrival_s",
    "kind",
    "prompt_tokens",
    "output_tokens",
    "data_class",
    "deadline_s",
    "status",
    "reason",
    "model",
    "first_token_s",
    "e2e_s",
    "tpot_s",
    "energy_j",
    "device_energy_j",
    "bytes_up",
    "bytes_down",
    "left_home_bytes",
    *(f"left_home_{c}_bytes" for c in LEDGER_CLASSES),
    "cloud_s",
    "cost_usd",
    "escalated",
    "tokens_wasted",
)
_TYPES: dict[str, Any] = dict.fromkeys(REQUEST_COLUMNS, np.float64)
_TYPES |= dict.fromkeys(("node", "kind", "data_class", "status", "reason", "model"), np.int32)
_TYPES |= dict.fromkeys(("id", "conversation", "prompt_tokens", "output_tokens", "tokens_wasted"), np.int64)
_TYPES |= dict.fromkeys(("turn", "attempt"), np.uint16)
_TYPES["escalated"] = np.bool_
#: Rows that wait as objects before they become columns.
_CHUNK = 4096

Column = NDArray[Any] | Texts | list[str]


class _Codes(dict[str, int]):
    """Numbers texts in the order in which they are first met."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class Rows:
    """Rows of requests, kept as typed columns. A row that was written may be corrected: whoever goes on
    working for a request after it was settled (the loser of a race) is still paid for.
    """

    def __init__(self) -> None:
        self.open: dict[int, Request] = {}  # by id: those without a row
        self._rows: list[tuple[Any, ...]] = []
        self._corrected: dict[int, tuple[Any, ...]] = {}  # by number of the row
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in REQUEST_COLUMNS}
        self._codes = {name: _Codes() for name, kind in _TYPES.items() if kind is np.int32}
        self._written = 0

    def __len__(self) -> int:
        """Requests that have a row."""
        return self._written + len(self._rows)

    def add(self, request: Request) -> None:
        """Write the row of a request, or write it anew."""
        if request.row_number >= 0:
            self.correct(request)
            return
        del self.open[request.id]
        rows = self._rows
        request.row_number = self._written + len(rows)
        rows.append(request.row())
        if len(rows) == _CHUNK:
            self._write()

    def correct(self, request: Request) -> None:
        """Replace the row of a request."""
        at = request.row_number - self._written
        if at >= 0:
            self._rows[at] = request.row()
        else:
            self._corrected[request.row_number] = request.row()

    def close(self) -> dict[str, Column]:
        """Write what is still open, and return all columns, in order of the ids."""
        for request in sorted(self.open.values(), key=lambda r: r.id):
            request.close()
            self.add(request)
        self._write()
        order: NDArray[np.int64] | None = None
        columns: dict[str, Column] = {}
        corrected = sorted(self._corrected)
        for i, name in enumerate(REQUEST_COLUMNS):
            parts = self._parts.pop(name)  # one column at a time: two tables need not fit in memory
            whole = np.concatenate(parts) if parts else np.empty(0, dtype=_TYPES[name])
            if corrected:
                whole[corrected] = self._typed(name, [self._corrected[number][i] for number in corrected])
            if order is None:  # the first column is the id
                order = np.argsort(whole, kind="stable")
            whole = whole[order]
            columns[name] = Texts(whole, list(self._codes[name])) if name in self._codes else whole
        return columns

    def _write(self) -> None:
        for name, values in zip(REQUEST_COLUMNS, zip(*self._rows, strict=True), strict=False):
            self._parts[name].append(self._typed(name, values))
        self._written += len(self._rows)
        self._rows.clear()

    def _typed(self, name: str, values: Any) -> NDArray[Any]:
        codes = self._codes.get(name)
        if codes is not None:
            values = list(map(codes.__getitem__, values))
        return np.array(values, dtype=_TYPES[name])
