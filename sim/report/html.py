"""The report: one HTML file, readable offline; everything that comes from outside is escaped."""

import math
from html import escape
from typing import TYPE_CHECKING

from edgellm.sim.report import comparisons, figures, fleet, sections, timeline
from edgellm.sim.report.markup import STYLE, details, figure, themed
from edgellm.sim.report.text import LIMITS, duration, findings

if TYPE_CHECKING:
    from edgellm.sim.study import Study

#: Figure -> (title, caption).
_FIGURES = {
    "outcomes": ("Outcomes", "What became of the requests. Only the green part counts as goodput."),
    "latency": (
        "Latency",
        "Share of all requests answered within a time. What is never answered stands at the right, at ∞; "
        "the ticks of a curve are its 50th, 95th and 99th percentile.",
    ),
    "pareto": (
        "Latency against energy",
        "Each point is one row of the table. The dashed line joins the rows that no other row beats in both "
        "(bars: 95 % intervals, drawn with three seeds or more).",
    ),
    "energy": (
        "Energy of a request",
        "Active energy caused by requests, failed ones included, per served request.",
    ),
    "energy_states": (
        "Energy by state and role",
        "Mean energy of a node over the whole period by what it did, for each role; first model, first seed.",
    ),
    "privacy": (
        "User data that left the home",
        "Prompts, answers and other user data that crossed out of the site where the request arrived.",
    ),
    "quality": (
        "Quality of the models",
        "Quality of the quantized models, measured by the engine in this study (bars: 95 % intervals over "
        "tokens).",
    ),
}


def render(study: "Study") -> str:
    """Return the report of a study as one HTML document.

    Notes
    -----
    Plots are inline SVG; no address outside the file is needed or named as a source of anything to load.
    """
    scenario = study.meta["scenario"]
    title = escape(scenario["title"] or scenario["name"])
    parts = [
        ("results", "Results", sections.results(study)),
        ("comparisons", "Who is better", comparisons.section(study)),
        ("figures", "Figures", _figures(study)),
        ("timelines", "One request, step by step", timeline.section(study)),
        ("infeasible", "What is infeasible", sections.infeasible(study)),
        ("failures", "Requests not served", sections.failures(study)),
        ("fleet", "Fleet and links", _fleet(study)),
        ("quality", "Quality of the models", sections.quality(study)),
        ("strategies", "Strategies", sections.strategies(study)),
        ("validation", "How far predictions are off", sections.validation(study)),
        ("constants", "Constants and their sources", sections.constants(study)),
        ("method", "How the figures are computed", sections.method(study)),
        ("limits", "Limits", "<ul>" + "".join(f"<li>{escape(x)}</li>" for x in LIMITS) + "</ul>"),
        ("reproduce", "To get the same again", sections.reproduce(study)),
    ]
    nav = " ".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in parts)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{content}</section>'
        for key, name, content in parts
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: study</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#results">To the results</a><main>'
        f'<h1>{title}</h1><p class="lead">{_lead(study)}</p>'
        f'<nav aria-label="Sections">{nav}</nav>{_banner(study)}'
        '<ul class="findings">' + "".join(f"<li>{escape(x)}</li>" for x in findings(study)) + "</ul>"
        f"{body}</main></body></html>\n"
    )


def _lead(study: "Study") -> str:
    scenario = study.meta["scenario"]
    rows = list(study.groups())
    arrived = len(study.runs[0].requests["id"])
    nodes = sum(item["count"] for item in study.meta["fleet"])
    seeds = len(study.meta["seeds"])
    return escape(
        f"{nodes:,} nodes over {duration(scenario['duration_s'])} of simulated time, {arrived:,} requests "
        "in a run; "
        f"{len(rows)} combinations of strategy and model, {seeds} seed{'s' if seeds > 1 else ''}: "
        f"{len(study.runs)} simulations."
    )


def _banner(study: "Study") -> str:
    out = ""
    if study.interrupted:
        text = f"This study was stopped early: it holds the {len(study.runs)} runs that had ended."
        out += f'<div class="banner" role="note">{text}</div>'
    lost: dict[tuple[str, str], list[int]] = {}
    for error in study.errors:
        lost.setdefault((error.strategy, str(error)), []).append(error.seed)
    for (strategy, text), seeds in lost.items():
        said = f"No result of {strategy} (seed {', '.join(map(str, seeds))}): {text}"
        out += f'<div class="banner" role="note">{escape(said)}</div>'
    return out


def _figures(study: "Study") -> str:
    out = []
    for kind, (title, caption) in _FIGURES.items():
        if kind == "quality" and not any(q.measured for q in study.qualities.values()):
            continue
        out.append(_plot(study, f"plot-{kind}", kind, title, caption))
        if kind == "pareto" and not all(math.isnan(row["top1_agreement"]) for row in study.rows()):
            second = "Rows answered by models whose quality is only cited are missing."
            out.append(
                _plot(study, "plot-agreement", kind, "Latency against quality", second, y="top1_agreement")
            )
    return "".join(out)


def _plot(study: "Study", name: str, kind: str, title: str, caption: str, **options: str) -> str:
    svg = figures.draw(study, kind, **options).to_svg()
    return f"<h3>{escape(title)}</h3>" + figure(themed(svg, name, f"{title}. {caption}"), caption)


def _fleet(study: "Study") -> str:
    kinds = study.meta.get("topology")
    drawn = ""
    if kinds:
        caption = "Each box is a kind of node; × says how many a site has, and how many sites there are."
        drawn = figure(fleet.draw(kinds), caption, wide=True)
        drawn += details("the same in words", f"<p>{escape(fleet.sentences(kinds))}</p>")
    return drawn + sections.fleet_tables(study)
