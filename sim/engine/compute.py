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

if TYPE_CHECKING:
    from .request import Request
    from .simulation import Simulation
    from .task import Task

#: Two dates or amounts of work closer than this are the same.
TOLERANCE_S = 1e-9


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
    """One run in progress. Its units are tokens for `Decode`, repetitions for everything else."""

    __slots__ = (
        "begun_s",
        "cancel_wait",
        "cold_s",
        "done",
        "done_s",
        "left_s",
        "node",
        "run",
        "sim",
        "stop_cancel",
        "task",
        "ticket",
        "total_s",
        "unit_s",
        "units",
    )

    def __init__(self, run: Run, task: Task, done: Settle) -> None:
        self.run, self.task, self.done, self.node = run, task, done, run.node
        self.sim: Simulation = run.node.sim
        work = run.work
        self.units = run.repeat * (work.tokens if isinstance(work, Decode) else 1)
        self.unit_s = 0.0 if isinstance(work, Decode) else self.sim.time_s(self.node, work)
        self.cold_s = 0.0
        self.total_s = 0.0
        self.done_s = 0.0  # of work, in the activities before the one that runs
        self.left_s = 0.0  # of work, in the activity that runs, when it began
        self.begun_s = 0.0
        self.ticket = 0
        self.cancel_wait: Cancel | None = None
        self.stop_cancel: Cancel | None = None

    # The life of a run: memory, weights, first token, the rest.

    def begin(self) -> Cancel:
        node, work = self.node, self.run.work
        error: Any = None
        if not node.up:
            error = node.down()
        elif not isinstance(work, Compute):
            error = self._misfit(work.model)
        if error is not None:
            return partial(self.sim.drop, self.sim.soon(partial(self.done, None, error)))
        if isinstance(work, Compute):
            self._granted(False)
        else:
            self.cancel_wait = node.memory.enter(self.task, work.model, self._positions(), self._granted)
        return self.cancel

    def _positions(self) -> int:
        """Positions of cache that the session needs: what the scenario reserves, or more if the work does."""
        work = self.run.work
        if isinstance(work, Load | Train | Compute):
            return 0
        grown = work.context + self.units if isinstance(work, Decode) else work.positions
        return max(grown, self.sim.scenario.context)

    def _misfit(self, model: str) -> Rejected | None:
        work, positions = self.run.work, self._positions()
        longest = self.sim.variant(model).profile.context
        if not isinstance(work, Step) and positions > max(longest, self.sim.scenario.context):
            return Rejected("context exceeded", detail=f"{model} holds {longest} positions, not {positions}")
        if self.node.memory.fits(model, positions):
            return None
        return Rejected(NO_FIT, detail=f"{model} with {positions} positions does not fit on {self.node.name}")

    def _granted(self, cold: bool) -> None:
        self.cancel_wait = None
        self.begun_s = self.sim.now
        work = self.run.work
        if not isinstance(work, Compute):
            load_s = self.sim.time_s(self.node, Load(work.model)) if cold else 0.0
            if isinstance(work, Load):
                self.unit_s = load_s  # nothing to read where it is resident
            else:
                self.cold_s = load_s
        self.total_s = self.cold_s + self._work_s(self.units)
        self.node.work_begins()
        if self.run.stop is not None:
            self.stop_cancel = self.run.stop.begin(self.sim, self._stop)
        self._phase()

    def _first_token_of(self) -> Request | None:
        """The request whose first token this run will bring, if it is the one that its user sees."""
        request, work = self.task.request, self.run.work
        if request is None or not isinstance(work, Decode) or self.units == 0 or request.settled:
            return None
        if request.marked(work.model, self.node.name):
            return None
        return request if self.task.streams or request.node == self.node.name else None

    def _phase(self) -> None:
        """Start the next activity: up to the first token where one is awaited, else to the end."""
        until_s = self.total_s
        if self.done_s == 0.0 and self.units > 1 and self._first_token_of() is not None:
            until_s = self.cold_s + self._work_s(1)
        self.left_s = max(0.0, until_s - self.done_s)
        weight = 2.0**self.run.priority
        self.ticket = self.sim.engine.exec(self.node.host, self.left_s, weight, self._ended)

    def _ended(self) -> None:
        self.ticket = 0
        self.done_s += self.left_s
        self.left_s = 0.0
        seen = self._first_token_of()
        if seen is not None:
            late_s = self.sim.latency_s(self.node.name, seen.node)
            seen.mark(self.run.work.model, self.node.name, self.sim.now + late_s)  # type: ignore[union-attr]  # a Decode
        if self.units and self.done_s < self.total_s - TOLERANCE_S:
            self._phase()
        else:
            self._finish()

    def _finish(self) -> None:
        if self.stop_cancel is not None:
            self.stop_cancel()
        self.done(self._account(self.units), None)

    def _stop(self, value: Any, error: Any) -> None:
        """The event that ends the repetition early is set: the unit in progress is the last."""
        del value, error
        self.stop_cancel = None
        worked_s = (
            self.done_s + self.left_s - (self.sim.engine.remaining(self.ticket) if self.ticket else 0.0)
        )
        units = self._units_done(worked_s, round_up=True)
        if units >= self.units:
            return
        self.units = units
        self.total_s = self.cold_s + self._work_s(units)
        self.sim.drop(self.ticket)
        self.done_s = worked_s
        self.left_s = max(0.0, self.total_s - worked_s) if units else 0.0
        weight = 2.0**self.run.priority
        self.ticket = self.sim.engine.exec(self.node.host, self.left_s, weight, self._ended)

    def cancel(self) -> Done:
        """Stop, pay for what was done, and say what that was."""
        if self.cancel_wait is not None:
            self.cancel_wait()
            return self._report(0, 0.0)
        if self.stop_cancel is not None:
            self.stop_cancel()
        if self.ticket:
            self.done_s += self.left_s - self.sim.engine.cancel(self.ticket)
        return self._account(self._units_done(self.done_s, round_up=False))

    # Arithmetic of units.

    def _work_s(self, units: int) -> float:
        work = self.run.work
        if isinstance(work, Decode):
            if units == 0:
                return 0.0
            same = units == work.tokens
            return self.sim.time_s(self.node, work if same else Decode(work.model, units, work.context))
        return units * self.unit_s

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
        energy_j = self.node.work_ends(self.done_s)
        tokens = self._tokens(units)
        payers: Sequence[Any] = ()
        if self.run.charge is not None:
            payers = self.run.charge
        elif self.task.request is not None:
            payers = (self.task.request,)
        for i, request in enumerate(payers):
            share = 1.0 / len(payers)
            request.energy_j += share * energy_j
            if request.node == self.node.name:
                request.device_energy_j += share * energy_j
            if self.node.usd_per_s is not None:
                request.cloud_s += share * self.done_s
                request.cost_usd += share * self.done_s * self.node.usd_per_s
            request.tokens_decoded += self._decoded(i, len(payers), units)
        return self._report(units, energy_j, tokens)

    def _decoded(self, i: int, payers: int, units: int) -> int:
        work = self.run.work
        if isinstance(work, Decode):
            return units
        if isinstance(work, Step) and len(work.new_tokens) == payers and work.new_tokens[i] == 1:
            return units
        return 0

    def _tokens(self, units: int) -> int:
        work = self.run.work
        if isinstance(work, Decode):
            return units
        if isinstance(work, Step):
            return units * sum(work.new_tokens)
        return units * work.tokens if isinstance(work, Prefill | Verify | Train) else 0

    def _report(self, units: int, energy_j: float, tokens: int = 0) -> Done:
        work = self.run.work
        steps = units // max(1, work.tokens) if isinstance(work, Decode) else units
        model = "" if isinstance(work, Compute) else work.model
        seconds = self.sim.now - self.begun_s if self.cancel_wait is None else 0.0
        return Done(steps, tokens, seconds, self.done_s, energy_j, model, self.node.name)
