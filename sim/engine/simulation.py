"""The simulation: one day of one fleet under one strategy, in one process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Literal, TypeVar

import numpy as np

from edgellm import _sim
from edgellm.sim.scenario import Scenario
from edgellm.sim.strategy.base import Strategy
from edgellm.sim.strategy.protocol import Script
from edgellm.sim.work import Work

from .arrivals import Arrivals
from .compute import Plan
from .errors import StrategyError
from .here import Fleet, Here
from .messages import KnownCosts
from .mistakes import Watchdog, raised, unfinished
from .network import Route, Transfer, place
from .node import NodeState
from .outages import Outages
from .platform import Links, Nodes
from .request import Request
from .rows import Rows
from .streaming import Streamed
from .task import Task
from .trace import Tracer

#: What is remembered about so many different works or pairs of nodes, before it is forgotten and begun anew.
REMEMBERED = 1 << 16
#: After the last arrivals the simulation goes on until all is answered, but at most this much longer, or
#: as long again as the scenario if that is more.
DRAIN_S = 3600.0


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remember(store: dict[_K, _V], key: _K, value: _V) -> None:
    if len(store) >= REMEMBERED:
        store.clear()
    store[key] = value


class Simulation:
    """The kernel that strategies run on (`edgellm.sim.strategy.protocol.Kernel`)."""

    def __init__(
        self,
        scenario: Scenario,
        strategy: Strategy,
        seed: int,
        confidence: Mapping[str, tuple[float, ...]],
        trace: int = 0,
        solver: Literal["exact", "simgrid"] = "exact",
    ) -> None:
        self.scenario, self.strategy, self.seed, self.confidence = scenario, strategy, seed, confidence
        self.fleet = scenario.fleet
        self.engine = _sim.Engine(solver)
        self.waits_inside = solver == "exact"  # a transfer may be told to wait before it begins
        self.over = False
        self.current: Task | None = None
        self.error: StrategyError | None = None
        self.outages = Outages(self)
        self.nodes: Nodes = Nodes(self)
        self.message_costs: KnownCosts = {}
        self.links: Links = Links(self)
        streams = any(link.forwarding == "stream" for link in self.fleet.links)
        self.transfer: type[Transfer] = Streamed if streams else Transfer
        if solver == "simgrid":  # which wants to know its platform beforehand
            for node in self.fleet.nodes:
                self.nodes[node.name]
            for link in self.fleet.links:
                self.links[link.lower]
        self.engine.seal()
        self.rows = Rows()
        self.tasks = 0  # that are not daemons
        self.pulse = 0  # tokens that a real model made
        self._heres: dict[str, Here] = {}
        self._times: dict[tuple[int, Work], float] = {}
        self._plans: dict[tuple[int, Work, int], Plan] = {}
        self._memory: dict[tuple[str, int], int] = {}
        self._day_over = False
        self.arrivals = Arrivals(self)
        self.tracer = Tracer(trace, self.arrivals.open) if trace else None

    # What waitables need.

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self.engine.now

    def at(self, date_s: float, call: Callable[[], Any]) -> int:
        """Call at a date; returns a ticket."""
        return self.engine.timer(date_s, call)

    def soon(self, call: Callable[[], Any]) -> int:
        """Call at this very date, after what is due; returns a ticket."""
        return self.engine.timer(0.0, call)

    def drop(self, ticket: int) -> None:
        """Forget a call."""
        if ticket:
            self.engine.cancel(ticket)

    def adopt(self, script: Script) -> Task:
        """Start a generator beside the task that runs, on its node and for its request."""
        task = self.current
        assert task is not None, "only a task yields generators"
        return Task(self, script, task.node, task.request, task.daemon, task.streams).start()

    # What nodes, links and requests need.

    def host(self) -> int:
        """A new host of the engine; after the run, none."""
        return -1 if self.over else self.engine.host()

    def medium(self, latency_s: float, duplex: bool, *rates: float) -> int:
        """A new link of the engine, with bits a second up and down where it streams; after the run, none."""
        return -1 if self.over else self.engine.link(latency_s, duplex, *rates)

    def here(self, state: NodeState) -> Here:
        """The node as strategies see it."""
        found = self._heres.get(state.name)
        if found is None:
            found = self._heres[state.name] = Here(self, state)
        return found

    def variant(self, name: str) -> Any:
        """Return a variant of the scenario; ValueError, naming those there are, if there is none."""
        try:
            return self.scenario.models[name]
        except KeyError:
            known = ", ".join(self.scenario.models)
            raise ValueError(f"no model variant {name!r} in the scenario; it has {known}") from None

    def time_s(self, state: NodeState, work: Work) -> float:
        """Seconds that a work takes alone on a node; remembered."""
        key = (id(state.node.device), work)
        found = self._times.get(key)
        if found is None:
            found = self.scenario.work_time_s(state.node, work)
            _remember(self._times, key, found)
        return found

    def plan(self, state: NodeState, work: Work, repeat: int) -> Plan:
        """What a work means on a node; remembered."""
        key = (id(state.node.device), work, repeat)
        found = self._plans.get(key)
        if found is None:
            found = Plan(state, work, repeat)
            _remember(self._plans, key, found)
        return found

    def memory_bytes(self, state: NodeState, model: str, context: int) -> int:
        """Bytes of a variant with one session of so many positions; remembered."""
        key = (model, context)
        found = self._memory.get(key)
        if found is None:
            found = self._memory[key] = self.scenario.memory_needed_bytes(state.node, model, context)
        return found

    def resolve(self, state: NodeState, target: str) -> NodeState:
        """The node that a name, role or site means, seen from a node."""
        found = state.targets.get(target)
        if found is None:
            found = self.nodes[self.fleet.resolve(state.node, target).name]
            _remember(state.targets, target, found)
        return found

    def route(self, src: NodeState, dst: NodeState) -> Route:
        """The links from one node to another, each with its direction (whether it is up); remembered."""
        found = src.routes.get(dst.name)
        if found is None:
            if src.node.parent == dst.name:
                found = ((self.links[src.name], True),)
            elif dst.node.parent == src.name:
                found = ((self.links[dst.name], False),)
            else:
                hops = self.fleet.route(src.name, dst.name)
                found = tuple((self.links[hop.link.lower], hop.up) for hop in hops)
            _remember(src.routes, dst.name, found)
        return found

    def latency_s(self, src: NodeState, dst: str) -> float:
        """One-way latency of a route."""
        if src.name == dst:
            return 0.0
        return sum(link.latency_s for link, _ in self.route(src, self.nodes[dst]))

    def place_of(self, name: str) -> str:
        """The one site that a node stands in."""
        return place(self.nodes[name].node)

    def stream(self, kind: str, name: str) -> np.random.Generator:
        """The random stream of one entity, from the seed and its name."""
        digest = hashlib.blake2b(f"{kind}/{name}".encode(), digest_size=16).digest()
        words = tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=words)))

    # The run.

    def run(self) -> None:
        """Simulate from the beginning to the end.

        Raises
        ------
        StrategyError
            If the strategy raised.
        """
        with Watchdog(self, self.strategy.max_think_s):
            self._run()

    def _run(self) -> None:
        self._set_up()
        if self.error is not None:
            raise self.error
        for state in self.nodes.values():
            if state.meter is not None:
                state.meter.plan()
        self.outages.start()
        self.arrivals.start()
        duration_s = self.scenario.duration_s
        self.at(duration_s, self._end_of_day)
        self.at(duration_s + max(DRAIN_S, duration_s), self._break_off)
        try:
            self.engine.run()
        except TimeoutError as late:  # the watchdog, outside of the strategy's own code
            self.strategy_raised(self.current, late)
        error = self.error or unfinished(self)
        if error is not None:
            raise error
        self.end_s = max(duration_s, self.now)
        self._day_over = False  # nothing is left to stop
        self.arrivals.close()
        self.over = True

    def _set_up(self) -> None:
        try:
            self.strategy.setup(Fleet(self))
        except (Exception, SystemExit) as error:
            self.strategy_raised(None, error)
            return
        self.nodes.equip()

    def _end_of_day(self) -> None:
        self._day_over = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._day_over and self.arrivals.open == 0 and self.tasks == 0:
            self.soon(self._stop_if_idle)  # whoever is running may still go on

    def _stop_if_idle(self) -> None:
        if self.arrivals.open == 0 and self.tasks == 0:
            self._break_off()

    def _break_off(self) -> None:
        """End the run. What is in progress is paid for as far as it has come."""
        for state in self.nodes.values():
            for task in list(state.tasks):
                task.break_off()
        self.engine.stop()

    def request_settled(self, request: Request) -> None:
        """A request was finished, rejected or failed."""
        self.arrivals.settled(request)
        if request.users == 0:
            self.rows.add(request)
        self._end_if_idle()

    def task_ends(self, task: Task) -> None:
        """A task has ended."""
        if not task.daemon:
            self.tasks -= 1
        if self._day_over:
            self._end_if_idle()

    def strategy_raised(
        self,
        task: Task | None,
        error: BaseException,
        request: Request | None = None,
        code: CodeType | None = None,
    ) -> None:
        """Note what the strategy raised and stop; `run` raises it."""
        if self.error is None:
            script, code = (None, code) if task is None else (task.script, None)
            self.error = raised(self, error, request if task is None else task.request, script, code)
        self.engine.stop()
