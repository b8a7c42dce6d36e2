"""The vocabulary of a strategy: what can be waited for, and what can be thrown at a wait.

Nothing here knows a simulator. A strategy is a generator that yields waitables; whoever runs it (the
simulation, or a real host) is a `Kernel` that arms each waitable and resumes the generator with its value.
What ends at the same time is resumed in the order in which it was started: ties are broken by (time,
sequence).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from types import GeneratorType
from typing import Any, Protocol

#: Called once with (value, None) or (None, error).
Settle = Callable[[Any, "Interrupted | None"], None]
#: Stops what was begun and returns how much of it was done; `Settle` is not called afterwards.
Cancel = Callable[[], Any]
#: What handlers, services and tasks are.
Script = Generator[Any, Any, Any]


class Interrupted(Exception):
    """Base of everything that is thrown into a strategy at its yield.

    `str(error)` is the detail where there is one, else the reason.

    Attributes
    ----------
    reason : str
        Why, in a few words that a result table can count.
    done : object
        How much of what was waited for had been done: a `Done` for `run`, bytes for a transfer, a list for
        `gather`, None where nothing can be said.
    """

    def __init__(self, reason: str = "", done: Any = None, detail: str = "") -> None:
        super().__init__(detail or reason or self.default)
        self.reason = reason or self.default
        self.done = done

    default = "interrupted"


class Cancelled(Interrupted):
    """The task was cancelled."""

    default = "cancelled"


class TimedOut(Interrupted):
    """`within` ran out of time."""

    default = "timed out"


class NodeDown(Interrupted):
    """A node that was needed is down."""

    default = "node down"


class LinkDown(Interrupted):
    """A message cannot cross a link."""

    default = "link down"


class Rejected(Interrupted):
    """A node refused: it lacks memory, or the service that was asked for."""

    default = "rejected"


class Kernel(Protocol):
    """What a waitable needs from whoever runs strategies."""

    @property
    def now(self) -> float:
        """Seconds."""
        ...

    def at(self, date_s: float, call: Callable[[], None]) -> int:
        """Call at a date; returns a ticket."""
        ...

    def soon(self, call: Callable[[], None]) -> int:
        """Call at this very date, after everything that is already due; returns a ticket."""
        ...

    def drop(self, ticket: int) -> None:
        """Forget a call."""
        ...

    def adopt(self, script: Script) -> Waitable:
        """Start a generator as a task beside the one that is running."""
        ...


class Waitable:
    """Anything that a strategy may yield."""

    __slots__ = ()

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        """Start, and promise to call `done` later: never before this returns, never after the cancel."""
        raise NotImplementedError


def as_waitable(kernel: Kernel, x: object) -> Waitable:
    """Return `x` if it can be waited for; a bare generator is started as a task of its own.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(x, Waitable):
        return x
    if isinstance(x, GeneratorType):
        return kernel.adopt(x)
    raise TypeError(
        f"a strategy yielded {x!r}, which cannot be waited for: yield here.run(...), here.call(...), "
        "sim.sleep(...), a Task, an Event, a Queue, or several of them in sim.gather(...)"
    )


class sleep(Waitable):
    """Wait for some simulated seconds; `.done` of an interruption is the seconds slept.

    Raises
    ------
    ValueError
        If `seconds` is negative or not finite.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"sleep needs finite seconds, 0 or more, got {seconds}")
        self.seconds = seconds

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        start_s = kernel.now
        ticket = kernel.at(start_s + self.seconds, partial(done, None, None))

        def cancel() -> float:
            kernel.drop(ticket)
            return kernel.now - start_s

        return cancel


class Event(Waitable):
    """Something that happens once; every wait for it gets the value it was set with.

    Examples
    --------
    >>> ready = Event()
    >>> ready.set(42)
    >>> ready.is_set, ready.value
    (True, 42)
    """

    __slots__ = ("_waiting", "is_set", "value")

    def __init__(self) -> None:
        self.is_set = False
        self.value: Any = None
        self._waiting: list[_Wait] = []

    def set(self, value: Any = None) -> None:
        """Let everyone who waits go on; setting it again changes nothing."""
        if self.is_set:
            return
        self.is_set, self.value = True, value
        waiting, self._waiting = self._waiting, []
        for wait in waiting:
            wait.deliver(value)

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        wait = _Wait(kernel, done)
        if self.is_set:
            wait.deliver(self.value)
        else:
            self._waiting.append(wait)

        def cancel() -> None:
            if wait in self._waiting:
                self._waiting.remove(wait)
            wait.forget()

        return cancel


class Queue(Waitable):
    """A line of items, first in, first out; `item = yield queue` waits for the next one.

    Examples
    --------
    >>> q = Queue()
    >>> q.put("a"); q.put("b")
    >>> len(q), q.take(), q.take_all()
    (2, 'a', ['b'])
    """

    __slots__ = ("_items", "_waiting")

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiting: deque[_Wait] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True  # a queue is a thing, not a truth: ask for its length

    def put(self, item: Any) -> None:
        """Append an item, or hand it to the one who has waited longest."""
        if self._waiting:
            self._waiting.popleft().deliver(item)
        else:
            self._items.append(item)

    def take(self) -> Any:
        """Remove and return the first item; IndexError if there is none."""
        return self._items.popleft()

    def take_all(self) -> list[Any]:
        """Remove and return all items that are there."""
        items = list(self._items)
        self._items.clear()
        return items

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        wait = _Wait(kernel, done)
        if self._items:
            wait.deliver(self._items.popleft())
        else:
            self._waiting.append(wait)

        def cancel() -> None:
            if wait in self._waiting:
                self._waiting.remove(wait)
            elif wait.forget():
                self._items.appendleft(wait.value)  # it was on its way: the next one gets it

        return cancel


class _Wait:
    """One wait: delivers at most once, in the order of the kernel."""

    __slots__ = ("done", "kernel", "ticket", "value")

    def __init__(self, kernel: Kernel, done: Settle) -> None:
        self.kernel, self.done = kernel, done
        self.ticket = 0
        self.value: Any = None

    def deliver(self, value: Any) -> None:
        self.value = value
        self.ticket = self.kernel.soon(self._arrive)

    def _arrive(self) -> None:
        self.ticket = 0
        self.done(self.value, None)

    def forget(self) -> bool:
        """Take a delivery back; returns whether one was on its way."""
        if not self.ticket:
            return False
        self.kernel.drop(self.ticket)
        self.ticket = 0
        return True


class _Group(Waitable):
    """Base of what waits for several things."""

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        if not parts:
            raise ValueError(f"{type(self).__name__} needs something to wait for")
        self.parts = parts


class gather(_Group):
    """Wait for all; the value is the list of values, in the order given.

    The first failure ends the rest (they are cancelled) and is thrown; `.done` is then a list with the
    value of what had ended and the progress of what had not.
    """

    __slots__ = ()

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        results: list[Any] = [None] * len(self.parts)
        cancels: dict[int, Cancel] = {}

        def stop() -> list[Any]:
            for i in sorted(cancels):
                results[i] = cancels.pop(i)()
            return results

        def ended(i: int, value: Any, error: Interrupted | None) -> None:
            del cancels[i]
            results[i] = value if error is None else error.done
            if error is not None:
                error.done = stop()
                done(None, error)
            elif not cancels:
                done(results, None)

        for i, part in enumerate(self.parts):
            cancels[i] = as_waitable(kernel, part).begin(kernel, partial(ended, i))
        return stop


class first(_Group):
    """Wait for the first that succeeds; the value is (its index, its value). The others go on.

    What fails is out; when all have failed, the last failure is thrown.
    """

    __slots__ = ()
    _keep = True

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        cancels: dict[int, Cancel] = {}
        settled = False

        def stop() -> list[Any]:
            progress: list[Any] = [None] * len(self.parts)
            for i in sorted(cancels):
                progress[i] = cancels.pop(i)()
            return progress

        def ended(i: int, value: Any, error: Interrupted | None) -> None:
            nonlocal settled
            cancels.pop(i, None)
            if settled or (error is not None and cancels):
                return
            settled = True
            if not self._keep:
                stop()
            done(None if error is not None else (i, value), error)

        for i, part in enumerate(self.parts):
            cancels[i] = as_waitable(kernel, part).begin(kernel, partial(ended, i))
        return stop


class race(first):
    """Like `first`, but the losers are cancelled."""

    __slots__ = ()
    _keep = False


class within(Waitable):
    """Wait for `x` no longer than `seconds`; then it is cancelled and `TimedOut` is thrown, with its
    progress.

    What ends exactly at the limit is in time.
    """

    __slots__ = ("seconds", "x")

    def __init__(self, x: object, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"within needs seconds, 0 or more, got {seconds}")
        self.x, self.seconds = x, seconds

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        timer = 0

        def ended(value: Any, error: Interrupted | None) -> None:
            kernel.drop(timer)
            done(value, error)

        def late() -> None:
            done(None, TimedOut(done=cancel_x(), detail=f"timed out after {self.seconds:g} s"))

        def last_call() -> None:
            nonlocal timer
            timer = kernel.soon(late)

        def cancel() -> Any:
            kernel.drop(timer)
            return cancel_x()

        cancel_x = as_waitable(kernel, self.x).begin(kernel, ended)
        if self.seconds < math.inf:
            timer = kernel.at(kernel.now + self.seconds, last_call)
        return cancel
