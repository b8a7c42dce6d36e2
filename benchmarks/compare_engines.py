"""`make bench`: speed, load time and memory beside llama.cpp and PyTorch.

Engines take turns (ours, a peer, ours, ...) in processes of their own, pinned alike, with the same tokens;
processor time counts with one thread, wall time with more; a figure is a median, with the least and the most.
Before a file is timed, log-probabilities of both engines must agree as two correct engines do. Finished
rows are kept: after Ctrl-C the same command continues. Writes benchmarks/results/compare-<machine>.json and
.md, with the targets beside the figures. Nothing here fails on a slow machine: figures are for people.

The peers: `make peers` builds them, EDGELLM_PEERS or --peers names a folder where they are; --alone measures
ours only. --quick is a test of this script: a tiny model, no peer, some seconds.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from compare import files, measure, package, page, readme
from compare.figures import LLAMA
from compare.peers import RESULTS, EngineDied, PeerMissing, python_of
from compare.stamp import load_average, name_of, one_per_core, stamp

import edgellm
from edgellm._atomic import replacing
from edgellm._progress import Progress
from edgellm.conversion.sample import write as write_sample

Row = dict[str, Any]
Job = tuple[str, Callable[[], Iterator[Row]]]
Step = Callable[[Path, list[int]], Iterator[Row]]
SCHEMA = 1


class Disagree(Exception):
    """Two engines do not compute the same model; nothing of it is timed."""


class Rows:
    """Finished rows by job, kept in a file while a run is not complete."""

    def __init__(self, path: Path, identity: dict[str, Any], fresh: bool) -> None:
        self.path, self.identity = path, identity
        self.jobs: dict[str, list[Row]] = {}
        self.took_s: dict[str, float] = {}
        if not fresh:
            self._read()

    def _read(self) -> None:
        try:
            held = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(held, dict) and held.get("identity") == self.identity:
            self.jobs, self.took_s = held["jobs"], held["took_s"]

    def put(self, job: str, rows: list[Row], took_s: float) -> None:
        """Keep the rows of a finished job."""
        self.jobs[job] = rows
        self.took_s[job] = round(took_s, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(str(self.path)) as file:
            held = {"identity": self.identity, "jobs": self.jobs, "took_s": self.took_s}
            file.write(json.dumps(held).encode())

    def end(self) -> None:
        """The run is complete: the next one measures anew."""
        self.path.unlink(missing_ok=True)

    def all(self) -> list[Row]:
        """Every row, in the order in which jobs ended."""
        return [row for rows in self.jobs.values() for row in rows]


class Run:
    """What one call measures: jobs in order of importance, each giving some rows."""

    def __init__(
        self, args: argparse.Namespace, engines: measure.Engines, settings: measure.Settings
    ) -> None:
        self.args, self.engines, self.settings = args, engines, settings
        self.work: Path = args.work
        self._torch_model: Path | None = None

    def jobs(self) -> Iterator[Job]:
        """Names and works; a name never changes its meaning."""
        yield "package", self._package
        if self.args.quick:
            yield from self._jobs_of("tiny", "q4_0", self._tiny)
            return
        for quant in self.args.quants:
            yield from self._jobs_of("SmolLM2-135M", quant, partial(self._smollm, quant))
        for quant in self.args.wide:
            yield from self._jobs_of("random, width 768", quant, partial(files.wide, quant, self.work))

    def _package(self) -> Iterator[Row]:
        llama = python_of("llama") if self.engines.with_llama else None
        yield package.package(llama, self.settings.least, self.args.build)

    def _smollm(self, quant: str) -> Path:
        peer = self.engines.llamas().get(LLAMA)
        return files.smollm(quant, self.work, peer, max(self.settings.threads))

    def _tiny(self) -> Path:
        self.work.mkdir(parents=True, exist_ok=True)
        return write_sample(self.work / "tiny.gguf", quant="q4_0", context=256)

    def _jobs_of(self, model: str, quant: str, make: Callable[[], Path]) -> Iterator[Job]:
        base = {"model": model, "quant": quant}
        steps: dict[str, Step] = {}
        if self.engines.with_llama:
            steps["agreement"] = partial(self._agreement, base)
        for threads in self.settings.threads:
            steps[f"speed {threads}"] = partial(self._speeds, base, threads)
        if not model.startswith("random"):
            for threads in self.settings.threads:
                steps[f"batch {threads}"] = partial(self._batch, base, threads)
            steps["load"] = partial(self._loads, base)
            steps["memory"] = partial(self._memory, base)
        for name, step in steps.items():
            yield f"{model} {quant} {name}", partial(self._job, make, step)

    def _job(self, make: Callable[[], Path], step: Step) -> Iterator[Row]:
        path = make()
        with edgellm.load(path, threads=1) as held:
            vocab = held.config.vocab
        count = max(self.settings.prompt, self.settings.start + self.settings.tokens) + measure.SEQUENCES
        yield from step(path, measure.token_ids(vocab, count))

    def _agreement(self, base: Row, path: Path, _: list[int]) -> Iterator[Row]:
        with edgellm.load(path, threads=1) as held:
            ids = held.tokenizer.encode(measure.TEXT.read_text("utf-8")[:4000])
        row = measure.guarded(self.engines, path, base, ids, self.settings)
        if not row["holds"]:
            raise Disagree(
                f"{base['model']} {base['quant']}: log-probabilities are {row['distance']:.3f} apart "
                f"(llama.cpp from itself: {row['yardstick']:.3f}), same top token {row['same_top']:.0%}"
            )
        yield row

    def _speeds(self, base: Row, threads: int, path: Path, ids: list[int]) -> Iterator[Row]:
        torch_model = None
        if self.engines.with_torch and base["model"].startswith("SmolLM2"):
            torch_model = self._torch_model = self._torch_model or path
        settings = self.settings
        if base["model"].startswith("random"):
            settings = dataclasses.replace(settings, tokens=32, repeat=3, group_s=20.0)
        return measure.speeds(self.engines, path, base, threads, settings, ids, torch_model)

    def _batch(self, base: Row, threads: int, path: Path, ids: list[int]) -> Iterator[Row]:
        return measure.batch(self.engines, path, base, threads, self.settings, ids)

    def _loads(self, base: Row, path: Path, _: list[int]) -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as name:
            for threads in self.settings.threads:
                yield from measure.loads(self.engines, path, base, threads, self.settings, Path(name))

    def _memory(self, base: Row, path: Path, ids: list[int]) -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as name:
            yield measure.memory(path, base, self.settings, ids, self.engines.with_llama, Path(name))


def peers_wanted(args: argparse.Namespace) -> tuple[bool, bool]:
    """Which peers take part.

    Raises
    ------
    PeerMissing
        If llama.cpp is not built and nobody said that ours alone will do.
    """
    if args.alone or args.quick:
        return False, False
    python_of("llama")
    try:
        python_of("torch")
    except PeerMissing as error:
        print(f"compare_engines: without PyTorch: {error}", file=sys.stderr)
        return True, False
    return True, not args.no_torch


def settings_of(args: argparse.Namespace) -> measure.Settings:
    """Amounts, and the CPUs to use: the first of this process's affinity."""
    allowed = one_per_core(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
    threads = tuple(t for t in args.threads if t <= len(allowed)) or (1,)
    if args.quick:
        return measure.Settings(
            prompt=64, tokens=16, short=8, steps=4, repeat=3, least=3, loads=3, context=128,
            read_bytes=1 << 20, cpus=tuple(allowed), threads=threads,
        )  # fmt: skip
    return measure.Settings(repeat=args.repeat, cpus=tuple(allowed), threads=threads)


def collect(run: Run, rows: Rows, shown: bool, most_s: float = math.inf) -> list[str]:
    """Do every job that has no rows yet; returns what could not be measured, in words.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, or before the first job that would start later than `most_s` from now.
    """
    deadline = time.monotonic() + most_s
    troubles = []
    jobs = list(run.jobs())
    failed: set[str] = set()
    with Progress("comparing", len(jobs), unit="jobs", shown=shown) as bar:
        for name, job in jobs:
            if name not in rows.jobs and not any(name.startswith(bad) for bad in failed):
                if time.monotonic() > deadline:
                    raise KeyboardInterrupt
                try:
                    begin = time.monotonic()
                    rows.put(name, list(job()), time.monotonic() - begin)
                except (EngineDied, Disagree, files.Unavailable) as error:
                    troubles.append(f"{name}: {error}")
                    if isinstance(error, Disagree):
                        failed.add(name.removesuffix("agreement"))
                    run.engines.restart()
            bar.advance(1)
    return troubles


def write(found: dict[str, Any], out: Path) -> Path:
    """Write the results for machines and for people; returns the second."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"compare-{name_of(found['stamp'])}"
    for suffix, text in ((".json", json.dumps(found, indent=1) + "\n"), (".md", page.page(found))):
        with replacing(str(out / (stem + suffix))) as file:
            file.write(text.encode())
    return out / f"{stem}.md"


def split(text: str) -> list[str]:
    """Words out of ``"a,b"``."""
    return [part for part in text.split(",") if part]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="measure speed and memory beside llama.cpp and PyTorch")
    parser.add_argument("--quants", type=split, default=list(files.SMOLLM), help="of SmolLM2-135M")
    parser.add_argument("--wide", type=split, default=list(files.WIDE), help="of a random model of width 768")
    parser.add_argument("--threads", type=lambda t: [int(n) for n in split(t)], default=[1, 2], metavar="N,N")
    parser.add_argument("--repeat", type=int, default=5, help="rounds at most (at least 3)")
    parser.add_argument("--peers", type=Path, help="folder with the peers' environments (EDGELLM_PEERS)")
    parser.add_argument("--alone", action="store_true", help="measure ours only")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--quick", action="store_true", help="a test of this script, in seconds")
    parser.add_argument("--build", action="store_true", help="also time a build from sdist (minutes)")
    parser.add_argument("--readme", action="store_true", help="also write a complete result into README.md")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing later than this")
    parser.add_argument("--fresh", action="store_true", help="forget the rows of an unfinished run")
    parser.add_argument("--work", type=Path, help="folder for model files (default: beside the models)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    args = arguments().parse_args(words)
    if args.peers is not None:
        os.environ["EDGELLM_PEERS"] = str(args.peers.resolve())
    args.work = (args.work or files.folder()).resolve()
    try:
        with_llama, with_torch = peers_wanted(args)
    except PeerMissing as error:
        print(f"compare_engines: {error}; --alone measures edgellm only", file=sys.stderr)
        return 1
    begin = time.monotonic()
    found: dict[str, Any] = {"schema": SCHEMA, "stamp": stamp()}
    settings = settings_of(args)
    identity = {
        "core": found["stamp"]["core_sha256"],
        "machine": found["stamp"]["machine"]["cpu"],
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
        "peers": [with_llama, with_torch],
    }
    rows = Rows(args.work / ("quick.json" if args.quick else "unfinished.json"), identity, args.fresh)
    stopped = False
    troubles: list[str] = []
    with ExitStack() as stack:
        engines = measure.Engines(with_llama, with_torch, stack)
        found["versions"] = engines.versions()
        try:
            troubles = collect(Run(args, engines, settings), rows, True, args.minutes * 60.0)
        except KeyboardInterrupt:
            stopped = True
    found |= {
        "settings": identity["settings"],
        "rows": rows.all(),
        "troubles": troubles,
        "complete": not stopped and not troubles,
        "load_after": load_average(),
        "took_s": {"this call": round(time.monotonic() - begin, 1), **rows.took_s},
    }
    path = write(found, args.out)
    print(f"\n{path.read_text('utf-8')}\nwritten to {path.name}")
    if stopped:
        print("stopped: the same command continues with what is missing", file=sys.stderr)
        return 130
    if not troubles:
        rows.end()
        if args.readme:
            front = files.ROOT / "README.md"
            text = readme.replaced(front.read_text("utf-8"), readme.paragraph(found, path.stem))
            front.write_text(text, "utf-8")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
