"""Engines in turn: ours, a peer, the next peer, ours again, so that all see the same moods of the machine."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import edgellm

from . import files
from .figures import BF16, FP32, LLAMA, OURS, OURS_EDGE, PLAIN, Agreement, summary
from .peers import Engine, Limits, Llama, Ours, Torch

Times = Mapping[str, Any]
Row = dict[str, Any]
TEXT = Path(__file__).resolve().parents[1] / "data" / "shakespeare.txt"
SEQUENCES = 8
#: How llama.cpp is run: as its own tools do (repacked weights beside the mapped file), and the plain map.
LLAMA_MODES: dict[str, dict[str, bool]] = {
    LLAMA: {"repack": True, "mmap": True},
    PLAIN: {"repack": False, "mmap": True},
}
FEWER = {PLAIN, BF16, FP32}
READ_MODE = {"repack": True, "mmap": False}  # read instead of mapped: the least memory with repacking


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured: at least `least` rounds, then up to `repeat` until `group_s` have passed.

    The peers other than llama.cpp at its fastest take part in the first `least` rounds only.
    """

    prompt: int = 512
    start: int = 32
    tokens: int = 128
    short: int = 32
    steps: int = 32
    guard: int = 128
    repeat: int = 5
    least: int = 3
    group_s: float = 60.0
    loads: int = 7
    context: int = 640
    read_bytes: int = 8 << 20
    cpus: tuple[int, ...] = (0, 1)
    threads: tuple[int, ...] = (1, 2)

    def pinned(self, threads: int) -> list[int]:
        """The CPUs that every engine is kept on at this many threads."""
        return list(self.cpus[:threads])


@dataclass
class Engines:
    """The processes that take part; each is started when first used and stays for the whole run."""

    with_llama: bool
    with_torch: bool
    stack: ExitStack
    running: dict[str, Engine] = field(default_factory=dict)

    def get(self, name: str, kind: Callable[[], Engine]) -> Engine:
        """The running engine of this name."""
        if name not in self.running:
            self.running[name] = self.stack.enter_context(kind())
        return self.running[name]

    def restart(self) -> None:
        """End all; each is started anew at its next use."""
        self.running.clear()
        self.stack.close()

    @property
    def ours(self) -> Engine:
        return self.get(OURS, Ours)

    @property
    def torch(self) -> Engine:
        return self.get("torch", Torch)

    def llamas(self) -> dict[str, Engine]:
        """Both configurations of llama.cpp, none if it is not built."""
        return {name: self.get(name, Llama) for name in LLAMA_MODES} if self.with_llama else {}

    def versions(self) -> dict[str, Any]:
        """What takes part."""
        found: dict[str, Any] = {OURS: self.ours.ask("about")}
        if self.with_llama:
            found[LLAMA] = self.get(LLAMA, Llama).ask("about")
        return found


def token_ids(vocab: int, count: int) -> list[int]:
    """Ordinary tokens, the same for every engine; which they are does not change the work.

    Examples
    --------
    >>> token_ids(49152, 3)
    [12288, 20207, 28126]
    """
    span = vocab // 2
    return [span // 2 + (i * 7919) % span for i in range(count)]


def clock(threads: int) -> str:
    """Which time counts: the processor's with one thread (others' work does not show), else the wall's."""
    return "cpu_s" if threads == 1 else "wall_s"


def interleave(works: Mapping[str, Callable[[], Times]], settings: Settings) -> dict[str, list[Times]]:
    """Do every work in turn: one round to warm up, then the rounds that count (see `Settings`)."""
    found: dict[str, list[Times]] = {name: [] for name in works}
    for work in works.values():
        work()
    begin = time.monotonic()
    for turn in range(settings.repeat):
        if turn >= settings.least and time.monotonic() - begin > settings.group_s:
            break
        for name, work in works.items():
            if turn < settings.least or name not in FEWER:
                found[name].append(work())
    return found


def open_all(engines: Engines, path: Path, context: int, threads: int, settings: Settings, count: int) -> Row:
    """Open a file in ours and in every llama.cpp; returns what ours says of it, and llama.cpp's buffers."""
    cpus = settings.pinned(threads)
    ours = engines.ours.ask(
        "open", model=str(path), context=context, threads=threads, cpus=cpus, sequences=count
    )
    found: Row = {"isa": ours["isa"], "plan_bytes": ours["plan_bytes"]}
    for name, engine in engines.llamas().items():
        said = engine.ask(
            "open",
            model=str(path),
            context=context,
            ubatch=512,
            threads=threads,
            flash=True,
            sequences=count,
            cpus=cpus,
            **LLAMA_MODES[name],
        )
        found.setdefault("buffers_mib", {})[name] = said["buffers_mib"]
    return found


def agreement(engines: Engines, path: Path, ids: list[int], threads: int, folder: Path) -> Agreement:
    """Compare log-probabilities on one window, before anything is timed."""
    ids_path = folder / "ids.npy"
    np.save(ids_path, np.array(ids, np.int32))

    def score(engine: Engine, **opening: Any) -> tuple[Any, Any]:
        engine.ask("open", model=str(path), context=len(ids), threads=threads, **opening)
        engine.ask("score", ids=str(ids_path), windows=1, out=str(folder / "out.npz"))
        with np.load(folder / "out.npz") as held:
            return held["logprob"], held["top"]

    ours, ours_top = score(engines.ours)
    llama = engines.llamas()[LLAMA]
    wide, wide_top = score(llama, ubatch=len(ids), **LLAMA_MODES[LLAMA])
    single, _ = score(llama, ubatch=1, **LLAMA_MODES[LLAMA])
    return Agreement(
        distance=float(np.abs(ours - wide).mean()),
        yardstick=float(np.abs(wide - single).mean()),
        chance=float(np.abs(wide - np.roll(wide, 1)).mean()),
        same_top=float((ours_top == wide_top).mean()),
    )


def speeds(
    engines: Engines,
    path: Path,
    base: Row,
    threads: int,
    settings: Settings,
    ids: list[int],
    torch_model: Path | None,
) -> Iterator[Row]:
    """Decode, prefill and the time to the first token, each in one interleaved run."""
    most = max(settings.prompt, settings.start + settings.tokens)
    said = open_all(engines, path, most, threads, settings, 1)
    token_bytes, token_ops = files.token_work(path)
    limits = engines.get("limits", Limits)
    limits.ask(
        "open",
        bytes=max(token_bytes, settings.read_bytes),
        threads=threads,
        cpus=settings.pinned(threads),
    )
    peak = limits.ask("peak")
    base = {**base, **said, "threads": threads, "clock": clock(threads)}
    everyone = {OURS: engines.ours, **engines.llamas()}

    works: dict[str, Callable[[], Times]] = {
        name: partial(engine.ask, "decode", ids=ids[: settings.start + settings.tokens], start=settings.start)
        for name, engine in everyone.items()
    }
    found = interleave({**works, "read": lambda: limits.ask("read")}, settings)
    reads = [turn["bytes_per_s"] for turn in found.pop("read")]
    yield _row(base, "decode", settings.tokens, found, reads) | {"token_bytes": token_bytes}

    works = {
        name: partial(engine.ask, "prefill", ids=ids[: settings.prompt]) for name, engine in everyone.items()
    }
    if torch_model is not None:
        for name, dtype in ((BF16, "bfloat16"), (FP32, "float32")):
            engines.torch.ask(
                "open", model=str(torch_model), threads=threads, dtype=dtype, cpus=settings.pinned(threads)
            )
            works[name] = partial(engines.torch.ask, "prefill", ids=ids[: settings.prompt], dtype=dtype)
    yield _row(base, "prefill", settings.prompt, interleave(works, settings)) | {
        "token_ops": token_ops,
        "peak_ops_per_s": peak["ops_per_s"],
        "peak_isa": peak["isa"],
    }

    works = {
        name: partial(engine.ask, "prefill", ids=ids[: settings.short]) for name, engine in everyone.items()
    }
    yield _row(base, "first token", 1, interleave(works, settings))


def batch(
    engines: Engines, path: Path, base: Row, threads: int, settings: Settings, ids: list[int]
) -> Iterator[Row]:
    """Eight sequences that advance together."""
    if not hasattr(edgellm, "Batch"):
        yield {**base, "kind": "batch", "threads": threads, "reason": "this version has no edgellm.Batch"}
        return
    context = settings.start + settings.steps
    said = open_all(engines, path, context, threads, settings, SEQUENCES)
    works: dict[str, Callable[[], Times]] = {
        name: partial(engine.ask, "batch", ids=ids, start=settings.start, steps=settings.steps)
        for name, engine in {OURS: engines.ours, **engines.llamas()}.items()
    }
    base = {**base, **said, "threads": threads, "clock": clock(threads)}
    yield _row(base, "batch", SEQUENCES * settings.steps, interleave(works, settings))


def _row(
    base: Row, kind: str, amount: float, found: Mapping[str, list[Times]], reads: list[float] | None = None
) -> Row:
    seconds = {name: [turn[base["clock"]] for turn in turns] for name, turns in found.items()}
    return {**base, "kind": kind, **summary(seconds, amount, reads or [])}


def loads(
    engines: Engines, path: Path, base: Row, threads: int, settings: Settings, work: Path
) -> Iterator[Row]:
    """Load a file whose pages are in memory: from the GGUF, and from an edge image made of it."""
    everyone = {OURS: engines.ours, **engines.llamas()}
    base = {**base, "threads": threads, "clock": clock(threads)}
    sources: list[tuple[str, Path]] = [("load", path)]
    try:
        sources.append(("load edge", files.edge(path, work)))
    except files.Unavailable as error:
        yield {**base, "kind": "load edge", "reason": str(error)}
    for kind, source in sources:
        source.read_bytes()  # its pages are in memory from here on
        found: dict[str, list[Times]] = {name: [] for name in everyone}
        ready: dict[str, list[Times]] = {name: [] for name in everyone}
        for turn in range(settings.loads + 1):
            for name, engine in everyone.items():
                asked = {"model": str(source if name == OURS else path), **LLAMA_MODES.get(name, {})}
                said = engine.ask("load", threads=threads, repeat=1, context=settings.context, **asked)
                if turn > 0:  # the first is a warm-up
                    found[name] += said["load"]
                    ready[name] += said["ready"]
        row = _row(base, kind, 1, found)
        row["ready_ratio"] = _row(base, kind, 1, ready)["ratio"]
        yield row


def memory(path: Path, base: Row, settings: Settings, ids: list[int], with_llama: bool, work: Path) -> Row:
    """Peak resident bytes beyond interpreter and NumPy, each engine in a process of its own."""
    threads = max(settings.threads)
    row: Row = {**base, "kind": "memory", "threads": threads, "context": settings.context, "beyond_bytes": {}}
    kinds: dict[str, tuple[Callable[[], AbstractContextManager[Engine]], dict[str, bool]]] = {
        OURS: (Ours, {})
    }
    sources = {}
    with contextlib.suppress(files.Unavailable):
        sources[OURS_EDGE] = files.edge(path, work)
        kinds[OURS_EDGE] = (Ours, {})
    if with_llama:
        kinds |= {name: (Llama, dict(mode)) for name, mode in LLAMA_MODES.items()}
        kinds[f"{LLAMA} read"] = (Llama, READ_MODE)
    for name, (kind, mode) in kinds.items():
        extra = {} if kind is Ours else {"ubatch": 512, "flash": True, **mode}
        with kind() as engine:
            before = engine.ask("memory")["now_bytes"]
            engine.ask("about")
            imported = engine.ask("memory")["now_bytes"]
            said = engine.ask(
                "open", model=str(sources.get(name, path)), context=settings.context, threads=threads, **extra
            )
            engine.ask("prefill", ids=ids[: settings.prompt])
            engine.ask("decode", ids=ids[: settings.start + settings.short], start=settings.start)
            peak = engine.ask("memory")["peak_bytes"]
        row["beyond_bytes"][name] = peak - before
        row.setdefault("import_bytes", {})[name] = imported - before
        if name == OURS:
            row["plan_bytes"] = said["plan_bytes"]
    return row


def guarded(engines: Engines, path: Path, base: Row, ids: list[int], settings: Settings) -> Row:
    """The row of the agreement that must hold before a file is timed."""
    with tempfile.TemporaryDirectory() as name:
        found = agreement(engines, path, ids[: settings.guard], 1, Path(name))
    return {
        **base,
        "kind": "agreement",
        "distance": found.distance,
        "yardstick": found.yardstick,
        "chance": found.chance,
        "same_top": found.same_top,
        "holds": found.holds,
    }
