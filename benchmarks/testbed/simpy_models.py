"""The worlds of `worlds.py` in SimPy, written for speed and with the same accounts for every request.

Two models. In `Delays` nothing waits for anything: a request is a process of four timeouts. In `Fair` the
devices of a home share the air fairly, and so do the requests on a gateway: processor sharing by virtual
time, a heap for each resource, one wake-up for each change (as exact as the testbed's, and the fastest
that we know in SimPy). Both keep, for every request, what the testbed keeps: the columns of its table, energy
of nodes and links, bytes by direction, losses drawn per message, the first token.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import simpy

from edgellm.sim.engine.network import UNIT_BYTES
from edgellm.sim.engine.rows import REQUEST_COLUMNS
from edgellm.sim.engine.simulation import Simulation
from edgellm.sim.scenario import Scenario
from edgellm.sim.work import Decode, Prefill

#: What differs from request to request; the other columns are the same for all.
_VARYING = (
    "id", "node", "arrival_s", "kind", "prompt_tokens", "output_tokens", "data_class", "model",
    "first_token_s", "e2e_s", "tpot_s", "energy_j", "device_energy_j", "bytes_up", "bytes_down",
)  # fmt: skip
_TEXT = {"node", "kind", "data_class", "model"}


@dataclass(slots=True)
class Node:
    """What is added up for a node."""

    active_w: float
    work_s: float = 0.0
    air: Any = None
    cpu: Any = None


@dataclass(slots=True)
class Wire:
    """What is added up for a link, and its constants."""

    up_bit_per_s: float
    down_bit_per_s: float
    up_j_per_bit: float
    down_j_per_bit: float
    latency_s: float
    loss: float
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    energy_j: float = 0.0


@dataclass
class Base:
    """The accounts that both models keep."""

    scenario: Scenario
    seed: int
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        fleet = self.scenario.fleet
        self.env = simpy.Environment()
        self.rng = np.random.default_rng(self.seed)
        self.nodes = {
            n.name: Node(max(0.0, n.device.active_w.value - n.device.idle_w.value)) for n in fleet.nodes
        }
        self.wires = {link.lower: self._wire(link.profile) for link in fleet.links}
        self.times: dict[tuple[int, int, int], tuple[float, float, float]] = {}
        self.draws: list[int] = []

    @staticmethod
    def _wire(p: Any) -> Wire:
        return Wire(
            p.up_bit_per_s.value,
            p.down_bit_per_s.value,
            p.energy_up_j_per_bit.value,
            p.energy_down_j_per_bit.value,
            p.latency_s.value,
            p.loss.value,
        )

    def lost(self, nbytes: int, loss: float) -> float:
        """How many times as much is sent as is received; failures are drawn in blocks."""
        units = max(1, -(-nbytes // UNIT_BYTES))
        if len(self.draws) < units:
            self.draws = (self.rng.geometric(1.0 - loss, size=4096) - 1).tolist()
        return 1.0 + sum(self.draws.pop() for _ in range(units)) / units

    def work(self, node: Any, model: str, prompt: int, output: int) -> tuple[float, float, float]:
        """Seconds of the prompt, of the first token and of all tokens; remembered."""
        key = (id(node.device), prompt, output)
        found = self.times.get(key)
        if found is None:
            time_s = self.scenario.work_time_s
            found = self.times[key] = (
                time_s(node, Prefill(model, prompt)),
                time_s(node, Decode(model, 1, prompt)),
                time_s(node, Decode(model, output, prompt)),
            )
        return found

    def sent(self, wire: Wire, nbytes: int, up: bool) -> tuple[float, float, float]:
        """Bytes, seconds of air and joules of a message; added to the link's."""
        total = nbytes * self.lost(nbytes, wire.loss) if wire.loss else float(nbytes)
        if up:
            energy_j = 8.0 * total * wire.up_j_per_bit
            wire.bytes_up += total
            air_s = 8.0 * total / wire.up_bit_per_s
        else:
            energy_j = 8.0 * total * wire.down_j_per_bit
            wire.bytes_down += total
            air_s = 8.0 * total / wire.down_bit_per_s
        wire.energy_j += energy_j
        return total, air_s, energy_j

    def request(self, spec: Any, lower: Any, upper: Any) -> Iterator[Any]:
        """One request, from the device to its gateway and back."""
        raise NotImplementedError

    def row(self, spec: Any, first_s: float, energy_j: float, radio_j: float, up: float, down: float) -> None:
        """Keep the columns of one request."""
        e2e_s = self.env.now - spec.arrival_s
        answered = spec.output_tokens
        tpot_s = (e2e_s - first_s) / (answered - 1) if answered > 1 else math.nan
        self.rows.append(
            (
                spec.id, spec.node, spec.arrival_s, spec.kind, spec.prompt_tokens, answered, spec.data_class,
                spec.model, first_s, e2e_s, tpot_s, energy_j + radio_j, radio_j, up, down,
            )
        )  # fmt: skip

    def _arrivals(self, specs: Any) -> Iterator[Any]:
        env, fleet = self.env, self.scenario.fleet
        uppers: dict[str, Any] = {}
        for spec in specs:
            yield env.timeout(spec.arrival_s - env.now)
            upper = uppers.get(spec.node)
            if upper is None:
                upper = uppers[spec.node] = fleet.resolve(spec.node, "gateway")
            env.process(self.request(spec, spec.node, upper))

    def run(self) -> dict[str, Any]:
        """Simulate, and return the columns."""
        rng = Simulation.stream(SimpleNamespace(seed=self.seed), "workload", "")  # the testbed's arrivals
        specs = self.scenario.workload.requests(self.scenario.fleet, self.scenario.duration_s, rng)
        self.env.process(self._arrivals(specs))
        self.env.run()
        columns: dict[str, Any] = {
            name: np.zeros(len(self.rows)) for name in REQUEST_COLUMNS if name not in _VARYING
        }
        for name, values in zip(_VARYING, zip(*self.rows, strict=True), strict=True):
            columns[name] = np.array(values, dtype=object if name in _TEXT else None)
        columns["status"] = np.full(len(self.rows), "ok", dtype=object)
        columns["reason"] = np.full(len(self.rows), "", dtype=object)
        return columns


class Delays(Base):
    """Nothing waits: four timeouts, and the one that the latencies make of the first token."""

    def request(self, spec: Any, lower: Any, upper: Any) -> Iterator[Any]:
        env, wire, node = self.env, self.wires[lower], self.nodes[upper.name]
        prefill_s, first_s, decode_s = self.work(upper, spec.model, spec.prompt_tokens, spec.output_tokens)
        up, air_s, radio_j = self.sent(wire, spec.prompt_bytes, True)
        yield env.timeout(wire.latency_s + air_s)
        yield env.timeout(prefill_s)
        yield env.timeout(first_s)
        seen_s = env.now + wire.latency_s - spec.arrival_s
        yield env.timeout(decode_s - first_s)
        node.work_s += prefill_s + decode_s
        down, air_s, more_j = self.sent(wire, spec.answer_bytes, False)
        yield env.timeout(wire.latency_s + air_s)
        energy_j = node.active_w * (prefill_s + decode_s)
        self.row(spec, seen_s, energy_j, radio_j + more_j, up, down)


class Shared:
    """A resource of capacity one that is shared fairly: processor sharing in virtual time."""

    __slots__ = ("_armed", "_changed_s", "_heap", "_next", "_virtual_s", "env")

    def __init__(self, env: Any) -> None:
        self.env = env
        self._heap: list[tuple[float, int, Any]] = []
        self._virtual_s = self._changed_s = 0.0
        self._next = self._armed = 0

    def use(self, seconds: float) -> Any:
        """An event that happens when `seconds` of the resource were had."""
        self._settle()
        event = self.env.event()
        self._next += 1
        heapq.heappush(self._heap, (self._virtual_s + seconds, self._next, event))
        self._arm()
        return event

    def _settle(self) -> None:
        if self._heap:
            self._virtual_s += (self.env.now - self._changed_s) / len(self._heap)
        self._changed_s = self.env.now

    def _arm(self) -> None:
        self._armed += 1
        if self._heap:
            left_s = max(0.0, self._heap[0][0] - self._virtual_s) * len(self._heap)
            self.env.timeout(left_s, self._armed).callbacks.append(self._ring)

    def _ring(self, timeout: Any) -> None:
        if timeout.value != self._armed:
            return  # something has changed since
        self._settle()
        heap = self._heap
        self._virtual_s = max(self._virtual_s, heap[0][0])
        while heap and heap[0][0] <= self._virtual_s:
            heapq.heappop(heap)[2].succeed()
        self._arm()


class Fair(Base):
    """The air of a home and the gateway's processor are shared fairly."""

    def request(self, spec: Any, lower: Any, upper: Any) -> Iterator[Any]:
        env, wire, node = self.env, self.wires[lower], self.nodes[upper.name]
        if node.air is None:
            node.air, node.cpu = Shared(env), Shared(env)
        prefill_s, first_s, decode_s = self.work(upper, spec.model, spec.prompt_tokens, spec.output_tokens)
        up, air_s, radio_j = self.sent(wire, spec.prompt_bytes, True)
        yield env.timeout(wire.latency_s)
        yield node.air.use(air_s)
        yield node.cpu.use(prefill_s)
        yield node.cpu.use(first_s)
        seen_s = env.now + wire.latency_s - spec.arrival_s
        yield node.cpu.use(decode_s - first_s)
        node.work_s += prefill_s + decode_s
        down, air_s, more_j = self.sent(wire, spec.answer_bytes, False)
        yield env.timeout(wire.latency_s)
        yield node.air.use(air_s)
        self.row(spec, seen_s, node.active_w * (prefill_s + decode_s), radio_j + more_j, up, down)


MODELS: dict[str, Callable[[Scenario, int], Base]] = {"delays": Delays, "fair": Fair}
