"""Who holds how much of a node's memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .node import NodeState
    from .task import Task

#: Reason where a variant or a reservation could never fit.
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

    def lose(self) -> None:
        """The node went down: no variant is resident any more."""
        for model in [m for m in self.resident if not self.users.get(m)]:
            self._resident_bytes -= self.resident.pop(model)

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody holds or uses."""
        return max(0, self.ram_bytes - self.held_bytes - self.pinned_bytes)

    def fits(self, model: str, context: int) -> bool:
        """Whether the variant and one session would fit if they were alone."""
        return self.node.sim.memory_bytes(self.node, model, context) <= self.ram_bytes

    def enter(
        self, task: Task, model: str, positions: int, granted: Callable[[bool], None], leased: int = 0
    ) -> Callable[[], Any] | None:
        """Give the task a session, now or when there is room.

        `granted(cold)` is called once: at once where there is room; `cold` says that the weights must be read
        from storage. The model must fit (`fits`). `leased` bytes of the cache are held by leases of the task.
        Returns what stops waiting, None where nothing waits.
        """
        weights = self.weights(model)
        cache = max(0, self.node.sim.memory_bytes(self.node, model, positions) - weights - leased)
        grows = model in task.sessions  # without waiting
        if grows or (not self._waiting and self._room(model, weights, cache)):
            granted(self._grant(task, model, weights, cache))
            return None

        def grant() -> None:
            granted(self._grant(task, model, weights, cache))

        entry = (cache, model, grant)
        self._waiting.append(entry)
        return partial(self._leave_queue, entry)

    def _grant(self, task: Task, model: str, weights: int, cache: int) -> bool:
        """Give the task its session; returns whether the weights have to be read."""
        have = task.sessions.get(model)
        if have is None:
            have = 0
            users = self.users[model] = self.users.get(model, 0) + 1
            self.pinned_bytes += weights if users == 1 else 0
        more = cache - have if cache > have else 0
        task.sessions[model] = have + more
        self.held_bytes += more
        if self.held_bytes + self.pinned_bytes > self.peak_bytes:
            self.peak_bytes = self.held_bytes + self.pinned_bytes
        return self._bring(model, weights)

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
        if self.held_bytes + self.pinned_bytes > self.peak_bytes:
            self.peak_bytes = self.held_bytes + self.pinned_bytes

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
