"""Waiting for several things, and waiting no longer than so long."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from .protocol import Cancel, Interrupted, Kernel, Settle, TimedOut, Waitable, as_waitable


class _Group(Waitable):
    """Base of what waits for several things."""

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        if not parts and type(self) is not gather:
            raise ValueError(f"{type(self).__name__} needs something to wait for")
        self.parts = parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"

    @property
    def takes(self) -> bool:
        """Whether one of the parts does."""
        return any(isinstance(part, Waitable) and part.takes for part in self.parts)


class gather(_Group):
    """Wait for all; the value is the list of values, in the order given. Nothing to wait for is `[]` at once.

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
                done(None, error.with_done(stop()))
            elif not cancels:
                done(results, None)

        if not self.parts:
            return partial(kernel.drop, kernel.soon(partial(done, results, None)))
        for i, part in enumerate(self.parts):
            cancels[i] = as_waitable(kernel, part).begin(kernel, partial(ended, i))
        return stop


class first(_Group):
    """Wait for the first that succeeds; the value is (its index, its value). The others go on.

    What fails is out; when all have failed, the last failure is thrown. Only a wait that would take something
    (an item of a queue, a lease) is given up with the rest: nobody would be there to have it.
    """

    __slots__ = ()
    _keep = True

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        cancels: dict[int, Cancel] = {}
        settled = False

        waited: list[Waitable] = []

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
            for j in sorted(cancels):
                if not self._keep or waited[j].takes:
                    cancels.pop(j)()
            done(None if error is not None else (i, value), error)

        for i, part in enumerate(self.parts):
            waited.append(as_waitable(kernel, part))
            cancels[i] = waited[i].begin(kernel, partial(ended, i))
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

    def __repr__(self) -> str:
        return f"within({self.x!r}, {self.seconds:g})"

    @property
    def takes(self) -> bool:
        """Whether what it waits for does."""
        return isinstance(self.x, Waitable) and self.x.takes

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
