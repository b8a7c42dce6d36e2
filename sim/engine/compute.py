"""Computation on a node: `here.run`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgellm.sim.strategy.base import Done
from edgellm.sim.strategy.protocol import Cancel, Event, Kernel, Rejected, Settle, Waitable
from edgellm.sim.work import Compute, Decode, Load, Prefill, Step, Train, Verify, Work

from .memory import NO_FIT
from .node import NodeState
from .trace import trace_run

if TYPE_CHECKING:
    from .request import Request
    from .simulation import Simulation
    from .task import Task

#: Two dates or amounts of work closer than this are the same.
TOLERANCE_S = 1e-9


class Plan:
    """What one work means on one kind of node: the same for every run of it, so it is made once.

    Its units are tokens for `Decode`, repetitions for everything else.
    """

    __slots__ = (
        "batch",
        "compute",
        "decode",
        "first_s",
        "memory",
        "misfit",
        "model",
        "positions",
        "tokens",
        "unit_s",
        "units",
        "work_s",
    )

    def __init__(self, node: NodeState, work: Work, repeat: int) -> None:
        sim = node.sim
        self.batch, self.decode = isinstance(work, Step), isinstance(work, Decode)
        self.model = "" if isinstance(work, Compute) else work.model
        self.units = repeat * (work.tokens if isinstance(work, Decode) else 1)
        self.tokens = _tokens(work)  # of a unit
        self.unit_s = 0.0 if isinstance(work, Decode) else sim.time_s(node, work)
        self.work_s = self.first_s = 0.0  # of all units, and of the first alone
        if isinstance(work, Decode):
            same = self.units == work.tokens
            whole = work if same else Decode(work.model, self.units, work.context)
            self.work_s = sim.time_s(node, whole) if self.units else 0.0
            self.first_s = sim.time_s(node, Decode(work.model, 1, work.context)) if self.units else 0.0
        elif not isinstance(work, Load):  # which takes no time where the weights are resident
            self.work_s, self.first_s = self.units * self.unit_s, self.unit_s
        # shares of the node's two budgets that it takes when alone
        _, self.compute, self.memory = sim.scenario.work_budget(node.node, work)
        self.positions = _positions(work, self.units, sim.scenario.context)
        self.misfit: tuple[str, str] | None = None  # reason and detail, where it can never run
        if self.model:
            self.misfit = _misfit(node, work, self.model, self.positions)


def _tokens(work: Work) -> int:
    if isinstance(work, Decode):
        return 1
    if isinstance(work, Step):
        return sum(work.new_tokens)
    return work.tokens if isinstance(work, Prefill | Verify | Train) else 0


def _positions(work: Work, units: int, context: int) -> int:
    """Positions of cache that the session needs: what the scenario reserves, or more if the work does."""
    if isinstance(work, Load | Train | Compute):
        return 0
    if isinstance(work, Step):
        return work.positions  # its sequences have leases of their own, or as much as they need
    return max(work.context + units if isinstance(work, Decode) else work.positions, context)


def _misfit(node: NodeState, work: Work, model: str, positions: int) -> tuple[str, str] | None:
    sim = node.sim
    longest = sim.variant(model).profile.context
    if not isinstance(work, Step) and positions > max(longest, sim.scenario.context):
        return "context exceeded", f"{model} holds {longest} positions, not {positions}"
    if node.memory.fits(model, positions):
        return None
    need, have = sim.memory_bytes(node, model, positions), node.memory.ram_bytes
    return NO_FIT, (
        f"{model} with {positions} positions takes {need / 1e6:,.4g} MB, {node.node.device.name} has "
        f"{have / 1e6:,.4g} MB"
    )


class Run(Waitable):
    """What `here.run` returns: begins when it is yielded."""

    __slots__ = ("charge", "node", "priority", "repeat", "stop", "work")

    def __init__(
        self,
        node: NodeState,
        work: Work,
        repeat: int,
        stop: Event | None,
        priority: float,
        charge: Sequence[Request] | None,
    ) -> None:
        if not isinstance(work, Work):
            raise TypeError(f"run needs Prefill, Decode, Verify, Step, Load, Train or Compute, got {work!r}")
        if repeat < 0:
            raise ValueError(f"repeat must be 0 or more, got {repeat}")
        if not -16 <= priority <= 16:
            raise ValueError(f"priority must be between -16 and 16, got {priority}")
        if not isinstance(work, Compute):
            node.sim.variant(work.model)
        self.node, self.work, self.repeat, self.stop = node, work, repeat, stop
        self.priority, self.charge = priority, charge

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        del kernel  # it is the simulation, which the node knows too
        task = self.node.sim.current
        assert task is not None, "only a task can wait"
        if task.node is not self.node:
            raise ValueError(
                f"a generator on {task.node.name} cannot run work on {self.node.name}: "
                "work happens where the generator runs; call a service there, or spawn one there in setup"
            )
        return _Running(self, task, done).begin()


class _Running:
    """One run in progress."""

    __slots__ = (
        "begun_s",
        "cancel_wait",
        "cold_s",
        "done",
        "done_s",
        "left_s",
        "node",
        "plan",
        "run",
        "sim",
        "stop_cancel",
        "task",
        "ticket",
        "total_s",
        "units",
        "waited_s",
        "weight",
    )

    def __init__(self, run: Run, task: Task, done: Settle) -> None:
        self.run, self.task, self.done = run, task, done
        self.node = node = run.node
        self.sim: Simulation = node.sim
        self.plan = plan = self.sim.plan(node, run.work, run.repeat)
        self.units = plan.units
        self.weight = 2.0**run.priority if run.priority else 1.0
        self.cold_s = 0.0
        self.total_s = 0.0
        self.done_s = 0.0  # of work, in the activities before the one that runs
        self.left_s = 0.0  # of work, in the activity that runs, when it began
        self.begun_s = 0.0
        self.waited_s = 0.0  # for memory
        self.ticket = 0
        self.cancel_wait: Cancel | None = None
        self.stop_cancel: Cancel | None = None

    # The life of a run: memory, weights, first token, the rest.

    def begin(self) -> Cancel:
        node, plan = self.node, self.plan
        error: Any = None
        if not node.up:
            error = node.down()
        elif plan.misfit is not None:
            reason, detail = plan.misfit
            error = Rejected(reason, detail=detail)
        if error is not None:
            return partial(self.sim.drop, self.sim.soon(partial(self.done, None, error)))
        if plan.model:
            leased = sum(lease.nbytes for lease in self.task.leases) if plan.batch else 0
            self.cancel_wait = node.memory.enter(self.task, plan.model, plan.positions, self._granted, leased)
            if self.cancel_wait is not None:
                self.begun_s = self.sim.engine.now
        else:
            self._granted(False)
        return self.cancel

    def _granted(self, cold: bool) -> None:
        now = self.sim.engine.now
        if self.cancel_wait is not None:
            self.cancel_wait, self.waited_s = None, now - self.begun_s
        self.begun_s = now
        meter = self.node.meter
        wait_s = 0.0 if meter is None else meter.wake()
        if wait_s > 0.0:
            ticket = self.sim.at(now + wait_s, partial(self._awake, cold))
            self.cancel_wait = partial(self.sim.drop, ticket)
        else:
            self._awake(cold)

    def _awake(self, cold: bool) -> None:
        self.cancel_wait = None
        if cold:
            self.cold_s = self.sim.time_s(self.node, Load(self.plan.model))
        self.total_s = self.cold_s + self.plan.work_s
        node = self.node
        if node.meter is not None:
            node.meter.work_begins(self)
        node.running += 1
        if self.run.stop is not None:
            self.stop_cancel = self.run.stop.begin(self.sim, self._stop)
        self._phase()

    def _first_token_of(self) -> Request | None:
        """The request whose first token this run will bring, if it is the one that its user sees."""
        request = self.task.request
        if not self.plan.decode or request is None or request.settled or self.units == 0:
            return None
        if (self.plan.model, self.node.name) in request.marks:
            return None
        return request if self.task.streams or request.node == self.node.name else None

    def _phase(self) -> None:
        """Start the next activity: up to the first token where one is awaited, else to the end."""
        until_s = self.total_s
        if self.plan.decode and self.done_s == 0.0 and self.units > 1 and self._first_token_of() is not None:
            until_s = self.cold_s + self.plan.first_s
        left_s = until_s - self.done_s
        self._start(left_s if left_s > 0.0 else 0.0)

    def _start(self, left_s: float) -> None:
        self.left_s = left_s
        plan = self.plan
        self.ticket = self.sim.engine.exec(
            self.node.host, left_s, self.weight, self._ended, plan.compute, plan.memory
        )

    def worked_s(self) -> float:
        """Seconds of work done so far, at full pace."""
        left_s = self.sim.engine.remaining(self.ticket) if self.ticket else 0.0
        return self.done_s + self.left_s - left_s

    def _ended(self) -> None:
        self.ticket = 0
        self.done_s += self.left_s
        self.left_s = 0.0
        seen = self._first_token_of() if self.plan.decode else None
        if seen is not None:
            late_s = self.sim.latency_s(self.node, seen.node)
            seen.mark(self.plan.model, self.node.name, self.sim.engine.now + late_s)
        if self.units and self.done_s < self.total_s - TOLERANCE_S:
            self._phase()
            return
        if self.stop_cancel is not None:
            self.stop_cancel()
        self.done(self._account(self.units), None)

    def _stop(self, value: Any, error: Any) -> None:
        """The event that ends the repetition early is set: the unit in progress is the last."""
        del value, error
        self.stop_cancel = None
        worked_s = self.worked_s()
        units = self._units_done(worked_s, round_up=True)
        if units >= self.units:
            return
        self.units = units
        self.total_s = self.cold_s + self._work_s(units)
        self.sim.drop(self.ticket)
        self.done_s = worked_s
        self._start(max(0.0, self.total_s - worked_s) if units else 0.0)

    def cancel(self) -> Done:
        """Stop, pay for what was done, and say what that was."""
        if self.cancel_wait is not None:
            self.cancel_wait()
            return self._report(0, 0.0, 0.0)
        if self.stop_cancel is not None:
            self.stop_cancel()
        if self.ticket:
            self.done_s += self.left_s - self.sim.engine.cancel(self.ticket)
        return self._account(self._units_done(self.done_s, round_up=False))

    # Arithmetic of units.

    def _work_s(self, units: int) -> float:
        plan, work = self.plan, self.run.work
        if units == plan.units:
            return plan.work_s
        if isinstance(work, Decode):
            return self.sim.time_s(self.node, Decode(work.model, units, work.context)) if units else 0.0
        return 0.0 if isinstance(work, Load) else units * plan.unit_s

    def _units_done(self, worked_s: float, round_up: bool) -> int:
        """Units completed by `worked_s` seconds of work, or with the one in progress."""
        worked_s -= self.cold_s
        low, high = 0, self.units  # the most units u with work_s(u) <= worked_s
        while low < high:
            middle = (low + high + 1) // 2
            if self._work_s(middle) <= worked_s + TOLERANCE_S:
                low = middle
            else:
                high = middle - 1
        begun = round_up and worked_s > self._work_s(low) + TOLERANCE_S
        return min(self.units, low + begun)

    def _account(self, units: int) -> Done:
        node, work_s = self.node, self.done_s
        energy_j = node.work_ends(self, work_s)
        if self.run.charge:
            for i, request in enumerate(self.run.charge):
                tokens = self._decoded(i, len(self.run.charge), units)
                request.charge_work(node, work_s, energy_j, 1.0 / len(self.run.charge), tokens)
                if request.spans is not None:
                    trace_run(request, self, units)
        elif self.run.charge is None and self.task.request is not None:
            self.task.request.charge_work(node, work_s, energy_j, 1.0, self._decoded(0, 1, units))
            if self.task.request.spans is not None:
                trace_run(self.task.request, self, units)
        else:
            node.unattributed_j += energy_j
        return self._report(units, energy_j, self.sim.engine.now - self.begun_s)

    def _decoded(self, i: int, payers: int, units: int) -> int:
        if self.plan.decode:
            return units
        work = self.run.work
        if isinstance(work, Step) and len(work.new_tokens) == payers and work.new_tokens[i] == 1:
            return units
        return 0

    def _report(self, units: int, energy_j: float, seconds: float) -> Done:
        plan = self.plan
        steps = units // max(1, self.run.work.tokens) if plan.decode else units  # type: ignore[union-attr]  # a Decode
        return Done(steps, units * plan.tokens, seconds, self.done_s, energy_j, plan.model, self.node.name)
