"""A node while it is simulated: what it can do, and who runs on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim.fleet import Node
from edgellm.sim.strategy.protocol import NodeDown, Queue

from .energy import Meter
from .memory import Memory

if TYPE_CHECKING:
    from .network import Route
    from .simulation import Simulation
    from .task import Task


class NodeState:
    """A node: one host of the engine, shared fairly by what runs."""

    def __init__(self, sim: Simulation, node: Node) -> None:
        self.sim, self.node, self.name = sim, node, node.name
        device = node.device
        self.host = sim.host()
        self.idle_w = device.idle_w.value
        self.extra_w = max(0.0, device.active_w.value - self.idle_w)
        self.usd_per_s = None if device.usd_per_hour is None else device.usd_per_hour.value / 3600.0
        self.meter = None if device.battery_j is None else Meter(self, device.battery_j.value)
        self.models: list[str] = list(node.models)
        self.memory = Memory(self, int(device.ram_bytes.value))
        self.running = 0
        self.work_s = 0.0  # computed so far: seconds alone, which is also the time the node was busy
        self.up = True
        self.reason = ""
        self.down_s = math.inf  # when it went down, if it is
        self.off_s = 0.0  # for how long it was down before
        self.tasks: dict[Task, None] = {}
        self.services: dict[str, Callable[..., Any]] = {}
        self.ports: dict[str, Queue] = {}
        self.calls: dict[Any, None] = {}  # in an inbox, or taken from one and not answered
        self.targets: dict[str, NodeState] = {}  # what names, roles and sites mean from here
        self.routes: dict[str, Route] = {}  # by the other end
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The node's own random stream."""
        if self._rng is None:
            self._rng = self.sim.stream("node", self.name)
        return self._rng

    def port(self, name: str) -> Queue:
        """The queue of a port, made when it is first named."""
        if name not in self.ports:
            self.ports[name] = Queue(f"{name} at {self.name}")
        return self.ports[name]

    @property
    def power_w(self) -> float:
        """Power drawn now."""
        return self.idle_w + (self.extra_w if self.running else 0.0)

    @property
    def battery_j(self) -> float:
        """Charge that is left now; infinite on a socket."""
        if self.meter is None:
            return math.inf
        if self.up:
            self.meter.settle()
        return max(0.0, self.meter.battery_j)

    def plan_battery(self) -> None:
        """Set the alarm for the moment when the battery will be empty."""
        if self.meter is not None:
            self.meter.plan()

    def drain(self, energy_j: float) -> None:
        """Take energy out of the battery at once (a radio)."""
        if self.meter is not None and self.up and energy_j > 0.0:
            self.meter.drain(energy_j)

    def work_begins(self) -> None:
        """One more computation runs."""
        if self.meter is None or self.running:
            self.running += 1
            return
        self.meter.settle()
        self.running = 1
        self.meter.plan()

    def work_ends(self, work_s: float) -> float:
        """A computation has stopped, `work_s` of it done; returns the active energy it took."""
        self.work_s += work_s
        if self.meter is None or self.running > 1 or not self.up:
            self.running -= 1
        else:
            self.meter.settle()
            self.running = 0
            self.meter.plan()
        return self.extra_w * work_s

    def fail(self, reason: str) -> None:
        """Go down: everything that runs here is interrupted with `NodeDown`."""
        if not self.up:
            return
        if self.meter is not None:
            self.meter.stop()
        self.up, self.reason, self.down_s = False, reason, self.sim.now
        self.sim.outages.lose(self)

    def recover(self) -> None:
        """Come up again; nothing happens where the battery is empty."""
        if self.up or self.reason == "battery empty":
            return
        self.off_s += self.sim.now - self.down_s
        self.up, self.reason, self.down_s = True, "", math.inf
        if self.meter is not None:
            self.meter.start()

    def down(self) -> NodeDown:
        """What is thrown at who needs this node."""
        return NodeDown(self.reason, detail=f"{self.name}: {self.reason}")

    def idle_energy_j(self, end_s: float) -> float:
        """Energy of being on, from the beginning to `end_s`."""
        return self.idle_w * (min(end_s, self.down_s) - self.off_s)
