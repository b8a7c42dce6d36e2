"""Differences between the rows of a study, with intervals: who is better, and where nobody can say."""

import math
from html import escape
from typing import TYPE_CHECKING, Any

from edgellm.sim import comparison
from edgellm.sim.columns import find
from edgellm.sim.report.markup import Column, details, record_table, tag
from edgellm.sim.report.text import number

if TYPE_CHECKING:
    from edgellm.sim.study import Study

#: With more rows than this, rows are compared with those of the first strategy only.
_ALL_PAIRS = 5


def section(study: "Study") -> str:
    """Return what may be concluded, and one table of differences for each figure that is judged."""
    rows = list(study.groups())
    if len(rows) < 2:
        return "<p>One row: there is nothing to compare it with.</p>"
    said = "".join(f"<li>{escape(text)}</li>" for text in comparison.judgement(study))
    baseline = rows[0][0][0] if len(rows) > _ALL_PAIRS else None
    tables = ""
    for metric in comparison.SHOWN:
        found = study.compare(metric, baseline)
        if found:
            winner = comparison.winner(study, metric)
            who = "no winner" if winner is None else comparison.label(study, winner)
            content = f"<p>{escape(find(metric).meaning)}</p>{record_table(found, _columns(study), metric)}"
            tables += details(f"{metric}: {who}", content)
    note = (
        "<p>Differences are paired: all rows met the same requests. An interval that covers 0 leaves open "
        "who is better, and then nobody is called the winner.</p>"
    )
    return f"{note}<ul>{said}</ul>{tables}"


def _columns(study: "Study") -> list[Column]:
    def name(strategy: str, model: str) -> str:
        return escape(comparison.label(study, (strategy, model)))

    def verdict(row: dict[str, Any]) -> str:
        if not row["judged"]:
            return tag("not judged: too few pairs", "guess")
        if row["winner"] is None:
            return tag("no winner", "guess")
        return tag(comparison.label(study, (row["winner"], row["winner_model"])))

    def interval(row: dict[str, Any]) -> str:
        if math.isnan(row["low"]) or math.isnan(row["high"]):
            return "–"
        return f"{number(row['low'])} to {number(row['high'])}"

    return [
        ("row", "", lambda r: name(r["strategy"], r["base_model"]), False),
        ("minus", "", lambda r: name(r["baseline"], r["baseline_model"]), False),
        ("difference", "mean", lambda r: number(r["difference"]), True),
        ("95 % interval", "", interval, True),
        ("pairs", "", lambda r: f"{r['pairs']}", True),
        ("better", "", verdict, False),
    ]
