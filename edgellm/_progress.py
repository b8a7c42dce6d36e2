"""Progress of long work, on standard error: a tqdm bar where there is one, plain lines otherwise."""

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any


class Progress:
    """Show how far a long piece of work has come.

    On a terminal with tqdm installed it is a bar. Otherwise it is a line at most every two seconds,
    beginning after the first second, so that short work stays silent and a log stays short.

    Parameters
    ----------
    title : str
        What is being done, for example ``"smollm2-135m"``.
    total : int or None
        Amount of work in `unit`; None if not known.
    unit : str
        ``"B"`` shows megabytes; anything else is counted.
    start : int
        Amount that was done before (a resumed download).
    shown : bool
        False makes every call a no-op.

    Examples
    --------
    >>> with Progress("copy", 10, shown=False) as bar:
    ...     bar.advance(4)
    >>> bar.done
    4
    """

    def __init__(
        self, title: str, total: int | None, *, unit: str = "B", start: int = 0, shown: bool = True
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, start
        self._shown = shown
        self._next_line_s = time.monotonic() + 1.0
        self._told: int | None = None
        self._bar: Any = _tqdm_bar(title, total, unit, start) if shown else None

    def advance(self, amount: int) -> None:
        """Say that `amount` more has been done."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)
        elif self._shown and time.monotonic() >= self._next_line_s:
            self._line()

    def note(self, title: str) -> None:
        """Say what is being done from now on."""
        self.title = title
        if self._bar is not None:
            self._bar.set_description(title)

    def close(self) -> None:
        """End the display; may be called more than once."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._shown and self._told not in (None, self.done):
            self._line()
        self._shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> None:
        self._next_line_s = time.monotonic() + 2.0
        self._told = self.done
        print(f"{self.title}: {amount_text(self.done, self.total, self.unit)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def patience(text: str, after_s: float = 1.0) -> Iterator[None]:
    """Say on a terminal what is going on, if the block takes longer than `after_s`.

    For work that cannot tell how far it is; the block must release the GIL.
    """
    timer = threading.Timer(after_s, lambda: print(f"[{text}]", file=sys.stderr, flush=True))
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def amount_text(done: int, total: int | None, unit: str) -> str:
    """Words for an amount of work.

    Examples
    --------
    >>> amount_text(5_000_000, 10_000_000, "B")
    '5.0 of 10.0 MB (50 %)'
    >>> amount_text(3, None, "tokens")
    '3 tokens'
    """
    scale, name, digits = (1e6, "MB", 1) if unit == "B" else (1.0, unit, 0)
    if not total:
        return f"{done / scale:.{digits}f} {name}"
    share = 100 * done // total
    return f"{done / scale:.{digits}f} of {total / scale:.{digits}f} {name} ({share} %)"


def _tqdm_bar(title: str, total: int | None, unit: str, start: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        bar = importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
    return bar(
        desc=title,
        total=total,
        initial=start,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1000,
        dynamic_ncols=True,
        file=sys.stderr,
    )
