"""A node while it is simulated: what it can do, who runs on it, and the energy that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.cost import LinkProfile, battery_of, power_of, radio_of, thermal_of
from edgellm.sim.fleet import Node
from edgellm.sim.strategy.protocol import NodeDown, Queue

from .energy import Meter
from .memory import Memory
from .radio import Radio

if TYPE_CHECKING:
    from .network import Route
    from .simulation import Simulation
    from .task import Task

BATTERY_EMPTY = "battery empty"


class NodeState:
    """A node: one host of the engine, shared fairly by what runs.

    Energy is counted where the scenario meters it: `scale` leads there from the chip.
    """

    def __init__(self, sim: Simulation, node: Node) -> None:
        self.sim, self.node, self.name = sim, node, node.name
        device = node.device
        self.host = sim.host()
        self.usd_per_s = None if device.usd_per_hour is None else device.usd_per_hour.value / 3600.0
        self.models: list[str] = list(node.models)
        self.memory = Memory(self, int(device.ram_bytes.value))
        self.running = 0
        self.work_s = 0.0  # computed so far: seconds alone, which is also the time the node was busy
        self.tasks: dict[Task, None] = {}
        self.services: dict[str, Callable[..., Any]] = {}
        self.ports: dict[str, Queue] = {}
        self.calls: dict[Any, None] = {}  # in an inbox, or taken from one and not answered
        self.targets: dict[str, NodeState] = {}  # what names, roles and sites mean from here
        self.routes: dict[str, Route] = {}  # by the other end
        self._rng: np.random.Generator | None = None
        self.up = True
        self.reason = ""
        self.down_s = math.inf  # when it went down, if it is
        self.off_s = 0.0  # for how long it was down before
        # Energy: watts at the chip, then counters.
        power, battery, thermal = power_of(device), battery_of(device), thermal_of(device)
        self.power = power
        on_wall = battery is None and node.upkeep.at_wall
        self.scale = 1.0 / power.supply_efficiency if on_wall else 1.0
        self.compute_s = self.memory_s = 0.0  # work, weighted with the shares that it held
        self.tx_j = self.rx_j = self.unattributed_j = 0.0
        self.radio: Radio | None = None
        self.meter: Meter | None = None
        if battery is not None or thermal is not None or node.upkeep.sleep_after_s < math.inf:
            self.meter = Meter(self, power, node.upkeep, battery, thermal)

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

    # Energy.

    @property
    def battery_j(self) -> float:
        """Charge that can still be used; infinite on a socket."""
        if self.meter is None:
            return math.inf
        self.meter.settle()
        return self.meter.left_j

    def charge_to(self, share: float) -> None:
        """Set the battery to a share of its capacity, before the run.

        Raises
        ------
        ValueError
            If there is no battery, or the share is not from 0 to 1.
        """
        if self.meter is None or self.meter.battery is None:
            raise ValueError(f"{self.name} has no battery to charge")
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"a charge must be from 0 to 1, got {share}")
        self.meter.charge_j = share * self.meter.battery.capacity_j

    def join(self, link: LinkProfile) -> tuple[float, float]:
        """Take the device's end of an uplink: its radio; returns joules per bit down and up, as metered."""
        j_per_bit = [link.energy_down_j_per_bit.value, link.energy_up_j_per_bit.value]
        power = radio_of(link)
        if power is not None:
            self.radio = Radio(self, power)
            for up, rate in enumerate((link.down_bit_per_s.value, link.up_bit_per_s.value)):
                j_per_bit[up] += power.above_w(bool(up)) / rate
        return self.scale * j_per_bit[0], self.scale * j_per_bit[1]

    def work_ends(self, run: Any, work_s: float) -> float:
        """A computation has stopped, `work_s` of it done; returns the energy it took above idle."""
        self.work_s += work_s
        plan = run.plan
        self.compute_s += work_s * plan.compute
        self.memory_s += work_s * plan.memory
        owed_j = 0.0
        if self.meter is not None:
            work_s, owed_j = self.meter.work_ends(run, work_s)
        self.running -= 1
        return self.scale * (self.power.work_j(work_s, plan.compute, plan.memory) + owed_j)

    def drain(self, energy_j: float, up: bool, ticket: int) -> float:
        """The radio has sent (or received) a transfer, whole or in part; returns the energy it took."""
        if self.meter is not None and self.meter.battery is not None:
            energy_j = self.meter.off_air(ticket, energy_j)
        if self.down_s != math.inf and self.sim.now > self.down_s:  # nobody receives
            return 0.0
        if up:
            self.tx_j += energy_j
        else:
            self.rx_j += energy_j
        return energy_j

    # Down and up.

    def fail(self, reason: str) -> None:
        """Go down: everything that runs here is interrupted with `NodeDown`; nothing is drawn any more."""
        if not self.up:
            return
        now_s = self.sim.now
        if self.meter is not None:
            self.meter.stop()
        if self.radio is not None:
            self.radio.settle(now_s)
        self.up, self.reason, self.down_s = False, reason, now_s
        self.sim.outages.lose(self)

    def recover(self) -> None:
        """Come up again, with what the battery has left; nothing happens where that is nothing."""
        if self.up or (self.meter is not None and not self.meter.start()):
            return
        self.off_s += self.sim.now - self.down_s
        self.up, self.reason, self.down_s = True, "", math.inf
        if self.radio is not None:
            self.radio.restart()

    def down(self) -> NodeDown:
        """What is thrown at who needs this node."""
        return NodeDown(self.reason, detail=f"{self.name}: {self.reason}")

    def close(self, end_s: float) -> None:
        """The simulation is over: bring everything up to its end."""
        if self.meter is not None:
            self.meter.settle()
            self.unattributed_j += self.scale * self.meter.owed_j
            self.meter.owed_j = 0.0
        if self.radio is not None and self.up:
            self.radio.settle(end_s)
        if self.radio is not None:
            self.unattributed_j += self.scale * self.radio.owed_j
            self.radio.owed_j = 0.0
        if not self.up:
            self.off_s += end_s - self.down_s
