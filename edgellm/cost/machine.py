"""What this machine says of itself: processor, memory, memcpy, storage, and power where it can be read."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_POWERCAP = Path("/sys/class/powercap")
_MEMCPY_BYTES = 128 << 20
_STORAGE_BYTES = 256 << 20

#: Watts that a guess of power starts from: a board that idles, and what each busy core adds.
GUESSED_IDLE_W = 3.0
GUESSED_CORE_W = 2.0


@dataclass(frozen=True, slots=True)
class Counter:
    """One energy counter of the kernel: microjoules so far, and where it wraps around."""

    name: str
    microjoules: int
    wrap: int


@dataclass(frozen=True, slots=True)
class Power:
    """Watts of the machine, idle and while a model runs, with where they come from."""

    idle_w: float
    active_w: float
    idle_source: str
    active_source: str
    idle_guess: bool
    active_guess: bool


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """Return the processor's name as the system tells it, or "unknown"."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for wanted in ("model name", "Model", "Hardware"):
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == wanted and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def kernel() -> str:
    """Return name and release of the operating system's kernel."""
    return f"{platform.system()} {platform.release()}".strip()


def busy(cores: int) -> str:
    """Say that other work keeps the machine busy, or return an empty text."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        return ""
    if load <= 0.5 * cores:
        return ""
    return f"measured while other work kept the machine busy: load {load:.1f} on {cores} cores"


def installed_bytes() -> int:
    """Return the bytes of memory that this process can have: those installed, or the limit of its group."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        total = 1 << 30
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
    except (OSError, ValueError):
        return int(total)
    return int(min(total, limit)) if limit > 0 else int(total)


def memcpy_bytes_per_s(repeats: int = 7) -> tuple[float, float, float]:
    """Return (median, lowest, highest) bytes copied per second by one thread, with NumPy.

    The array is far bigger than a cache. A byte that is read and written counts once, as in sbc-bench.
    """
    nbytes = min(_MEMCPY_BYTES, installed_bytes() // 16)
    source = np.ones(nbytes, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)  # touches every page
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        rates.append(nbytes / max(time.perf_counter() - start, 1e-9))
    return statistics.median(rates), min(rates), max(rates)


def storage_bytes_per_s(path: str) -> float | None:
    """Return the bytes per second at which a file that is not cached is read, or None if unknown."""
    if not hasattr(os, "posix_fadvise"):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        done, start = 0, time.perf_counter()
        while done < _STORAGE_BYTES:
            chunk = os.read(descriptor, 8 << 20)
            if not chunk:
                break
            done += len(chunk)
        seconds = time.perf_counter() - start
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return done / seconds if done and seconds > 0 else None


def rapl_counters(root: Path = _POWERCAP) -> tuple[Counter, ...]:
    """Return the energy counters of the processor's packages; empty where they cannot be read."""
    found = []
    try:
        folders = sorted(root.glob("intel-rapl:?"))  # the kernel uses this name for AMD too
    except OSError:
        return ()
    for folder in folders:
        try:
            name = (folder / "name").read_text("ascii").strip()
            energy = int((folder / "energy_uj").read_text("ascii"))
            wrap = int((folder / "max_energy_range_uj").read_text("ascii"))
        except (OSError, ValueError):
            continue
        if name.startswith("package"):
            found.append(Counter(f"{folder.name} {name}", energy, wrap))
    return tuple(found)


def watts_between(before: Sequence[Counter], after: Sequence[Counter], seconds: float) -> float | None:
    """Return the mean power between two readings, or None if the counters differ or there are none."""
    if not before or [c.name for c in before] != [c.name for c in after] or seconds <= 0:
        return None
    used = 0
    for old, new in zip(before, after, strict=True):
        delta = new.microjoules - old.microjoules
        used += delta if delta >= 0 else delta + new.wrap
    return used / 1e6 / seconds if used > 0 else None


def idle_watts(seconds: float = 1.0) -> float | None:
    """Return the packages' mean power while this process sleeps, or None where it cannot be read."""
    before = rapl_counters()
    if not before:
        return None
    start = time.perf_counter()
    time.sleep(seconds)
    return watts_between(before, rapl_counters(), time.perf_counter() - start)


def choose_power(
    idle_given: float | None,
    active_given: float | None,
    idle_measured: float | None,
    active_measured: float | None,
    cores: int,
) -> Power:
    """Return the power of the machine: what was given, else measured, else a guess that says so.

    Raises
    ------
    ValueError
        If a given power is not positive, or the active one is below the idle one.

    Examples
    --------
    >>> choose_power(2.5, 11.0, None, None, 4).active_guess
    False
    >>> choose_power(None, None, None, None, 4).idle_guess
    True
    """
    for name, value in (("idle", idle_given), ("active", active_given)):
        if value is not None and not 0 < value < 1e6:
            raise ValueError(f"{name} power must be positive, got {value}")
    package = "RAPL, processor packages only: no memory, disk or power supply"
    idle, idle_source, idle_guess = GUESSED_IDLE_W, "guess: nothing measured it", True
    if idle_given is not None:
        idle, idle_source, idle_guess = idle_given, "given by the user", False
    elif idle_measured is not None:
        idle, idle_source, idle_guess = idle_measured, package, False
    active, active_source, active_guess = idle + GUESSED_CORE_W * cores, "guess: nothing measured it", True
    if active_given is not None:
        active, active_source, active_guess = active_given, "given by the user", False
    elif active_measured is not None:
        active, active_source, active_guess = active_measured, package, False
    if active < idle:
        if idle_given is not None and active_given is not None:
            raise ValueError(
                f"active power {active_given} W is below idle power {idle_given} W; it includes it"
            )
        active, active_source, active_guess = idle, f"{active_source}; raised to the idle power", True
    return Power(idle, active, idle_source, active_source, idle_guess, active_guess)
