"""Requests as they arrive: each starts the strategy's handler at its node."""

from __future__ import annotations

from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING

from .request import Request
from .task import Task

if TYPE_CHECKING:
    from edgellm.sim.workload import RequestSpec

    from .simulation import Simulation


class Arrivals:
    """The requests of a run: those to come, and how many are not settled."""

    __slots__ = ("_next", "_sim", "_specs", "open")

    def __init__(self, sim: Simulation) -> None:
        scenario = sim.scenario
        self._sim = sim
        self._specs: list[RequestSpec] = scenario.workload.requests(
            sim.fleet, scenario.duration_s, sim.stream("workload", "")
        )
        self._next = 0
        self.open = len(self._specs)  # have not arrived or are not settled

    def start(self) -> None:
        """Set the alarm for the first."""
        if self._specs:
            self._sim.at(self._specs[0].arrival_s, self._arrive)

    def _arrive(self) -> None:
        """Start the request that arrives now, and set the alarm for the next."""
        sim, specs, i = self._sim, self._specs, self._next
        request = Request(sim, specs[i])
        self._next = i + 1
        if i + 1 < len(specs):
            sim.at(specs[i + 1].arrival_s, self._arrive)
        sim.rows.open[request.id] = request
        if sim.tracer is not None:
            request.spans = sim.tracer.of(request.id)
        state = sim.nodes[request.node]
        if not state.up:
            request.fail(state.down())
            return
        try:
            script = sim.strategy.handle(request, sim.here(state))
        except Exception as error:
            sim.strategy_raised(None, error, request)
            return
        if isinstance(script, GeneratorType):
            task = Task(sim, script, state, request, on_end=partial(_handled, request))
            task.step(None, None)
        elif script is not None:
            wrong = TypeError(f"handle() must be a generator (it has to yield), it returned {script!r}")
            sim.strategy_raised(None, wrong, request)


def _handled(request: Request, task: Task) -> None:
    if task.error is not None:
        request.fail(task.error)
    elif not request.settled:
        request.reason = "the strategy neither finished nor rejected it"
