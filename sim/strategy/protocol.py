"""The vocabulary of a strategy: what can be waited for, and what can be thrown at a wait.

Nothing here knows a simulator. A strategy is a generator that yields waitables; whoever runs it (the
simulation, or a real host) is a `Kernel` that arms each waitable and resumes the generator with its value.
What ends at the same time is resumed in the order in which it was started: ties are broken by (time,
sequence).
"""

from __future__ import annotations

import copy
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

    def with_done(self, done: Any) -> Interrupted:
        """Return the same error with another progress: one failure may be told to several who wait."""
        told = copy.copy(self)
        told.done = done
        return told

    def __copy__(self) -> Interrupted:
        told = self.__class__.__new__(self.__class__, *self.args)  # whatever the arguments of __init__ are
        told.args = self.args
        told.__dict__.update(self.__dict__)
        return told


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
    """Anything that a strategy may yield. Nothing begins before it is yielded."""

    __slots__ = ()

    @property
    def takes(self) -> bool:
        """Whether it takes something that is then gone for others (an item, a lease of memory)."""
        return False

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
        + (" (it is a function: call it)" if callable(x) else "")
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

    def __repr__(self) -> str:
        return f"sleep({self.seconds:g})"

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        start_s = kernel.now
        ticket = kernel.at(start_s + self.seconds, partial(done, None, None))

        def cancel() -> float:
            kernel.drop(ticket)
            return kernel.now - start_s

        return cancel


class until(Waitable):
    """Wait for a date, in simulated seconds; one that has passed is now. `.done` is the seconds waited.

    Raises
    ------
    ValueError
        If the date is not finite.
    """

    __slots__ = ("date_s",)

    def __init__(self, date_s: float) -> None:
        if not abs(date_s) < math.inf:
            raise ValueError(f"until needs a finite date in seconds, got {date_s}")
        self.date_s = date_s

    def __repr__(self) -> str:
        return f"until({self.date_s:g})"

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        return sleep(max(0.0, self.date_s - kernel.now)).begin(kernel, done)


class every(Waitable):
    """A clock: each `yield` waits for its next tick, and gives the tick's number.

    Tick k is at `first_s + k * period_s`, whatever is done in between: a job that takes a minute every hour
    does not drift. Ticks that passed while nobody waited are left out.

    Raises
    ------
    ValueError
        If `period_s` is not positive and finite, or `first_s` not finite.
    """

    __slots__ = ("_next", "first_s", "period_s")

    def __init__(self, period_s: float, first_s: float = 0.0) -> None:
        if not (0 < period_s < math.inf and abs(first_s) < math.inf):
            raise ValueError(f"every needs a positive period and a finite start, got {period_s}, {first_s}")
        self.period_s, self.first_s = period_s, first_s
        self._next = 0

    def __repr__(self) -> str:
        return f"every({self.period_s:g})"

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        k = max(self._next, math.ceil((kernel.now - self.first_s) / self.period_s))

        def tick(value: Any, error: Interrupted | None) -> None:
            self._next = k + 1
            done(k if error is None else value, error)

        return until(self.first_s + k * self.period_s).begin(kernel, tick)


class Event(Waitable):
    """Something that happens once; every wait for it gets the value it was set with.

    A `name` shows in the error that says who waits for what.

    Examples
    --------
    >>> ready = Event()
    >>> ready.set(42)
    >>> ready.is_set, ready.value
    (True, 42)
    """

    __slots__ = ("_waiting", "is_set", "name", "value")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.is_set = False
        self.value: Any = None
        self._waiting: list[_Wait] = []

    def __repr__(self) -> str:
        return f"Event({self.name!r})" if self.name else "Event()"

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

    A `name` shows in the error that says who waits for what.

    Examples
    --------
    >>> q = Queue()
    >>> q.put("a"); q.put("b")
    >>> len(q), q.take(), q.take_all()
    (2, 'a', ['b'])
    """

    __slots__ = ("_coming", "_items", "_waiting", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._items: deque[Any] = deque()
        self._waiting: deque[_Wait] = deque()
        self._coming: deque[_Wait] = deque()  # have their item, and are about to be resumed

    def __repr__(self) -> str:
        return f"Queue({self.name!r})" if self.name else "Queue()"

    @property
    def takes(self) -> bool:
        """An item that is taken is gone."""
        return True

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True  # a queue is a thing, not a truth: ask for its length

    def put(self, item: Any) -> None:
        """Append an item, or hand it to the one who has waited longest."""
        if self._waiting:
            self._hand(self._waiting.popleft(), item)
        else:
            self._items.append(item)

    def clear(self) -> None:
        """Forget all items that are there."""
        self._items.clear()

    def take(self) -> Any:
        """Remove and return the first item; IndexError if there is none."""
        return self._items.popleft()

    def take_all(self) -> list[Any]:
        """Remove and return all items that are there."""
        items = list(self._items)
        self._items.clear()
        return items

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        def arrived(value: Any, error: Interrupted | None) -> None:
            self._coming.remove(wait)
            done(value, error)

        wait = _Wait(kernel, arrived)
        if self._items:
            self._hand(wait, self._items.popleft())
        else:
            self._waiting.append(wait)
        return partial(self._withdraw, wait)

    def _hand(self, wait: _Wait, item: Any) -> None:
        self._coming.append(wait)
        wait.deliver(item)

    def _withdraw(self, wait: _Wait) -> None:
        """Stop a wait. An item on its way to it goes to whoever is next, in the order of the items."""
        if wait in self._waiting:
            self._waiting.remove(wait)
        elif wait.forget():
            behind = list(self._coming)[self._coming.index(wait) :]
            self._coming.remove(wait)
            item = wait.value
            for other in behind[1:]:
                item, other.value = other.value, item
            if self._waiting:
                self._hand(self._waiting.popleft(), item)
            else:
                self._items.appendleft(item)


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
