"""What follows the energy of a node through time. Only nodes that need it have a `Meter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import NodeState


class Meter:
    """The battery of a node: power is constant between events, so the charge is exact at each of them."""

    __slots__ = ("_empty_ticket", "_since_s", "battery_j", "node")

    def __init__(self, node: NodeState, battery_j: float) -> None:
        self.node = node
        self.battery_j = battery_j
        self._since_s = 0.0  # the charge is exact up to here
        self._empty_ticket = 0

    def settle(self) -> None:
        """Bring the charge up to now."""
        now_s = self.node.sim.now
        self.battery_j -= self.node.power_w * (now_s - self._since_s)
        self._since_s = now_s

    def plan(self) -> None:
        """Set the alarm for the moment when the charge is used up at the present power."""
        node = self.node
        if not node.up:
            return
        node.sim.drop(self._empty_ticket)
        if node.power_w > 0.0:
            date_s = node.sim.now + max(0.0, self.battery_j) / node.power_w
            self._empty_ticket = node.sim.at(date_s, self._empty)

    def _empty(self) -> None:
        self.settle()
        self.battery_j = 0.0
        self.node.fail("battery empty")

    def drain(self, energy_j: float) -> None:
        """Take energy out at once."""
        self.settle()
        self.battery_j -= energy_j
        self.plan()

    def stop(self) -> None:
        """The node goes down."""
        self.settle()
        self.node.sim.drop(self._empty_ticket)

    def start(self) -> None:
        """The node is up again."""
        self._since_s = self.node.sim.now
        self.plan()
