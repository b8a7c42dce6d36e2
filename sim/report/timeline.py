"""Where one request spent its time: a row for each node and link, a bar for each thing it waited for."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim.report.markup import details, drawing, figure, html_table
from edgellm.sim.report.text import Names, number

if TYPE_CHECKING:
    from edgellm.sim.study import Run, Study

#: Kind of span -> its colour and what it is called.
KINDS: dict[str, tuple[str, str]] = {
    "wait": ("#CC79A7", "waiting for memory"),
    "queue": ("#F0E442", "queueing"),
    "load": ("#E69F00", "reading weights"),
    "prefill": ("#56B4E9", "prefill"),
    "decode": ("#0072B2", "decode"),
    "verify": ("var(--brown)", "verification of drafts"),
    "step": ("#0072B2", "step of a batch"),
    "train": ("var(--brown)", "training"),
    "compute": ("var(--grey)", "other computation"),
    "transfer": ("#009E73", "transfer over a link"),
}
_OTHER = ("#D55E00", "")
_LABEL, _WIDTH, _ROW, _TOP = 210.0, 620.0, 24.0, 8.0

Span = Sequence[Any]  # id of the request, kind, place, start (s), end (s), detail


def spans_of(run: "Run") -> dict[int, list[Span]]:
    """Return the spans of each traced request, in the order in which they begin."""
    out: dict[int, list[Span]] = {}
    for span in run.trace:
        out.setdefault(int(span[0]), []).append(span)
    return {key: sorted(spans, key=lambda s: (s[3], s[4])) for key, spans in out.items()}


def _traced(study: "Study") -> list["Run"]:
    """Return the first traced run of each strategy."""
    found: dict[str, Run] = {}
    for run in study.runs:
        if run.trace:
            found.setdefault(run.strategy, run)
    return list(found.values())


def _e2e_s(run: "Run") -> dict[int, float]:
    ids, values = run.requests["id"], run.requests["e2e_s"]
    return dict(zip((int(i) for i in ids), (float(v) for v in values), strict=True))


def typical_request(runs: list["Run"]) -> int | None:
    """Return the traced request whose latencies are, over all these runs, nearest to the median."""
    away: dict[int, list[float]] = {}
    for run in runs:
        values = _e2e_s(run)
        served = [v for v in values.values() if math.isfinite(v) and v > 0]
        middle = float(np.median(served)) if served else math.nan
        for i in spans_of(run):
            e2e_s = values.get(i, math.inf)
            near = abs(math.log(e2e_s / middle)) if math.isfinite(e2e_s) and e2e_s > 0 and served else 3.0
            away.setdefault(i, []).append(near)
    shared = {i: sum(v) for i, v in away.items() if len(v) == len(runs)} or {
        i: sum(v) for i, v in away.items()
    }
    return min(shared, key=lambda i: (shared[i], i), default=None)


def slowest_request(run: "Run") -> int | None:
    """Return the traced request that was answered last after its arrival."""
    values = _e2e_s(run)
    finite = {i: values[i] for i in spans_of(run) if math.isfinite(values.get(i, math.inf))}
    return max(finite, key=lambda i: (finite[i], -i), default=None)


def section(study: "Study") -> str:
    """Return the timelines of a study as HTML: one request under every strategy, and the slowest of each."""
    runs = _traced(study)
    if not runs:
        return "<p>No request was traced in this study.</p>"
    typical = typical_request(runs)
    names = Names(study)
    kinds = {span[1] for run in runs for span in run.trace}
    key = "".join(
        f'<li><i style="background:{color}"></i>{escape(title)}</li>'
        for kind, (color, title) in KINDS.items()
        if kind in kinds
    )
    out = [
        "<p>Bars show where a request was and what it waited for, from its arrival on. First the same "
        f'request under every strategy, one whose latency is typical.</p><ul class="key">{key}</ul>'
    ]
    shown = [(run, typical) for run in runs if typical is not None]
    until_s = max((_end_s(run, i) for run, i in shown), default=0.0)
    out += [_one(run, i, names.row(*run.key), until_s) for run, i in shown]
    out.append("<h3>The slowest traced request of each strategy</h3>")
    slow = [(run, slowest_request(run)) for run in runs]
    out += [_one(run, i, names.row(*run.key), 0.0) for run, i in slow if i is not None]
    return "".join(out)


def _row_of(run: "Run", i: int) -> dict[str, Any]:
    at = int(np.flatnonzero(run.requests["id"] == i)[0])
    return {name: values[at] for name, values in run.requests.items()}


def _end_s(run: "Run", i: int) -> float:
    arrival_s = float(_row_of(run, i)["arrival_s"])
    return max((span[4] - arrival_s for span in spans_of(run).get(i, [])), default=0.0)


def _one(run: "Run", i: int, name: str, until_s: float) -> str:
    row, spans = _row_of(run, i), spans_of(run).get(i, [])
    spans = [span for span in spans if span[1] in KINDS or span[1] not in ("request", "service")]
    first = float(row["first_token_s"])
    if row["status"] == "ok":
        became = f"first token after {number(first)} s, answered after {number(float(row['e2e_s']))} s"
    else:
        became = f"not served: {row['reason']}"
    what = (
        f"{name}: request {i} ({row['kind']} at {row['node']}, {row['prompt_tokens']} tokens in, "
        f"{row['output_tokens']} out); {became}."
    )
    if not spans:
        return f"<p>{escape(what)}</p>"
    arrival_s = float(row["arrival_s"])
    svg = _draw(
        spans, arrival_s, max(until_s, _end_s(run, i)), first if row["status"] == "ok" else math.inf, what
    )
    rows = [
        [escape(kind), escape(where), number(start - arrival_s, 4), number(end - start, 4), escape(text)]
        for _, kind, where, start, end, text in spans
    ]
    heads = [("what", ""), ("where", ""), ("from", "s"), ("took", "s"), ("", "")]
    table = html_table(heads, rows, {2, 3}, f"spans of request {i}")
    return figure(svg, what, wide=True) + details("the same as a table", table)


def ticks(until: float) -> list[float]:
    """Return round places on an axis from 0 to `until`.

    Examples
    --------
    >>> ticks(3.3), ticks(0.0)
    ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [0.0])
    """
    if not until > 0:
        return [0.0]
    size = 10.0 ** math.floor(math.log10(until / 4))
    step = next(size * f for f in (1, 2, 5, 10) if until / (size * f) <= 8)
    return [round(i * step, 12) for i in range(int(until / step) + 1)]


def _draw(spans: list[Span], arrival_s: float, until_s: float, first_s: float, title: str) -> str:
    places = list(dict.fromkeys(span[2] for span in spans))
    scale = _WIDTH / until_s if until_s > 0 else 0.0
    height = _TOP + len(places) * _ROW
    parts = []
    for value in ticks(until_s):
        x = _LABEL + value * scale
        parts.append(
            f'<path d="M{x:.1f},{_TOP:.0f}V{height:.0f}" style="stroke:var(--line)"/><text x="{x:.1f}" '
            f'y="{height + 16:.0f}" font-size="11" text-anchor="middle" class="muted">{value:g} s</text>'
        )
    for i, place in enumerate(places):
        y = _TOP + i * _ROW
        label = place if len(place) <= 32 else "…" + place[-31:]
        parts.append(
            f'<text x="{_LABEL - 8:.0f}" y="{y + 16:.1f}" font-size="11.5" text-anchor="end">'
            f"{escape(label)}</text>"
        )
        parts.append(f'<path d="M{_LABEL:.0f},{y + _ROW:.1f}h{_WIDTH:.0f}" style="stroke:var(--line)"/>')
    for _, kind, where, start_s, end_s, text in spans:
        color, called = KINDS.get(kind, (_OTHER[0], kind))
        x, wide = _LABEL + (start_s - arrival_s) * scale, max((end_s - start_s) * scale, 2.0)
        y = _TOP + places.index(where) * _ROW + 4
        said = f"{called} at {where}: {number(end_s - start_s, 4)} s. {text}"
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{_ROW - 8:.0f}" rx="2" '
            f'style="fill:{color};stroke:var(--paper);stroke-width:.6"><title>{escape(said)}</title></rect>'
        )
    if math.isfinite(first_s) and first_s <= until_s:
        x = _LABEL + first_s * scale
        parts.append(
            f'<path d="M{x:.1f},{_TOP - 4:.0f}V{height:.0f}" style="stroke:var(--ink);stroke-dasharray:3 2">'
            "<title>first token</title></path>"
        )
    return drawing(_LABEL + _WIDTH + 24, height + 24, "".join(parts), title)
