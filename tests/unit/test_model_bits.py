"""The arithmetic contract, seen from outside: logits depend on tokens and weights only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm

NARROW = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"]
WIDE = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "tq1_0", "tq2_0"]  # blocks of 256 values
ISAS = edgellm.cpu.runnable_isas()


def digest(logits: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


@pytest.fixture(scope="module", params=NARROW + WIDE)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tiny_model import write

    path: Path = tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf"
    width = 64 if request.param in NARROW else 256
    return write(path, quant=request.param, width=width, ffn=2 * width)


@pytest.fixture(scope="module")
def ids(tiny: Path) -> list[int]:
    with edgellm.load(tiny, threads=1) as m:
        vocab = m.config.vocab
    return np.random.default_rng(3).integers(0, vocab, 150).tolist()


def logits(
    path: Path, ids: list[int], isa: str, threads: int, feed: Callable[[list[int]], Iterator[list[int]]]
) -> str:
    with edgellm.load(path, threads=threads, isa=isa) as m:
        session = m.session(context=160)
        out = [session.eval(part, logits="all") for part in feed(ids)]
    return digest(np.concatenate(out))


def whole(ids: list[int]) -> Iterator[list[int]]:
    yield ids


def singly(ids: list[int]) -> Iterator[list[int]]:
    yield from ([i] for i in ids)


def ragged(ids: list[int]) -> Iterator[list[int]]:
    at = 0
    for size in [1, 2, 7, 8, 9, 31, 64, 500]:
        if ids[at : at + size]:
            yield ids[at : at + size]
        at += size


def test_logits_are_the_same_bits_on_every_isa_thread_count_and_chunking(tiny: Path, ids: list[int]) -> None:
    seen = {
        logits(tiny, ids, isa, threads, feed)
        for isa in ISAS
        for threads, feed in [(1, whole), (2, singly), (3, ragged), (5, whole)]
    }
    assert len(seen) == 1


def test_logits_are_close_to_float64(tiny: Path, ids: list[int]) -> None:
    from tests.helpers.llama_float64 import forward

    want = forward(tiny, ids[:40], np.float32 if tiny.stem == "f32" else np.float16)
    with edgellm.load(tiny, threads=2) as m:
        got = m.session(context=64).eval(ids[:40], logits="all")
    spread = np.std(want)
    error = np.sqrt(np.mean((got - want) ** 2))
    # Float weights cost only rounding (and now and then a key or value on the other side of a tie of f16);
    # 8-bit activations cost 1 to 3 % of the spread.
    limit = {"f32": 3e-6, "f16": 3e-4, "bf16": 3e-4}.get(tiny.stem, 6e-2)
    assert error <= limit * spread


def test_eval_after_truncate_repeats_the_bits(tiny: Path, ids: list[int]) -> None:
    with edgellm.load(tiny) as m:
        session = m.session(context=160)
        first = session.eval(ids)
        session.truncate(10)
        again = session.eval(ids[10:])
    assert digest(first) == digest(again)


def test_saved_session_continues_with_the_same_bits(tiny: Path, ids: list[int]) -> None:
    with edgellm.load(tiny) as m:
        session = m.session(context=160)
        session.eval(ids[:70])
        copy = m.session_from_bytes(session.to_bytes(), context=100)
        assert copy.position == 70
        assert digest(copy.eval(ids[70:90])) == digest(session.eval(ids[70:90]))


def test_score_agrees_with_the_logits(tiny: Path, ids: list[int]) -> None:
    with edgellm.load(tiny) as m:
        table = m.session(context=160).eval(ids, logits="all").astype(np.float64)[:-1]
        logprob, top, top_probability = m.session(context=160).score(ids)
    shifted = table - table.max(axis=1, keepdims=True)
    want = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(want))
    assert np.all(np.abs(logprob - want[rows, ids[1:]]) <= 2e-6)
    assert np.array_equal(top, table.argmax(axis=1))
    assert np.all(np.abs(top_probability - np.exp(want.max(axis=1))) <= 1e-6)
