"""The nodes and links of a simulation: made when they are first used, since of a million few may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgellm.sim.fleet import Link

from .here import generate
from .initial import begin
from .network import LinkState
from .node import NodeState

if TYPE_CHECKING:
    from .simulation import Simulation


class Nodes(dict[str, NodeState]):
    """States by name: those of the nodes that were used. The others are made when they are asked for."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__()
        self._sim = sim
        self._equipped = False
        for node in sim.fleet.nodes:
            if node.device.battery_j is not None:  # it may run empty without being used
                self[node.name]

    def __missing__(self, name: str) -> NodeState:
        state = self[name] = NodeState(self._sim, self._sim.fleet.node(name))
        if self._equipped:
            _equip(self._sim, state)
        return state

    def equip(self) -> None:
        """The strategy has been set up: load what is placed, and offer what it did not offer itself."""
        self._equipped = True
        for state in self.values():
            _equip(self._sim, state)

    def in_order(self) -> Iterator[NodeState]:
        """One state for every node, in the fleet's order; alike nodes that were not used share one."""
        unused: dict[tuple[Any, ...], NodeState] = {}
        fleet = self._sim.fleet
        for node in fleet.nodes:
            state = self.get(node.name)
            if state is None:
                uplink = fleet.uplink(node.name)
                key = (id(node.device), id(node.upkeep), None if uplink is None else id(uplink.profile))
                state = unused.get(key)
                if state is None:
                    state = unused[key] = self[node.name]
                    if uplink is not None:
                        self._sim.links[node.name]
            yield state


def _equip(sim: Simulation, state: NodeState) -> None:
    begin(sim, state)
    if state.models and "generate" not in state.services and "generate" not in state.ports:
        state.services["generate"] = generate


class Links(dict[str, LinkState]):
    """States by the name of the node whose uplink they are, made when they are asked for.

    There is one medium for each group of links, and for each link without a group.
    """

    def __init__(self, sim: Simulation) -> None:
        super().__init__()
        self._sim = sim
        self._groups: dict[str, list[Link]] = {}
        self._media: dict[str, int] = {}
        for link in sim.fleet.links:
            if link.group:
                self._groups.setdefault(link.group, []).append(link)
        for name, state in list(sim.nodes.items()):
            if state.meter is not None and sim.fleet.uplink(name) is not None:
                self[name]  # its radio draws on its battery from the beginning

    def __missing__(self, name: str) -> LinkState:
        sim = self._sim
        link = sim.fleet.uplink(name)
        if link is None:
            raise KeyError(name)
        group = self._groups.get(link.group, [link]) if link.group else [link]
        latency_s = min(other.profile.latency_s.value for other in group)
        medium = self._media.get(link.group, -1)
        if medium < 0:
            duplex = all(other.profile.sharing == "split" for other in group)
            rates: tuple[float, ...] = ()
            if link.forwarding == "stream":
                rates = (link.profile.up_bit_per_s.value, link.profile.down_bit_per_s.value)
            medium = sim.medium(latency_s, duplex, *rates)
            if link.group:
                self._media[link.group] = medium
        state = self[name] = LinkState(sim, link, medium, link.profile.latency_s.value - latency_s)
        return state
