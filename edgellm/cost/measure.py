"""Times steps of the engine: the points that `calibrate` fits a profile to.

Uses only the engine's public interface, so what is measured is what a user gets. Impure: it looks at clocks.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .model_profile import ModelProfile
from .probe import PROBE, PROBE_QUANT, write_synthetic

#: Contexts at which decode is timed and lengths of prompts whose prefill is timed, on a machine that is fast
#: enough; what is held out is never fitted.
CONTEXTS = {"near": 16, "held out": 200, "far": 400}
PROMPTS = {"short": 24, "held out": 64, "long": 160}
_LEAST = {"near": 4, "short": 4, "held out": 12, "far": 32, "long": 24}
_DECODE_STEPS = 12

Report = Callable[[str], None]


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
    """One measured time: the median of `times`, with the middle half of them as its spread."""

    what: str  # "decode" or "prefill"
    place: str  # "near", "held out" or "far"; "short", "held out" or "long"
    threads: int
    tokens: int
    context: int
    times: tuple[float, ...]
    model: str = ""  # "" for the model that was given, else the probe or the format of the second model

    @property
    def seconds(self) -> float:
        """Median time of the step."""
        return statistics.median(self.times)

    @property
    def repeats(self) -> int:
        """How often it was timed."""
        return len(self.times)

    @property
    def label(self) -> str:
        """Say what was timed."""
        what = f"decode at {self.context}" if self.what == "decode" else f"prefill of {self.tokens}"
        return f"{what}, {self.model}" if self.model else what

    def resampled(self, rng: np.random.Generator) -> Point:
        """Return the point as another run might have measured it: its times drawn with replacement."""
        drawn = rng.choice(np.asarray(self.times), size=len(self.times))
        return replace(self, times=tuple(float(x) for x in drawn))


def measure_model(
    path: str, load: LoadModel, threads: int, budget_s: float, report: Report
) -> tuple[list[Point], ModelProfile, float]:
    """Time prefill and decode at three lengths each; return also the model's shape and bytes per step."""
    model = load(path, threads)
    try:
        session, ids, scale = _begin(model, budget_s)
        points: list[Point] = []
        for place, length in PROMPTS.items():
            tokens = max(_LEAST[place], round(length * scale))
            report(f"prefill of {tokens} tokens, {_crowd(threads)}")
            points.append(_prefill(session, ids, place, threads, tokens, 4 if scale == 1.0 else 2))
        session.truncate(0)
        at = 0
        for place, length in CONTEXTS.items():
            context = max(_LEAST[place], round(length * scale))
            report(f"decode at context {context}, {_crowd(threads)}")
            session.eval(ids[at:context])
            at = context
            steps = _DECODE_STEPS if scale > 0.2 else 4
            points.append(_decode(session, ids, place, threads, context, steps))
        shape, read_bytes = shape_of(model)
    finally:
        model.close()
    return points, shape, read_bytes


def measure_threads(
    path: str, load: LoadModel, threads: int, like: Sequence[Point], report: Report
) -> list[Point]:
    """Time with some threads the short prefill and the near decode of the points `like`."""
    report(f"decode and prefill, {_crowd(threads)}")
    tokens = next(point.tokens for point in like if point.place == "short")
    context = next(point.context for point in like if point.place == "near")
    model = load(path, threads)
    try:
        session, ids, _ = _begin(model, 1.0)
        prefill = _prefill(session, ids, "short", threads, tokens, 3)
        session.truncate(0)
        session.eval(ids[:context])
        decode = _decode(session, ids, "near", threads, context, 8)
    finally:
        model.close()
    return [prefill, decode]


def measure_probe(load: LoadModel, threads: int, report: Report) -> Point:
    """Time decode of a deep and narrow model: nearly all overhead per layer."""
    report("overhead per layer")
    with tempfile.TemporaryDirectory() as folder:
        model = _synthetic(Path(folder) / "probe.gguf", PROBE, PROBE_QUANT, load, threads)
        try:
            session: Session = model.session(64)
            session.eval([5, 6, 7, 8])
            point = _decode(session, [9], "near", threads, 4, 30)
        finally:
            model.close()
    return replace(point, model="probe")


def measure_format(
    shape: ModelProfile, quant: str, load: LoadModel, threads: int, report: Report
) -> list[Point]:
    """Time a second model, made here, in a storage type: two contexts and two prompts."""
    report(f"second model in {quant}")
    with tempfile.TemporaryDirectory() as folder:
        model = _synthetic(Path(folder) / f"second-{quant}.gguf", shape, quant, load, threads)
        try:
            session: Session = model.session(160)
            ids = [int(i) for i in np.random.default_rng(7).integers(0, shape.vocab, size=128)]
            points = [
                _prefill(session, ids, "held out", threads, 32, 3),
                _prefill(session, ids, "long", threads, 96, 3),
            ]
            session.truncate(0)
            for place, context in (("near", 16), ("held out", 128)):
                session.truncate(0)
                session.eval(ids[:context])
                points.append(_decode(session, ids, place, threads, context, _DECODE_STEPS))
        finally:
            model.close()
    return [replace(point, model=quant) for point in points]


def shape_of(model: EngineModel) -> tuple[ModelProfile, float]:
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


def rerun(session: Session, length: int, ids: Sequence[int]) -> None:
    """Take the session back to `length` and feed it tokens."""
    session.truncate(length)
    session.eval(ids)


def _synthetic(path: Path, shape: ModelProfile, quant: str, load: LoadModel, threads: int) -> EngineModel:
    with path.open("wb") as file:
        write_synthetic(file, shape, quant)
    return load(str(path), threads)


def _begin(model: EngineModel, budget_s: float) -> tuple[Session, list[int], float]:
    """Return a warm session, tokens for it, and how much of the usual lengths the budget allows."""
    limit = min(int(model.config.context), 512)
    session: Session = model.session(limit)
    ids = [int(i) for i in np.random.default_rng(7).integers(0, int(model.config.vocab), size=limit)]
    session.eval(ids[:2])
    one_s = min(_times(partial(rerun, session, 2, ids[:1]), 2))
    scale = min(1.0, budget_s / (one_s * 1200.0), (limit - 2) / (CONTEXTS["far"] + 2))
    return session, ids, scale


def _prefill(
    session: Session, ids: Sequence[int], place: str, threads: int, tokens: int, repeats: int
) -> Point:
    times = _times(partial(rerun, session, 0, ids[:tokens]), repeats)
    return Point("prefill", place, threads, tokens, 0, tuple(times))


def _decode(
    session: Session, ids: Sequence[int], place: str, threads: int, context: int, repeats: int
) -> Point:
    times = _times(partial(rerun, session, context, ids[:1]), repeats)
    session.truncate(context)
    return Point("decode", place, threads, 1, context, tuple(times))


def _times(work: Callable[[], object], repeats: int) -> list[float]:
    """Time `work` after one run that warms it up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(max(time.perf_counter() - start, 1e-9))
    return found


def _crowd(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"
