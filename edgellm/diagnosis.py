"""`edgellm.doctor`: does this machine keep the arithmetic contract, and what will run on it?"""

from __future__ import annotations

import hashlib
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edgellm
from edgellm import _kernel_proof, cpu
from edgellm.conversion import sample

TYPES = ("q4_0", "q4_1", "q5_0", "q8_0", "q4_k", "q6_k", "f16")


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `doctor` found. `str(report)` is for people, `report.ok` for scripts."""

    checks: tuple[Check, ...]
    features: tuple[str, ...]
    isas: tuple[str, ...]
    kernels: dict[str, str]
    kernels_few_rows: dict[str, str]  # where a product has few rows, as in a decode step
    inexact: tuple[str, ...]  # instruction sets that only `load(..., exact=False)` uses
    machine: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def _but(self, op: str) -> str:
        few = self.kernels_few_rows[op]
        return "" if few == self.kernels[op] else f" ({few} for few rows)"

    def __str__(self) -> str:
        width = max(len(op) for op in self.kernels)
        lines = [
            f"edgellm {edgellm.__version__}, arithmetic contract {edgellm.__numerics__}",
            f"machine   {self.machine}",
            f"features  {' '.join(self.features) or 'none'}",
            f"isas      {' '.join(self.isas)}",
            "",
            *(f"{'ok  ' if c.ok else 'FAIL'}  {c.name}: {c.detail}" for c in self.checks),
            "",
            "kernels",
            *(f"  {op:<{width}}  {isa}{self._but(op)}" for op, isa in self.kernels.items()),
            f"with load(..., exact=False): {', '.join(self.inexact) or 'the same'}",
            "",
            f"{'All is well' if self.ok else 'SOMETHING IS WRONG'} ({self.seconds:.1f} s)",
        ]
        return "\n".join(lines)


Feed = Callable[["edgellm.Model", list[int]], Iterator[np.ndarray]]


def _whole(ids: list[int]) -> Iterator[list[int]]:
    yield ids


def _singly(ids: list[int]) -> Iterator[list[int]]:
    yield from ([i] for i in ids)


def _batched(model: edgellm.Model, ids: list[int]) -> Iterator[np.ndarray]:
    """The tokens in pieces, beside another session that reads others and rests now and then."""
    session, other = model.session(context=128), model.session(context=128)
    batch = edgellm.Batch(model, [other, session])
    for i in range(0, len(ids), 3):
        _, logits = batch.eval([ids[: i % 4], ids[i : i + 3]], logits="all")
        assert logits is not None
        yield logits


def _chunked(feed: Callable[[list[int]], Iterator[list[int]]]) -> Feed:
    def run(model: edgellm.Model, ids: list[int]) -> Iterator[np.ndarray]:
        session = model.session(context=128)
        return (session.eval(part, logits="all") for part in feed(ids))

    return run


# threads, what it is called, how tokens are fed
WAYS: tuple[tuple[int, str, Feed], ...] = (
    (1, "prefill", _chunked(_whole)),
    (2, "token by token", _chunked(_singly)),
    (4, "prefill", _chunked(_whole)),
    (3, "in a batch", _batched),
)


def _digest(path: Path, isa: str, threads: int, feed: Feed) -> str:
    ids = list(range(1, 40))
    with edgellm.load(path, threads=threads, isa=isa) as model:
        logits = np.concatenate(list(feed(model, ids)))
    return hashlib.sha256(logits.tobytes()).hexdigest()


def _same_bits(path: Path, type_name: str, isas: tuple[str, ...]) -> Check:
    seen: dict[str, list[str]] = {}
    for isa in isas:
        for threads, how, feed in WAYS:
            label = f"{isa}, {threads} threads, {how}"
            seen.setdefault(_digest(path, isa, threads, feed), []).append(label)
    name = f"same bits, {type_name}"
    if len(seen) == 1:
        (digest, runs), *_ = seen.items()
        return Check(name, True, f"{len(runs)} runs agree on {digest[:12]}")
    odd = min(seen.values(), key=len)
    return Check(name, False, f"{len(seen)} different results; alone: {'; '.join(odd)}")


def _same_kernels(isa: str, proof: dict[str, _kernel_proof.Case]) -> Check:
    count, bad = _kernel_proof.differing(isa, proof)
    detail = f"differ from ref: {', '.join(bad)}" if bad else f"{count} operations have the bits of ref"
    return Check(f"kernels, {isa}", not bad, detail)


def doctor() -> Report:
    """Prove the arithmetic contract on this machine and list the kernels it will use.

    Every operation is run on every instruction set that this machine has and compared with `ref`, the
    specification. Then a small random model of several weight formats is run on every instruction set,
    with several thread counts, as one prefill, token by token, and in a batch with another session: all
    must give the same bits.

    Returns
    -------
    report : Report
        Printable; `.ok` is False if any check failed. Takes a few seconds.

    Raises
    ------
    OSError
        If the temporary folder cannot be written.
    """
    started = time.perf_counter()
    isas = tuple(cpu.runnable_isas())
    proof = _kernel_proof.cases()
    checks = [_same_kernels(isa, proof) for isa in isas[1:]]
    with tempfile.TemporaryDirectory(prefix="edgellm-doctor-") as folder:
        for type_name in TYPES:
            path = Path(folder) / f"{type_name}.gguf"
            sample.write(path, quant=type_name, width=256, ffn=512)
            checks.append(_same_bits(path, type_name, isas))
    checks.append(Check("numpy", True, np.__version__))
    machine = f"{platform.machine()}, {cpu.count()} CPUs, {platform.system()}"
    seconds = time.perf_counter() - started
    chosen, few = cpu.kernels(), cpu.kernels(rows=1)
    inexact = tuple(sorted(set(cpu.kernels(exact=False).values()) - set(isas)))
    return Report(tuple(checks), tuple(cpu.features()), isas, chosen, few, inexact, machine, seconds)
