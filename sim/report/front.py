"""The figure of a Pareto search."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from edgellm.sim.report.style import MUTED, PALETTE, STYLE, StudyFigure, axis_title, new_figure, scale_axis

if TYPE_CHECKING:
    from edgellm.sim.pareto import Search

FREE: dict[str, Any] = {"clip_on": False, "zorder": 3}  # a point at zero is a whole point
#: Points of the front that are named beside the figure.
_NAMED = 12


def front_figure(search: Search, x: str, y: str) -> StudyFigure:
    """Draw every point that was tried at (x, y), those of the front numbered and named beside.

    Raises
    ------
    ValueError
        If `x` or `y` is no figure of the points.
    """
    for name in (x, y):
        if search.points and not isinstance(search.points[0].get(name), float):
            raise ValueError(f"no figure {name!r} in the points of the search")
    with mpl.rc_context(STYLE):
        return _draw(search, x, y)


def _draw(search: Search, x: str, y: str) -> StudyFigure:
    figure = new_figure(9.6, 4.8)
    axes = figure.add_subplot()
    shown = [p for p in search.points if not (math.isnan(p[x]) or math.isnan(p[y]))]
    infinite = {
        "x": scale_axis(axes, "x", [p[x] for p in shown]),
        "y": scale_axis(axes, "y", [p[y] for p in shown]),
    }

    def place(point: dict[str, Any]) -> tuple[float, float]:
        at = [point[n] if math.isfinite(point[n]) else infinite[a] or 0.0 for a, n in (("x", x), ("y", y))]
        return at[0], at[1]

    axes.grid(True)
    axes.set_axisbelow(True)
    if shown:
        axes.plot(
            *zip(*map(place, shown), strict=True), "o", color="#b7c0ca", ms=5, mec="white", mew=0.5, **FREE
        )
    front = [p for p in search.front() if not (math.isnan(p[x]) or math.isnan(p[y]))]
    if front:
        steps = [place(p) for p in front if math.isfinite(p[x]) and math.isfinite(p[y])]
        if steps:
            axes.plot(*zip(*steps, strict=True), color=PALETTE[0], lw=1.2, ls=(0, (3, 2)))
        axes.plot(*zip(*map(place, front), strict=True), "o", color=PALETTE[0], ms=10, mec="white", **FREE)
    numbers = {at: i for i, at in enumerate(dict.fromkeys(map(place, front)), 1)}  # equal points share one
    for at, number in numbers.items():
        axes.annotate(str(number), at, color="white", ha="center", va="center", fontsize=6.5)
    axes.set_xlabel(axis_title(x))
    axes.set_ylabel(axis_title(y))
    names = [f"{numbers[place(point)]}  {describe(search, point)}" for point in front[:_NAMED]]
    if len(front) > _NAMED:
        names.append(f"and {len(front) - _NAMED} more")
    figure.text(1.01, 0.97, "\n".join(names), fontsize=7.5, va="top", transform=axes.transAxes)
    figure.get_layout_engine().set(rect=(0, 0, 0.62, 1))  # type: ignore[union-attr, call-arg]  # constrained
    figure.supxlabel(f"{len(search.points)} points tried, {len(front)} on the front", fontsize=8, color=MUTED)
    return figure


def describe(search: Search, point: dict[str, Any]) -> str:
    """Return the choices of a point in one line.

    Examples
    --------
    >>> from edgellm.sim.pareto import Search
    >>> describe(Search((), ("strategy", "session.context")), {"strategy": "local", "session.context": 512})
    'local, context 512'
    """
    parts = [str(point["strategy"])]
    for name in search.choices:
        if "." in name or name == "model":
            value = point[name]
            text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            parts.append(text if name == "model" else f"{name.rpartition('.')[2]} {text}")
    return ", ".join(parts)
