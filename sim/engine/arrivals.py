"""Requests as they arrive: each starts the strategy's handler at its node; then users wait, ask on, or leave.

Conversations arrive openly, at dates drawn beforehand. What follows in one depends on the answers: the next
turn comes when the answer has been read; a user whose patience ends leaves, which cancels the handler; a
request that failed may be tried again, and still counts from when it was first meant to arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import CodeType, GeneratorType
from typing import TYPE_CHECKING

from edgellm.sim.request_table import RequestSpec, RequestTable

from .request import Request, uniform
from .task import Task

if TYPE_CHECKING:
    from .simulation import Simulation


class _User:
    """Who waits for a request that something may follow."""

    __slots__ = ("leaves", "spec", "task")

    def __init__(self, spec: RequestSpec) -> None:
        self.spec = spec
        self.task: Task | None = None
        self.leaves = 0  # ticket


class Arrivals:
    """The requests of a run: those to come, and how many are not settled."""

    __slots__ = ("_coming", "_openings", "_over", "_sim", "_table", "_users", "open")

    def __init__(self, sim: Simulation) -> None:
        scenario = sim.scenario
        self._sim = sim
        specs = scenario.workload.requests(sim.fleet, scenario.duration_s, sim.stream("workload", ""))
        self._table = specs
        alone = not isinstance(specs, RequestTable)
        self._openings: Iterator[RequestSpec] = iter(specs) if alone else specs.openings()
        self.open = len(specs) if alone else specs.conversations  # that will arrive or are not settled
        self._users: dict[Request, _User] = {}
        self._coming: dict[int, RequestSpec] = {}  # attempts to come, by id
        self._over = False

    def start(self) -> None:
        """Set the alarm for the first."""
        self._expect()

    def _expect(self) -> None:
        spec = next(self._openings, None)
        if spec is not None:
            self._sim.at(spec.arrival_s, partial(self._arrive, spec))

    def _arrive(self, spec: RequestSpec) -> None:
        """Begin a conversation, and set the alarm for the next."""
        self._expect()
        self._begin(spec)

    def _begin(self, spec: RequestSpec) -> None:
        """Start the handler of a request that arrives now."""
        sim = self._sim
        request = Request(sim, spec)
        sim.rows.open[request.id] = request
        if sim.tracer is not None:
            request.spans = sim.tracer.of(request.id)
        user = self._wait(request, spec) if spec.row >= 0 else None
        state = sim.nodes[request.node]
        if not state.up:
            request.fail(state.down())
            return
        try:
            script = sim.strategy.handle(request, sim.here(state))
        except (Exception, SystemExit) as error:
            sim.strategy_raised(None, error, request)
            return
        if isinstance(script, GeneratorType):
            task = Task(sim, script, state, request, on_end=partial(_handled, request))
            if user is not None:
                user.task = task
            task.step(None, None)
        elif script is not None:
            wrong = TypeError(f"handle() must be a generator (it has to yield), it returned {script!r}")
            sim.strategy_raised(None, wrong, request, _handle_code(sim))
        elif request.status == "ok":
            wrong = TypeError("handle() finished the request without yielding: what takes time is yielded")
            sim.strategy_raised(None, wrong, request, _handle_code(sim))

    def _wait(self, request: Request, spec: RequestSpec) -> _User:
        user = self._users[request] = _User(spec)
        leaves_s = spec.arrival_s + self._table.patience_s(spec.row)
        if leaves_s < self._sim.scenario.duration_s * 1e6:  # never, else
            user.leaves = self._sim.at(leaves_s, partial(self._leave, request, user))
        return user

    def _leave(self, request: Request, user: _User) -> None:
        """The user's patience ends: who has seen nothing of what was waited for leaves."""
        user.leaves = 0
        if self._table.manner(user.spec.row).until == "first token" and request.seen:
            return
        request.abandon()
        if user.task is not None:
            user.task.cancel()

    def settled(self, request: Request) -> None:
        """A request was finished, rejected or failed: let the user go on."""
        self.open -= 1
        user = self._users.pop(request, None) if self._users else None
        if user is None or self._over:
            return
        self._sim.drop(user.leaves)
        if request.status == "ok":
            self._ask_on(user.spec)
        elif not request.abandoned:
            self._try_again(request, user.spec)

    def _ask_on(self, spec: RequestSpec) -> None:
        row = self._table.next_turn(spec.row)
        if row is None:
            return
        arrival_s = self._sim.now + self._table.think_s(row)
        if arrival_s < self._sim.scenario.duration_s:
            self._later(replace(self._table[row], arrival_s=arrival_s), arrival_s)

    def _try_again(self, request: Request, spec: RequestSpec) -> None:
        manner = self._table.manner(spec.row)
        if spec.attempt >= manner.retries:
            return
        jitter = 0.5 + uniform(self._sim.seed, "backoff", spec.id)
        date_s = self._sim.now + manner.backoff_s * 2.0**spec.attempt * jitter
        waited_s = date_s - spec.arrival_s
        if waited_s >= self._table.patience_s(spec.row) or waited_s >= (spec.deadline_s or float("inf")):
            return
        request.status = "retried"
        again = replace(spec, id=spec.id + 1, attempt=spec.attempt + 1)
        self._coming[again.id] = again
        self._later(again, date_s)

    def _later(self, spec: RequestSpec, date_s: float) -> None:
        self.open += 1
        self._sim.at(date_s, partial(self._come, spec))

    def _come(self, spec: RequestSpec) -> None:
        self._coming.pop(spec.id, None)
        self._begin(spec)

    def close(self) -> None:
        """The simulation is over: an attempt that was to come is a request that was not finished."""
        self._over = True
        for spec in self._coming.values():
            self._sim.rows.open[spec.id] = Request(self._sim, spec)


def _handle_code(sim: Simulation) -> CodeType:
    return type(sim.strategy).handle.__code__


def _handled(request: Request, task: Task) -> None:
    if task.error is not None:
        request.fail(task.error)
    elif not request.settled:
        request.reason = "the strategy neither finished nor rejected it"
