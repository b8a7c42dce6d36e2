"""Turns `[initial]` of a scenario file into what the nodes are like when the run begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgellm.cost.units import near_matches

from ._schema import Table
from .fleet import Fleet

#: More requests than this waiting at one node are a slip of the pen.
MAX_BACKLOG = 100_000


@dataclass(frozen=True, slots=True)
class Initial:
    """What a node is like when the run begins.

    Attributes
    ----------
    resident : tuple of str or None
        Variants in memory, used longest ago first; None: those placed there, as far as they fit.
    charge : float or None
        Share of the battery that is full; None: what its profile or the fleet says.
    backlog : int
        Requests of each stream that wait here.
    """

    resident: tuple[str, ...] | None = None
    charge: float | None = None
    backlog: int = 0


def build_initial(top: Table, fleet: Fleet, models: Mapping[str, Any]) -> Mapping[str, Initial]:
    """Return what `[initial."SITE/NODE"]` says, by that name."""
    known = {f"{node.site}/{node.key}" for node in fleet.nodes}
    batteries = {f"{n.site}/{n.key}" for n in fleet.nodes if n.device.battery_j is not None}
    found: dict[str, Initial] = {}
    outer = top.table("initial", "", open_keys=True)
    for name, raw in outer.data.items():
        if name not in known:
            raise outer.fail(name, f"no node {name!r} in the fleet{near_matches(name, known)}")
        table = Table(raw, outer.key(name), "initial.*")
        resident = table.list_of("resident", str, ()) if "resident" in table else None
        for model in resident or ():
            if model not in models:
                raise table.fail("resident", f"unknown model {model!r}{near_matches(model, models)}")
        charge = table.quantity("charge", "ratio", zero=True) if "charge" in table else None
        if charge is not None and charge > 1:
            raise table.fail("charge", f"must be at most 1, got {charge:g}")
        if charge is not None and name not in batteries:
            raise table.fail("charge", f"{name} has no battery")
        backlog = table.whole("backlog", 0, low=0, high=MAX_BACKLOG)
        if backlog and not _asked(top, name):
            raise table.fail("backlog", f"no stream of requests arrives at {name}")
        found[name] = Initial(resident, charge, backlog)
    return MappingProxyType(found)


def _asked(top: Table, name: str) -> bool:
    workload = top.data.get("workload", {})
    streams = workload.values() if isinstance(workload, dict) else ()
    return any(isinstance(stream, dict) and stream.get("at") == name for stream in streams)
