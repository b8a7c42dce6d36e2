"""Measures this machine with the engine and writes its profile; `edgellm calibrate` is the front door.

Uses only the engine's public interface, so what is measured is what a user gets. Impure: it looks at clocks
and files.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgellm._atomic import replacing

from . import machine
from .constant import Constant
from .fit import Observation, fit_device
from .load import device_from_mapping, user_profile_dir
from .machine import Power
from .model_profile import ModelProfile
from .probe import PROBE, PROBE_QUANT, write_probe
from .profile import PROFILE_SCHEMA, DeviceProfile

#: Contexts at which decode is timed and lengths of prompts whose prefill is timed, on a machine that is fast
#: enough; what is held out is never fitted.
_CONTEXTS = {"near": 16, "held out": 200, "far": 400}
_PROMPTS = {"short": 24, "held out": 64, "long": 160}
_LEAST = {"near": 4, "short": 4, "held out": 12, "far": 32, "long": 24}
_FITTED = ("bandwidth", "layer_overhead", "ops", "attention")
_DECODE_STEPS = 12


class Session(Protocol):
    """What a session of the engine offers, as far as it is used here."""

    def eval(self, ids: Sequence[int], logits: Any = "last") -> NDArray[np.float32]:
        """Feed tokens and return logits."""
        ...

    def truncate(self, length: int) -> None:
        """Forget what is beyond `length`."""
        ...


class EngineModel(Protocol):
    """What a model of the engine offers, as far as it is used here."""

    @property
    def config(self) -> Any:
        """The shape of the model."""
        ...

    def plan(self, context: int) -> Any:
        """Bytes by part."""
        ...

    def session(self, context: int) -> Any:
        """Open a session."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


LoadModel = Callable[[str, int], EngineModel]


@dataclass(frozen=True, slots=True)
class Point:
    """One measured time: the median over `repeats`, with the middle half of them as its spread."""

    what: str  # "decode" or "prefill"
    place: str  # "near", "held out" or "far"; "short", "held out" or "long"
    threads: int
    tokens: int
    context: int
    seconds: float
    low_s: float
    high_s: float
    repeats: int
    probe: bool = False

    @property
    def label(self) -> str:
        """Say what was timed."""
        what = f"decode at {self.context}" if self.what == "decode" else f"prefill of {self.tokens}"
        return f"{what}, probe" if self.probe else what


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured and what was made of it: errors of the fit, and on points that it never saw."""

    profile: DeviceProfile
    points: tuple[Point, ...]
    fitted: Mapping[str, float]
    held_out: Mapping[str, float]
    power: Power


def calibrate(
    path: str,
    load: LoadModel,
    *,
    threads: int | None = None,
    budget_s: float = 60.0,
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
    idle_w, active_w : float or None
        Watts from a meter at the wall; None measures the processor's packages where the system lets us, else
        guesses and says so.
    price_usd : float or None
        Price of the machine; None states 0 as a guess.
    stamp : mapping of str to str
        More facts for the stamp: features of the processor, version of the arithmetic.
    report : callable
        Gets one line about each thing that is measured.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If the budget, the threads or a power is not positive.
    """
    cores = machine.usable_cores()
    most = cores if threads is None else threads
    if not 0 < budget_s < 1e6:
        raise ValueError(f"the budget must be positive, got {budget_s}")
    if most < 1:
        raise ValueError(f"threads must be at least 1, got {most}")
    machine.choose_power(idle_w, active_w, None, None, most)  # bad watts fail before the work
    busy_note = machine.busy(cores)
    if busy_note:
        report(f"note: {busy_note}")
    report("memcpy and storage")
    memcpy = machine.memcpy_bytes_per_s()
    storage = machine.storage_bytes_per_s(path)
    idle = machine.idle_watts()
    before, started = machine.rapl_counters(), time.perf_counter()
    points, shape, read_bytes = _measure(path, load, most, budget_s * (0.9 if most == 1 else 0.6), report)
    active = machine.watts_between(before, machine.rapl_counters(), time.perf_counter() - started)
    if most > 1:
        points += _measure(path, load, 1, budget_s * 0.3, report)[0]
    report("overhead per layer")
    points.append(_measure_probe(load, most))
    power = machine.choose_power(idle_w, active_w, idle, active, most)
    full = {
        "machine": machine.cpu_model(),
        "cores": str(cores),
        "threads": str(most),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "model": os.path.basename(path),
        **stamp,
    }
    start = replace(_starting_profile(full, memcpy, storage, power, price_usd), notes=busy_note)
    return _finish(start, points, shape, read_bytes, power)


def _measure(
    path: str, load: LoadModel, threads: int, budget_s: float, report: Callable[[str], None]
) -> tuple[list[Point], ModelProfile, float]:
    """Time prefill and decode with some threads; return also the model's shape and bytes per step."""
    model = load(path, threads)
    try:
        limit = min(int(model.config.context), 512)
        session: Session = model.session(limit)
        ids = [int(i) for i in np.random.default_rng(7).integers(0, int(model.config.vocab), size=limit)]
        session.eval(ids[:2])
        one_s = min(_times(partial(_rerun, session, 2, ids[:1]), 2))
        scale = min(1.0, budget_s / (one_s * 1200.0), (limit - 2) / (_CONTEXTS["far"] + 2))
        crowd = "thread" if threads == 1 else "threads"
        points: list[Point] = []
        for place, length in _PROMPTS.items():
            tokens = max(_LEAST[place], round(length * scale))
            report(f"prefill of {tokens} tokens, {threads} {crowd}")
            times = _times(partial(_rerun, session, 0, ids[:tokens]), 4 if scale == 1.0 else 1)
            points.append(_point("prefill", place, threads, tokens, 0, times))
        session.truncate(0)
        at = 0
        for place, length in _CONTEXTS.items():
            context = max(_LEAST[place], round(length * scale))
            report(f"decode at context {context}, {threads} {crowd}")
            session.eval(ids[at:context])
            at = context
            times = _times(partial(_rerun, session, context, ids[:1]), _DECODE_STEPS if scale > 0.2 else 4)
            session.truncate(context)
            points.append(_point("decode", place, threads, 1, context, times))
        shape, read_bytes = _shape_of(model)
    finally:
        model.close()
    return points, shape, read_bytes


def _rerun(session: Session, length: int, ids: Sequence[int]) -> None:
    session.truncate(length)
    session.eval(ids)


def _shape_of(model: EngineModel) -> tuple[ModelProfile, float]:
    """Return the model's shape, and the bytes of weights that a decode step reads."""
    c = model.config
    shape = ModelProfile(
        name="measured",
        title="the model of the calibration",
        layers=int(c.layers),
        width=int(c.width),
        heads=int(c.heads),
        kv_heads=int(c.kv_heads),
        head_dim=int(c.head_dim),
        ffn=int(c.ffn),
        vocab=int(c.vocab),
        tied=bool(c.tied),
        context=int(c.context),
        source="its GGUF file",
    )
    weights = float(model.plan(64).weights_bytes)
    # an embedding of its own is not read; its share is taken as that of its values
    return shape, weights * (1.0 if shape.tied else 1.0 - shape.embedding_params / shape.params)


def _measure_probe(load: LoadModel, threads: int) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.gguf"
        with path.open("wb") as file:
            write_probe(file)
        model = load(str(path), threads)
        try:
            session: Session = model.session(64)
            session.eval([5, 6, 7, 8])
            times = _times(partial(_rerun, session, 4, [9]), 30)
        finally:
            model.close()
    return replace(_point("decode", "near", threads, 1, 4, times), probe=True)


def _times(work: Callable[[], object], repeats: int) -> list[float]:
    """Time `work` after one run that warms it up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(max(time.perf_counter() - start, 1e-9))
    return found


def _point(what: str, place: str, threads: int, tokens: int, context: int, times: Sequence[float]) -> Point:
    low, high = (float(x) for x in np.percentile(np.asarray(times), [25, 75]))
    return Point(what, place, threads, tokens, context, statistics.median(times), low, high, len(times))


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
    start: DeviceProfile, points: Sequence[Point], shape: ModelProfile, read_bytes: float, power: Power
) -> Calibration:
    """Fit the profile to the points with all threads, and judge it on those held out."""

    def observation(point: Point) -> Observation:
        if point.probe:
            return Observation(PROBE, PROBE_QUANT, 1, point.context, point.seconds)
        return Observation(shape, "f16", point.tokens, point.context, point.seconds, read_bytes=read_bytes)

    stamp = dict(start.stamp)
    mine = [point for point in points if str(point.threads) == stamp["threads"]]
    used = [point for point in mine if point.place != "held out"]
    source = f"edgellm calibrate, {stamp['date']}: fitted to {stamp['model']}"
    # what is timed is the engine alone; the host's part is left out of the fit and stays as it is
    bare = replace(start, host_overhead_s=Constant(0.0, "s", ""))
    fitted = fit_device(bare, [observation(point) for point in used], _FITTED, source)
    near = next(point for point in mine if point.place == "near" and not point.probe)
    rate = fitted.bandwidth_decode_bytes_per_s
    low, high = rate.value * near.seconds / near.high_s, rate.value * near.seconds / near.low_s
    spread = replace(rate, low=min(low, rate.value), high=max(high, rate.value))
    for point in points:
        stamp[f"{point.label}, threads {point.threads}, ms"] = f"{1000 * point.seconds:.3f}"
    profile = replace(
        fitted,
        host_overhead_s=start.host_overhead_s,
        bandwidth_decode_bytes_per_s=spread,
        stamp=MappingProxyType(stamp),
    )
    return Calibration(
        profile=profile,
        points=tuple(points),
        fitted=MappingProxyType({p.label: observation(p).error(fitted) for p in used}),
        held_out=MappingProxyType(
            {p.label: observation(p).error(fitted) for p in mine if p.place == "held out"}
        ),
        power=power,
    )


def profile_toml(profile: DeviceProfile) -> str:
    """Return a device profile as TOML that `load_device` reads back."""
    lines = [
        "# Written by edgellm calibrate; docs/profiles.md explains the keys.",
        f"schema = {PROFILE_SCHEMA}",
        'kind = "device"',
        f"name = {_quoted(profile.name)}",
        f"title = {_quoted(profile.title)}",
        f"notes = {_quoted(profile.notes)}",
    ]
    for key, constant in profile.constants():
        parts = [f"value = {float(constant.value)!r}"]
        parts += [
            f"{name} = {float(bound)!r}"
            for name, bound in (("low", constant.low), ("high", constant.high))
            if bound is not None
        ]
        parts.append(f"source = {_quoted(constant.source)}")
        if constant.guess:
            parts.append("guess = true")
        lines.append(f"{key} = {{ {', '.join(parts)} }}")
    lines += ["", "[stamp]", *(f"{_quoted(key)} = {_quoted(text)}" for key, text in profile.stamp.items())]
    return "\n".join(lines) + "\n"


def write_profile(profile: DeviceProfile, path: Path | None = None) -> Path:
    """Write a profile where scenarios find it, whole or not at all; return the path.

    Raises
    ------
    OSError
        If the file cannot be written.
    ProfileError
        If the profile would not be accepted when it is read back; nothing is written.
    """
    target = user_profile_dir() / "this-machine.toml" if path is None else path
    text = profile_toml(profile)
    device_from_mapping(tomllib.loads(text), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(text.encode())
    return target


def _quoted(text: str) -> str:
    """Return a TOML string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
