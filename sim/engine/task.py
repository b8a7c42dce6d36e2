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

from .errors import RESUMPTIONS, endless

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
        "_checked_s",
        "_doomed",
        "_on_end",
        "_steps",
        "_thrown",
        "_ticket",
        "_waiting",
        "awaits",
        "daemon",
        "error",
        "finished",
        "leases",
        "node",
        "request",
        "script",
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
        self.sim, self.script, self.node, self.request = sim, script, node, request
        self.daemon, self.streams, self._on_end = daemon, streams, on_end
        self.finished = False
        self.value: Any = None
        self.error: Interrupted | None = None
        self.leases: dict[Lease, None] = {}
        self.sessions: dict[str, int] = {}  # variant -> bytes of its cache that this task holds
        self._waiting: dict[Settle, int] | None = None  # with the ticket of the news that it has ended
        self._cancel: Cancel | None = None
        self._doomed: Interrupted | None = None
        self._thrown: Interrupted | None = None  # what the next resumption throws
        self._ticket = 0  # of the next resumption
        self.awaits: Any = None  # what it yielded last
        self._steps, self._checked_s = 0, -1.0
        node.tasks[self] = None
        if not daemon:
            sim.tasks += 1
        if request is not None:
            request.users += 1

    @property
    def name(self) -> str:
        """The generator's function."""
        return str(getattr(self.script, "__name__", "task"))

    def __repr__(self) -> str:
        return f"<task {self.name} on {self.node.name}>"

    def start(self) -> Task:
        """Let it begin after everything that is already due."""
        self._resume_soon(None)
        return self

    def step(self, value: Any, error: Interrupted | None) -> None:
        """Resume the generator, and begin what it yields."""
        sim = self.sim
        before, sim.current = sim.current, self
        self._cancel = None
        self._steps += 1
        try:
            if not self._steps % RESUMPTIONS:
                self._check_time()
            if error is None:
                ended, value = step(self.script, value)
            else:
                ended, value = False, self.script.throw(error)
            if not ended and self._doomed is None:
                if not isinstance(value, Waitable):
                    value = as_waitable(sim, value)
                self.awaits = value
                self._cancel = value.begin(sim, self.step)
        except StopIteration as stop:  # from throw(): the script caught what was thrown, and ended
            ended, value = True, stop.value
        except Interrupted as thrown:
            self._end(None, thrown)
            return
        except (Exception, SystemExit, GeneratorExit) as raised:
            self.finished = True
            sim.strategy_raised(self, raised)
            return
        finally:
            sim.current = before
        if ended:
            self._end(value, None)
        elif self._doomed is not None:
            doomed, self._doomed = self._doomed, None
            self._resume_soon(doomed)

    def _check_time(self) -> None:
        """After so many resumptions time must have gone on."""
        if self._checked_s == self.sim.now:
            raise endless(self.sim.now)
        self._checked_s = self.sim.now

    def _resume_soon(self, error: Interrupted | None) -> None:
        self._thrown = error
        self._ticket = self.sim.soon(self._resume)
        self._cancel = self._stay

    def _resume(self) -> None:
        error, self._thrown = self._thrown, None
        self.step(None, error)

    def _stay(self) -> Any:
        """Take the resumption back; returns the progress of what had been interrupted."""
        self.sim.drop(self._ticket)
        error, self._thrown = self._thrown, None
        return None if error is None else error.done

    def interrupt(self, error: Interrupted) -> Any:
        """Stop what it waits for and throw `error` at its yield; returns the progress of that."""
        if self.finished:
            return None
        if self._cancel is None:  # it is the one that runs: thrown at its next yield
            self._doomed = error
            return None
        error.done = self._cancel()
        self._resume_soon(error)
        return error.done

    def cancel(self) -> Any:
        """Throw `Cancelled` into it."""
        return self.interrupt(Cancelled())

    def break_off(self) -> None:
        """The simulation ends: stop what it waits for, which pays for what was done; it never goes on."""
        if not self.finished and self._cancel is not None:
            self._cancel()

    def _end(self, value: Any, error: Interrupted | None) -> None:
        self.finished, self.value, self.error = True, value, error
        sim, node = self.sim, self.node
        if self.leases:
            for lease in list(self.leases):
                lease.free()
        if self.sessions:
            node.memory.leave(self)
        node.tasks.pop(self, None)
        if self._waiting:
            for done in self._waiting:
                self._waiting[done] = sim.soon(partial(done, value, error))
        if self._on_end is not None:
            self._on_end(self)
        if self.request is not None:
            self.request.leave()
        sim.task_ends(self)

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        """Wait for it. Who gives up waiting cancels it."""
        if self.finished:
            ticket = kernel.soon(partial(done, self.value, self.error))
            return partial(kernel.drop, ticket)
        if self._waiting is None:
            self._waiting = {}
        self._waiting[done] = 0

        def cancel() -> Any:
            ticket = self._waiting.pop(done, 0) if self._waiting else 0
            kernel.drop(ticket)  # it has ended at this very date, and was about to say so
            return self.cancel()

        return cancel
