"""Sentences and numbers of a report: what a study shows, and how a number is written."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.sim.metrics import INFEASIBLE

if TYPE_CHECKING:
    from edgellm.sim.study import Study

LIMITS = (
    "Times and energies come from a cost model (a roofline with fixed overheads) fed with the constants "
    "listed below; "
    "they are predictions. Constants marked as a guess were neither measured here nor read at their source.",
    "Perplexity and agreement are measured on one text; they compare quantizations of one model, they do "
    "not say whether "
    "an answer is useful. Numbers that are cited come from other texts and settings and are not averaged "
    "with ours.",
    "Confidence, on which a cascade decides, is drawn from the distribution measured on the evaluation "
    "text; it is not tied to "
    "the difficulty of a particular request.",
    "Networks are store-and-forward over hops with the bandwidth, latency and loss of their profile; "
    "contention on a "
    "shared link is simulated, protocol start-up (DNS, TLS) is not unless a profile says so.",
    "A strategy marked unvalidated was compared with no published measurement.",
)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return names without the part before a colon where all of them share it.

    Examples
    --------
    >>> short_names(["smollm2-135m:q4_0", "smollm2-135m:q8_0"])
    {'smollm2-135m:q4_0': 'q4_0', 'smollm2-135m:q8_0': 'q8_0'}
    >>> short_names(["a:q4_0", "b:q4_0"])
    {'a:q4_0': 'a:q4_0', 'b:q4_0': 'b:q4_0'}
    """
    heads = {name.partition(":")[0] for name in names}
    if len(heads) == 1 and all(":" in name for name in names):
        return {name: name.partition(":")[2] for name in names}
    return {name: name for name in names}


class Names:
    """Names of a study's rows: strategies and default models in order, and short labels."""

    def __init__(self, study: "Study") -> None:
        keys = [key for key, _ in study.groups()]
        self.strategies = list(dict.fromkeys(s for s, _ in keys))
        self.models = list(dict.fromkeys(m for _, m in keys))
        self.short = short_names(self.models)

    def row(self, strategy: str, model: str) -> str:
        """Return the label of one row of the table."""
        return f"{strategy} · {self.short[model]}" if self.short[model] else strategy


def number(value: float, digits: int = 3) -> str:
    """Return a number for people: three significant digits, an infinity sign, a dash for NaN.

    Examples
    --------
    >>> number(1234.5), number(0.01234), number(float("inf")), number(float("nan")), number(0.0)
    ('1,234', '0.0123', '∞', '–', '0')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{decimals}f}"


#: Units as people write them, by their name in profiles.
UNITS = {
    "w": "W",
    "j": "J",
    "j_per_bit": "J/bit",
    "usd": "USD",
    "usd_per_hour": "USD/h",
    "count": "",
    "ratio": "",
}


def with_prefix(value: float) -> str:
    """Return a large or small number with a metric prefix, as it stands before a unit.

    Examples
    --------
    >>> with_prefix(12.8e9), with_prefix(0.0001), with_prefix(4.0), with_prefix(75.5)
    ('12.8 G', '100 µ', '4', '75.5')
    """
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e5, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if prefix == ' k' else size):.4g}{prefix}"
    if 0.0 < abs(value) < 1e-2:
        for size, prefix in ((1e-3, " m"), (1e-6, " µ"), (1e-9, " n"), (1e-12, " p")):
            if abs(value) >= size:
                return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    """Return a share as percent with one decimal, never rounding to 100 or 0 what is not.

    Examples
    --------
    >>> percent(0.99999), percent(1.0), percent(0.5), percent(float("nan"))
    ('> 99.9 %', '100 %', '50.0 %', '–')
    """
    if math.isnan(value):
        return "–"
    if value in (0.0, 1.0):
        return f"{100 * value:.0f} %"
    if value > 0.9995:
        return "> 99.9 %"
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    Examples
    --------
    >>> duration(86400.0), duration(5400.0), duration(90.0)
    ('1 day', '1.5 hours', '90 s')
    """
    for size, name in ((86400.0, "day"), (3600.0, "hour")):
        if seconds >= size:
            count = seconds / size
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return f"{seconds:g} s"


def findings(study: "Study") -> list[str]:
    """Return what the table says, in sentences that name the row and the figure."""
    from edgellm.sim import comparison

    rows, look, out = study.rows(), Names(study), []

    def best(column: str, smallest: bool) -> dict[str, Any] | None:
        finite = [row for row in rows if math.isfinite(row[column])]
        return (min if smallest else max)(finite, key=lambda row: float(row[column]), default=None)

    def settled(row: dict[str, Any], column: str) -> str:
        better = comparison.winner(study, column)
        known = len(rows) == 1 or better == (row["strategy"], row["base_model"])
        return "" if known else " (by how much others differ is not settled: see the intervals)"

    def who(row: dict[str, Any]) -> str:
        return look.row(row["strategy"], row["base_model"])

    row: dict[str, Any] | None
    if not any(row["requests"] for row in rows):
        return ["No request arrived in the simulated period."]
    target = study.slo.target
    if any(v is not None for v in (study.slo.ttft_s, study.slo.tpot_s, study.slo.e2e_s)):
        met = [row for row in rows if row["slo_attainment"] >= target]
        if met:
            row = min(met, key=lambda one: float(one["energy_per_request_j"]))
            out.append(
                f"{len(met)} of {len(rows)} rows serve at least {percent(target)} of requests within the "
                f"SLO. Of these, {who(row)} takes the least energy: {number(row['energy_per_request_j'])} J "
                f"per served request{settled(row, 'energy_per_request_j')}."
            )
        elif (row := best("slo_attainment", False)) is not None:
            out.append(
                f"No row serves {percent(target)} of requests within the SLO. "
                f"Closest: {who(row)}, {percent(row['slo_attainment'])}."
            )
    if (row := best("e2e_p95_s", True)) is not None:
        seconds = number(row["e2e_p95_s"])
        out.append(
            f"Fastest: {who(row)}, 95 % of requests are answered whole within {seconds} s"
            f"{settled(row, 'e2e_p95_s')}."
        )
    else:
        out.append("Everywhere more than 5 % of requests are not served, so no 95th percentile is finite.")
    row = best("left_home_bytes_per_request", False)
    if row is not None and row["left_home_bytes_per_request"] > 0:
        private = dict.fromkeys(r["strategy"] for r in rows if r["left_home_bytes_per_request"] == 0)
        kept = (
            f"No user data leaves the home under {', '.join(private)}; most" if private else "Most user data"
        )
        size = number(row["left_home_bytes_per_request"])
        out.append(f"{kept} leaves it under {who(row)}: {size} bytes per request.")
    measured = [q for q in study.qualities.values() if q.measured]
    if len(measured) > 1:
        low, high = min(measured, key=lambda q: q.perplexity), max(measured, key=lambda q: q.perplexity)
        out.append(
            f"Measured perplexity runs from {number(low.perplexity)} ({low.variant}) to "
            f"{number(high.perplexity)} ({high.variant}), with standard errors of "
            f"{number(low.perplexity_se, 2)} and {number(high.perplexity_se, 2)}."
        )
    return out


_SUMMARY: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("served", "served_share", percent),
    ("in SLO", "slo_attainment", percent),
    ("TTFT p50 s", "ttft_p50_s", number),
    ("answer p50 s", "e2e_p50_s", number),
    ("answer p95 s", "e2e_p95_s", number),
    ("J/request", "energy_per_request_j", number),
    ("on device J", "device_energy_per_request_j", number),
    ("left home B", "left_home_bytes_per_request", number),
    ("USD/1000", "cost_usd_per_1000", number),
    ("perplexity", "perplexity", number),
    ("top-1", "top1_agreement", percent),
)


def summary(study: "Study") -> str:
    """Return the most asked columns of the table as text for a terminal, and what to keep in mind."""
    names, rows = Names(study), study.rows()
    shown = [item for item in _SUMMARY if not all(math.isnan(row[item[1]]) for row in rows)]
    lines = [["strategy", *(head for head, _, _ in shown)]]
    for row in rows:
        mark = "" if row["validation"] != "unvalidated" else " *"
        cells = [write(row[column]) for _, column, write in shown]
        lines.append([names.row(row["strategy"], row["base_model"]) + mark, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for first, *cells in lines:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *right]))
    text.insert(1, "─" * len(text[0]))
    text += _not_served(study, names)
    if any(row["validation"] == "unvalidated" for row in rows):
        text.append("* unvalidated: compared with no published measurement")
    text += [f"{q.variant}: {q.label}" for q in study.qualities.values() if not q.measured]
    again = sorted({q.label.partition(", ")[2] for q in study.qualities.values() if ", req" in q.label})
    if again:
        source = study.meta["quality"]["text"]
        text.append(f"quality is measured by the engine on {source!r}; some {'; '.join(again)}")
    from edgellm.sim.comparison import judgement

    text += judgement(study)
    return "\n".join(text)


#: Lines of a summary about requests that were not served.
_MISSED_LINES = 6


def _not_served(study: "Study", names: Names) -> list[str]:
    """Return why requests were not served, most frequent first, with the arithmetic of what is infeasible."""
    rows = sorted(study.failure_rows(), key=lambda row: -row["share"])
    out = []
    for row in rows[:_MISSED_LINES]:
        who, count = names.row(row["strategy"], row["base_model"]), row["requests"]
        line = f"not served: {who}: {count:,} requests ({percent(row['share'])}), {row['reason']}"
        if row["reason"] in INFEASIBLE:
            line += f", {_example(study, row)}"
        out.append(line)
    if len(rows) > _MISSED_LINES:
        out.append(f"not served: {len(rows) - _MISSED_LINES} more reasons, see the report")
    return out


def _example(study: "Study", row: dict[str, Any]) -> str:
    """Return the detail of the first request that was not served for this reason."""
    for run in study.runs:
        if run.key == (row["strategy"], row["base_model"]):
            for text in run.requests["reason"]:
                if str(text).startswith(f"{row['reason']}: "):
                    return f"for example {str(text).partition(': ')[2]}"
    return "no detail"
