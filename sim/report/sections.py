"""The sections of a report that are tables. Everything that comes from outside is escaped here."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edgellm.sim import comparison
from edgellm.sim.columns import METRIC_COLUMNS, find
from edgellm.sim.metrics import INFEASIBLE
from edgellm.sim.quality import Quality
from edgellm.sim.report.markup import (
    Column,
    amount_of,
    count_of,
    details,
    html_table,
    long_text_of,
    record_table,
    tag,
    text_of,
)
from edgellm.sim.report.style import Look
from edgellm.sim.report.text import UNITS, number, percent, with_prefix

if TYPE_CHECKING:
    from edgellm.sim.study import Study

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


def results(study: "Study") -> str:
    """Return the table of results in three parts."""
    note = (
        "<p>Percentiles are over all requests: one that was not served counts as infinite (∞). Green: "
        "better than every other row, with 95 % intervals of the differences that leave out 0. ± is half the "
        "95 % interval over seeds.</p>"
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
    best = {name: _best(study, name) for name, *_ in columns}
    rows = []
    for row in study.rows():
        mark = "" if row["validation"] != "unvalidated" else f"<br>{tag('unvalidated', 'guess')}"
        cells = [escape(row["strategy"]) + mark]
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
    return html_table(heads, rows, range(1 + asked, 1 + asked + len(columns)), "results")


def _best(study: "Study", name: str) -> float:
    """Return the value that is shown as better than all others; NaN where nobody can say."""
    rows = study.rows()
    if name in {column.name for column in METRIC_COLUMNS}:
        if not find(name).better or (comparison.is_steady(study) and name not in comparison.SHOWN):
            return math.nan
        key = comparison.winner(study, name)
        return next((float(r[name]) for r in rows if (r["strategy"], r["base_model"]) == key), math.nan)
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
    return tag(text, kind)


def quality(study: "Study") -> str:
    """Return how good the models are, and how that was had."""
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
    return text + record_table(study.qualities.values(), columns, "quality of the models")


def _of_row(study: "Study") -> Column:
    look = Look(study)
    return "strategy · asked model", "", lambda r: escape(look.row(r["strategy"], r["base_model"])), False


def infeasible(study: "Study") -> str:
    """Return what could not work at all, with the arithmetic; empty where everything could."""
    rows = []
    of_row = _of_row(study)[2]
    for (strategy, model), runs in study.groups():
        arrived = sum(len(run.requests["id"]) for run in runs)
        texts = Counter(str(text) for run in runs for text in run.requests["reason"] if text)
        for reason in INFEASIBLE:
            found = {text: n for text, n in texts.items() if text.partition(":")[0] == reason}
            if not found:
                continue
            why = [text.partition(": ")[2] for text in sorted(found, key=lambda t: (-found[t], t))]
            more = f"<br>and {len(why) - 3:,} more like these" if len(why) > 3 else ""
            name = of_row({"strategy": strategy, "base_model": model})
            count = sum(found.values())
            shown = "<br>".join(escape(text) for text in why[:3] if text) or "–"
            said = f'<span class="long">{shown}{more}</span>'
            rows.append([name, tag(reason, "warn"), f"{count:,}", percent(count / arrived), said])
    if not rows:
        return "<p>Nothing: every message could cross its links, and every model fitted where it was run.</p>"
    heads = [
        ("strategy · asked model", ""),
        ("what", ""),
        ("requests", "all seeds"),
        ("share", ""),
        ("why", ""),
    ]
    text = "<p>These requests could not be served in this way however long one waits; they are not slow.</p>"
    return text + html_table(heads, rows, {2, 3}, "infeasible requests")


def failures(study: "Study") -> str:
    """Return how many requests were not served, by reason."""
    missed = study.failure_rows()
    if not missed:
        return "<p>Every request was served.</p>"
    columns: list[Column] = [
        _of_row(study),
        ("reason", "", text_of("reason"), False),
        ("requests", "all seeds", count_of("requests"), True),
        ("share", "", lambda r: percent(r["share"]), True),
    ]
    return record_table(missed, columns, "requests not served")


def strategies(study: "Study") -> str:
    """Return what each strategy does and what it was compared with."""

    def compared(info: dict[str, str]) -> str:
        if info["validation"]:
            return escape(info["validation"])
        return tag("unvalidated", "guess")

    columns: list[Column] = [
        ("strategy", "", lambda info: f"<b>{escape(info['label'])}</b>", False),
        ("what it does", "", long_text_of("summary"), False),
        ("compared with", "", compared, False),
    ]
    return record_table(study.meta["strategies"], columns, "strategies")


def fleet_tables(study: "Study") -> str:
    """Return nodes and links as tables: how many, their bytes and their energy."""
    fleet: list[Column] = [
        ("site", "", text_of("site"), False),
        ("role", "", text_of("role"), False),
        ("nodes", "", count_of("count"), True),
        ("device", "", long_text_of("device"), False),
        ("uplink", "", long_text_of("uplink"), False),
        ("models placed", "", text_of("models"), False),
    ]
    links: list[Column] = [
        _of_row(study),
        ("link", "", text_of("profile"), False),
        ("links", "", count_of("count"), True),
        ("up", "MB", amount_of("bytes_up", 1e-6), True),
        ("down", "MB", amount_of("bytes_down", 1e-6), True),
        ("energy", "J", amount_of("energy_j"), True),
    ]
    nodes: list[Column] = [
        _of_row(study),
        ("site", "", text_of("site"), False),
        ("role", "", text_of("role"), False),
        ("nodes", "", count_of("count"), True),
        ("active energy", "J", amount_of("active_energy_j"), True),
        ("idle energy", "J", amount_of("idle_energy_j"), True),
        ("busy", "s, summed", amount_of("busy_s"), True),
        ("batteries empty", "", count_of("battery_empty"), True),
    ]
    first = study.meta["seeds"][0]
    by_link = record_table([r for r in study.totals("links") if r["seed"] == first], links)
    by_node = record_table([r for r in study.totals("nodes") if r["seed"] == first], nodes)
    return (
        record_table(study.meta["fleet"], fleet)
        + details(f"Bytes by kind of link (seed {first})", by_link)
        + details(f"Energy and busy time by kind of node (seed {first})", by_node)
    )


def constants(study: "Study") -> str:
    """Return every constant with its spread and source."""
    used = study.meta["constants"]
    guessed = sum(c["guess"] for c in used)
    columns: list[Column] = [
        ("profile", "", lambda c: f'<span class="one">{escape(c["profile"])}</span>', False),
        ("constant", "", lambda c: f"<code>{escape(c['constant'])}</code>", False),
        ("value", "", lambda c: with_prefix(c["value"]), True),
        ("unit", "", lambda c: escape(UNITS.get(c["unit"], c["unit"].replace("_per_", "/"))), False),
        ("spread", "", _spread, False),
        ("", "", lambda c: tag("guess", "guess") if c["guess"] else "", False),
        ("source", "", long_text_of("source"), False),
    ]
    text = f"{len(used)} constants of the devices and links in the fleet; {guessed} of them are guesses."
    table = record_table(used, columns, "constants")
    return f"<p>{text}</p>{details('All constants', table, shown=True)}"


def _spread(constant: dict[str, Any]) -> str:
    if constant["low"] is None or constant["high"] is None:
        return ""
    return f'<span class="one">{with_prefix(constant["low"])} to {with_prefix(constant["high"])}</span>'


def method(study: "Study") -> str:
    """Return how figures are computed, and the limits of a good answer."""
    slo = study.slo
    limits = [
        f"{name} ≤ {value:g} s"
        for name, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s), ("answer", slo.e2e_s))
        if value is not None
    ]
    bound = " and ".join(limits) if limits else "none: every served request is good"
    rows = [
        [
            f"<code>{escape(name)}</code>",
            escape(find(name).unit),
            f'<span class="long">{escape(find(name).meaning)}</span>',
        ]
        for name, *_ in _MAIN
    ]
    return (
        f"<p>SLO: {escape(bound)}, wanted for {percent(slo.target)} of requests. Percentile q is the "
        "smallest value v such that "
        "at least q % of all requests took v or less (inverted CDF, never interpolated).</p>"
        "<details><summary>Every column of the table "
        f"above</summary>{html_table([('column', ''), ('unit', ''), ('meaning', '')], rows)}</details>"
    )


def reproduce(study: "Study") -> str:
    """Return what somebody needs to get the same bytes."""
    scenario = study.meta["scenario"]
    seeds = ", ".join(map(str, study.meta["seeds"]))
    return (
        f"<p>Scenario <code>{escape(scenario['name'])}</code>, schema {scenario['schema']}, SHA-256 "
        f"<code>{escape(scenario['digest'])}</code>; seeds {seeds}; edgellm "
        f"{escape(study.meta['edgellm'])}, arithmetic contract "
        f"{escape(study.meta['numerics'])}. The same scenario and seeds give the same bytes in "
        "<code>study.save()</code>.</p>"
    )


#: Quantities of a validation that concern a request on one device.
_VALIDATED = ("decode", "prefill", "energy")


def validation(study: "Study") -> str:
    """Return the error of predictions that applies to each device and model, from published measurements."""
    known = study.meta.get("validation", [])
    if not any(record["errors"] for record in known):
        return (
            "<p>Nothing in this study was compared with a published measurement: take its times and energies "
            "as unvalidated.</p>"
        )

    def error_of(quantity: str) -> Callable[[Any], str]:
        def cell(record: dict[str, Any]) -> str:
            found = next((e for e in record["errors"] if e["quantity"] == quantity), None)
            if found is None:
                return tag("never compared", "warn")
            scope = tag(found["scope"], "guess" if found["scope"] == "all devices" else "plain")
            worst = f"worst {percent(found['worst'])} of {found['rows']} figures"
            tables = escape(", ".join(found["tables"]))
            return f'<span title="{tables}">{percent(found["median"])}, {worst}</span><br>{scope}'

        return cell

    columns: list[Column] = [
        ("device", "", text_of("device"), False),
        ("model", "", lambda r: f'<span class="one">{escape(r["model"])}</span>', False),
        *((quantity, "median error", error_of(quantity), False) for quantity in _VALIDATED),
    ]
    text = (
        "<p>How far predictions were off when published measurements were predicted, after fitting to other "
        "rows of the same table; the closest that was compared. <b>all devices</b>: this one never was, so "
        "expect more. docs/calibration.md has every row.</p>"
    )
    table = record_table(known, columns, "validation errors")
    return text + (table if len(known) <= 12 else details(f"{len(known)} devices and models", table))
