"""How the figures of a study look: palette, markers, scales, names of rows.

Palette: Okabe and Ito (2008), distinguishable with the common forms of colour blindness. Nothing here touches
pyplot or any global state of matplotlib, so a notebook's own settings stay as they are.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as _Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgellm.sim.columns import find
from edgellm.sim.report.text import Names, with_prefix

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2, 3)))
INK, MUTED, GRID = "#1c2733", "#5c6b7a", "#e3e8ed"
STYLE: Any = {  # matplotlib's stubs want each key as a literal
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b8c2cc",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # names of strategies are text, whatever they contain
    "svg.fonttype": "path",
    "svg.hashsalt": "edgellm",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

#: Axis titles that read better than the column's name.
TITLES = {
    "ttft_p50_s": "median time to first token (s)",
    "ttft_p95_s": "time to first token, 95th percentile (s)",
    "e2e_p50_s": "median time to the whole answer (s)",
    "e2e_p95_s": "time to the whole answer, 95th percentile (s)",
    "e2e_p99_s": "time to the whole answer, 99th percentile (s)",
    "energy_per_request_j": "energy per served request (J)",
    "device_energy_per_request_j": "energy on the asking device per served request (J)",
    "energy_per_device_j": "energy per device over the period (J)",
    "top1_agreement": "top-1 agreement with the published file",
    "perplexity": "perplexity",
    "cost_usd_per_1000": "cloud cost per 1000 served requests (USD)",
    "left_home_bytes_per_request": "user data that left the home per request (bytes)",
    "slo_attainment": "share of requests within the SLO",
    "served_share": "share of requests served",
}


class StudyFigure(_Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def to_svg(self) -> str:
        """Return the figure as an SVG element, the same bytes each time."""
        buffer = io.StringIO()
        with mpl.rc_context(STYLE):
            self.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        text = buffer.getvalue()
        return text[text.index("<svg") :]


def new_figure(width: float, height: float) -> StudyFigure:
    figure = StudyFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Look(Names):
    """Colour by strategy, marker and dash by default model."""

    def color(self, strategy: str) -> str:
        """Return the colour of a strategy."""
        return PALETTE[self.strategies.index(strategy) % len(PALETTE)]

    def marker(self, model: str) -> str:
        """Return the marker of a default model."""
        return MARKERS[self.models.index(model) % len(MARKERS)]

    def dash(self, model: str) -> Any:
        """Return the line style of a default model."""
        return DASHES[self.models.index(model) % len(DASHES)]

    def handles(self) -> tuple[list[Any], list[Any]]:
        """Return legend entries for strategies and for models."""
        colors = [
            Line2D([], [], marker="o", ls="", color=self.color(s), label=s, markersize=7)
            for s in self.strategies
        ]
        shapes = [
            Line2D([], [], marker=self.marker(m), ls="", color=MUTED, label=self.short[m], markersize=6.5)
            for m in self.models
            if m
        ]
        return colors, shapes


def tick(value: float, _position: int = 0) -> str:
    if value != 0 and (abs(value) >= 100_000 or abs(value) < 0.001):
        return with_prefix(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def scale_axis(axes: Axes, which: str, values: Sequence[float]) -> float | None:
    """Choose a scale for finite values; return where infinite ones are drawn, or None if there are none."""
    data = np.asarray(values, dtype=np.float64)
    finite = data[np.isfinite(data)]
    positive = finite[finite > 0]
    log = len(positive) == len(finite) > 0 and positive.max() / positive.min() > 8
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    place = None
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        factor = (high / low) ** 0.12 if high > low else 2.0
        place = high * factor**1.6 if np.isinf(data).any() else None
        set_limits(low / factor, (place or high) * factor)
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 3000 else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        span = (high - low) or abs(high) or 1.0
        place = high + 0.25 * span if np.isinf(data).any() else None
        set_limits(
            max(low - 0.12 * span, 0.0) if low >= 0 else low - 0.12 * span, (place or high) + 0.12 * span
        )
    axis.set_major_formatter(FuncFormatter(tick))
    return place


def axis_title(name: str) -> str:
    column = find(name)
    unit = f" ({column.unit})" if column.unit and column.unit != "share" else ""
    return TITLES.get(name, name.replace("_", " ") + unit)
