"""Measures work that runs together on a device, and work that goes on until the device is hot.

Impure: it looks at clocks, threads and temperatures.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .measure import EngineModel, LoadModel, Report, Session, rerun

_THERMAL = Path("/sys/class/thermal")


@dataclass(frozen=True, slots=True)
class Together:
    """The pace of a prefill and of a decode that ran at once, each as a share of its pace alone.

    Several rounds; both then share one compute and one bandwidth budget.
    """

    prefill: tuple[float, ...]
    decode: tuple[float, ...]

    def occupancy(self) -> tuple[float, float, float]:
        """Return (middle, low, high): the share of the compute that waiting for memory holds.

        Work that shares fairly runs at the common pace x with (1 + occupancy) x = 1 of the compute, since a
        prefill alone holds all of it. x is the mean of both.

        Examples
        --------
        >>> [round(x, 2) for x in Together((0.5, 0.5), (0.5, 0.5)).occupancy()]
        [1.0, 1.0, 1.0]
        >>> [round(x, 2) for x in Together((0.9, 0.8), (0.8, 0.8)).occupancy()]
        [0.21, 0.18, 0.25]
        """
        shares = [(p + d) / 2.0 for p, d in zip(self.prefill, self.decode, strict=True)]
        found = sorted(min(max(1.0 / max(x, 1e-9) - 1.0, 0.0), 1.0) for x in shares)
        return statistics.median(found), found[0], found[-1]


@dataclass(frozen=True, slots=True)
class Soak:
    """Pace of decode over time under full load: seconds since the start, tokens per second, degrees C."""

    seconds: tuple[float, ...]
    tokens_per_s: tuple[float, ...]
    celsius: tuple[float | None, ...]

    @property
    def sustained(self) -> float:
        """Pace at the end as a share of that at the beginning, at most 1."""
        n = len(self.tokens_per_s)
        first = statistics.median(self.tokens_per_s[: max(1, n // 8)])
        last = statistics.median(self.tokens_per_s[-max(1, n // 4) :])
        return min(1.0, last / first)

    def heat(self, watts: float) -> tuple[float, float, float] | None:
        """Return (K/W, J/K, C at which it slowed down), None where temperatures or a slowdown lack.

        Parameters
        ----------
        watts : float
            What the load adds to the power while idle.
        """
        known = [c for c in self.celsius if c is not None]
        if len(known) != len(self.celsius) or self.sustained > 0.95 or watts <= 0:
            return None
        rise = max(known) - known[0]
        if rise < 3.0:
            return None
        at = next(i for i, c in enumerate(known) if c - known[0] >= 0.632 * rise)
        first = statistics.median(self.tokens_per_s[: max(1, len(known) // 8)])
        slowed = next((i for i, rate in enumerate(self.tokens_per_s) if rate < 0.95 * first), len(known) - 1)
        r_k_per_w = rise / watts
        return r_k_per_w, max(self.seconds[at], 1.0) / r_k_per_w, known[slowed]


def measure_together(
    path: str, load: LoadModel, threads: int, seconds: float, report: Report, rounds: int = 3
) -> Together:
    """Run a prefill and a decode, each with its own model and pool of threads: alone, then at once."""
    report("prefill and decode at once")
    models: list[EngineModel] = []
    try:
        works = []
        for tokens in (48, 1):
            model = load(path, threads)
            models.append(model)
            works.append(_repeating(model, tokens))
        each_s = seconds / (3 * rounds)
        prefill, decode = [], []
        for _ in range(rounds):
            alone = [_paces([work], each_s)[0] for work in works]
            both = _paces(works, each_s)
            prefill.append(both[0] / alone[0])
            decode.append(both[1] / alone[1])
    finally:
        for model in models:
            model.close()
    return Together(tuple(prefill), tuple(decode))


def measure_soak(path: str, load: LoadModel, threads: int, seconds: float, report: Report) -> Soak:
    """Decode without a pause for so long, and note pace and temperature."""
    report(f"soak of {seconds:.0f} s")
    model = load(path, threads)
    at, rates, degrees = [], [], []
    try:
        work = _repeating(model, 1)
        work()
        start = time.perf_counter()
        bin_s = max(seconds / 40.0, 0.5)
        while (since := time.perf_counter() - start) < seconds:
            done = 0
            while (spent := time.perf_counter() - start - since) < bin_s:
                work()
                done += 1
            at.append(since + spent)
            rates.append(done / spent)
            degrees.append(celsius())
    finally:
        model.close()
    return Soak(tuple(at), tuple(rates), tuple(degrees))


def celsius(root: Path = _THERMAL) -> float | None:
    """Return the temperature of the hottest zone of the machine, None where the system does not say."""
    found = []
    try:
        zones = sorted(root.glob("thermal_zone*"))
    except OSError:
        return None
    for zone in zones:
        try:
            found.append(int((zone / "temp").read_text("ascii")) / 1000.0)
        except (OSError, ValueError):
            continue
    plausible = [c for c in found if -40.0 < c < 150.0]
    return max(plausible) if plausible else None


def _repeating(model: EngineModel, tokens: int) -> Callable[[], None]:
    """Return a step that may be repeated: a prefill of `tokens`, or a decode where it is one."""
    session: Session = model.session(min(int(model.config.context), 128))
    ids = [int(i) for i in np.random.default_rng(7).integers(0, int(model.config.vocab), size=64)]
    if tokens > 1:
        return partial(rerun, session, 0, ids[:tokens])
    session.eval(ids[:16])
    return partial(rerun, session, 16, ids[:1])


def _paces(works: Sequence[Callable[[], None]], seconds: float) -> list[float]:
    """Repeat all works at once for so long and return the steps per second of each."""
    stop = threading.Event()
    paces = [0.0] * len(works)
    failed: list[BaseException] = []

    def run(i: int, work: Callable[[], None]) -> None:
        try:
            done, start = 0, time.perf_counter()
            while done == 0 or not stop.is_set():
                work()
                done += 1
            paces[i] = done / max(time.perf_counter() - start, 1e-9)
        except BaseException as error:  # handed to the caller below
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(i, work), daemon=True) for i, work in enumerate(works)]
    try:
        for thread in threads:
            thread.start()
        stop.wait(seconds)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    return paces
