"""The result of a study: tables, fronts, plots, a report, and one Parquet file that holds it all."""

import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim import comparison, metrics
from edgellm.sim.columns import REQUEST_COLUMNS, SCHEMA, find, table_columns
from edgellm.sim.extras import require
from edgellm.sim.quality import Quality, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_EMPTY = {"int": np.int64, "float": np.float64, "bool": np.bool_, "str": object}
_META = b"edgellm.study"


class StudyError(ValueError):
    """A study that cannot be made, read or shown as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation: one strategy, one default model, one seed.

    Attributes
    ----------
    strategy, base_model : str
    seed : int
    requests : dict of str to (n,) ndarray
        The columns of `REQUEST_COLUMNS` but the first three.
    nodes, links : list of dict
        Totals by (site, role) and by link profile; see docs/study.md, "Metadata".
    """

    strategy: str
    base_model: str
    seed: int
    requests: dict[str, np.ndarray]
    nodes: list[dict[str, Any]]
    links: list[dict[str, Any]]

    @property
    def key(self) -> tuple[str, str]:
        """Return what makes a row of the table."""
        return self.strategy, self.base_model


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
    """

    meta: dict[str, Any]
    runs: tuple[Run, ...]
    qualities: dict[str, Quality] = field(default_factory=dict)
    interrupted: bool = False
    _rows: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)

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
        """Return the values of `METRIC_COLUMNS` for one run."""
        figures = metrics.request_metrics(run.requests, self.slo, float(self.meta["scenario"]["duration_s"]))
        devices = [n for n in run.nodes if n["role"] == "device"]
        count = sum(n["count"] for n in devices)
        figures["energy_per_device_j"] = sum(n["energy_j"] for n in devices) / count if count else math.nan
        figures["fleet_energy_j"] = sum(n["energy_j"] for n in run.nodes) + sum(
            link["energy_j"] for link in run.links
        )
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

        return summary(self)

    def requests(self) -> "pd.DataFrame":
        """Return one row per request of every run; columns in docs/study.md, "One row per request"."""
        return _frame(self._request_columns())

    def _request_columns(self) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for column in REQUEST_COLUMNS:
            parts: list[np.ndarray] = [
                np.full(len(run.requests["id"]), getattr(run, column.name), dtype=_EMPTY[column.kind])
                if column.name in ("strategy", "base_model", "seed")
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
            arrived = sum(len(run.requests["id"]) for run in runs)
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
        pa, parquet = require("pyarrow"), require("pyarrow.parquet")
        types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
        columns = self._request_columns()
        schema = pa.schema(
            [pa.field(c.name, types[c.kind], nullable=False) for c in REQUEST_COLUMNS],
            metadata={_META: json.dumps(self._metadata(), allow_nan=False)},
        )
        table = pa.Table.from_pydict(
            {c.name: pa.array(columns[c.name].tolist(), types[c.kind]) for c in REQUEST_COLUMNS},
            schema=schema,
        )
        buffer = io.BytesIO()
        parquet.write_table(
            table, buffer, compression="zstd", compression_level=3, version="2.6", row_group_size=1 << 20,
            data_page_version="1.0", use_dictionary=[c.name for c in REQUEST_COLUMNS if c.kind == "str"],
        )  # fmt: skip
        target = Path(path).absolute()
        write_atomically(target, buffer.getvalue())
        return target

    def _metadata(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "meta": self.meta,
            "interrupted": self.interrupted,
            "quality": [q.to_json() for q in self.qualities.values()],
            "runs": [
                {"strategy": r.strategy, "base_model": r.base_model, "seed": r.seed,
                 "requests": len(r.requests["id"]), "nodes": r.nodes, "links": r.links}
                for r in self.runs
            ],
        }  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read a study that `save` wrote.

        Raises
        ------
        StudyError
            If the file cannot be read, is no study, or has another schema version.
        """
        pa, parquet = require("pyarrow"), require("pyarrow.parquet")
        try:
            table = parquet.read_table(path)
            data = json.loads((table.schema.metadata or {})[_META])
            if data["schema"] != SCHEMA:
                raise StudyError(f"{path}: study of schema {data['schema']}, this version reads {SCHEMA}")
            columns = {c.name: table.column(c.name).to_numpy() for c in REQUEST_COLUMNS}
            runs, start = [], 0
            for record in data["runs"]:
                stop = start + int(record["requests"])
                part = {name: values[start:stop] for name, values in columns.items()}
                names = {name: part.pop(name) for name in ("strategy", "base_model", "seed")}
                if not np.all(names["seed"] == record["seed"]):
                    raise StudyError(f"{path}: rows do not match the runs of the metadata")
                runs.append(Run(requests=part, **{k: v for k, v in record.items() if k != "requests"}))
                start = stop
            if start != table.num_rows:
                raise StudyError(f"{path}: {table.num_rows} rows, the metadata has {start}")
            qualities = [Quality.from_json(q) for q in data["quality"]]
            return cls(
                data["meta"], tuple(runs), {q.variant: q for q in qualities}, bool(data["interrupted"])
            )
        except StudyError:
            raise
        except KeyError as error:
            raise StudyError(f"{path}: not a study of edgellm (no {error.args[0]!r} in it)") from None
        except (OSError, ValueError, TypeError, pa.ArrowException) as error:
            raise StudyError(f"{path}: cannot be read as a study: {str(error).splitlines()[0]}") from None


def _frame(rows: Any, names: list[str] | None = None) -> "pd.DataFrame":
    frame: pd.DataFrame = require("pandas").DataFrame(rows, columns=names)
    return frame


def sums_by(
    records: Mapping[str, Sequence[Any]], by: tuple[str, ...], totals: tuple[str, ...]
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
    out: dict[tuple[str, ...], dict[str, Any]] = {}
    for i, key in enumerate(zip(*(map(str, records[name]) for name in by), strict=True)):
        row = out.setdefault(
            key, {**dict(zip(by, key, strict=True)), "count": 0, **dict.fromkeys(totals, 0.0)}
        )
        row["count"] += 1
        for name in totals:
            row[name] += float(records[name][i])
    return list(out.values())
