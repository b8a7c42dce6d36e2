"""One simulation as a study keeps it: columns of its requests, totals of its nodes and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.sim.columns import DATA_CLASSES, REQUEST_COLUMNS

#: Columns that say which run a request belongs to: the same in every row of a run.
OF_RUN = ("strategy", "base_model", "seed")
#: Figures of nodes and links that may be added up, besides every energy.
_ADDITIVE = ("busy_s", "battery_empty", "bytes_up", "bytes_down")

_TYPES: dict[str, Callable[[Any], NDArray[Any]]] = {
    "int": lambda v: np.asarray(v, dtype=np.int64),
    "float": lambda v: np.asarray(v, dtype=np.float64),
    "bool": lambda v: np.asarray(v, dtype=np.bool_),
    "str": lambda v: np.asarray(v, dtype=object),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation: one strategy, one default model, one seed.

    Attributes
    ----------
    strategy, base_model : str
    seed : int
    requests : mapping of str to (n,) ndarray
        The columns of `REQUEST_COLUMNS` but the first three; those of a stored run are read when asked for.
    nodes, links : list of dict
        Totals by (site, role) and by link profile; see docs/study.md, "Metadata".
    simulated_s : float
        Length of the simulated time, until the last answer.
    events : int
        Activities and timers of the simulation.
    trace : list of list
        Spans of traced requests: id, kind, where, start (s), end (s), detail.
    """

    strategy: str
    base_model: str
    seed: int
    requests: Mapping[str, NDArray[Any]]
    nodes: list[dict[str, Any]]
    links: list[dict[str, Any]]
    simulated_s: float = 0.0
    events: int = 0
    trace: list[list[Any]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Return what makes a row of the table."""
        return self.strategy, self.base_model


@dataclass(frozen=True, slots=True)
class RunError:
    """A simulation that gave no result.

    Attributes
    ----------
    strategy, base_model : str
    seed : int
    kind : str
        Name of the exception, for example "StrategyError".
    text : str
        What it said, with the traceback of the strategy where it raised.
    """

    strategy: str
    base_model: str
    seed: int
    kind: str
    text: str

    def __str__(self) -> str:
        return self.text.split("\n", 1)[0]


def make_run(strategy: str, base_model: str, seed: int, result: Any) -> Run:
    """Turn the result of one simulation into a `Run`: columns typed and complete, totals added up.

    Raises
    ------
    ValueError
        If the simulation gave no column of that name.
    """
    columns: dict[str, NDArray[Any]] = {}
    count = len(result.requests["id"])
    absent = {f"left_home_{c}_bytes" for c in DATA_CLASSES} | {"conversation", "turn", "attempt"}
    for column in REQUEST_COLUMNS:
        if column.name in OF_RUN:
            continue
        values = result.requests.get(column.name)
        if values is None:
            if column.name not in absent:
                raise ValueError(f"the simulation gave no column {column.name!r}")
            values = np.zeros(count)
        columns[column.name] = _TYPES[column.kind](values)
    nodes = dict(result.nodes)
    battery = np.asarray(nodes.get("battery_left_j", np.full(len(nodes["node"]), np.nan)), dtype=np.float64)
    nodes["battery_empty"] = battery <= 0.0  # NaN: no battery
    return Run(
        strategy,
        base_model,
        seed,
        columns,
        sums_by(nodes, ("site", "role"), _additive(nodes)),
        sums_by(result.links, ("profile",), _additive(result.links)),
        float(getattr(result, "simulated_s", 0.0)),
        int(getattr(result, "events", 0)),
        [list(span) for span in getattr(result, "trace", ())],
    )


def _additive(records: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(n for n in records if n in _ADDITIVE or n.endswith("energy_j") or n.startswith("left_home_"))


def sums_by(
    records: Mapping[str, Sequence[Any] | NDArray[Any]], by: tuple[str, ...], totals: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Add up columns over rows with equal keys, keys in order of first appearance.

    Parameters
    ----------
    records : dict of str to (n,) sequences
    by : tuple of str
        Key columns.
    totals : tuple of str
        Columns to add.

    Returns
    -------
    list of dict
        Keys, `count`, totals.

    Examples
    --------
    >>> sums_by({"role": ["a", "b", "a"], "x": [1, 2, 3]}, ("role",), ("x",))
    [{'role': 'a', 'count': 2, 'x': 4.0}, {'role': 'b', 'count': 1, 'x': 2.0}]
    """
    keys: dict[tuple[str, ...], int] = {}
    rows = zip(*(records[name] for name in by), strict=True)
    group = np.array([keys.setdefault(row, len(keys)) for row in rows], dtype=np.int64)
    counts = np.bincount(group, minlength=len(keys))
    sums = {
        name: np.bincount(group, np.asarray(records[name], dtype=np.float64), len(keys)) for name in totals
    }
    return [
        {
            **dict(zip(by, map(str, key), strict=True)),
            "count": int(counts[i]),
            **{name: float(values[i]) for name, values in sums.items()},
        }
        for key, i in keys.items()
    ]
