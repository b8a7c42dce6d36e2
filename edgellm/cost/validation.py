"""Predicts published measurements and scores the predictions: the errors that the simulator's costs carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .estimate import Estimate
from .parameters import Machine, counted_bytes, waits_alone
from .profile import DeviceProfile
from .tables import Figure, Measurements, TableSource, read_measurements

#: By class of figures: what it is, and the most that its median and its worst error may be.
LIMITS: Mapping[str, tuple[str, float, float]] = MappingProxyType(
    {
        "bytes": ("bytes per token", 0.0, 0.0),
        "decode": ("single-device decode", 0.08, 0.15),
        "cluster": ("time per token of clusters", 0.10, 0.15),
        "sync": ("synchronisation of clusters", 0.25, 0.25),
        "threads": ("threads x context", 0.05, 0.08),
        "ttft": ("time to first token", 0.15, 0.30),
        "energy": ("energy per token", 0.20, 0.20),
    }
)
_PREFILL = ("ttft_ms", "prefill_tok_per_s")
_RATES = ("tok_per_s", "prefill_tok_per_s")


@dataclass(frozen=True, slots=True)
class Scored:
    """A figure, what is predicted for it, and the relative error of the time, bytes or joules.

    `profile` is what the shipped profile predicts with no fit at all (None where the table names no device).
    Figures that calibrate are fitted, so their error is no prediction and never scored. `kind` is a key of
    `LIMITS`, "power" (watts, shown beside the energy that they make), or "profile" where nothing of the
    device calibrates.
    """

    figure: Figure
    kind: str
    predicted: float
    error: float
    profile: float | None
    profile_error: float | None


@dataclass(frozen=True, slots=True)
class BestNodes:
    """Of one model on several numbers of nodes: which number is fastest, published and predicted."""

    label: str
    published: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of one class of figures; `passed` is None for a class without a limit or without figures."""

    kind: str
    count: int
    median: float
    worst: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """What came out of a table."""

    table: Measurements
    scored: tuple[Scored, ...]
    best_nodes: tuple[BestNodes, ...]
    parameters: Mapping[str, Mapping[str, Estimate]]  # by device and engine
    devices: Mapping[str, DeviceProfile]

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Errors by class, of the figures that did not calibrate."""
        return summarize(self.scored)

    @property
    def passed(self) -> bool:
        """Whether every class is within its limits and every best number of nodes is right."""
        return all(s.passed for s in self.summaries) and all(
            b.published == b.predicted for b in self.best_nodes
        )


def validate(table: TableSource | Measurements) -> Validation:
    """Fit to the calibrating rows of a table of measurements, predict all others, and score them.

    Parameters
    ----------
    table : path, mapping as parsed from TOML, or Measurements
        benchmarks/validation/README.md documents the format.

    Returns
    -------
    Validation

    Raises
    ------
    TableError
        If the table is malformed.
    ProfileError
        If it names a device that is not known.

    Examples
    --------
    >>> from edgellm import cost
    >>> found = cost.validate({
    ...     "schema": 1, "id": "mine", "title": "A board", "source": "measured here",
    ...     "defaults": {"quant": "q8_0", "context": 100},
    ...     "rows": [
    ...         {"model": "qwen2.5-0.5b", "tok_per_s": 19.2, "calibrates": True},
    ...         {"model": "qwen2.5-3b", "tok_per_s": 3.05, "calibrates": True},
    ...         {"model": "qwen2.5-1.5b", "tok_per_s": 6.2},
    ...     ],
    ... })
    >>> found.passed, found.summaries[0].kind, found.summaries[0].count
    (True, 'decode', 1)
    """
    read = table if isinstance(table, Measurements) else read_measurements(table)
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in read.figures:
        groups.setdefault((figure.device, figure.runtime), []).append(figure)
    scored: list[Scored] = []
    best: list[BestNodes] = []
    parameters: dict[str, Mapping[str, Estimate]] = {}
    devices: dict[str, DeviceProfile] = {}
    for (device, runtime), figures in groups.items():
        machine = Machine(figures)
        name = " with ".join(part for part in (device or "unknown device", runtime) if part)
        parameters[name] = MappingProxyType(machine.fit())
        devices[name] = machine.profile(f"fitted to {read.id}")
        kinds = _kinds(figures, read.kind)
        predicted = {id(f): machine.predict(f) for f in figures}
        for figure in figures:
            stated = machine.stated(figure)
            scored.append(
                Scored(
                    figure=figure,
                    kind=kinds[id(figure)],
                    predicted=predicted[id(figure)],
                    error=_error(figure, predicted[id(figure)]),
                    profile=stated,
                    profile_error=None if stated is None else _error(figure, stated),
                )
            )
        best += _best_nodes(figures, predicted)
    order = {id(f): i for i, f in enumerate(read.figures)}
    scored.sort(key=lambda s: order[id(s.figure)])
    return Validation(
        read, tuple(scored), tuple(best), MappingProxyType(parameters), MappingProxyType(devices)
    )


def summarize(scored: tuple[Scored, ...]) -> tuple[Summary, ...]:
    """Return the errors by class, of the figures that did not calibrate."""
    found: list[Summary] = []
    for kind, (_, median_limit, worst_limit) in LIMITS.items():
        errors = [abs(s.error) for s in scored if s.kind == kind and not s.figure.calibrates]
        if errors:
            median, worst = statistics.median(errors), max(errors)
            passed = median <= median_limit + 1e-12 and worst <= worst_limit + 1e-12
            found.append(Summary(kind, len(errors), median, worst, passed))
    return tuple(found)


def _kinds(figures: list[Figure], stated: str) -> dict[int, str]:
    """Return the class of each figure of a device."""
    clusters = {f.setting.nodes for f in figures}
    runs: dict[tuple[str, str], set[tuple[int | None, int]]] = {}
    for f in figures:
        if f.measure not in _PREFILL:
            key = (f.setting.model.name, f.setting.format)
            runs.setdefault(key, set()).add((f.setting.threads, f.setting.context))

    def kind(f: Figure) -> str:
        if f.measure.endswith("_bytes"):
            return "bytes"
        if not any(other.calibrates for other in figures):
            return "profile"  # nothing is fitted: shown, and held to no limit
        if f.measure in _PREFILL:
            return "ttft"
        if f.measure == "j_per_token":
            return "energy"
        if f.measure == "watts":
            return "power"
        if waits_alone(f):
            return "profile"  # an engine's own bookkeeping: shown, and held to no limit
        if f.measure == "sync_ms":
            return "sync"
        if stated:
            return stated
        if len(clusters) > 1:
            return "cluster"
        if len(runs[f.setting.model.name, f.setting.format]) > 2:
            return "threads"
        return "cluster" if f.setting.nodes > 1 else "decode"

    return {id(f): kind(f) for f in figures}


def _error(figure: Figure, predicted: float) -> float:
    """Return the relative error; positive where the prediction is too much time, bytes or energy."""
    if figure.measure.endswith("_bytes"):
        counted, stated = predicted / figure.unit, figure.value / figure.unit
        if stated in (math.floor(counted), round(counted)) or math.isclose(counted, stated, rel_tol=1e-12):
            return 0.0  # as it was printed
        return counted / stated - 1.0
    if figure.measure in _RATES:
        return figure.value / predicted - 1.0
    return predicted / figure.value - 1.0


def _best_nodes(figures: list[Figure], predicted: Mapping[int, float]) -> list[BestNodes]:
    """Return, for each model that ran on several numbers of nodes, which was fastest."""
    totals: dict[tuple[str, str], dict[int, Figure]] = {}
    for f in figures:
        if f.measure in ("tok_per_s", "ms_per_token"):
            key = (f.label, f.setting.format)
            totals.setdefault(key, {}).setdefault(f.setting.nodes, f)

    def seconds(value: float, f: Figure) -> float:
        return 1.0 / value if f.measure == "tok_per_s" else value / 1000.0

    found = []
    for (label, _), by_nodes in totals.items():
        if len(by_nodes) > 1 and not all(f.calibrates for f in by_nodes.values()):
            told = min(by_nodes, key=lambda n: seconds(by_nodes[n].value, by_nodes[n]))
            guessed = min(by_nodes, key=lambda n: seconds(predicted[id(by_nodes[n])], by_nodes[n]))
            found.append(BestNodes(label, told, guessed))
    return found


__all__ = [
    "LIMITS",
    "BestNodes",
    "Scored",
    "Summary",
    "Validation",
    "counted_bytes",
    "summarize",
    "validate",
]
