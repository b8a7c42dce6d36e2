"""Do the conclusions of a study survive if its constants are not quite what the profiles say?

`sensitivity` simulates the same requests again and again with constants drawn from their spreads, the same
for every strategy, and tells how often another strategy wins and which constants that hangs on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgellm.sim import statistics
from edgellm.sim.columns import directed, find
from edgellm.sim.distributions import t_cdf
from edgellm.sim.extras import require, require_simgrid
from edgellm.sim.fleet import Fleet
from edgellm.sim.quality import write_atomically
from edgellm.sim.runs import make_run
from edgellm.sim.store import StudyError
from edgellm.sim.study import Study

if TYPE_CHECKING:
    import pandas as pd

#: A guess may be off by so many times, either way.
GUESS = 2.0
#: Facts of a device that are not measured; they vary only where a profile says how far.
_FACTS = ("cores", "ram_bytes", "max_payload_bytes")
#: Version of the file that draws are kept in.
_FILE = 1

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """A constant of a profile and the interval that it is drawn from.

    Attributes
    ----------
    profile, constant : str
    value, low, high : float
        What the profile says, and the bounds: those of the profile, or, for a guess without any, half and
        twice the value.
    unit : str
    guess : bool
    """

    profile: str
    constant: str
    value: float
    low: float
    high: float
    unit: str
    guess: bool

    def draw(self, u: float) -> float:
        """Return the value at share `u` of the interval: even in the logarithm, or, from 0 on, even.

        Examples
        --------
        >>> Spread("pi", "idle_w", 4.0, 2.0, 8.0, "w", True).draw(0.5)
        4.0
        """
        if self.low > 0.0:
            return self.low * math.exp(u * math.log(self.high / self.low))
        return self.low + u * (self.high - self.low)


def spreads(fleet: Fleet) -> list[Spread]:
    """Return every constant of a fleet's devices and links that is known to be uncertain.

    Bounds come from the profile; a guess without bounds may be off by a factor of two. A constant with one
    source and no bounds is taken at its word. Shares stay between 0 and 1 where they are.
    """
    profiles: dict[str, Any] = {node.device.name: node.device for node in fleet.nodes}
    profiles |= {link.profile.name: link.profile for link in fleet.links}
    found = []
    for name, profile in profiles.items():
        for key, constant in profile.constants():
            low, high = constant.low, constant.high
            if low is None or high is None:
                if not constant.guess or constant.value == 0.0 or key in _FACTS or constant.unit == "k":
                    continue
                low, high = constant.value / GUESS, constant.value * GUESS
            if constant.unit == "ratio" and constant.value > 1.0:  # a factor by which something is more
                low = max(low, 1.0)
            elif constant.unit == "ratio":  # a loss, a duty cycle, an efficiency
                high = min(high, 0.9 if key == "loss" else 1.0)
            if low < high:
                found.append(Spread(name, key, constant.value, low, high, constant.unit, constant.guess))
    return found


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How the strategies compare when constants are drawn from their spreads.

    Attributes
    ----------
    metric : str
    strategies : tuple of str
        Labels.
    constants : tuple of Spread
    nominal : dict of str to float
        The figure of each strategy with the constants of the profiles.
    drawn : (draws, constants) ndarray of float64
        Shares of the spreads, 0 to 1.
    figures : dict of str to (draws,) ndarray of float64
        The figure of each strategy in each draw.
    """

    metric: str
    strategies: tuple[str, ...]
    constants: tuple[Spread, ...]
    nominal: Mapping[str, float]
    drawn: FloatArray
    figures: Mapping[str, FloatArray]

    def _best(self, values: Mapping[str, float]) -> str | None:
        sign = 1.0 if find(self.metric).better == "lower" else -1.0
        ranked = sorted((sign * v, name) for name, v in values.items() if not math.isnan(v))
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1]

    @property
    def winner(self) -> str | None:
        """Return the best strategy with the constants of the profiles; None where two are equal."""
        return self._best(self.nominal)

    def winners(self) -> list[str | None]:
        """Return the best strategy of each draw; None where two are equal."""
        return [
            self._best({name: float(self.figures[name][i]) for name in self.strategies})
            for i in range(len(self.drawn))
        ]

    @property
    def changed(self) -> float:
        """Return the share of draws in which the winner is another one."""
        found = self.winners()
        return sum(name != self.winner for name in found) / len(found) if found else math.nan

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per strategy: figure, its range over the draws, and how often it wins."""
        found, out = self.winners(), []
        for name in self.strategies:
            values = np.sort(self.figures[name])
            low, middle, high = (_quantile(values, q) for q in (0.05, 0.5, 0.95))
            wins = sum(w == name for w in found) / len(found) if found else math.nan
            given = self.nominal[name]
            out.append(
                {"strategy": name, "nominal": given, "p5": low, "p50": middle, "p95": high, "wins": wins}
            )
        return out

    def effects(self) -> list[dict[str, Any]]:
        """Return one row per constant: its rank correlation with each strategy's figure and with the lead.

        `lead` is the correlation with the winner's lead over the best of the others, in which what moves all
        strategies alike cancels: constants high up there may change the winner. `p_holm` belongs to `lead`
        and is corrected for the number of constants.

        Returns
        -------
        list of dict
            Sorted by the absolute correlation with the lead.
        """
        lead, out = self._lead(), []
        for i, spread in enumerate(self.constants):
            drawn = self.drawn[:, i]
            row: dict[str, Any] = {
                "profile": spread.profile, "constant": spread.constant, "unit": spread.unit,
                "value": spread.value, "low": spread.low, "high": spread.high, "guess": spread.guess,
            }  # fmt: skip
            for name in self.strategies:
                row[name] = rank_correlation(drawn, self.figures[name])
            row["lead"] = rank_correlation(drawn, lead)
            out.append(row)
        for row, p in zip(out, statistics.holm([_p_value(r["lead"], len(lead)) for r in out]), strict=True):
            row["p_holm"] = p
        return sorted(out, key=lambda row: -abs(row["lead"]))

    def _lead(self) -> FloatArray:
        """Return by how much the winner (the first strategy where there is none) leads in each draw."""
        best = self.winner or self.strategies[0]
        sign = 1.0 if find(self.metric).better == "lower" else -1.0
        others = [sign * self.figures[name] for name in self.strategies if name != best]
        mine = sign * self.figures[best]
        if not others:
            return mine
        with np.errstate(invalid="ignore"):
            lead = np.min(others, axis=0) - mine
        return np.where(np.isnan(lead), 0.0, lead)  # both infinite: nobody leads

    def table(self) -> pd.DataFrame:
        """Return `effects()` as a table."""
        frame: pd.DataFrame = require("pandas").DataFrame(self.effects())
        return frame

    def text(self, constants: int = 5) -> str:
        """Return what was found, for a terminal."""
        from edgellm.sim.report.text import number, percent

        head = ["strategy", "as given", "5 %", "50 %", "95 %", "wins"]
        lines = [head] + [
            [
                row["strategy"],
                *(number(row[k]) for k in ("nominal", "p5", "p50", "p95")),
                percent(row["wins"]),
            ]
            for row in self.rows()
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        out = [f"{self.metric} with {len(self.constants)} constants drawn {len(self.drawn)} times"]
        for line in lines:
            cells = zip(line[1:], widths[1:], strict=True)
            out.append("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in cells)]))
        best = self.winner
        if len(self.strategies) > 1:
            if best is None:
                out.append("With the constants of the profiles no strategy is best.")
            else:
                out.append(f"{best} is best as given; another is in {percent(self.changed)} of the draws.")
        matter = [row for row in self.effects() if row["p_holm"] < 0.05]
        for row in matter[:constants]:
            spread = f"{number(row['low'])} to {number(row['high'])} {row['unit']}".strip()
            guess = ", a guess" if row["guess"] else ""
            name = f"{row['profile']}.{row['constant']}"
            out.append(f"{name} ({spread}{guess}): rank correlation with the lead {row['lead']:+.2f}")
        if not matter:
            out.append("No constant alone is seen to matter for the lead.")
        return "\n".join(out)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank, infinity is an ordinary rank.

    Examples
    --------
    >>> rank_correlation([1, 2, 3], [10.0, 100.0, float("inf")])
    1.0
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0.0 else 0.0


def _ranks(values: ArrayLike) -> FloatArray:
    sample = np.asarray(values, dtype=np.float64).ravel()
    _, inverse, counts = np.unique(sample, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    ranks: FloatArray = (last - (counts - 1) / 2.0)[inverse.ravel()]
    return ranks


def _p_value(correlation: float, n: int) -> float:
    """Return the p value of a rank correlation by Student's t with n - 2 degrees of freedom.

    It is never less than what the two perfect orders among all have, 2 / n!.
    """
    if n < 4:
        return math.nan
    least = 2.0 / math.factorial(min(n, 100))
    if abs(correlation) >= 1.0:
        return least
    t = correlation * math.sqrt((n - 2) / (1.0 - correlation**2))
    return max(least, 2.0 * t_cdf(-abs(t), n - 2))


def _quantile(ordered: FloatArray, q: float) -> float:
    return float(ordered[max(0, math.ceil(q * len(ordered)) - 1)]) if len(ordered) else math.nan


def sensitivity(
    scenario: Any,
    strategies: Sequence[Any] | None = None,
    metric: str = "e2e_p95_s",
    draws: int = 50,
    seed: int = 1,
    *,
    replications: int = 1,
    workers: int = 2,
    executor: Executor | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Sensitivity:
    """Simulate with constants drawn from their spreads, and compare the strategies in each draw.

    Every constant of a device or a link that has bounds is drawn between them, a guess without bounds between
    half and twice its value, evenly in the logarithm and spread out over the draws (a Latin hypercube). All
    strategies of a draw meet the same constants, and all draws the same requests.

    Parameters
    ----------
    scenario : Scenario, path or mapping
    strategies : sequence of str, Strategy or Strategy class, or None
        As in `edgellm.sim.evaluate`.
    metric : str
        A figure of a study's table that has a better direction.
    draws : int
        At least 2; the constants as given are simulated besides.
    seed : int
        Of the draws.
    replications : int
        Simulations of each draw, whose figures are averaged.
    workers, executor, progress
        As in `edgellm.sim.evaluate`.
    resume : path or None
        A file that keeps the figures of every draw as it ends (JSON lines); called again with the same file,
        only what is missing is simulated, nothing for another metric.

    Returns
    -------
    Sensitivity
        Of the draws that had ended, if it was stopped with Ctrl-C.

    Raises
    ------
    ValueError
        If the metric has no better direction or a number is out of range.
    StudyError
        If `resume` belongs to something else.
    SimulationError
        If a simulation fails.

    Notes
    -----
    Source: Saltelli et al., Global Sensitivity Analysis (2008), section 1.2.7 (rank correlation); McKay,
    Beckman and Conover (1979) for Latin hypercubes.
    """
    from edgellm.sim.evaluation import measure_scenario, progress_bar, resolve_strategies
    from edgellm.sim.scenario import Scenario, load_scenario

    directed(metric)
    if draws < 2 or replications < 1 or seed < 0:
        raise ValueError("sensitivity: at least 2 draws, 1 replication and a seed of 0 or more")
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    chosen = resolve_strategies(scenario.study.strategies if strategies is None else strategies)
    labels = tuple(info["label"] for _, info in chosen)
    constants = spreads(scenario.fleet)
    drawn = _hypercube(draws, len(constants), seed)
    seeds = scenario.study.seeds_for(compared=True)
    seeds = seeds[:replications] if len(seeds) >= replications else tuple(range(1, replications + 1))
    confidence = {n: q.confidence for n, q in measure_scenario(scenario, "cached").items()}
    what = {"scenario": scenario.digest, "strategies": labels, "seed": seed, "draws": draws, "seeds": seeds}
    kept = _Kept(resume, what)
    engine = require_simgrid()
    bar = progress_bar("drawing constants", (draws + 1) * len(labels) * len(seeds), "run", progress)
    try:
        for number in range(-1, draws):  # -1: as given
            world = scenario
            if number >= 0:
                shares = zip(constants, drawn[number].tolist(), strict=True)
                world = scenario.with_constants({(c.profile, c.constant): c.draw(u) for c, u in shares})
            todo = [
                (label, s, engine.RunTask(world, strategy, s, confidence))
                for (strategy, _), label in zip(chosen, labels, strict=True)
                for s in seeds
                if (number, label, s) not in kept.figures
            ]
            bar.update(len(labels) * len(seeds) - len(todo))
            tasks = [task for *_, task in todo]
            for place, result in engine.run_many(tasks, workers, executor) if todo else ():
                if isinstance(result, Exception):
                    raise result
                label, s, _ = todo[place]
                kept.add(number, label, s, _figures(scenario, make_run(label, "", s, result)))
                bar.update(1)
    except KeyboardInterrupt:
        pass
    finally:
        bar.close()
    return kept.collect(metric, labels, constants, drawn, seeds)


def _figures(scenario: Any, run: Any) -> dict[str, float]:
    slo = scenario.slo
    meta = {
        "scenario": {"duration_s": float(scenario.duration_s)},
        "slo": {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s, "e2e_s": slo.e2e_s, "target": slo.target},
    }
    return Study(meta, (run,)).figures_of(run)


def _hypercube(draws: int, constants: int, seed: int) -> FloatArray:
    """Return shares in (0, 1): in each column one in every n-th part, each column in an order of its own."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0x5E75,))))
    parts = rng.permuted(np.tile(np.arange(draws, dtype=np.float64)[:, None], (1, constants)), axis=0)
    shares: FloatArray = (parts + rng.random((draws, constants))) / draws
    return shares


class _Kept:
    """Figures of the simulations so far, and the file that they are kept in."""

    def __init__(self, path: str | Path | None, what: Mapping[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        self._what = json.loads(json.dumps({"edgellm_sensitivity": _FILE, **what}))
        self.figures: dict[tuple[int, str, int], dict[str, float]] = {}
        if self._path is None:
            return
        if self._path.exists():
            self._read(self._path)
        else:
            write_atomically(self._path, (json.dumps(self._what) + "\n").encode())

    def _read(self, path: Path) -> None:
        lines = path.read_text("utf-8", "replace").split("\n")
        try:
            same = json.loads(lines[0]) == self._what
        except ValueError:
            same = False
        if not same:
            raise StudyError(f"{path}: keeps the draws of another scenario, other strategies or seeds")
        for line in lines[1:]:
            try:
                number, label, seed, figures = json.loads(line)
            except (ValueError, TypeError):
                continue  # the line that a kill cut off
            self.figures[number, label, seed] = {k: float(v) for k, v in figures.items()}
        whole = [line for line in lines if line.endswith(("}", "]"))]
        write_atomically(path, ("\n".join(whole) + "\n").encode())

    def add(self, number: int, label: str, seed: int, figures: dict[str, float]) -> None:
        """Keep the figures of one simulation."""
        self.figures[number, label, seed] = figures
        if self._path is not None:
            plain = {k: v if math.isfinite(v) else str(v) for k, v in figures.items()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([number, label, seed, plain], allow_nan=False) + "\n")

    def collect(
        self,
        metric: str,
        labels: tuple[str, ...],
        constants: list[Spread],
        drawn: FloatArray,
        seeds: Sequence[int],
    ) -> Sensitivity:
        """Return the figures of the draws that are whole."""

        def value(number: int, label: str) -> float:
            each = [self.figures.get((number, label, s), {}).get(metric, math.nan) for s in seeds]
            return float(sum(each) / len(each))

        def whole(number: int) -> bool:
            return all((number, label, s) in self.figures for label in labels for s in seeds)

        ended = [i for i in range(len(drawn)) if whole(i)]
        return Sensitivity(
            metric,
            labels,
            tuple(constants),
            {label: value(-1, label) for label in labels},
            drawn[ended],
            {label: np.array([value(i, label) for i in ended], dtype=np.float64) for label in labels},
        )
