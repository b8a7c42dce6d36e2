"""Pareto search: which strategy, model, format, device and placement are worth having.

A space of choices is searched for what no other choice beats in every objective. A small one is tried
whole; a large one is searched with NSGA-II (Deb et al. 2002, IEEE Trans. Evol. Comput. 6(2)), as optuna
implements it.
"""

from __future__ import annotations

import copy
import itertools
import math
import string
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim import evaluation, metrics
from edgellm.sim.columns import find
from edgellm.sim.extras import require, require_simgrid
from edgellm.sim.quality import Quality
from edgellm.sim.scenario import Scenario, load_scenario
from edgellm.sim.store import Store
from edgellm.sim.study import Study, StudyError
from edgellm.sim.sweep import Planned, TemporaryFolder, sweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Trials of one generation: simulated together, then compared.
POPULATION = 16
_FAR = 1e30  # an infinite figure, for an optimiser that must subtract


@dataclass(frozen=True, slots=True)
class Choice:
    """A dimension of the space: a list of values, or a range of numbers."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def finite(self) -> bool:
        """Whether every value can be tried."""
        return bool(self.values)


@dataclass(frozen=True, slots=True)
class Search:
    """What a search has found.

    Attributes
    ----------
    objectives : tuple of str
        Columns of `Study.table()`.
    choices : tuple of str
        Names of the dimensions of the space.
    points : list of dict
        One for each distinct choice that was simulated: the choices, then the columns of the table.
    interrupted : bool
        Whether Ctrl-C stopped it; what had ended is here.
    """

    objectives: tuple[str, ...]
    choices: tuple[str, ...]
    points: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False

    def table(self) -> pd.DataFrame:
        """Return one row per point, with `on_front`."""
        beaten = self._beaten()
        rows = [{"on_front": not b, **point} for b, point in zip(beaten, self.points, strict=True)]
        frame: pd.DataFrame = require("pandas").DataFrame(rows)
        return frame

    def front(self) -> list[dict[str, Any]]:
        """Return the points that no other beats in every objective, by the first objective."""
        kept = [p for p, b in zip(self.points, self._beaten(), strict=True) if not b]
        return sorted(kept, key=lambda point: tuple(point[name] for name in self.objectives))

    def _beaten(self) -> list[bool]:
        signs = [1.0 if find(name).better == "lower" else -1.0 for name in self.objectives]
        values = [[s * p[n] for s, n in zip(signs, self.objectives, strict=True)] for p in self.points]
        return metrics.beaten(np.array(values, dtype=np.float64).reshape(len(values), len(signs)))

    def plot(self, x: str | None = None, y: str | None = None) -> Figure:
        """Return a figure of the points and the front in two objectives (the first two unless said)."""
        require("matplotlib.figure")
        from edgellm.sim.report.front import front_figure

        return front_figure(self, x or self.objectives[0], y or self.objectives[1])


def search(
    scenario: Any,
    space: Mapping[str, Any],
    objectives: Sequence[str] = ("e2e_p95_s", "energy_per_request_j"),
    *,
    trials: int = 96,
    seeds: Sequence[int] = (1, 2, 3),
    seed: int = 1,
    workers: int = 2,
    executor: Executor | None = None,
    store: str | Path | None = None,
    quality: str = "cached",
    progress: bool = True,
) -> Search:
    """Search a space for the Pareto front of a scenario.

    Parameters
    ----------
    scenario : path, mapping or Scenario that was read from a file
    space : mapping of str to list, (low, high) or {"low":, "high":, "log":}
        "strategy": names of built-in strategies, in which "{name}" stands for another dimension, for example
        "cascade(threshold={threshold})". "model": variants that requests ask for. A name with a dot: a key
        of the scenario ("fleet.home.device.device", "fleet.home.gateway.models"). Whole bounds make whole
        numbers.
    objectives : sequence of str
        Two or more columns of `Study.table()` that have a better direction.
    trials : int
        Points at most. A space with no more points than that is tried whole.
    seeds : sequence of int
        Replications of each point.
    seed : int
        Of the search itself: the same seed tries the same points.
    workers, executor, store, quality, progress
        As in `evaluate`; with a store a search that was stopped goes on.

    Returns
    -------
    Search

    Raises
    ------
    StudyError
        If the space or an objective is wrong, or no point could be simulated.
    ScenarioError
        If a choice makes the scenario wrong.
    MissingExtra
        If optuna (extra `[sweep]`) is needed and missing.
    """
    names = tuple(objectives)
    if len(names) < 2 or len(set(names)) < len(names):
        raise StudyError(f"search: two or more different objectives are needed, got {', '.join(names)}")
    for name in names:
        if not find(name).better:
            raise StudyError(f"search: neither more nor less of {name!r} is better")
    if trials < 1 or not seeds:
        raise StudyError(f"search: at least one trial and one seed, got {trials} and {len(seeds)}")
    choices = read_space(space)
    data, base = _content(scenario)
    where = TemporaryFolder() if store is None else None
    trier = _Trier(data, base, choices, seeds, quality, Store(where.path if where else Path(store or "")))
    total = _size(choices)
    source = _all(choices) if total <= trials else _nsga2(choices, names, trials, seed, trier)
    bar = evaluation.progress_bar("searching", int(min(total, trials)) * len(seeds), "run", progress)
    try:
        for batch in source:
            trier.run(batch, workers, executor, bar)
            if trier.interrupted:
                break
    finally:
        bar.close()
    if not trier.points and not trier.interrupted:
        raise StudyError(f"search: no point could be simulated; the last error: {trier.last_error}")
    return Search(names, tuple(c.name for c in choices), list(trier.points.values()), trier.interrupted)


def read_space(space: Mapping[str, Any]) -> tuple[Choice, ...]:
    """Check a space.

    Raises
    ------
    StudyError
        If a dimension is empty or no range, or a template names a dimension that is not there.

    Examples
    --------
    >>> [c.finite for c in read_space({"strategy": ["cascade(threshold={t})"], "t": (0.1, 0.9)})]
    [True, False]
    """
    choices = tuple(_choice(str(name), value) for name, value in space.items())
    known = {choice.name for choice in choices}
    used: set[str] = set()
    for choice in choices:
        if choice.name == "strategy":
            for template in choice.values:
                used |= _fields(str(template))
    if "strategy" not in known:
        raise StudyError("search: the space has no 'strategy'")
    missing = sorted(used - known)
    if missing:
        raise StudyError(f"search: a strategy uses {{{missing[0]}}}, and the space has no such dimension")
    for name in sorted(known - used - {"strategy", "model"}):
        if "." not in name:
            raise StudyError(
                f"search: {name!r} is used by no strategy; keys of the scenario have dots (session.context)"
            )
    return choices


def _choice(name: str, value: Any) -> Choice:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"low", "high", "log"})
        if unknown or not {"low", "high"} <= set(value):
            raise StudyError(f"search: {name}: a range has low, high and perhaps log, got {dict(value)}")
        low, high, log = value["low"], value["high"], bool(value.get("log", False))
    elif isinstance(value, tuple) and len(value) == 2:
        low, high, log = *value, False
    elif isinstance(value, list | tuple) and value:
        return Choice(name, tuple(value))
    else:
        raise StudyError(f"search: {name}: expected a list of values or a range, got {value!r}")
    numbers = all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in (low, high)
    )
    if not numbers or low >= high or (log and low <= 0):
        raise StudyError(f"search: {name}: no range from {low!r} to {high!r}{' with log' if log else ''}")
    return Choice(name, (), float(low), float(high), log, isinstance(low, int) and isinstance(high, int))


def _fields(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError as error:
        raise StudyError(f"search: strategy {template!r}: {error}") from None


def _size(choices: Sequence[Choice]) -> float:
    return math.prod(len(c.values) if c.finite else math.inf for c in choices)


Point = dict[str, Any]


def _all(choices: Sequence[Choice]) -> Iterator[list[Point]]:
    combinations = itertools.product(*(c.values for c in choices))
    points = [dict(zip((c.name for c in choices), values, strict=True)) for values in combinations]
    for at in range(0, len(points), POPULATION):
        yield points[at : at + POPULATION]


def _nsga2(
    choices: Sequence[Choice], objectives: Sequence[str], trials: int, seed: int, trier: _Trier
) -> Iterator[list[Point]]:
    optuna = require("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["minimize" if find(name).better == "lower" else "maximize" for name in objectives]
    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    study = optuna.create_study(directions=directions, sampler=sampler)
    asked = 0
    while len(trier.points) < trials and asked < 20 * trials:  # the same point twice costs nothing
        batch = [study.ask() for _ in range(min(POPULATION, trials))]
        asked += len(batch)
        points = [{c.name: _suggest(trial, c) for c in choices} for trial in batch]
        yield points
        for trial, point in zip(batch, points, strict=True):
            found = trier.points.get(trier.identity(point))
            values = None if found is None else [found[name] for name in objectives]
            if values is None or any(math.isnan(v) for v in values):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, [max(-_FAR, min(_FAR, v)) for v in values])


def _suggest(trial: Any, choice: Choice) -> Any:
    if choice.finite:
        return choice.values[trial.suggest_categorical(choice.name, list(range(len(choice.values))))]
    if choice.whole:
        return trial.suggest_int(choice.name, int(choice.low), int(choice.high), log=choice.log)
    return round(trial.suggest_float(choice.name, choice.low, choice.high, log=choice.log), 6)


class _Trier:
    """Simulates points, each distinct one once."""

    def __init__(
        self,
        data: dict[str, Any],
        base: Path | None,
        choices: Sequence[Choice],
        seeds: Sequence[int],
        quality: str,
        store: Store,
    ) -> None:
        self._data, self._base, self._choices, self._seeds = data, base, choices, seeds
        self._quality, self._store = quality, store
        self._qualities: dict[str, dict[str, Quality]] = {}
        self.points: dict[str, Point] = {}
        self.last_error = ""
        self.interrupted = False

    def strategy(self, point: Point) -> str:
        """The strategy of a point, its parameters filled in."""
        template = str(point["strategy"])
        return template.format(**{name: point[name] for name in _fields(template)})

    def identity(self, point: Point) -> str:
        """Equal for points that are simulated alike: a parameter that their strategy lacks does not count."""
        used = _fields(str(point["strategy"]))
        rest = {k: v for k, v in point.items() if k != "strategy" and (k in used or k == "model" or "." in k)}
        return repr((self.strategy(point), sorted((k, repr(v)) for k, v in rest.items())))

    def run(self, points: Sequence[Point], workers: int, executor: Executor | None, bar: Any) -> None:
        """Simulate those that are new, all together."""
        new = {self.identity(point): point for point in points}
        todo = {key: point for key, point in new.items() if key not in self.points}
        plan: list[Planned] = []
        metas: dict[str, tuple[dict[str, Any], dict[str, Quality]]] = {}
        engine = require_simgrid()
        for key, point in todo.items():
            scenario = self._scenario(point)
            [(strategy, info)] = evaluation.resolve_strategies([self.strategy(point)])
            info["label"] = key
            qualities = self._quality_of(scenario)
            confidence = {name: item.confidence for name, item in qualities.items()}
            metas[key] = evaluation.describe(scenario, [info], list(self._seeds), []), qualities
            solver = scenario.study.solver
            tasks = [engine.RunTask(scenario, strategy, s, confidence, 0, solver) for s in self._seeds]
            plan += [Planned(key, "", task) for task in tasks]
        made = sweep(engine, plan, self._store, workers, executor, bar)
        self.interrupted = made.interrupted
        for error in made.failed:
            self.last_error = str(error)
        for key, (meta, qualities) in metas.items():
            runs = tuple(run for run in made.runs if run.strategy == key)
            if len(runs) == len(self._seeds):
                [row] = Study(meta, runs, qualities).rows()
                row["strategy"] = self.strategy(todo[key])
                self.points[key] = self._shown(todo[key]) | row

    def _shown(self, point: Point) -> Point:
        used = _fields(str(point["strategy"]))
        return {
            c.name: point[c.name] if c.name in used or c.name == "model" or "." in c.name else None
            for c in self._choices
            if c.name != "strategy"
        }

    def _scenario(self, point: Point) -> Scenario:
        data = copy.deepcopy(self._data)
        for name, value in point.items():
            if "." in name:
                set_key(data, name, value)
        scenario = load_scenario(data, base=self._base)
        return scenario if "model" not in point else scenario.with_model(str(point["model"]))

    def _quality_of(self, scenario: Scenario) -> dict[str, Quality]:
        key = repr((scenario.quality, sorted((n, v.quant, v.weights) for n, v in scenario.models.items())))
        if key not in self._qualities:
            self._qualities[key] = evaluation.measure_scenario(scenario, self._quality)
        return self._qualities[key]


def _content(scenario: Any) -> tuple[dict[str, Any], Path | None]:
    """Return the mapping that a scenario is built from, and where its relative paths start."""
    if isinstance(scenario, Mapping):
        return dict(scenario), None
    if isinstance(scenario, Scenario):
        if not scenario.source_path:
            raise StudyError("search: give the mapping that the scenario was made from, or its file")
        scenario = scenario.source_path
    path = Path(scenario)
    load_scenario(path)  # errors name the file
    return tomllib.loads(path.read_text(encoding="utf-8")), path.parent


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; names that are there may hold dots themselves.

    Raises
    ------
    StudyError
        If the way to it does not lead through tables.

    Examples
    --------
    >>> data = {"models": {"qwen2.5:q4_0": {"quant": "q4_0"}}}
    >>> set_key(data, "models.qwen2.5:q4_0.quant", "q8_0")
    >>> data["models"]["qwen2.5:q4_0"]["quant"]
    'q8_0'
    """
    table, rest = data, key
    while rest not in table:
        inner = max((n for n in table if rest.startswith(f"{n}.")), key=len, default=None)
        if inner is None:
            if "." in rest:
                raise StudyError(f"search: the scenario has no {key!r} (nothing at {rest!r})")
            break
        if not isinstance(table[inner], dict):
            raise StudyError(f"search: {key!r} leads through {inner!r}, which is no table")
        table, rest = table[inner], rest[len(inner) + 1 :]
    table[rest] = value
