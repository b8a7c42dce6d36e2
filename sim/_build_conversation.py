"""Turns what `[workload.STREAM]` says of its users into a `Conversation`: turns, patience, retries."""

from __future__ import annotations

from edgellm.cost.units import near_matches

from ._schema import Table
from .workload import Conversation, Exponential, Fixed, FixedTime, LogNormalTime, Times

#: More turns than this are a slip of the pen.
MAX_TURNS = 10_000
#: More attempts than this are a storm, not a user.
MAX_RETRIES = 100
_TIMES = {"fixed": ("value",), "exponential": ("mean",), "lognormal": ("median", "sigma")}
_NEEDS = {
    "think_time": "turns",
    "context_tokens": "turns",
    "patience_until": "patience",
    "backoff": "retries",
}
_KEYS = ("turns", "think_time", "context_tokens", "patience", "patience_until", "retries", "backoff")


def build_conversation(table: Table, context: int) -> Conversation | None:
    """Return how the users of a stream behave, None where each request is alone and nobody leaves.

    Parameters
    ----------
    table : Table
        `[workload.STREAM]`.
    context : int
        Tokens of earlier turns that a prompt repeats at most, unless the table says.

    Raises
    ------
    ScenarioError
        If a value is wrong, or a key has no meaning without another.
    """
    from ._build_workload import read_lengths

    if not any(key in table for key in _KEYS):
        return None
    for key, needs in _NEEDS.items():
        if key in table and needs not in table:
            raise table.fail(key, f"has no meaning without {needs}")
    turns = (
        read_lengths(table, "turns", "workload.*.kinds.*.lengths", MAX_TURNS)
        if "turns" in table
        else Fixed(1)
    )
    return Conversation(
        turns=turns,
        think_time=_times(table, "think_time") if "think_time" in table else FixedTime(0.0),
        context_tokens=table.whole("context_tokens", context, low=0, high=10_000_000),
        patience=_times(table, "patience") if "patience" in table else None,
        until=table.choice("patience_until", ("answer", "first token"), "answer"),
        retries=table.whole("retries", 0, low=0, high=MAX_RETRIES),
        backoff_s=table.quantity("backoff", "s", "1 s"),
    )


def _times(table: Table, name: str) -> Times:
    """Return the distribution of times under `name`: a quantity, or a table with `dist`."""
    if not isinstance(table.data[name], dict):
        return FixedTime(table.quantity(name, "s", zero=name == "think_time"))
    entry = table.table(name, "workload.*.times")
    dist = entry.choice("dist", tuple(_TIMES))
    for key in entry.data:
        if key != "dist" and key not in _TIMES[dist]:
            raise entry.fail(key, f"not a parameter of {dist!r}{near_matches(key, _TIMES[dist])}")
    if dist == "fixed":
        return FixedTime(entry.quantity("value", "s"))
    if dist == "exponential":
        return Exponential(entry.quantity("mean", "s"))
    return LogNormalTime(entry.quantity("median", "s"), entry.quantity("sigma", "count", zero=True))
