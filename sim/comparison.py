"""Which strategy of a study is better, and whether its runs can say so. docs/statistics.md has the rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim import metrics, statistics
from edgellm.sim.columns import METRIC_COLUMNS, Column, directed, find
from edgellm.sim.report.text import short_names

if TYPE_CHECKING:
    from edgellm.sim.study import Run, Study

#: Fewer replications than this judge nothing (Law 2015, section 9.4.1, on what t intervals need).
JUDGED = 10
#: Columns whose differences a summary judges.
SHOWN = ("served_share", "e2e_p95_s", "e2e_p99_s", "goodput_per_s", "energy_per_request_j")
#: Totals of nodes and links are known for a whole run only, not for a batch of it.
_WHOLE_RUN = ("requests", "energy_per_device_j", "fleet_energy_j", "fleet_left_home_bytes")

Key = tuple[str, str]
Place = tuple[int, int]  # seed, batch
Figures = dict[Place, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Steady:
    """How a steady run is cut.

    Attributes
    ----------
    warmup_s : float
        Requests that arrive before are left out.
    found : bool
        Whether MSER-5 found the end of the warm-up in every run (or the scenario says it).
    edges_s : (b + 1,) ndarray of float64
        Bounds of the batches, equal in time.
    """

    warmup_s: float
    found: bool
    edges_s: np.ndarray


def is_steady(study: Study) -> bool:
    """Whether runs are long ones of a steady state, not replications of a period with an end."""
    return bool(study.meta.get("study", {}).get("mode") == "steady")


def steady(study: Study) -> Steady:
    """Return warm-up and batches of a steady study, common to all its runs so that batches are paired.

    The warm-up is what the scenario says, else the longest that MSER-5 finds in any run, on the latencies of
    served requests in order of arrival.
    """
    settings, duration_s = study.meta["study"], float(study.meta["scenario"]["duration_s"])
    warmup_s, found = settings.get("warmup_s"), True
    if warmup_s is None:
        cuts = [_warm_up(run, duration_s) for run in study.runs]
        warmup_s = max((at for at, _ in cuts), default=0.0)
        found = all(fine for _, fine in cuts)
    edges = np.linspace(float(warmup_s), duration_s, int(settings.get("batches", 20)) + 1)
    return Steady(float(warmup_s), found, edges)


def _warm_up(run: Run, duration_s: float) -> tuple[float, bool]:
    arrival_s, e2e_s = run.requests["arrival_s"], run.requests["e2e_s"]
    order = np.argsort(arrival_s, kind="stable")
    arrival_s, e2e_s = arrival_s[order], e2e_s[order]
    served = np.isfinite(e2e_s)
    cut = statistics.mser5(e2e_s[served])
    if not cut.steady:  # cannot be told: leave out half, and say so
        return duration_s / 2.0, False
    return (float(arrival_s[served][cut.index]) if cut.index else 0.0), True


def figures(study: Study) -> dict[Key, Figures]:
    """Return every figure of every replication by row of the table: a run, or a batch of a steady run."""
    if not is_steady(study):
        return {key: {(run.seed, 0): study.figures_of(run) for run in runs} for key, runs in study.groups()}
    edges = steady(study).edges_s
    return {key: _batches(study, runs, edges) for key, runs in study.groups()}


def _batches(study: Study, runs: Sequence[Run], edges: np.ndarray) -> Figures:
    out: Figures = {}
    for run in runs:
        batch = np.searchsorted(edges, run.requests["arrival_s"], side="right") - 1
        for i in range(len(edges) - 1):
            part = {name: values[batch == i] for name, values in run.requests.items()}
            length_s = float(edges[i + 1] - edges[i])
            out[run.seed, i] = metrics.request_metrics(part, study.slo, length_s)
        whole = study.figures_of(run)
        for name in _WHOLE_RUN:
            for i in range(len(edges) - 1):
                out[run.seed, i][name] = whole[name] if i == 0 else math.nan
    return out


def estimates(figures_of_row: Figures) -> dict[str, statistics.Interval]:
    """Return the mean over replications of every figure, with its 95 % interval."""
    out = {}
    for column in METRIC_COLUMNS:
        values = [figures[column.name] for figures in figures_of_row.values()]
        if column.name in _WHOLE_RUN:
            values = [v for v in values if not math.isnan(v)]
        out[column.name] = statistics.mean_interval(values)
    return out


def compare(study: Study, metric: str, baseline: str | Key | None = None) -> list[dict[str, Any]]:
    """Return the differences of a figure between rows of the table; see `Study.compare`."""
    column = _column(metric)
    values = {
        key: {place: figures[metric] for place, figures in row.items()} for key, row in figures(study).items()
    }
    rows = [_row(column, values, a, b) for a, b in _pairs(list(values), baseline)]
    for row, p_value in zip(rows, statistics.holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_value
    return rows


def _column(metric: str) -> Column:
    column = find(metric)
    if column not in METRIC_COLUMNS:
        known = ", ".join(c.name for c in METRIC_COLUMNS)
        raise ValueError(f"compare: {metric!r} is not measured in each run; these are: {known}")
    return column


def _pairs(keys: list[Key], baseline: str | Key | None) -> list[tuple[Key, Key]]:
    if baseline is None:
        return [(a, b) for i, b in enumerate(keys) for a in keys[i + 1 :]]
    if isinstance(baseline, tuple):
        against = [key for key in keys if key == baseline]
        pairs = [(a, b) for b in against for a in keys if a != b]
    else:  # with the same model
        against = [key for key in keys if key[0] == baseline]
        pairs = [(a, b) for b in against for a in keys if a[0] != b[0] and a[1] == b[1]]
    if not against:
        known = ", ".join(dict.fromkeys(strategy for strategy, _ in keys))
        raise ValueError(f"compare: no strategy {baseline!r} in this study; it has: {known}")
    return pairs


def _row(column: Column, values: Mapping[Key, Mapping[Place, float]], a: Key, b: Key) -> dict[str, Any]:
    places = [p for p in values[a] if p in values[b]]
    mine = np.array([values[a][p] for p in places], dtype=np.float64)
    theirs = np.array([values[b][p] for p in places], dtype=np.float64)
    known = ~(np.isnan(mine) | np.isnan(theirs))
    mine, theirs = mine[known], theirs[known]
    found = statistics.paired_interval(mine, theirs)
    judged = found.n >= JUDGED
    winner: Key | None = None
    if judged and column.better and found.excludes_zero:
        winner = a if (found.high < 0.0) == (column.better == "lower") else b
    return {
        "metric": column.name,
        "strategy": a[0],
        "base_model": a[1],
        "baseline": b[0],
        "baseline_model": b[1],
        "value": metrics.mean_over_seeds(mine.tolist()),
        "baseline_value": metrics.mean_over_seeds(theirs.tolist()),
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "pairs": found.n,
        "pairs_needed": _needed(mine, theirs, found),
        "method": found.method,
        "p_value": found.p_value,
        "p_holm": math.nan,
        "judged": judged,
        "winner": None if winner is None else winner[0],
        "winner_model": None if winner is None else winner[1],
    }


def _needed(mine: np.ndarray, theirs: np.ndarray, found: statistics.Interval) -> int | None:
    """Return how many pairs would leave zero out if mean and variance stay; None if no number would."""
    if found.method != "t" or found.estimate == 0.0:
        return None
    return statistics.replications_needed(mine - theirs, abs(found.estimate))


def winner(study: Study, metric: str) -> Key | None:
    """Return the row that beats every other; see `Study.winner`."""
    directed(metric)
    wins: dict[Key, int] = dict.fromkeys((key for key, _ in study.groups()), 0)
    for row in compare(study, metric):
        if row["winner"] is not None:
            wins[row["winner"], row["winner_model"]] += 1
    best = [key for key, count in wins.items() if count == len(wins) - 1 > 0]
    return best[0] if best else None


def judgement(study: Study, shown: Sequence[str] = SHOWN) -> list[str]:
    """Return what may be concluded from the study's differences, in sentences."""
    if len(list(study.groups())) < 2:
        return []
    found = {metric: compare(study, metric) for metric in shown}
    pairs = min(len(row) for row in figures(study).values())
    kind = "batches of steady runs" if is_steady(study) else "replications"
    if pairs < JUDGED:
        return [
            f"{pairs} {kind}: too few to judge differences, at least {JUDGED} are needed; "
            "differences between rows are not judged."
        ]
    out = [_verdict(study, metric, rows) for metric, rows in found.items()]
    tests = [row for rows in found.values() for row in rows if not math.isnan(row["p_value"])]
    p_holm = statistics.holm([row["p_value"] for row in tests])
    kept = sum(p < 0.05 for p in p_holm)
    out.append(
        f"{len(tests)} differences, paired over {pairs} {kind}, 95 % intervals: by chance alone "
        f"{0.05 * len(tests):.1f} would leave out 0; after Holm's correction {kept} still do."
    )
    return out + _steady_notes(study)


def _verdict(study: Study, metric: str, rows: list[dict[str, Any]]) -> str:
    missing = [label(study, key) for key, _ in study.groups() if _unknown(key, rows)]
    if missing:
        return f"{metric}: no winner; not known for {', '.join(missing)}."
    beaten = {_loser(row) for row in rows if row["winner"] is not None}
    best = winner(study, metric)
    if best is not None:
        return f"{metric}: {label(study, best)} is best, no interval of its differences covers 0."
    left = [label(study, key) for key, _ in study.groups() if key not in beaten]
    return f"{metric}: no winner; {', '.join(left)} cannot be told apart."


def _unknown(key: Key, rows: list[dict[str, Any]]) -> bool:
    """Whether a row of the table has no pair of a figure with any other: it served nothing, for example."""
    mine = [
        r for r in rows if key in ((r["strategy"], r["base_model"]), (r["baseline"], r["baseline_model"]))
    ]
    return all(r["pairs"] == 0 for r in mine)


def _loser(row: Mapping[str, Any]) -> Key:
    sides = {(row["strategy"], row["base_model"]), (row["baseline"], row["baseline_model"])}
    (loser,) = sides - {(row["winner"], row["winner_model"])}
    return loser


def label(study: Study, key: Key) -> str:
    """Return the name of a row of the table: its strategy, with its model where there are several."""
    models = list(dict.fromkeys(model for (_, model), _ in study.groups()))
    strategy, model = key
    return f"{strategy} · {short_names(models)[model]}" if len(models) > 1 else strategy


def _steady_notes(study: Study) -> list[str]:
    if not is_steady(study):
        return []
    cut = steady(study)
    out = [f"Steady state: the first {cut.warmup_s:,.0f} s are left out, {len(cut.edges_s) - 1} batches."]
    if not cut.found:
        out.append("The runs are too short to tell where the warm-up ends (MSER-5): half was left out.")
    series = [[f["e2e_p50_s"] for f in row.values()] for row in figures(study).values()]
    dependent = [s for s in series if np.all(np.isfinite(s)) and not statistics.looks_independent(s)]
    if dependent:
        out.append("Batches depend on each other (von Neumann's test): run longer, or take fewer batches.")
    return out
