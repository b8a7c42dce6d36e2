"""The figures of a study. Colour says the strategy, the marker or dash says the model variant."""

import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator

from edgellm.sim import metrics
from edgellm.sim.columns import DATA_CLASSES, find
from edgellm.sim.report.style import (
    INK,
    MUTED,
    PALETTE,
    STYLE,
    Look,
    StudyFigure,
    axis_title,
    new_figure,
    scale_axis,
    tick,
)
from edgellm.sim.report.text import percent, short_names

if TYPE_CHECKING:
    from edgellm.sim.study import Study


def draw(study: "Study", kind: str, **options: Any) -> StudyFigure:
    """Return the figure `kind` of a study; see `Study.plot`.

    Raises
    ------
    ValueError
        If there is no such figure.
    """
    if kind not in KINDS:
        raise ValueError(f"no plot {kind!r}; there are: {', '.join(KINDS)}")
    with mpl.rc_context(STYLE):
        return KINDS[kind](study, **options)


def pareto(study: "Study", x: str = "e2e_p95_s", y: str = "energy_per_request_j") -> StudyFigure:
    """Draw every row of the table at (x, y) and the front that no row beats."""
    rows = study.rows()
    for name in (x, y):
        if find(name).kind != "float":
            raise ValueError(f"pareto: {name!r} is no number")
    look, figure = Look(study), new_figure(8.4, 4.6)
    axes = figure.add_subplot()
    shown = [row for row in rows if not (math.isnan(row[x]) or math.isnan(row[y]))]
    infinite = {
        "x": scale_axis(axes, "x", _ends(shown, x)),
        "y": scale_axis(axes, "y", _ends(shown, y)),
    }
    axes.grid(True)
    axes.set_axisbelow(True)
    if find(x).better and find(y).better:
        front = [row for row in study.front(x, y) if math.isfinite(row[x]) and math.isfinite(row[y])]
        axes.plot(
            [row[x] for row in front],
            [row[y] for row in front],
            color="#9aa7b4",
            lw=1.4,
            ls=(0, (3, 2)),
            zorder=1,
        )
    for row in shown:
        error = [_half(row, name) for name in (x, y)]
        at = _place(row[x], infinite["x"]), _place(row[y], infinite["y"])
        color = look.color(row["strategy"])
        bars = [None if math.isnan(e) else e for e in error]
        axes.errorbar(*at, xerr=bars[0], yerr=bars[1], color=color, lw=0.9, alpha=0.55, capsize=2, zorder=2)
        size = 10.0 - 1.2 * min(look.models.index(row["base_model"]), 2)  # later ones on top, smaller
        axes.plot(*at, look.marker(row["base_model"]), color=color, ms=size, mec="white", mew=0.8, zorder=3)
    _infinity_bands(axes, infinite, x, y)
    axes.set_xlabel(axis_title(x))
    axes.set_ylabel(axis_title(y))
    _legend(figure, look)
    missing = len(rows) - len(shown)
    if missing:
        figure.supxlabel(
            f"{missing} of {len(rows)} rows have no value here and are not drawn", fontsize=8, color=MUTED
        )
    return figure


def _half(row: dict[str, Any], name: str) -> float:
    # With two seeds Student's t is 12.7 and the bar says nothing; the table has the interval.
    return float(row.get(f"{name}_ci", math.nan)) if row["seeds"] > 2 else math.nan


def _ends(rows: list[dict[str, Any]], name: str) -> list[float]:
    """Return the values of a column and the ends of their bars that are not below zero."""
    ends = [row[name] + sign * _half(row, name) for row in rows for sign in (-1, 1)]
    return [row[name] for row in rows] + [v for v in ends if not math.isnan(v) and v > 0]


def _place(value: float, infinite: float | None) -> float:
    return value if infinite is None or math.isfinite(value) else infinite


def _infinity_bands(axes: Axes, infinite: dict[str, float | None], x: str, y: str) -> None:
    # Infinite values are real results (too many requests not served), so they get a place of their own.
    style: dict[str, Any] = {"color": "#b3261e", "fontsize": 8}
    if infinite["x"] is not None:
        axes.axvspan(_middle(axes, "x", infinite["x"]), axes.get_xlim()[1], color="#fbeceb", zorder=0)
        axes.text(
            0.995,
            0.02,
            "infinite:\ntoo few served",
            ha="right",
            va="bottom",
            transform=axes.transAxes,
            **style,
        )
    if infinite["y"] is not None:
        axes.axhspan(_middle(axes, "y", infinite["y"]), axes.get_ylim()[1], color="#fbeceb", zorder=0)
        axes.text(
            0.01, 0.985, "infinite: too few served", ha="left", va="top", transform=axes.transAxes, **style
        )


def _middle(axes: Axes, which: str, place: float) -> float:
    # Lower edge of the band: as far below the place as the axis goes beyond it.
    high = (axes.get_xlim() if which == "x" else axes.get_ylim())[1]
    scale = axes.get_xscale() if which == "x" else axes.get_yscale()
    return place * place / high if scale == "log" else 2 * place - high


def _legend(figure: StudyFigure, look: Look) -> None:
    colors, shapes = look.handles()
    entries = [Line2D([], [], ls="", label="strategy"), *colors]
    if shapes:
        entries += [Line2D([], [], ls="", label=" "), Line2D([], [], ls="", label="asked model"), *shapes]
    legend = figure.legend(handles=entries, loc="outside right upper", handletextpad=0.4)
    for text in legend.get_texts():
        if text.get_text() in ("strategy", "asked model"):
            text.set_fontweight("bold")


def latency(study: "Study", column: str = "e2e_s") -> StudyFigure:
    """Draw the share of requests answered within a time, one panel per strategy."""
    if column not in ("e2e_s", "first_token_s"):
        raise ValueError(f"latency: column must be e2e_s or first_token_s, got {column!r}")
    look = Look(study)
    per_row = min(len(look.strategies), 4)
    rows = math.ceil(len(look.strategies) / per_row)
    figure = new_figure(max(2.35 * per_row, 4.2), 2.75 * rows + 0.35)
    grid = figure.subplots(rows, per_row, sharex=True, sharey=True, squeeze=False)
    samples = {key: _pooled(study, runs, column) for key, runs in study.groups()}
    finite = np.concatenate([v[np.isfinite(v)] for v in samples.values()])
    limit = study.slo.e2e_s if column == "e2e_s" else study.slo.ttft_s
    place = None
    if len(finite):
        ends = [float(np.quantile(finite, 0.002)), float(finite.max())]
        lost = any(np.isinf(v).any() for v in samples.values())
        place = scale_axis(grid[0][0], "x", [*ends, math.inf] if lost else ends)
        if grid[0][0].get_xscale() == "log":
            span = ends[1] / ends[0]
            steps = (1.0, 2.0, 5.0) if span < 30 else (1.0, 3.0) if span < 300 else (1.0,)
            grid[0][0].xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=8))
    for i, axes in enumerate(grid.flat):
        if i >= len(look.strategies):
            axes.set_visible(False)
            continue
        strategy = look.strategies[i]
        shown = {model: values for (name, model), values in samples.items() if name == strategy}
        if place is not None:
            _never_band(axes, place, [float(np.isinf(v).mean()) for v in shown.values()])
        for model, values in shown.items():
            _draw_cdf(axes, values, look.color(strategy), look.dash(model), place)
        if limit is not None:
            axes.axvline(limit, color=MUTED, lw=0.9, ls=(0, (1, 2)))
            axes.annotate(
                f"SLO {limit:g} s", (limit, 0.03), xytext=(-4, 0), textcoords="offset points", fontsize=7.5,
                color=MUTED, rotation=90, va="bottom", ha="right",
            )  # fmt: skip
        title = "\n".join(textwrap.wrap(strategy.replace("(", " ("), 21)).replace(" (", "(")
        axes.set_title(title, color=look.color(strategy), fontsize=9 if len(strategy) > 14 else 10.5)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        axes.grid(True)
    figure.supxlabel("seconds since the request arrived", fontsize=9.5)
    figure.supylabel("answered within" if column == "e2e_s" else "first token within", fontsize=9.5)
    if len(look.models) > 1:
        lines = [
            Line2D([], [], color=MUTED, ls=look.dash(m), lw=1.8, label=look.short[m]) for m in look.models
        ]
        lines.insert(0, Line2D([], [], ls="", label="asked model:"))
        figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), handlelength=2.6)
    return figure


def _pooled(study: "Study", runs: list[Any], column: str) -> np.ndarray:
    return np.sort(
        np.concatenate([metrics.latencies_s(r.requests[column], r.requests["status"] == "ok") for r in runs])
    )


def _never_band(axes: Axes, place: float, shares: list[float]) -> None:
    axes.axvspan(_middle(axes, "x", place), axes.get_xlim()[1], color="#fbeceb", zorder=0)
    low, high = min(shares), max(shares)
    text = percent(high) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    axes.annotate(
        f"never: {text}", (1.0, 0.03), xycoords="axes fraction", xytext=(-3, 0), textcoords="offset points",
        rotation=90, va="bottom", ha="right", fontsize=7.5, color="#b3261e",
    )  # fmt: skip


def _draw_cdf(axes: Axes, values: np.ndarray, color: str, dash: Any, place: float | None) -> None:
    served = values[np.isfinite(values)]
    if len(served):
        # 250 points of the curve are enough to draw it; the last is the share that was served at all.
        index = np.unique(np.linspace(0, len(served) - 1, 250).astype(int))
        at, share = served[index], (index + 1) / len(values)
        axes.plot(at, share, color=color, ls=dash, lw=1.7, drawstyle="steps-post")
        if place is not None and len(served) < len(values):
            axes.plot([at[-1], place], [share[-1]] * 2, color=color, lw=0.8, ls=(0, (1, 2)))
    if not len(values):
        return
    for q in (50, 95, 99):
        mark = metrics.percentile(values, q)
        if math.isfinite(mark) or place is not None:
            at_s = mark if math.isfinite(mark) else float(place or 0.0)
            axes.plot(at_s, q / 100, "o", color=color, ms=3.2, mec="white", mew=0.5, zorder=3)


def outcomes(study: "Study") -> StudyFigure:
    """Draw what became of the requests: within the SLO, served but late, or not served and why."""
    look = Look(study)
    parts: dict[tuple[str, str], dict[str, float]] = {}
    for key, runs in study.groups():
        arrived = max(sum(len(r.requests["id"]) for r in runs), 1)
        kept = sum(int(metrics.good(r.requests, study.slo).sum()) for r in runs)
        ok = sum(int((r.requests["status"] == "ok").sum()) for r in runs)
        parts[key] = {
            "served within the SLO": kept / arrived,
            "served, outside the SLO": (ok - kept) / arrived,
        }
        for run in runs:
            for reason, count in metrics.reasons(run.requests).items():
                parts[key][reason] = parts[key].get(reason, 0.0) + count / arrived
    totals: dict[str, float] = {}
    for shares in parts.values():
        for name, share in list(shares.items())[2:]:
            totals[name] = totals.get(name, 0.0) + share
    named = sorted(totals, key=lambda n: (-totals[n], n))
    if len(named) > 5:
        named = named[:4]
    colors = {"served within the SLO": "#009E73", "served, outside the SLO": "#F0E442"}
    colors |= dict(zip(named, ("#D55E00", "#CC79A7", "#7A5C00", "#444444", "#56B4E9"), strict=False))
    stacks: dict[str, list[float]] = {name: [p.get(name, 0.0) for p in parts.values()] for name in colors}
    whole = [sum(shares.values()) for shares in parts.values()]  # 1, or 0 where no request arrived
    other = [whole[i] - sum(stack[i] for stack in stacks.values()) for i in range(len(parts))]
    if max(other) > 1e-9:
        stacks["other reasons"], colors["other reasons"] = other, "#b8c2cc"
    figure, axes = _bars([look.row(*key) for key in parts], _places(list(parts)), stacks, colors)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    axes.set_xlabel("share of requests")
    return figure


def _bars(
    labels: list[str], places: np.ndarray, stacks: dict[str, list[float]], colors: dict[str, str]
) -> tuple[StudyFigure, Axes]:
    figure = new_figure(8.4, 0.27 * len(labels) + 1.35)
    axes = figure.add_subplot()
    left = np.zeros(len(labels))
    for name, values in stacks.items():
        axes.barh(
            places, values, left=left, color=colors[name], height=0.74, edgecolor="white", linewidth=0.5
        )
        left += np.asarray(values)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    if len(stacks) > 1:
        handles = [Patch(color=colors[name], label=name) for name in stacks]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 3))
    return figure, axes


def _places(keys: list[tuple[str, str]]) -> np.ndarray:
    # A gap between strategies groups their rows.
    places, at = [], 0.0
    for i, key in enumerate(keys):
        if i:
            at += 1.0 if key[0] == keys[i - 1][0] else 1.45
        places.append(at)
    return np.asarray(places)


def energy(study: "Study") -> StudyFigure:
    """Draw the energy of a served request: on the asking device, and elsewhere."""
    rows, look = study.rows(), Look(study)
    total = [_or_zero(row["energy_per_request_j"]) for row in rows]
    own = [_or_zero(row["device_energy_per_request_j"]) for row in rows]
    rest = [max(t - o, 0.0) for t, o in zip(total, own, strict=True)]
    stacks = {"on the asking device": own, "on other nodes and links": rest}
    colors = {"on the asking device": "#0072B2", "on other nodes and links": "#E69F00"}
    figure, axes = _bars(_labels(look, rows), _places(_keys(rows)), stacks, colors)
    _mark_absent(axes, _keys(rows), [math.isnan(row["energy_per_request_j"]) for row in rows])
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.set_xlabel("active energy per served request (J); idle power is in the table")
    return figure


#: Columns of nodes that are sums of others.
_SUMS = ("energy_j", "active_energy_j", "unattributed_energy_j")
_STATES = {
    "idle": "#b8c2cc", "sleep": "#56B4E9", "compute": "#0072B2", "memory": "#E69F00", "active": "#0072B2",
    "radio_tx": "#009E73", "radio_rx": "#CC79A7", "radio_idle": "#7A5C00", "wake": "#F0E442",
    "radio_promotion": "#D55E00", "radio_sleep": "#8FB8D0", "battery_loss": "#444444",
    "self_discharge": "#C8A26B",
}  # fmt: skip


def states_of(record: dict[str, Any]) -> dict[str, float]:
    """Return the energies of a row of `Study.nodes()` by state; they add up to its energy.

    Examples
    --------
    >>> states_of({"energy_j": 5.0, "idle_energy_j": 2.0, "active_energy_j": 3.0})
    {'idle': 2.0, 'active': 3.0}
    >>> states_of({"energy_j": 5.0, "idle_energy_j": 2.0, "active_energy_j": 3.0, "compute_energy_j": 3.0})
    {'idle': 2.0, 'compute': 3.0}
    """
    states = {
        name.removesuffix("_energy_j"): float(value)
        for name, value in record.items()
        if name.endswith("_energy_j") and name not in _SUMS
    }
    rest = float(record["energy_j"]) - math.fsum(states.values())
    if abs(rest) > 1e-6 * abs(float(record["energy_j"])):
        states["active"] = rest
    return states


def energy_states(study: "Study") -> StudyFigure:
    """Draw the mean energy of a node by role and by what it did, of the first model and seed."""
    look = Look(study)
    first = {name: study.runs[0].seed for name in look.strategies}
    rows: dict[tuple[str, str], dict[str, float]] = {}
    counts: dict[tuple[str, str], int] = {}
    for run in study.runs:
        if run.base_model != look.models[0] or run.seed != first[run.strategy]:
            continue
        for record in run.nodes:
            key = (run.strategy, record["role"])
            total = rows.setdefault(key, {})
            counts[key] = counts.get(key, 0) + record["count"]
            for state, energy_j in states_of(record).items():
                total[state] = total.get(state, 0.0) + energy_j
    names = sorted(
        {n for row in rows.values() for n, v in row.items() if v > 0}, key=lambda n: _order(n, _STATES)
    )
    spare = iter(PALETTE * 4)
    colors = {name: _STATES[name] if name in _STATES else next(spare) for name in names}
    stacks = {n: [row.get(n, 0.0) / max(counts[key], 1) for key, row in rows.items()] for n in names}
    labels = [f"{strategy} · {role} ({counts[strategy, role]:,})" for strategy, role in rows]
    figure, axes = _bars(
        labels, _places(list(rows)), stacks or {"idle": [0.0] * len(rows)}, colors or _STATES
    )
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.set_xlabel("mean energy of a node over the period (J)")
    return figure


def _order(name: str, known: dict[str, str]) -> tuple[int, str]:
    names = list(known)
    return (names.index(name) if name in known else len(names), name)


def privacy(study: "Study") -> StudyFigure:
    """Draw user data that left the home, by class, per request."""
    rows, look = study.rows(), Look(study)
    names = [c for c in DATA_CLASSES if any(row[f"left_home_{c}_bytes_per_request"] > 0 for row in rows)] or [
        "text"
    ]
    classes = [f"left_home_{name}_bytes_per_request" for name in names]
    stacks = {n: [_or_zero(row[c]) for row in rows] for n, c in zip(names, classes, strict=True)}
    figure, axes = _bars(
        _labels(look, rows), _places(_keys(rows)), stacks, dict(zip(names, PALETTE, strict=False))
    )
    nothing = [row["left_home_bytes_per_request"] == 0 for row in rows]
    _mark_absent(axes, _keys(rows), nothing, "nothing left the home")
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    kinds = f" ({names[0]})" if len(names) == 1 else ""
    axes.set_xlabel(f"user data that left the home, bytes per request{kinds}")
    return figure


def _keys(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["strategy"], row["base_model"]) for row in rows]


def _labels(look: Look, rows: list[dict[str, Any]]) -> list[str]:
    return [look.row(*key) for key in _keys(rows)]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _mark_absent(
    axes: Axes, keys: list[tuple[str, str]], absent: list[bool], text: str = "none served"
) -> None:
    for place, gone in zip(_places(keys), absent, strict=True):
        if gone:
            axes.annotate(
                text,
                (0, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=MUTED,
            )
    axes.set_xlim(left=0)


def quality(study: "Study") -> StudyFigure:
    """Draw perplexity and top-1 agreement of the model variants, with 95 % intervals."""
    found = [q for q in study.qualities.values() if q.measured]
    if not found:
        raise ValueError("plot: no quality was measured in this study")
    names = short_names([q.variant for q in found])
    figure = new_figure(8.4, 0.34 * len(found) + 1.25)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(found))
    for axes, values, errors, title in (
        (
            left,
            [q.perplexity for q in found],
            [q.perplexity_se for q in found],
            "perplexity (lower is better)",
        ),
        (
            right,
            [100 * q.agreement for q in found],
            [100 * q.agreement_se for q in found],
            "top-1 agreement with the published file (%)",
        ),
    ):
        axes.errorbar(
            values, rows, xerr=1.96 * np.asarray(errors), fmt="o", color=PALETTE[0], ms=7, capsize=3, lw=1.3
        )
        axes.set_xlabel(title)
        axes.grid(True, axis="x")
    right.set_xlim(right=100.5)
    left.set_yticks(rows, [names[q.variant] for q in found])
    left.set_ylim(len(found) - 0.5, -0.5)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


KINDS: dict[str, Callable[..., StudyFigure]] = {
    "pareto": pareto,
    "latency": latency,
    "outcomes": outcomes,
    "energy": energy,
    "energy_states": energy_states,
    "privacy": privacy,
    "quality": quality,
}
