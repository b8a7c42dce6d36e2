"""The result of a study: tables, fronts, plots, a report, and one Parquet file that holds it all."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim import comparison, metrics, store
from edgellm.sim.columns import REQUEST_COLUMNS, SCHEMA, find, table_columns
from edgellm.sim.extras import require
from edgellm.sim.quality import Quality, write_atomically
from edgellm.sim.runs import OF_RUN, Run, RunError
from edgellm.sim.store import StudyError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Run", "RunError", "Study", "StudyError"]

_EMPTY = {"int": np.int64, "float": np.float64, "bool": np.bool_, "str": object}


@dataclass(frozen=True, slots=True)
class Study:
    """Finished runs of a study and everything needed to explain them.

    Made by `edgellm.sim.evaluate` or `Study.load`.

    Attributes
    ----------
    meta : dict
        Scenario, SLO, strategies, seeds, constants with their sources, numerics version; JSON types only.
    runs : tuple of Run
        In the order of strategies, default models and seeds, whatever order they ended in.
    qualities : dict of str to Quality
        By model variant.
    interrupted : bool
        Whether it was stopped before all runs had ended; what had ended is here.
    errors : tuple of RunError
        Runs that gave no result, because a strategy raised or a process died.
    """

    meta: dict[str, Any]
    runs: tuple[Run, ...]
    qualities: dict[str, Quality] = field(default_factory=dict)
    interrupted: bool = False
    errors: tuple[RunError, ...] = ()
    _rows: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    _figures: dict[int, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)
    _folder: Any = field(default=None, repr=False, compare=False)  # a temporary one lives as long as this

    @property
    def slo(self) -> metrics.SloLimits:
        """Limits that a good answer keeps."""
        return metrics.SloLimits(**self.meta["slo"])

    def groups(self) -> Iterator[tuple[tuple[str, str], list[Run]]]:
        """Yield ((strategy, default model), its runs by seed), in the order of the study."""
        keys = dict.fromkeys(run.key for run in self.runs)
        for key in keys:
            yield key, [run for run in self.runs if run.key == key]

    def strategy_info(self, label: str) -> dict[str, Any]:
        """Return what the metadata says of a strategy: label, family, class, summary, validation."""
        for info in self.meta["strategies"]:
            if info["label"] == label:
                return dict(info)
        raise StudyError(f"no strategy {label!r} in this study")

    def figures_of(self, run: Run) -> dict[str, float]:
        """Return the values of `METRIC_COLUMNS` for one run; computed once."""
        known = self._figures.get(id(run))
        if known is not None:
            return dict(known)
        figures = metrics.request_metrics(run.requests, self.slo, float(self.meta["scenario"]["duration_s"]))
        devices = [n for n in run.nodes if n["role"] == "device"]
        count = sum(n["count"] for n in devices)
        figures["energy_per_device_j"] = sum(n["energy_j"] for n in devices) / count if count else math.nan
        figures["fleet_energy_j"] = sum(n["energy_j"] for n in run.nodes)
        figures["fleet_left_home_bytes"] = math.fsum(
            value for link in run.links for name, value in link.items() if name.startswith("left_home_")
        )
        if any(run is own for own in self.runs):
            self._figures[id(run)] = dict(figures)
        return figures

    def table(self) -> "pd.DataFrame":
        """Return one row per strategy and default model; columns in docs/study.md, "The table".

        Returns
        -------
        pandas.DataFrame
            Every figure is the mean over seeds, in steady state over batches, with the half width of its
            95 % interval in `<figure>_ci`
            (NaN for one seed).
        """
        return _frame(self.rows(), table_columns())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `table()` as dicts, for use without pandas; computed once."""
        if not self._rows:
            figures = comparison.figures(self)
            self._rows.extend(self._row(key, runs, figures[key]) for key, runs in self.groups())
        return [dict(row) for row in self._rows]

    def _row(self, key: tuple[str, str], runs: list[Run], figures: comparison.Figures) -> dict[str, Any]:
        answered: Counter[str] = Counter()
        missed: Counter[str] = Counter()
        for run in runs:
            ok = run.requests["status"] == "ok"
            answered.update(str(m) for m in run.requests["model"][ok])
            missed.update(metrics.reasons(run.requests))
        total = sum(answered.values())
        shares = sorted(answered.items(), key=lambda item: (-item[1], item[0]))
        row: dict[str, Any] = {
            "strategy": key[0],
            "base_model": key[1],
            "seeds": len(runs),
            "answered_by": ", ".join(f"{m} {100 * n / total:.0f} %" for m, n in shares),
        }
        for name, found in comparison.estimates(figures).items():
            row[name] = found.estimate
            row[f"{name}_ci"] = found.half_width if found.method == "t" else math.nan
        used = {m: self.qualities.get(m, Quality(m)) for m, _ in shares}
        # Numbers cited from other texts are shown alone, never averaged with others.
        comparable = len(used) == 1 or all(q.measured for q in used.values())
        row["perplexity"], row["top1_agreement"] = metrics.mixed_quality(
            answered if comparable else {},
            {m: q.perplexity for m, q in used.items()},
            {m: q.agreement for m, q in used.items()},
        )
        row["quality_label"] = " + ".join(dict.fromkeys(q.label for q in used.values()))
        worst = min(missed.items(), key=lambda item: (-item[1], item[0]), default=None)
        row["top_reason"] = f"{worst[0]} ({worst[1]})" if worst else ""
        row["validation"] = self.strategy_info(key[0])["validation"] or "unvalidated"
        return row

    def compare(self, metric: str, baseline: str | tuple[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the differences of a figure between rows of the table, each with its 95 % interval.

        Differences are paired: two rows are compared seed by seed (in steady state batch by batch), so that
        the random numbers they have in common cancel.

        Parameters
        ----------
        metric : str
            A figure of the table, e.g. "e2e_p99_s".
        baseline : str, (str, str) or None
            Label of a strategy, which the others are compared with for each model, or one row as (label,
            model). None: every pair of rows.

        Returns
        -------
        list of dict
            Keys: docs/study.md, "Comparisons". `winner` is None where the interval covers zero, where a
            difference of infinite values leaves it open, or with fewer than ten pairs.

        Raises
        ------
        ValueError
            If the figure or the baseline is not in this study.
        """
        return comparison.compare(self, metric, baseline)

    def winner(self, metric: str) -> str | None:
        """Return the row that is better than every other in a figure, or None where an interval covers zero.

        Parameters
        ----------
        metric : str
            A figure of the table that has a better direction.

        Returns
        -------
        str or None
            Label of the strategy; with several models, "label · model" as in the summary.

        Raises
        ------
        ValueError
            If there is no such figure, or neither direction of it is better.
        """
        best = comparison.winner(self, metric)
        return None if best is None else comparison.label(self, best)

    def summary(self) -> str:
        """Return the most asked columns of the table as text for a terminal; needs no pandas."""
        from edgellm.sim.report.text import summary

        lost = [f"no result: {e.strategy}, seed {e.seed}: {e}" for e in self.errors]
        return "\n".join([summary(self), *lost])

    def requests(self) -> "pd.DataFrame":
        """Return one row per request of every run; columns in docs/study.md, "One row per request"."""
        return _frame(self._request_columns())

    def _request_columns(self) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for column in REQUEST_COLUMNS:
            parts: list[np.ndarray] = [
                np.full(len(run.requests["id"]), getattr(run, column.name), dtype=_EMPTY[column.kind])
                if column.name in OF_RUN
                else np.asarray(run.requests[column.name], dtype=_EMPTY[column.kind])
                for run in self.runs
            ]
            out[column.name] = np.concatenate(parts) if parts else np.empty(0, dtype=_EMPTY[column.kind])
        return out

    def nodes(self) -> "pd.DataFrame":
        """Return energy and busy time by run, site and role, in joules and seconds."""
        return self._totals("nodes")

    def links(self) -> "pd.DataFrame":
        """Return bytes and energy by run and link profile."""
        return self._totals("links")

    def _totals(self, what: str) -> "pd.DataFrame":
        return _frame(self.totals(what))

    def totals(self, what: str) -> list[dict[str, Any]]:
        """Return the rows of `nodes()` or `links()` as dicts."""
        return [
            {"strategy": run.strategy, "base_model": run.base_model, "seed": run.seed, **record}
            for run in self.runs
            for record in getattr(run, what)
        ]

    def failures(self) -> "pd.DataFrame":
        """Return how many requests were not served, by strategy, default model and reason, over all seeds."""
        names = ["strategy", "base_model", "reason", "requests", "share"]
        return _frame(self.failure_rows(), names)

    def failure_rows(self) -> list[dict[str, Any]]:
        """Return the rows of `failures()` as dicts."""
        rows = []
        for key, runs in self.groups():
            missed: Counter[str] = Counter()
            for run in runs:
                missed.update(metrics.reasons(run.requests))
            arrived = sum(int(self.figures_of(run)["requests"]) for run in runs)
            for reason, count in sorted(missed.items(), key=lambda item: (-item[1], item[0])):
                rows.append(
                    {
                        "strategy": key[0],
                        "base_model": key[1],
                        "reason": reason,
                        "requests": count,
                        "share": count / arrived,
                    }
                )
        return rows

    def quality(self) -> "pd.DataFrame":
        """Return perplexity, agreement and confidence of every model variant, with their labels."""
        rows = [
            {
                "variant": q.variant,
                "perplexity": q.perplexity,
                "perplexity_se": q.perplexity_se,
                "top1_agreement": q.agreement,
                "top1_agreement_se": q.agreement_se,
                "scored": q.scored,
                "label": q.label,
                "confidence_median": q.confidence[len(q.confidence) // 2],
                "confidence_label": q.confidence_label,
            }
            for q in self.qualities.values()
        ]
        return _frame(rows)

    def constants(self) -> "pd.DataFrame":
        """Return every constant used, with unit, spread, source, and whether it is a guess."""
        names = ["profile", "constant", "value", "unit", "low", "high", "guess", "source"]
        return _frame(self.meta["constants"], names)

    def pareto(self, x: str, y: str) -> "pd.DataFrame":
        """Return the rows of the table that no other row beats in both columns, sorted by `x`.

        Parameters
        ----------
        x, y : str
            Columns of `table()` that have a better direction, e.g. "e2e_p95_s", "energy_per_request_j".

        Raises
        ------
        ValueError
            If a column is unknown or neither direction of it is better.
        """
        for name in (x, y):
            if not find(name).better:
                raise ValueError(f"pareto: neither more nor less of {name!r} is better")
        return _frame(self.front(x, y), table_columns())

    def front(self, x: str, y: str) -> list[dict[str, Any]]:
        """Return the rows of `pareto(x, y)` as dicts."""
        rows = self.rows()
        beaten = metrics.dominated(
            [row[x] for row in rows],
            [row[y] for row in rows],
            find(x).better == "lower",
            find(y).better == "lower",
        )
        kept = [row for row, b in zip(rows, beaten, strict=True) if not b]
        return sorted(kept, key=lambda row: (row[x], row[y], row["strategy"]))

    def plot(self, kind: str = "pareto", **options: Any) -> "Figure":
        """Return a matplotlib figure; a notebook shows it.

        Parameters
        ----------
        kind : {"pareto", "latency", "outcomes", "energy", "privacy", "quality"}
            "pareto" takes `x` and `y`, columns of the table.
        **options
            Passed to the figure's function in `edgellm.sim.report.figures`.

        Raises
        ------
        ValueError
            If there is no such kind or the study has no runs.
        """
        if not self.runs:
            raise StudyError("plot: the study has no finished run")
        require("matplotlib.figure")
        from edgellm.sim.report import figures

        return figures.draw(self, kind, **options)

    def report(self, path: str | Path) -> Path:
        """Write one HTML file with tables, plots, constants and limits; it needs no network to be read.

        Parameters
        ----------
        path : path
            Written whole or not at all; an older file is replaced.

        Returns
        -------
        Path
            The file, absolute.
        """
        if not self.runs:
            raise StudyError("report: the study has no finished run")
        require("matplotlib.figure")
        from edgellm.sim.report.html import render

        target = Path(path).absolute()
        write_atomically(target, render(self).encode())
        return target

    def trace(self, path: str | Path) -> Path:
        """Write where traced requests spent their time, as JSON that Perfetto (ui.perfetto.dev) shows.

        Some 200 requests of the first seed are traced, spread over the run. A process is a node or a link,
        a thread a request.

        Parameters
        ----------
        path : path
            Written whole or not at all; an older file is replaced.

        Returns
        -------
        Path
            The file, absolute.

        Raises
        ------
        StudyError
            If no run of this study was traced.
        """
        if not any(run.trace for run in self.runs):
            raise StudyError("trace: no run of this study was traced")
        from edgellm.sim.report.trace_file import write

        target = Path(path).absolute()
        write_atomically(target, write(self).encode())
        return target

    def save(self, path: str | Path) -> Path:
        """Write everything to one Parquet file: one row per request, the rest as metadata.

        The same scenario and seeds give the same bytes, with the same version of pyarrow. No time and
        no path of this machine is inside.

        Parameters
        ----------
        path : path
            Written whole or not at all; an older file is replaced.

        Returns
        -------
        Path
            The file, absolute.
        """
        target = Path(path).absolute()
        store.write_runs(target, self.runs, self._metadata())
        return target

    def _metadata(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "meta": self.meta,
            "interrupted": self.interrupted,
            "quality": [q.to_json() for q in self.qualities.values()],
            "errors": [asdict(error) for error in self.errors],
            "runs": [store.run_record(run) for run in self.runs],
        }

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read a study that `save` wrote, or the folder that `evaluate(..., store=)` keeps.

        Of a folder whose study was stopped, even with `kill -9`, the finished runs are read and
        `interrupted` is True.

        Raises
        ------
        StudyError
            If it cannot be read, is no study, or has another schema version.
        """
        where = Path(path)
        data, runs = (store.Store.read if where.is_dir() else store.read_file)(where)
        try:
            qualities = [Quality.from_json(q) for q in data["quality"]]
            errors = tuple(RunError(**error) for error in data["errors"])
            return cls(
                data["meta"], runs, {q.variant: q for q in qualities}, bool(data["interrupted"]), errors
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(f"{path}: not a study of edgellm ({type(error).__name__}: {error})") from None

    def query(self, sql: str) -> "pd.DataFrame":
        """Ask with SQL: DuckDB reads what it needs from the files and nothing more.

        Parameters
        ----------
        sql : str
            A query over the tables `requests` (columns of docs/study.md), `nodes`, `links`, `failures`,
            `quality`, `constants`, and `runs` (strategy, base_model, seed, simulated_s, events).

        Raises
        ------
        StudyError
            If DuckDB refuses the query; the message is its own.
        MissingExtra
            If DuckDB is not installed.
        """
        from edgellm.sim.query import query

        return query(self, sql)


def _frame(rows: Any, names: list[str] | None = None) -> "pd.DataFrame":
    frame: pd.DataFrame = require("pandas").DataFrame(rows, columns=names)
    return frame
