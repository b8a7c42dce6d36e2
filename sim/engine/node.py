"""A node while it is simulated: its memory, its energy, and who runs on it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim.fleet import Node
from edgellm.sim.strategy.protocol import NodeDown, Queue

if TYPE_CHECKING:
    from .simulation import Simulation
    from .task import Task

NO_FIT = "model does not fit"


class Memory:
    """Who holds how much of a node's memory.

    Placed variants are resident from the beginning, in their order, as far as they fit; the others are
    loaded when they are first used, and variants that nobody uses make room, the one used longest ago
    first. A task that runs a variant holds a session (its cache) until it ends. Where a session does not
    fit now, its task waits; where it could never fit, the model does not fit. A session that is there may
    grow without waiting, so that two of them cannot wait for each other.
    """

    __slots__ = (
        "_resident_bytes",
        "_waiting",
        "_weights",
        "held_bytes",
        "node",
        "peak_bytes",
        "pinned_bytes",
        "ram_bytes",
        "resident",
        "users",
    )

    def __init__(self, node: NodeState, ram_bytes: int) -> None:
        self.node = node
        self.ram_bytes = ram_bytes
        self.held_bytes = 0  # sessions and leases
        self.pinned_bytes = 0  # weights that somebody uses
        self.peak_bytes = 0
        self.resident: dict[str, int] = {}  # variant -> weight bytes, used longest ago first
        self.users: dict[str, int] = {}  # variant -> tasks with a session
        self._resident_bytes = 0
        self._weights: dict[str, int] = {}
        self._waiting: deque[tuple[int, str, Callable[[], None]]] = deque()

    def weights(self, model: str) -> int:
        """Bytes of a variant's weights (with what a step of it needs)."""
        found = self._weights.get(model)
        if found is None:
            found = self._weights[model] = self.node.sim.memory_bytes(self.node, model, 0)
        return found

    def place(self, model: str) -> None:
        """Make a variant resident before the day begins, if there is room."""
        need = self.weights(model)
        if model not in self.resident and self._resident_bytes + need <= self.ram_bytes:
            self.resident[model] = need
            self._resident_bytes += need

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody holds or uses."""
        return max(0, self.ram_bytes - self.held_bytes - self.pinned_bytes)

    def fits(self, model: str, context: int) -> bool:
        """Whether the variant and one session would fit if they were alone."""
        return self.node.sim.memory_bytes(self.node, model, context) <= self.ram_bytes

    def enter(
        self, task: Task, model: str, positions: int, granted: Callable[[bool], None]
    ) -> Callable[[], Any] | None:
        """Give the task a session, now or when there is room.

        `granted(cold)` is called once: at once where there is room; `cold` says that the weights must be read
        from storage. The model must fit (`fits`). Returns what stops waiting, None where nothing waits.
        """
        weights = self.weights(model)
        cache = max(0, self.node.sim.memory_bytes(self.node, model, positions) - weights)

        def grant() -> None:
            have = task.sessions.get(model)
            if have is None:
                users = self.users[model] = self.users.get(model, 0) + 1
                self.pinned_bytes += weights if users == 1 else 0
            task.sessions[model] = max(cache, have or 0)
            self._hold(max(0, cache - (have or 0)))
            granted(self._bring(model, weights))

        grows = model in task.sessions  # without waiting
        if grows or (not self._waiting and self._room(model, weights, cache)):
            grant()
            return None
        entry = (cache, model, grant)
        self._waiting.append(entry)
        return partial(self._leave_queue, entry)

    def _leave_queue(self, entry: tuple[int, str, Callable[[], None]]) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._serve()

    def _room(self, model: str, weights: int, extra: int) -> bool:
        need = extra + (0 if self.users.get(model) else weights)
        return self.held_bytes + self.pinned_bytes + need <= self.ram_bytes

    def _bring(self, model: str, weights: int) -> bool:
        """Make a variant resident and most recently used; returns whether it has to be read."""
        cold = self.resident.pop(model, None) is None
        self.resident[model] = weights
        self._resident_bytes += weights if cold else 0
        if self._resident_bytes + self.held_bytes > self.ram_bytes:
            for other in [m for m in self.resident if not self.users.get(m)]:
                self._resident_bytes -= self.resident.pop(other)
                if self._resident_bytes + self.held_bytes <= self.ram_bytes:
                    break
        return cold

    def _hold(self, nbytes: int) -> None:
        self.held_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes + self.pinned_bytes)

    def try_hold(self, nbytes: int) -> bool:
        """Take memory at once, if nobody waits and there is room."""
        if self._waiting or nbytes > self.free_bytes:
            return False
        self._hold(nbytes)
        return True

    def wait(self, nbytes: int, grant: Callable[[], None]) -> Callable[[], Any]:
        """Take memory when there is room, then call `grant`; returns what stops waiting."""

        def take() -> None:
            self._hold(nbytes)
            grant()

        entry = (nbytes, "", take)
        self._waiting.append(entry)
        self._serve()
        return partial(self._leave_queue, entry)

    def release(self, nbytes: int) -> None:
        """Give memory back."""
        self.held_bytes -= nbytes
        self._serve()

    def leave(self, task: Task) -> None:
        """Give back the sessions of a task that has ended."""
        if task.sessions:
            for model, cache in task.sessions.items():
                self.users[model] -= 1
                self.pinned_bytes -= 0 if self.users[model] else self.weights(model)
                self.held_bytes -= cache
            task.sessions.clear()
            self._serve()

    def _serve(self) -> None:
        while self._waiting:
            nbytes, model, grant = self._waiting[0]
            room = self._room(model, self.weights(model), nbytes) if model else nbytes <= self.free_bytes
            if not room:
                return
            self._waiting.popleft()
            grant()


class NodeState:
    """A node: one SimGrid host, shared fairly by what runs."""

    def __init__(self, sim: Simulation, node: Node) -> None:
        self.sim, self.node, self.name = sim, node, node.name
        device = node.device
        self.host = sim.engine.host()
        self.idle_w = device.idle_w.value
        self.extra_w = max(0.0, device.active_w.value - self.idle_w)
        self.usd_per_s = None if device.usd_per_hour is None else device.usd_per_hour.value / 3600.0
        self.battery_j = math.inf if device.battery_j is None else device.battery_j.value
        self.models: list[str] = list(node.models)
        self.memory = Memory(self, int(device.ram_bytes.value))
        self.running = 0
        self.work_s = 0.0  # computed so far: seconds alone, which is also the time the node was busy
        self.up = True
        self.reason = ""
        self.down_s = math.inf
        self.tasks: dict[Task, None] = {}
        self.services: dict[str, Callable[..., Any]] = {}
        self.ports: dict[str, Queue] = {}
        self._since_s = 0.0  # the battery is exact up to here
        self._empty_ticket = 0
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
            self.ports[name] = Queue()
        return self.ports[name]

    # Battery: power is constant between events, so the charge is exact at each of them.

    @property
    def power_w(self) -> float:
        """Power drawn now."""
        return self.idle_w + (self.extra_w if self.running else 0.0)

    def settle_battery(self) -> float:
        """Bring the charge up to now and return it, in joules."""
        if self.battery_j != math.inf and self.up:
            self.battery_j -= self.power_w * (self.sim.now - self._since_s)
            self._since_s = self.sim.now
        return self.battery_j

    def plan_battery(self) -> None:
        """Set the alarm for the moment when the charge is used up at the present power."""
        if self.battery_j == math.inf or not self.up:
            return
        self.sim.drop(self._empty_ticket)
        power_w = self.power_w
        if power_w > 0.0:
            self._empty_ticket = self.sim.at(self.sim.now + max(0.0, self.battery_j) / power_w, self._empty)

    def _empty(self) -> None:
        self.settle_battery()
        self.battery_j = 0.0
        self.fail("battery empty")

    def drain(self, energy_j: float) -> None:
        """Take energy out of the battery at once (a radio)."""
        if self.battery_j != math.inf and self.up and energy_j > 0.0:
            self.settle_battery()
            self.battery_j -= energy_j
            self.plan_battery()

    def work_begins(self) -> None:
        """One more computation runs."""
        if self.running == 0:
            self.settle_battery()
            self.running = 1
            self.plan_battery()
        else:
            self.running += 1

    def work_ends(self, work_s: float) -> float:
        """A computation has stopped, `work_s` of it done; returns the active energy it took."""
        self.work_s += work_s
        if self.running == 1:
            self.settle_battery()
            self.running = 0
            self.plan_battery()
        else:
            self.running -= 1
        return self.extra_w * work_s

    def fail(self, reason: str) -> None:
        """Go down: everything that runs here is interrupted with `NodeDown`."""
        if not self.up:
            return
        self.settle_battery()
        self.up, self.reason, self.down_s = False, reason, self.sim.now
        self.sim.drop(self._empty_ticket)
        for task in list(self.tasks):
            task.interrupt(self.down())

    def down(self) -> NodeDown:
        """What is thrown at who needs this node."""
        return NodeDown(self.reason, detail=f"{self.name}: {self.reason}")

    def idle_energy_j(self, end_s: float) -> float:
        """Energy of being on, from the beginning to `end_s`."""
        return self.idle_w * min(end_s, self.down_s)
