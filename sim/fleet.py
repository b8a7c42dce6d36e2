"""The fleet of a scenario: nodes at sites, and the links that join each node to the one above it.

The topology is a forest: every node has at most one uplink, so a route goes up to the nearest common ancestor
and down again. Links that carry the same `group` share one medium and so one capacity (the Wi-Fi of one
home).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edgellm.cost import DeviceProfile, LinkProfile
from edgellm.cost.units import near_matches

#: How the source of a constant begins that the scenario gives instead of the profile.
SCENARIO = "the scenario, "


class FleetError(ValueError):
    """A fleet that cannot be: a name twice, a cycle, two uplinks, or a node that is not there."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How a node is powered and cooled.

    Attributes
    ----------
    ambient_c : float
        Temperature of its surroundings, in degrees Celsius.
    charge : float
        Share of the battery's capacity at the beginning.
    sleep_after_s : float
        How long it idles before it goes to `sleep_mode`, an idle mode of its profile; infinite for never.
    sleep_mode : str
    at_wall : bool
        Whether its energy is counted at the wall, the power supply's loss included. A node on a battery has
        no supply.
    """

    ambient_c: float = 25.0
    charge: float = 1.0
    sleep_after_s: float = math.inf
    sleep_mode: str = "sleep"
    at_wall: bool = True


#: On a socket, never asleep.
USUAL = Upkeep()


@dataclass(frozen=True, slots=True)
class Node:
    """A computer of the fleet.

    `models` are the variants placed here, the preferred one first. `site` is the kind of site ("home",
    "cloud"), `instance` the one site ("home17"): data leaves a home when it crosses to another instance.
    `outages` are (start, length) in seconds, in order and apart: the node is down then.
    """

    name: str
    site: str
    role: str
    index: int
    device: DeviceProfile
    models: tuple[str, ...] = ()
    parent: str | None = None
    instance: str = ""
    key: str = ""  # the node's name in the scenario ("device")
    outages: tuple[tuple[float, float], ...] = ()
    upkeep: Upkeep = USUAL


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How messages cross a link.

    With `factors` they take what their size and the link's class say (`edgellm.cost.network`), else latency
    plus bytes over rate. With `tls` they are encrypted. After `keep_alive_s` of silence the next message sets
    up a new connection.
    """

    factors: bool = True
    tls: bool = False
    keep_alive_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Link:
    """The uplink of a node: `lower` is the node, `upper` the one above it."""

    name: str
    profile: LinkProfile
    lower: str
    upper: str
    group: str = ""  # links of one group share one capacity; empty: a capacity of its own
    network: NetworkSettings = NetworkSettings()
    outages: tuple[tuple[float, float], ...] = ()  # (start, length) in seconds, in order and apart
    forwarding: str = "store"  # or "stream": a message may hold it together with its neighbours on the way


class Hop(NamedTuple):
    """One link of a route and the direction it is crossed in."""

    link: Link
    up: bool


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes and links, checked once and indexed.

    Raises
    ------
    FleetError
        If two nodes share a name, a link names a node that is not there, a node has two uplinks, a parent
        disagrees with the links, or the links form a cycle.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    _by_name: dict[str, Node] = field(init=False, repr=False, compare=False)
    _uplink: dict[str, Link] = field(init=False, repr=False, compare=False)
    _by_role: dict[str, tuple[Node, ...]] = field(init=False, repr=False, compare=False)
    _by_site: dict[str, tuple[Node, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Node] = {}
        roles: defaultdict[str, list[Node]] = defaultdict(list)
        sites: defaultdict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if node.name in by_name:
                raise FleetError(f"node {node.name!r} is there twice")
            by_name[node.name] = node
            roles[node.role].append(node)
            sites[node.site].append(node)
        uplink: dict[str, Link] = {}
        for link in self.links:
            for end in (link.lower, link.upper):
                if end not in by_name:
                    raise FleetError(f"link {link.name!r} names node {end!r}, which is not in the fleet")
            if link.lower in uplink:
                raise FleetError(
                    f"node {link.lower!r} has two uplinks, {uplink[link.lower].name!r} and {link.name!r}"
                )
            uplink[link.lower] = link
        for node in self.nodes:
            above = uplink[node.name].upper if node.name in uplink else None
            if above != node.parent:
                raise FleetError(
                    f"node {node.name!r} has parent {node.parent!r} but its uplink goes to {above!r}"
                )
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_uplink", uplink)
        object.__setattr__(self, "_by_role", {key: tuple(value) for key, value in roles.items()})
        object.__setattr__(self, "_by_site", {key: tuple(value) for key, value in sites.items()})
        _check_acyclic(by_name)

    def with_constants(self, values: Mapping[tuple[str, str], float]) -> Fleet:
        """Return the fleet with other values of some constants of its profiles.

        Parameters
        ----------
        values : mapping of (str, str) to float
            By (name of the device's or link's profile, key of the constant). A battery that the scenario
            gives to a node keeps its capacity.

        Raises
        ------
        FleetError
            If no profile of the fleet has one of the constants.
        """
        made: dict[int, Any] = {}  # by identity: nodes of a kind share one profile, and go on sharing it
        left = set(values)

        def changed(profile: Any) -> Any:
            found = made.get(id(profile))
            if found is None:
                mine = {
                    key: replace(constant, value=float(values[profile.name, key]))
                    for key, constant in profile.constants()
                    if (profile.name, key) in values
                }
                left.difference_update((profile.name, key) for key in mine)
                if "battery_j" in mine and mine["battery_j"].source.startswith(SCENARIO):
                    del mine["battery_j"]
                found = made[id(profile)] = profile.with_constants(mine) if mine else profile
            return found

        nodes = tuple(replace(node, device=changed(node.device)) for node in self.nodes)
        links = tuple(replace(link, profile=changed(link.profile)) for link in self.links)
        if left:
            profile, key = sorted(left)[0]
            raise FleetError(f"no profile {profile!r} with a constant {key!r} in the fleet")
        return Fleet(nodes, links)

    def node(self, name: str) -> Node:
        """Return the node of that name; FleetError if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise FleetError(f"no node {name!r} in the fleet{_hint(name, self._by_name)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def parent(self, name: str) -> Node | None:
        """Return the node above, or None at a root."""
        above = self.node(name).parent
        return None if above is None else self._by_name[above]

    def ancestors(self, name: str) -> Iterable[Node]:
        """Yield the nodes above, nearest first."""
        node = self.parent(name)
        while node is not None:
            yield node
            node = self.parent(node.name)

    def uplink(self, name: str) -> Link | None:
        """Return the link to the node above, or None at a root."""
        self.node(name)
        return self._uplink.get(name)

    def of_role(self, role: str) -> tuple[Node, ...]:
        """Return all nodes of a role, in the fleet's order."""
        return self._by_role.get(role, ())

    def of_site(self, site: str) -> tuple[Node, ...]:
        """Return all nodes of a kind of site, in the fleet's order."""
        return self._by_site.get(site, ())

    def resolve(self, node: str | Node, target: str) -> Node:
        """Return the node that `target` means, seen from `node`.

        Parameters
        ----------
        node : str or Node
            Where the question is asked.
        target : str
            A node's name; or a role, a site or the last part of a name, of which the nearest at or above
            `node` is meant, then a sibling in the same site, then the only one in the fleet.

        Raises
        ------
        FleetError
            If nothing fits, or several nodes fit equally.
        """
        here = node if isinstance(node, Node) else self.node(node)
        if target in self._by_name:
            return self._by_name[target]
        for candidate in (here, *self.ancestors(here.name)):
            if _fits(candidate, target):
                return candidate
        family = [
            n for n in self._by_site.get(here.site, ()) if n.instance == here.instance and _fits(n, target)
        ]
        found = family or [n for n in self.nodes if _fits(n, target)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise FleetError(f"no node, role or site {target!r} above {here.name!r}")
        raise FleetError(
            f"{target!r} seen from {here.name!r} could be {found[0].name!r} or {found[1].name!r}"
        )

    def route(self, src: str, dst: str) -> tuple[Hop, ...]:
        """Return the hops from one node to another: up to the common ancestor, then down.

        Raises
        ------
        FleetError
            If the two nodes are in different trees.
        """
        if src == dst:
            self.node(src)
            return ()
        above = [src, *(n.name for n in self.ancestors(src))]
        rank = {name: i for i, name in enumerate(above)}
        down: list[Hop] = []
        at = self.node(dst).name
        while at not in rank:
            link = self._uplink.get(at)
            if link is None:
                raise FleetError(f"no route from {src!r} to {dst!r}: they are in different trees")
            down.append(Hop(link, up=False))
            at = link.upper
        up = [Hop(self._uplink[name], up=True) for name in above[: rank[at]]]
        return (*up, *reversed(down))

    def kinds(self) -> list[dict[str, Any]]:
        """Return the fleet by kinds of node, as a scenario describes it before it is repeated.

        Returns
        -------
        list of dict
            Keys: `site`, `key`, `role`; `sites` and `nodes` (how many there are in all); `devices` (title ->
            how many); `models`; `to` ("site/key" of the node above, or ""), `link` and `link_title` (profile
            of the uplink, or ""), `shared` (whether links of a site share one medium). JSON types only.
        """
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        sites: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for node in self.nodes:
            name = (node.site, node.key)
            row = rows.get(name)
            if row is None:
                link = self._uplink.get(node.name)
                above = None if link is None else self._by_name[link.upper]
                row = rows[name] = {
                    "site": node.site, "key": node.key, "role": node.role, "sites": 0, "nodes": 0,
                    "devices": {}, "models": list(node.models),
                    "to": "" if above is None else f"{above.site}/{above.key}",
                    "link": "" if link is None else link.profile.name,
                    "link_title": "" if link is None else link.profile.title,
                    "shared": link is not None and link.group != "",
                }  # fmt: skip
            sites[name].add(node.instance)
            row["nodes"] += 1
            row["devices"][node.device.title] = row["devices"].get(node.device.title, 0) + 1
        for name, row in rows.items():
            row["sites"] = len(sites[name])
        return list(rows.values())


def _fits(node: Node, target: str) -> bool:
    return target in (node.role, node.site, node.key, node.name.rpartition("/")[2])


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    return near_matches(name, names) if len(names) <= 20 else f" (it has {len(names)} nodes)"


def _check_acyclic(nodes: dict[str, Node]) -> None:
    done: set[str] = set()
    for start in nodes:
        path: set[str] = set()
        at: str | None = start
        while at is not None and at not in done:
            if at in path:
                raise FleetError(f"the links above node {at!r} form a cycle")
            path.add(at)
            at = nodes[at].parent
        done |= path
