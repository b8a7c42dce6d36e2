"""Measures this machine with the engine and fits its profile; `edgellm calibrate` is the front door.

The minimal set: two models (the given one, and one made here in several formats), three prompts and three
contexts of which one each only judges the fit, one run per thread count, a probe of overheads, a prefill and
a decode at once, and, if asked for, a soak.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np

from . import machine
from .constant import Constant
from .fit import Observation, fit_device
from .machine import Power
from .measure import (
    CONTEXTS,
    PROMPTS,
    LoadModel,
    Point,
    measure_format,
    measure_model,
    measure_probe,
    measure_threads,
)
from .model_profile import ModelProfile
from .parts import ThermalProfile
from .probe import PROBE, PROBE_QUANT, second_model
from .profile import DeviceProfile
from .stress import Soak, Together, measure_soak, measure_together

_FITTED = ("bandwidth", "layer_overhead", "ops", "attention")
#: Formats in which the second model is measured.
FORMATS = ("q4_0", "q8_0")
_RESAMPLES = 24


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured and what was made of it: errors of the fit, and on points that it never saw."""

    profile: DeviceProfile
    points: tuple[Point, ...]
    fitted: Mapping[str, float]
    held_out: Mapping[str, float]
    power: Power
    together: Together | None = None
    soak: Soak | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    """The points of a run, and what is needed to turn them into observations."""

    points: tuple[Point, ...]
    shape: ModelProfile
    read_bytes: float
    second: ModelProfile
    threads: int
    source: str

    def mine(self) -> list[Point]:
        return [point for point in self.points if point.threads == self.threads]

    def observation(self, point: Point) -> Observation:
        """Return the point as the fit takes it; the given model's format has no factors of its own."""
        if point.model == "probe":
            return Observation(PROBE, PROBE_QUANT, 1, point.context, point.seconds)
        if point.model:
            return Observation(self.second, point.model, point.tokens, point.context, point.seconds)
        return Observation(
            self.shape, "f16", point.tokens, point.context, point.seconds, read_bytes=self.read_bytes
        )


def thread_counts(most: int) -> list[int]:
    """Return the numbers of threads that get a run of their own, beside the most.

    Examples
    --------
    >>> thread_counts(1), thread_counts(4), thread_counts(12)
    ([], [1, 2, 3], [1, 2, 4, 8])
    """
    if most <= 4:
        return list(range(1, most))
    return [2**i for i in range(most.bit_length()) if 2**i < most]


def steps(threads: int, quick: bool, soak_s: float) -> int:
    """Return how many things a calibration reports, for a progress bar."""
    counts = len(thread_counts(threads))
    more = min(counts, 1) if quick else counts + len(FORMATS) + 1
    return 2 + len(PROMPTS) + len(CONTEXTS) + more + (soak_s > 0)


def calibrate(
    path: str,
    load: LoadModel,
    *,
    threads: int | None = None,
    budget_s: float = 60.0,
    quick: bool = False,
    soak_s: float = 0.0,
    idle_w: float | None = None,
    active_w: float | None = None,
    price_usd: float | None = None,
    stamp: Mapping[str, str] = MappingProxyType({}),
    report: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Measure this machine.

    Parameters
    ----------
    path : str
        A GGUF file of the model to measure with.
    load : callable
        load(path, threads) gives a model of the engine.
    threads : int or None
        Threads of the profile; None for all cores that this process may use.
    budget_s : float
        Seconds that the measurement should take, roughly; a slow machine gets shorter prompts.
    quick : bool
        Leave out the second model, work at once, and all thread counts but one and the most.
    soak_s : float
        Seconds of decode without a pause at the end, to see how the machine slows down; 0 for none.
    idle_w, active_w : float or None
        Watts from a meter at the wall; None measures the processor's packages where the system lets us, else
        guesses and says so.
    price_usd : float or None
        Price of the machine; None states 0 as a guess.
    stamp : mapping of str to str
        More facts for the stamp: features of the processor, version of the arithmetic.
    report : callable
        Gets one line about each thing that is measured, `steps` in all.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If the budget, the threads, the soak or a power is not positive.
    """
    cores = machine.usable_cores()
    most = cores if threads is None else threads
    if not 0 < budget_s < 1e6:
        raise ValueError(f"the budget must be positive, got {budget_s}")
    if most < 1:
        raise ValueError(f"threads must be at least 1, got {most}")
    if not 0 <= soak_s < 1e6:
        raise ValueError(f"the soak must be 0 s or more, got {soak_s}")
    machine.choose_power(idle_w, active_w, None, None, most)  # bad watts fail before the work
    busy_note = machine.busy(cores)
    report("memcpy and storage")
    memcpy = machine.memcpy_bytes_per_s()
    storage = machine.storage_bytes_per_s(path)
    idle = machine.idle_watts()
    before, started = machine.rapl_counters(), time.perf_counter()
    points, shape, read_bytes = measure_model(path, load, most, 0.6 * budget_s, report)
    active = machine.watts_between(before, machine.rapl_counters(), time.perf_counter() - started)
    counts = thread_counts(most)[:1] if quick else thread_counts(most)
    for count in counts:
        points += measure_threads(path, load, count, points[: len(PROMPTS) + len(CONTEXTS)], report)
    second = second_model(machine.installed_bytes())
    together = None
    if not quick:
        for quant in FORMATS:
            points += measure_format(second, quant, load, most, report)
        together = measure_together(path, load, most, 0.15 * budget_s, report)
    points.append(measure_probe(load, most, report))
    soak = measure_soak(path, load, most, soak_s, report) if soak_s else None
    power = machine.choose_power(idle_w, active_w, idle, active, most)
    full = {
        "machine": machine.cpu_model(),
        "cores": str(cores),
        "threads": str(most),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "model": os.path.basename(path),
        **stamp,
    }
    start = replace(
        _starting_profile(full, memcpy, storage, power, price_usd),
        notes=busy_note or machine.busy(cores),
        runtime=f"edgellm {stamp['edgellm']}" if "edgellm" in stamp else "edgellm",
        firmware=machine.kernel(),
    )
    source = f"edgellm calibrate, {full['date']}: fitted to {full['model']}"
    return _finish(
        start, _Measured(tuple(points), shape, read_bytes, second, most, source), power, together, soak
    )


def _starting_profile(
    stamp: Mapping[str, str],
    memcpy: tuple[float, float, float],
    storage: float | None,
    power: Power,
    price_usd: float | None,
) -> DeviceProfile:
    """Return the profile before the fit: what was measured directly, and where the fit starts from."""
    threads = int(stamp["threads"])
    when = f"edgellm calibrate, {stamp['date']}"
    copied = Constant(memcpy[0], "bytes_per_s", f"{when}: numpy.copyto, one thread", memcpy[1], memcpy[2])
    begin = Constant(memcpy[0], "bytes_per_s", when)
    price = Constant(
        price_usd or 0.0, "usd", "given by the user" if price_usd else "not given", None, None, not price_usd
    )
    return DeviceProfile(
        name="this-machine",
        title=f"{stamp['machine']}, {threads} of {stamp['cores']} cores, CPU",
        cores=Constant(threads, "count", f"{when}: threads measured with"),
        ram_bytes=Constant(machine.installed_bytes(), "bytes", f"{when}: the system's figure"),
        storage_bytes_per_s=Constant(
            storage or 100e6,
            "bytes_per_s",
            f"{when}: reading the model's file" if storage else "guess",
            None,
            None,
            not storage,
        ),
        bandwidth_theoretical_bytes_per_s=Constant(
            2.0 * memcpy[0],
            "bytes_per_s",
            "guess: memcpy reads and writes, so at least twice its figure",
            None,
            None,
            True,
        ),
        bandwidth_memcpy_bytes_per_s=copied,
        bandwidth_decode_bytes_per_s=begin,
        bandwidth_prefill_bytes_per_s=begin,
        ops_per_s=Constant(1e10 * threads, "ops_per_s", when),
        attention_ops_per_s=Constant(2e9 * threads, "ops_per_s", when),
        layer_overhead_s=Constant(2e-5, "s", when),
        host_overhead_s=Constant(
            1e-4, "s", "guess: sampling and detokenizing, not measured", None, None, True
        ),
        idle_w=Constant(power.idle_w, "w", power.idle_source, None, None, power.idle_guess),
        active_w=Constant(power.active_w, "w", power.active_source, None, None, power.active_guess),
        price_usd=price,
        stamp=MappingProxyType(dict(stamp)),
    )


def _finish(
    start: DeviceProfile, measured: _Measured, power: Power, together: Together | None, soak: Soak | None
) -> Calibration:
    """Fit the profile to the points with all threads, judge it on those held out, and give it intervals."""
    # what is timed is the engine alone; the host's part is left out of the fit and stays as it is
    bare = replace(start, host_overhead_s=Constant(0.0, "s", ""))
    fitted = _fit(bare, measured)
    mine = measured.mine()
    errors = {point.label: measured.observation(point).error(fitted) for point in mine}
    held_out = {point.label for point in mine if point.place == "held out"}
    worst = max(abs(errors[label]) for label in held_out)
    profile = _with_intervals(fitted, bare, measured, worst)
    source = measured.source
    changed: dict[str, object] = {
        "threads": _thread_table(measured),
        "host_overhead_s": start.host_overhead_s,
    }
    if together is not None:
        value, low, high = together.occupancy()
        words = f"{source}; a prefill and a decode at once"
        changed["occupancy"] = Constant(value, "ratio", words, low, high)
    stamp = dict(start.stamp)
    for point in measured.points:
        stamp[f"{point.label}, threads {point.threads}, ms"] = f"{1000 * point.seconds:.3f}"
    if together is not None:
        shares = zip(("prefill", "decode"), (together.prefill, together.decode), strict=True)
        stamp |= {f"{what} beside the other, share of its pace": f"{np.median(x):.3f}" for what, x in shares}
    if soak is not None:
        stamp["soak, sustained share of the pace"] = f"{soak.sustained:.3f}"
        changed["thermal"] = _thermal(soak, power, source)
    return Calibration(
        profile=replace(profile, stamp=MappingProxyType(stamp), **changed),  # type: ignore[arg-type]  # fields
        points=measured.points,
        fitted=MappingProxyType({k: v for k, v in errors.items() if k not in held_out}),
        held_out=MappingProxyType({k: v for k, v in errors.items() if k in held_out}),
        power=power,
        together=together,
        soak=soak,
    )


def _fit(bare: DeviceProfile, measured: _Measured) -> DeviceProfile:
    """Return the profile fitted to the given model and the probe, with factors for the other formats."""
    used = [point for point in measured.mine() if point.place != "held out"]
    own = [measured.observation(point) for point in used if point.model in ("", "probe")]
    fitted = _best_fit(bare, own, measured)
    bandwidth: dict[str, Constant] = {}
    ops: dict[str, Constant] = {}
    for quant in dict.fromkeys(point.model for point in used if point.model not in ("", "probe")):
        seen = [measured.observation(point) for point in used if point.model == quant]
        alone = fit_device(fitted, seen, ("bandwidth", "ops"), measured.source)
        for table, key in ((bandwidth, "bandwidth_decode_bytes_per_s"), (ops, "ops_per_s")):
            factor = getattr(alone, key).value / getattr(fitted, key).value
            table[quant] = Constant(factor, "ratio", f"{measured.source}, and to a second model in {quant}")
    if not bandwidth:
        return fitted
    return replace(fitted, format_bandwidth=MappingProxyType(bandwidth), format_ops=MappingProxyType(ops))


def _best_fit(bare: DeviceProfile, own: Sequence[Observation], measured: _Measured) -> DeviceProfile:
    """Return the best of fits that begin where reading binds, by less and by more.

    Which of reading and computing binds is not known beforehand, and on a noisy machine a fit that begins in
    the wrong place ends there.
    """
    near = next(p for p in measured.mine() if p.place == "near" and not p.model)
    long = next(p for p in measured.mine() if p.place == "long" and not p.model)
    reading = measured.read_bytes / near.seconds
    computing = 2.0 * measured.shape.body_matrix_params * long.tokens / long.seconds
    fits = []
    for share in (1.05, 1.5, 3.0):
        rate = Constant(share * reading, "bytes_per_s", measured.source)
        start = replace(
            bare,
            bandwidth_decode_bytes_per_s=rate,
            bandwidth_prefill_bytes_per_s=rate,
            ops_per_s=Constant(1.2 * computing, "ops_per_s", measured.source),
        )
        fits.append(fit_device(start, own, _FITTED, measured.source))
    return min(fits, key=lambda fit: sum(point.error(fit) ** 2 for point in own))


def _with_intervals(
    fitted: DeviceProfile, bare: DeviceProfile, measured: _Measured, worst: float
) -> DeviceProfile:
    """Return the fitted profile with an interval for each constant.

    The middle 95 % of fits to resampled times, and no narrower than the worst error on what was held out.
    """
    rng = np.random.default_rng(7)
    found: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        again = replace(measured, points=tuple(point.resampled(rng) for point in measured.points))
        for key, constant in _fit(bare, again).constants():
            found.setdefault(key, []).append(constant.value)
    changed = {}
    for key, constant in fitted.constants():
        if constant.source.startswith(measured.source):
            low, high = (float(x) for x in np.percentile(np.asarray(found[key]), [2.5, 97.5]))
            value = constant.value
            changed[key] = replace(
                constant, low=min(low, value / (1.0 + worst)), high=max(high, value * (1.0 + worst))
            )
    return fitted.with_constants(changed)


def _thread_table(measured: _Measured) -> Mapping[int, Constant]:
    """Return by threads how many times longer a decode takes than with all; the spread holds a prefill."""
    seconds = {
        (point.threads, point.what): point.seconds
        for point in measured.points
        if point.model == "" and point.place in ("short", "near")
    }
    table: dict[int, Constant] = {}
    for threads in sorted({threads for threads, _ in seconds}):
        decode, prefill = (
            seconds[threads, what] / seconds[measured.threads, what] for what in ("decode", "prefill")
        )
        source = f"{measured.source}; decode with {threads} against {measured.threads} threads"
        table[threads] = Constant(decode, "ratio", source, min(decode, prefill), max(decode, prefill))
    return MappingProxyType(table if len(table) > 1 else {})


def _thermal(soak: Soak, power: Power, source: str) -> ThermalProfile | None:
    """Return how the machine heats up and slows down, where the soak showed it."""
    heat = soak.heat(power.active_w - power.idle_w)
    if heat is None:
        return None
    r_k_per_w, c_j_per_k, throttle_c = heat
    words, guess = f"{source}; soak", power.active_guess or power.idle_guess
    return ThermalProfile(
        r_k_per_w=Constant(r_k_per_w, "k_per_w", words, guess=guess),
        c_j_per_k=Constant(c_j_per_k, "j_per_k", words, guess=guess),
        throttle_c=Constant(throttle_c, "c", words),
        resume_c=Constant(throttle_c - 3.0, "c", "guess: a little below where it slowed down", guess=True),
        factor=Constant(soak.sustained, "ratio", words),
    )
