"""The report: one HTML file, readable offline; everything that comes from outside is escaped."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edgellm.sim.columns import find
from edgellm.sim.quality import Quality
from edgellm.sim.report import figures
from edgellm.sim.report.style import Look, StudyFigure
from edgellm.sim.report.text import LIMITS, UNITS, duration, findings, number, percent, with_prefix

if TYPE_CHECKING:
    from edgellm.sim.study import Study

_STYLE = """
:root{--ink:#1c2733;--muted:#5c6b7a;--line:#e3e8ed;--soft:#f6f8fa;--accent:#0072B2}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1200px;margin:0 auto;padding:40px 28px 80px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 6px}
h2{font-size:1.25rem;margin:46px 0 10px;padding-top:14px;border-top:1px solid var(--line)}
p{max-width:78ch}.lead{color:var(--muted);margin:0 0 22px}
nav{font-size:.88rem;margin:0 0 8px}nav a{margin-right:14px}a{color:var(--accent)}
ul.findings{background:var(--soft);border-left:4px solid var(--accent);margin:20px 0;
 padding:14px 20px 14px 36px}
ul.findings li{margin:4px 0}nav a{white-space:nowrap}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 8px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--muted);vertical-align:bottom;border-bottom:1.5px solid #b8c2cc}
th small{display:block;font-weight:400}
td.n,th.n{text-align:right;white-space:nowrap}
td:first-child{min-width:8em;max-width:13em}.one,td:first-child .tag,td code{white-space:nowrap}
b.best{color:#00654a}
.ci{color:var(--muted);font-size:.88em}.ci.row{display:block;line-height:1.2}
h3{font-size:1rem;margin:22px 0 0}
.tag{display:inline-block;border-radius:9px;padding:0 8px;margin:1px 0;font-size:.76rem;line-height:1.5}
.guess{background:#fdf0d5;color:#7a4b00}.plain{background:#eaf2f8;color:#00507d}.warn{background:#fbeceb;color:#8c1d18}
figure{margin:20px 0 6px}figure svg{width:100%;max-width:960px;height:auto}
figcaption{color:var(--muted);font-size:.88rem;max-width:84ch}
.banner{background:#fbeceb;border-left:4px solid #b3261e;padding:10px 16px;margin:16px 0}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent)}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.86em;overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""

_CAPTIONS = {
    "outcomes": "What became of the requests. Only the green part counts as goodput.",
    "latency": "Share of all requests answered within a time. A curve that ends below 100 % never answers "
    "the rest.",
    "pareto": "Each point is one row of the table. The dashed line joins the rows that no other row beats "
    "in both "
    "(bars: 95 % intervals, drawn with three seeds or more).",
    "energy": "Active energy caused by requests, failed ones included, per served request.",
    "privacy": "Prompts, answers and other user data that crossed out of the site where the request arrived.",
    "quality": "Quality of the quantized models, measured by the engine in this study (bars: 95 % "
    "intervals over tokens).",
}

Writer = Callable[[float], str]
_SERVICE: tuple[tuple[str, str, str, Writer], ...] = (  # column, header, unit, writer
    ("served_share", "served", "", percent),
    ("slo_attainment", "within SLO", "", percent),
    ("goodput_per_s", "goodput", "1/s", number),
    ("ttft_p50_s", "TTFT p50", "s", number),
    ("ttft_p95_s", "TTFT p95", "s", number),
    ("e2e_p50_s", "answer p50", "s", number),
    ("e2e_p95_s", "answer p95", "s", number),
    ("e2e_p99_s", "answer p99", "s", number),
    ("tpot_p50_s", "TPOT p50", "s", number),
)
_MEANS: tuple[tuple[str, str, str, Writer], ...] = (
    ("energy_per_request_j", "energy", "J/request", number),
    ("device_energy_per_request_j", "on the device", "J/request", number),
    ("energy_per_device_j", "per device, idle incl.", "J", number),
    ("bytes_up_per_request", "up", "B/request", number),
    ("bytes_down_per_request", "down", "B/request", number),
    ("left_home_bytes_per_request", "left home", "B/request", number),
    ("cost_usd_per_1000", "cloud cost", "USD/1000", number),
)
_ANSWERS: tuple[tuple[str, str, str, Writer], ...] = (
    ("perplexity", "perplexity", "", number),
    ("top1_agreement", "top-1 agreement", "", percent),
    ("escalated_share", "escalated", "", percent),
)
_MAIN = (*_SERVICE, *_MEANS, *_ANSWERS)


def render(study: "Study") -> str:
    """Return the report of a study as one HTML document.

    Notes
    -----
    Plots are inline SVG; no address outside the file is needed or named as a source of anything to load.
    """
    scenario = study.meta["scenario"]
    title = escape(scenario["title"] or scenario["name"])
    sections = [
        ("results", "Results", _results(study)),
        ("figures", "Figures", _figures(study)),
        ("quality", "Quality of the models", _quality(study)),
        ("failures", "Requests not served", _failures(study)),
        ("strategies", "Strategies", _strategies(study)),
        ("fleet", "Fleet and links", _fleet(study)),
        ("constants", "Constants", _constants(study)),
        ("method", "How the figures are computed", _method(study)),
        ("limits", "Limits", "<ul>" + "".join(f"<li>{escape(x)}</li>" for x in LIMITS) + "</ul>"),
        ("reproduce", "To get the same again", _reproduce(study)),
    ]
    nav = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(f'<h2 id="{key}">{escape(name)}</h2>{content}' for key, name, content in sections)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: study</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{title}</h1><p class="lead">{_lead(study)}</p><nav>{nav}</nav>{_banner(study)}'
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
    if not study.interrupted:
        return ""
    text = f"This study was stopped early: it holds the {len(study.runs)} runs that had ended."
    return f'<div class="banner">{text}</div>'


def html_table(
    heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], numeric: Collection[int] = ()
) -> str:
    """Return an HTML table from cells that are already escaped.

    Parameters
    ----------
    heads : sequence of (title, unit)
    rows : iterable of sequences of str
    numeric : collection of int
        Columns set flush right.
    """

    def cell(tag: str, i: int, content: str) -> str:
        return f'<{tag} class="n">{content}</{tag}>' if i in numeric else f"<{tag}>{content}</{tag}>"

    top = "".join(
        cell("th", i, escape(h) + (f"<small>{escape(u)}</small>" if u else ""))
        for i, (h, u) in enumerate(heads)
    )
    body = "".join("<tr>" + "".join(cell("td", i, c) for i, c in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _results(study: "Study") -> str:
    note = (
        "<p>Percentiles are over all requests: one that was not served counts as infinite (∞). Green: the "
        "best value of a "
        "column. ± is half the 95 % interval over seeds.</p>"
    )
    return (
        f"{note}<h3>Service</h3>{_result_table(study, _SERVICE)}"
        f"<h3>Energy, bytes, privacy, money</h3>{_result_table(study, _MEANS)}"
        f"<h3>Answers</h3>{_result_table(study, _ANSWERS, answers=True)}"
    )


def _result_table(
    study: "Study", columns: Sequence[tuple[str, str, str, Writer]], answers: bool = False
) -> str:
    look = Look(study)
    asked = look.models != [""]
    best = {name: _best(study.rows(), name) for name, *_ in columns}
    rows = []
    for row in study.rows():
        tag = "" if row["validation"] != "unvalidated" else '<br><span class="tag guess">unvalidated</span>'
        cells = [escape(row["strategy"]) + tag]
        if asked:
            cells.append(escape(look.short[row["base_model"]]))
        cells += [_figure_cell(row, name, write, best[name]) for name, _, _, write in columns]
        if answers:
            who = escape(row["answered_by"] or "nobody").replace(", ", "<br>")
            cells += [
                f'<span class="one">{who}</span>',
                "<br>".join(map(_label, row["quality_label"].split(" + "))) or "–",
            ]
        rows.append(cells)
    heads = [("strategy", ""), *([("asked model", "")] if asked else []), *((h, u) for _, h, u, _ in columns)]
    heads += [("answered by", ""), ("quality is", "")] if answers else []
    return html_table(heads, rows, range(1 + asked, 1 + asked + len(columns)))


def _best(rows: list[dict[str, Any]], name: str) -> float:
    if name == "perplexity":  # one that is cited is on another text: it cannot be the best
        rows = [row for row in rows if row["quality_label"].startswith("measured")]
    values = {row[name] for row in rows if math.isfinite(row[name])}
    direction = find(name).better
    if len(values) < 2 or not direction:
        return math.nan
    return float(min(values) if direction == "lower" else max(values))


def _figure_cell(row: dict[str, Any], name: str, write: Callable[[float], str], best: float) -> str:
    text = escape(write(row[name]))
    if row[name] == best and math.isfinite(best):
        text = f'<b class="best">{text}</b>'
    half = row.get(f"{name}_ci", math.nan)
    if not math.isnan(half) and half > 5e-4 * abs(row[name]):  # less would show as nothing
        spread = f"{100 * half:.1f}" if write is percent else number(half, 2)
        text += f'<span class="ci row">±{escape(spread)}</span>'
    return text


def _label(text: str) -> str:
    kind = "plain" if text.startswith("measured") else "guess" if text.startswith("cited") else "warn"
    return f'<span class="tag {kind}">{escape(text)}</span>' if text else ""


def _figures(study: "Study") -> str:
    out = []
    for kind, caption in _CAPTIONS.items():
        if kind == "quality" and not any(q.measured for q in study.qualities.values()):
            continue
        out.append(_figure(figures.draw(study, kind), caption))
        if kind == "pareto" and not all(math.isnan(row["top1_agreement"]) for row in study.rows()):
            second = figures.draw(study, "pareto", x="e2e_p95_s", y="top1_agreement")
            out.append(
                _figure(
                    second,
                    "Latency against quality. Rows answered by models whose quality is only cited are "
                    "missing.",
                )
            )
    return "".join(out)


def _figure(figure: StudyFigure, caption: str) -> str:
    return f"<figure>{figure.to_svg()}<figcaption>{escape(caption)}</figcaption></figure>"


Column = tuple[str, str, Callable[[Any], str], bool]  # head, unit, escaped cell of a record, flush right


def record_table(records: Iterable[Any], columns: Sequence[Column]) -> str:
    """Return an HTML table with one row per record."""
    rows = [[cell(record) for _, _, cell, _ in columns] for record in records]
    right = {i for i, column in enumerate(columns) if column[3]}
    return html_table([(head, unit) for head, unit, _, _ in columns], rows, right)


def _text(key: str) -> Callable[[Any], str]:
    return lambda record: escape(str(record[key]) or "–")


def _count(key: str) -> Callable[[Any], str]:
    return lambda record: f"{record[key]:,.0f}"


def _amount(key: str, scale: float = 1.0, digits: int = 3) -> Callable[[Any], str]:
    return lambda record: number(record[key] * scale, digits)


def _quality(study: "Study") -> str:
    settings = study.meta["quality"]
    sizes = {v["name"]: float(v["bytes"]) / 1e6 for v in study.meta["variants"]}

    def perplexity(q: Quality) -> str:
        if math.isnan(q.perplexity_se):
            return number(q.perplexity)
        return f'{number(q.perplexity)} <span class="ci">±{number(1.96 * q.perplexity_se, 2)}</span>'

    text = (
        f"<p>Measured on the text <code>{escape(settings['text'])}</code>, at most {settings['tokens']:,} "
        f"tokens in windows of {settings['context']}, KV cache {escape(settings['kv'])}; every token after "
        "the first of a window is scored. Agreement is the share of positions whose most probable token is "
        "that of the published file.</p>"
    )
    columns: list[Column] = [
        ("variant", "", lambda q: f'<span class="one">{escape(q.variant)}</span>', False),
        ("weights", "MB", lambda q: number(sizes.get(q.variant, math.nan)), True),
        ("perplexity", "", perplexity, True),
        ("top-1 agreement", "", lambda q: percent(q.agreement), True),
        ("tokens scored", "", lambda q: f"{q.scored:,}" if q.scored else "–", True),
        ("how it was had", "", lambda q: _label(q.label), False),
        ("median confidence", "", lambda q: number(q.confidence[len(q.confidence) // 2]), True),
        ("confidence is", "", lambda q: _label(q.confidence_label), False),
    ]
    return text + record_table(study.qualities.values(), columns)


def _of_row(study: "Study") -> Column:
    look = Look(study)
    return "strategy · asked model", "", lambda r: escape(look.row(r["strategy"], r["base_model"])), False


def _failures(study: "Study") -> str:
    failures = study.failure_rows()
    if not failures:
        return "<p>Every request was served.</p>"
    columns: list[Column] = [
        _of_row(study),
        ("reason", "", _text("reason"), False),
        ("requests", "all seeds", _count("requests"), True),
        ("share", "", lambda r: percent(r["share"]), True),
    ]
    return record_table(failures, columns)


def _strategies(study: "Study") -> str:
    def compared(info: dict[str, str]) -> str:
        if info["validation"]:
            return escape(info["validation"])
        return '<span class="tag guess">unvalidated</span>'

    columns: list[Column] = [
        ("strategy", "", lambda info: f"<b>{escape(info['label'])}</b>", False),
        ("what it does", "", _text("summary"), False),
        ("compared with", "", compared, False),
    ]
    return record_table(study.meta["strategies"], columns)


def _fleet(study: "Study") -> str:
    fleet: list[Column] = [
        ("site", "", _text("site"), False),
        ("role", "", _text("role"), False),
        ("nodes", "", _count("count"), True),
        ("device", "", _text("device"), False),
        ("uplink", "", _text("uplink"), False),
        ("models placed", "", _text("models"), False),
    ]
    links: list[Column] = [
        _of_row(study),
        ("link", "", _text("profile"), False),
        ("links", "", _count("count"), True),
        ("up", "MB", _amount("bytes_up", 1e-6), True),
        ("down", "MB", _amount("bytes_down", 1e-6), True),
        ("energy", "J", _amount("energy_j"), True),
    ]
    nodes: list[Column] = [
        _of_row(study),
        ("site", "", _text("site"), False),
        ("role", "", _text("role"), False),
        ("nodes", "", _count("count"), True),
        ("active energy", "J", _amount("active_energy_j"), True),
        ("idle energy", "J", _amount("idle_energy_j"), True),
        ("busy", "s, summed", _amount("busy_s"), True),
        ("batteries empty", "", _count("battery_empty"), True),
    ]
    first = study.meta["seeds"][0]
    by_link = record_table([r for r in study.totals("links") if r["seed"] == first], links)
    by_node = record_table([r for r in study.totals("nodes") if r["seed"] == first], nodes)
    return (
        record_table(study.meta["fleet"], fleet)
        + _details(f"Bytes by kind of link (seed {first})", by_link)
        + _details(f"Energy and busy time by kind of node (seed {first})", by_node)
    )


def _details(summary: str, content: str, shown: bool = False) -> str:
    return f"<details{' open' if shown else ''}><summary>{escape(summary)}</summary>{content}</details>"


def _constants(study: "Study") -> str:
    constants = study.meta["constants"]
    guessed = sum(c["guess"] for c in constants)
    columns: list[Column] = [
        ("profile", "", lambda c: f'<span class="one">{escape(c["profile"])}</span>', False),
        ("constant", "", lambda c: f"<code>{escape(c['constant'])}</code>", False),
        ("value", "", lambda c: with_prefix(c["value"]), True),
        ("unit", "", lambda c: escape(UNITS.get(c["unit"], c["unit"].replace("_per_", "/"))), False),
        ("spread", "", _spread, False),
        ("", "", lambda c: '<span class="tag guess">guess</span>' if c["guess"] else "", False),
        ("source", "", _text("source"), False),
    ]
    text = f"{len(constants)} constants of the devices and links in the fleet; {guessed} of them are guesses."
    return f"<p>{text}</p>{_details('All constants', record_table(constants, columns), shown=True)}"


def _spread(constant: dict[str, Any]) -> str:
    if constant["low"] is None or constant["high"] is None:
        return ""
    return f"{with_prefix(constant['low'])} to {with_prefix(constant['high'])}"


def _method(study: "Study") -> str:
    slo = study.slo
    limits = [
        f"{name} ≤ {value:g} s"
        for name, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s), ("answer", slo.e2e_s))
        if value is not None
    ]
    bound = " and ".join(limits) if limits else "none: every served request is good"
    rows = [
        [f"<code>{escape(name)}</code>", escape(find(name).unit), escape(find(name).meaning)]
        for name, *_ in _MAIN
    ]
    return (
        f"<p>SLO: {escape(bound)}, wanted for {percent(slo.target)} of requests. Percentile q is the "
        "smallest value v such that "
        "at least q % of all requests took v or less (inverted CDF, never interpolated).</p>"
        "<details><summary>Every column of the table "
        f"above</summary>{html_table([('column', ''), ('unit', ''), ('meaning', '')], rows)}</details>"
    )


def _reproduce(study: "Study") -> str:
    scenario = study.meta["scenario"]
    seeds = ", ".join(map(str, study.meta["seeds"]))
    return (
        f"<p>Scenario <code>{escape(scenario['name'])}</code>, schema {scenario['schema']}, SHA-256 "
        f"<code>{escape(scenario['digest'])}</code>; seeds {seeds}; edgellm "
        f"{escape(study.meta['edgellm'])}, arithmetic contract "
        f"{escape(study.meta['numerics'])}. The same scenario and seeds give the same bytes in "
        "<code>study.save()</code>.</p>"
    )
