"""Turns `[fleet]` of a scenario file into its nodes and links."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgellm.cost import (
    DeviceProfile,
    LinkProfile,
    ProfileError,
    load_device,
    load_link,
    with_threads,
)
from edgellm.cost.network import runs_tcp
from edgellm.cost.toml_lines import written_key
from edgellm.cost.units import near_matches

from ._build_energy import powered, read_upkeep
from ._schema import KEYS, ScenarioError, Table
from .fleet import USUAL, Fleet, FleetError, Link, NetworkSettings, Node, Upkeep

#: Bigger fleets are refused before memory is.
MAX_NODES = 2_000_000
_SITE_KEYS = KEYS["fleet.*"]
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


#: How a message goes on from link to link: when all of it is there, or as it comes.
FORWARDING = ("store", "stream")


@dataclass(frozen=True, slots=True)
class _NodeKind:
    """A node as the scenario describes it, before it is repeated."""

    site: str
    key: str
    count: int
    role: str
    devices: tuple[tuple[float, DeviceProfile], ...]  # cumulative share, profile
    models: tuple[str, ...]
    to_site: str = ""
    to_key: str = ""
    link: LinkProfile | None = None
    group: str = ""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    outages: tuple[tuple[float, float], ...] = ()
    link_outages: tuple[tuple[float, float], ...] = ()
    forwarding: str = "store"
    upkeep: Upkeep = USUAL


def build_fleet(top: Table, models: Mapping[str, Any], base: Path | None) -> Fleet:
    """Return the fleet of `[fleet]`."""
    fleet = top.table("fleet", "", open_keys=True)
    if not fleet.data:
        raise top.fail("fleet", "missing; a scenario needs at least one site with one node")
    network = _network(top.table("network", "network"))
    at_wall = top.table("energy", "energy").choice("at", ("wall", "chip"), "wall") == "wall"
    counts: dict[str, int] = {}
    kinds: dict[tuple[str, str], _NodeKind] = {}
    tables: dict[tuple[str, str], Table] = {}
    for site, value in fleet.data.items():
        table = Table(value, fleet.key(site), "fleet.*", open_keys=True)
        if "/" in site or not site.strip():
            raise fleet.fail(site, "a site's name must not be empty nor contain '/'")
        counts[site] = table.whole("count", 1, high=MAX_NODES)
        for key, node_value in table.data.items():
            if key not in _SITE_KEYS and not isinstance(node_value, dict):
                hint = near_matches(key, _SITE_KEYS)
                raise table.fail(key, f"unknown key{hint} (a node of the site is a table)")
        for key, node_table in table.tables("fleet.*.*", skip=_SITE_KEYS):
            kind = _node_kind(site, key, node_table, models, base)
            devices = [(share, powered(node_table, profile)) for share, profile in kind.devices]
            upkeep = read_upkeep(node_table, table, at_wall)
            kinds[site, key] = replace(kind, devices=tuple(devices), upkeep=upkeep)
            tables[site, key] = node_table
        if not any(s == site for s, _ in kinds):
            raise fleet.fail(site, "a site needs at least one node")
    for name, table in tables.items():
        kinds[name] = _with_uplink(kinds[name], table, kinds, counts, base, network)
    _check_cycles(kinds, tables)
    if sum(kind.count * counts[kind.site] for kind in kinds.values()) > MAX_NODES:
        raise ScenarioError(f"fleet: more than {MAX_NODES} nodes")
    try:
        return _repeat(kinds, counts)
    except FleetError as err:
        raise ScenarioError(f"fleet: {err}") from None


def _check_cycles(
    kinds: Mapping[tuple[str, str], _NodeKind], tables: Mapping[tuple[str, str], Table]
) -> None:
    for start in kinds:
        chain = [start]
        while kinds[chain[-1]].link is not None:
            above = kinds[chain[-1]]
            chain.append((above.to_site, above.to_key))
            if chain[-1] == start:
                way = " -> ".join("/".join(name) for name in chain)
                raise tables[start].fail("uplink", f"uplinks form a cycle: {way}")
            if chain[-1] in chain[:-1]:
                break  # a cycle further up: found when one of its own nodes is the start


def check_reachable(fleet: Fleet, asked: set[str]) -> None:
    """Raise ScenarioError where a site can neither be asked nor reached from one that can.

    Parameters
    ----------
    fleet : Fleet
    asked : set of str
        Sites where requests arrive.
    """
    joined: dict[str, set[str]] = {node.site: set() for node in fleet.nodes}
    for link in fleet.links:
        ends = fleet.node(link.lower).site, fleet.node(link.upper).site
        joined[ends[0]].add(ends[1])
        joined[ends[1]].add(ends[0])
    reached, new = set(asked), list(asked)
    while new:
        found = joined[new.pop()] - reached
        reached |= found
        new += found
    for site in joined:
        if site not in reached:
            raise ScenarioError(
                f"fleet.{written_key(site)}: unreachable: no requests arrive at this site, and no uplink "
                f"joins it to {' or '.join(sorted(asked))}, where they do"
            )


def _node_kind(site: str, key: str, table: Table, models: Mapping[str, Any], base: Path | None) -> _NodeKind:
    placed = table.list_of("models", str, ())
    for name in placed:
        if name not in models:
            raise table.fail("models", f"unknown model {name!r}{near_matches(name, models)}")
    if len(set(placed)) != len(placed):
        raise table.fail("models", "a model is there twice")
    threads = table.whole("threads") if "threads" in table else None
    devices = []
    for share, profile in _devices(table, base):
        if threads is not None:
            try:
                profile = with_threads(profile, threads)
            except ValueError as err:
                raise table.fail("threads", str(err)) from None
        devices.append((share, profile))
    default_role = (
        key if key in ("device", "gateway", "cloud") else ("cloud" if site == "cloud" else "device")
    )
    return _NodeKind(
        site=site,
        key=key,
        count=table.whole("count", 1, high=MAX_NODES),
        role=table.text("role", default_role),
        devices=tuple(devices),
        models=placed,
        outages=_outages(table),
    )


def _outages(table: Table) -> tuple[tuple[float, float], ...]:
    """Return (start, length) in seconds of `outages`, in order; they must not overlap."""
    found = []
    for entry in table.list_of("outages", list, ()):
        if len(entry) != 2:
            raise table.fail("outages", f'each must be ["start", "length"], got {entry!r}')
        start_s = table.amount("outages", entry[0], "s", zero=True)
        found.append((start_s, table.amount("outages", entry[1], "s")))
    found.sort()
    for (start_s, length_s), (next_s, _) in pairwise(found):
        if start_s + length_s >= next_s:
            raise table.fail(
                "outages", f"the one at {next_s:g} s begins before the one at {start_s:g} s ends"
            )
    return tuple(found)


def _devices(table: Table, base: Path | None) -> list[tuple[float, DeviceProfile]]:
    """Return (cumulative share, profile) of `device`: one name, or a table of names and weights."""
    raw = table.data.get("device")
    if raw is None:
        raise table.fail("device", "missing")
    if isinstance(raw, str):
        raw = {raw: 1.0}
    if not isinstance(raw, dict) or not raw:
        raise table.fail("device", 'must be a profile\'s name, or a table { "name" = weight, ... }')
    shares = [table.amount("device", weight, "count") for weight in raw.values()]
    total, running, found = sum(shares), 0.0, []
    for name, share in zip(raw, shares, strict=True):
        running += share / total
        try:
            found.append((running, load_device(name, base)))
        except ProfileError as err:
            raise table.fail("device", str(err)) from None
    return found


def _with_uplink(
    kind: _NodeKind,
    table: Table,
    kinds: Mapping[tuple[str, str], _NodeKind],
    counts: Mapping[str, int],
    base: Path | None,
    network: NetworkSettings,
) -> _NodeKind:
    if "uplink" not in table:
        return kind
    uplink = table.table("uplink", "fleet.*.*.uplink")
    to = uplink.text("to")
    site, _, key = to.rpartition("/")
    site = site or kind.site
    if (site, key) not in kinds:
        known = [f"{s}/{k}" if s != kind.site else k for s, k in kinds]
        raise uplink.fail("to", f"no node {to!r} in the fleet{near_matches(to, known)}")
    target = kinds[site, key]
    if target.count != 1:
        raise uplink.fail("to", f"{to!r} is {target.count} nodes; an uplink goes to one")
    if site != kind.site and counts[site] > counts[kind.site]:
        raise uplink.fail(
            "to", f"site {site!r} is there {counts[site]} times, {kind.site!r} only {counts[kind.site]}"
        )
    try:
        link = load_link(uplink.text("link"), base)
    except ProfileError as err:
        raise uplink.fail("link", str(err)) from None
    group = uplink.optional_text("group") or ""
    forwarding = uplink.choice("forwarding", FORWARDING, FORWARDING[0])
    for other in kinds.values():
        if group and other.group == group and other.site == kind.site and other.link != link:
            raise uplink.fail("group", f"links of one group share one profile, but {other.key!r} has another")
        if group and other.group == group and other.site == kind.site and other.forwarding != forwarding:
            raise uplink.fail("forwarding", f"links of one group forward alike, but {other.key!r} does not")
    tls = uplink.flag("tls", network.tls and runs_tcp(link))
    network = replace(network, tls=tls)
    return replace(
        kind,
        to_site=site,
        to_key=key,
        link=link,
        group=group,
        network=network,
        link_outages=_outages(uplink),
        forwarding=forwarding,
    )


def _network(table: Table) -> NetworkSettings:
    return NetworkSettings(
        factors=table.flag("factors", True),
        tls=table.flag("tls", True),
        keep_alive_s=table.quantity("keep_alive", "s", "60 s", zero=True),
    )


def _repeat(kinds: Mapping[tuple[str, str], _NodeKind], counts: Mapping[str, int]) -> Fleet:
    nodes: list[Node] = []
    links: list[Link] = []
    for site, count in counts.items():
        for i in range(count):
            for kind in kinds.values():
                if kind.site != site:
                    continue
                for j in range(kind.count):
                    node = _one(kind, i, j, counts)
                    nodes.append(node)
                    if kind.link is not None and node.parent is not None:
                        group = f"{node.instance}/{kind.group}" if kind.group else ""
                        name = f"{node.name}/uplink"
                        links.append(
                            Link(
                                name,
                                kind.link,
                                node.name,
                                node.parent,
                                group,
                                kind.network,
                                kind.link_outages,
                                kind.forwarding,
                            )
                        )
    return Fleet(tuple(nodes), tuple(links))


def _one(kind: _NodeKind, i: int, j: int, counts: Mapping[str, int]) -> Node:
    instance = kind.site if counts[kind.site] == 1 else f"{kind.site}{i}"
    index = i * kind.count + j
    # the golden ratio spreads a mix of devices evenly over the sites, with no randomness
    draw = (0.5 + index * _GOLDEN) % 1.0
    device = next((profile for share, profile in kind.devices if draw < share), kind.devices[-1][1])
    parent = None
    if kind.link is not None:
        above = kind.to_site if counts[kind.to_site] == 1 else f"{kind.to_site}{i % counts[kind.to_site]}"
        parent = f"{above}/{kind.to_key}"
    suffix = "" if kind.count == 1 else f"-{j}"
    return Node(
        name=f"{instance}/{kind.key}{suffix}",
        site=kind.site,
        role=kind.role,
        index=index,
        device=device,
        models=kind.models,
        parent=parent,
        instance=instance,
        key=kind.key,
        outages=kind.outages,
        upkeep=kind.upkeep,
    )
