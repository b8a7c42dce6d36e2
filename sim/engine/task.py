"""Tasks: generators that the simulation resumes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edgellm._sim import step
from edgellm.sim.strategy.protocol import (
    Cancel,
    Cancelled,
    Interrupted,
    Kernel,
    Script,
    Settle,
    Waitable,
    as_waitable,
)

if TYPE_CHECKING:
    from .node import NodeState
    from .request import Request
    from .simulation import Simulation


class Lease:
    """Memory that a task holds on its node."""

    __slots__ = ("_node", "_task", "nbytes")

    def __init__(self, node: NodeState, task: Task | None, nbytes: int) -> None:
        self._node: NodeState | None = node
        self._task = task
        self.nbytes = nbytes
        if task is not None:
            task.leases[self] = None

    def free(self) -> None:
        """Give the memory back; nothing happens the second time."""
        node, self._node = self._node, None
        if node is not None:
            if self._task is not None:
                self._task.leases.pop(self, None)
            node.memory.release(self.nbytes)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.free()


class Task(Waitable):
    """One generator, on one node, possibly working for one request."""

    __slots__ = (
        "_cancel",
        "_doomed",
        "_on_end",
        "_script",
        "_waiting",
        "daemon",
        "error",
        "finished",
        "leases",
        "node",
        "request",
        "sessions",
        "sim",
        "streams",
        "value",
    )

    def __init__(
        self,
        sim: Simulation,
        script: Script,
        node: NodeState,
        request: Request | None,
        daemon: bool = False,
        streams: bool = False,
        on_end: Callable[[Task], None] | None = None,
    ) -> None:
        self.sim, self._script, self.node, self.request = sim, script, node, request
        self.daemon, self.streams, self._on_end = daemon, streams, on_end
        self.finished = False
        self.value: Any = None
        self.error: Interrupted | None = None
        self.leases: dict[Lease, None] = {}
        self.sessions: dict[str, int] = {}  # variant -> bytes of its cache that this task holds
        self._waiting: dict[Settle, None] = {}
        self._cancel: Cancel | None = None
        self._doomed: Interrupted | None = None
        node.tasks[self] = None
        sim.task_begins(self)

    def start(self) -> Task:
        """Let it begin after everything that is already due."""
        self._throw_or_send(None, None)
        return self

    def step(self, value: Any, error: Interrupted | None) -> None:
        """Resume the generator, and begin what it yields."""
        sim = self.sim
        before, sim.current = sim.current, self
        self._cancel = None
        try:
            if error is None:
                ended, value = step(self._script, value)
            else:
                ended, value = False, self._script.throw(error)
            if not ended and self._doomed is None:
                self._cancel = as_waitable(sim, value).begin(sim, self.step)
        except StopIteration as stop:  # from throw(): the script caught what was thrown, and ended
            ended, value = True, stop.value
        except Interrupted as thrown:
            self._end(None, thrown)
            return
        except Exception as raised:
            self.finished = True
            sim.strategy_raised(self, raised)
            return
        finally:
            sim.current = before
        if ended:
            self._end(value, None)
        elif self._doomed is not None:
            doomed, self._doomed = self._doomed, None
            self._throw_or_send(None, doomed)

    def _throw_or_send(self, value: Any, error: Interrupted | None) -> None:
        ticket = self.sim.soon(partial(self.step, value, error))

        def cancel() -> Any:
            self.sim.drop(ticket)
            return None if error is None else error.done

        self._cancel = cancel

    def interrupt(self, error: Interrupted) -> Any:
        """Stop what it waits for and throw `error` at its yield; returns the progress of that."""
        if self.finished:
            return None
        if self._cancel is None:  # it is the one that runs: thrown at its next yield
            self._doomed = error
            return None
        error.done = self._cancel()
        self._throw_or_send(None, error)
        return error.done

    def cancel(self) -> Any:
        """Throw `Cancelled` into it."""
        return self.interrupt(Cancelled())

    def _end(self, value: Any, error: Interrupted | None) -> None:
        self.finished, self.value, self.error = True, value, error
        for lease in list(self.leases):
            lease.free()
        self.node.memory.leave(self)
        self.node.tasks.pop(self, None)
        waiting, self._waiting = self._waiting, {}
        for done in waiting:
            self.sim.soon(partial(done, value, error))
        if self._on_end is not None:
            self._on_end(self)
        self.sim.task_ends(self)

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        """Wait for it. Who gives up waiting cancels it."""
        if self.finished:
            ticket = kernel.soon(partial(done, self.value, self.error))
            return partial(kernel.drop, ticket)
        self._waiting[done] = None

        def cancel() -> Any:
            self._waiting.pop(done, None)
            return self.cancel()

        return cancel
