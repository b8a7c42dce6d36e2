"""Sessions of models with sliding windows: rings that do not show, and what can be taken back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm import cpu
from edgellm.session import KV_TYPES
from tests.helpers import tiny_model, windowed

TOKENS = 600
MICRO_BATCH = 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    path = tmp_path_factory.mktemp("windows") / "gemma3.gguf"
    return path, windowed.write(path, TOKENS)


@pytest.fixture
def model(made: tuple[Path, list[int]]) -> Iterator[edgellm.Model]:
    with edgellm.load(made[0], threads=2) as model:
        yield model


@pytest.fixture
def ids(made: tuple[Path, list[int]]) -> list[int]:
    return made[1]


def in_chunks(session: edgellm.Session, ids: list[int], chunk: int) -> np.ndarray:
    return np.concatenate([session.eval(ids[i : i + chunk], logits="all") for i in range(0, len(ids), chunk)])


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_ring_has_the_same_bits_everywhere(made: tuple[Path, list[int]], kv: str) -> None:
    path, ids = made
    seen = set()
    for isa in cpu.runnable_isas():
        for threads, chunk in ((1, TOKENS), (2, 77), (3, 5)):
            if isa == "ref" and chunk < TOKENS:
                continue
            with edgellm.load(path, threads=threads, isa=isa) as model:
                logits = in_chunks(model.session(context=windowed.CONTEXT, kv=kv), ids, chunk)
            assert np.isfinite(logits).all()
            seen.add(logits.tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_ring_has_the_bits_of_a_cache_that_keeps_everything(model: edgellm.Model, kv: str) -> None:
    """A window one position shorter than the context, too, and one that ends within a block."""
    ids = [i % model.config.vocab for i in range(190)]
    whole = model.session(context=190, kv=kv)  # window + micro-batch hold all of it
    ring = model.session(context=windowed.CONTEXT, kv=kv)
    ring.eval(ids)  # so that places are written again
    ring.eval(ids)
    ring.truncate(0)
    assert np.array_equal(in_chunks(whole, ids, 31), in_chunks(ring, ids, 190))
    whole.truncate(50)
    assert whole.position == 50


def test_the_plan_counts_windows(model: edgellm.Model) -> None:
    c = model.config
    values = {"f16": 2 * c.head_dim, "f32": 4 * c.head_dim, "q8_0": c.head_dim + 2 * -(-c.head_dim // 32)}
    ring = -(-(windowed.WINDOW + MICRO_BATCH) // 64) * 64
    for kv, row_bytes in values.items():
        for context in (1, 64, 150, 257, windowed.CONTEXT):
            whole = -(-context // 64) * 64
            places = whole + (c.layers - 1) * min(whole, ring)
            plan = model.plan(context, kv)
            assert plan.kv_bytes == places * c.kv_heads * 2 * row_bytes
            with model.session(context, kv) as session:
                assert session.nbytes == plan.kv_bytes + plan.session_bytes == model.live_bytes
        assert model.live_bytes == 0


def test_truncating_past_the_window_is_refused(model: edgellm.Model, ids: list[int]) -> None:
    session = model.session(context=windowed.CONTEXT)
    session.eval(ids[:500])
    with pytest.raises(ValueError, match=r"truncate to 200: .* sliding window"):
        session.truncate(200)
    assert session.position == 500
    more = session.eval(ids[500:600])
    session.truncate(500)  # the last call can be taken back
    assert np.array_equal(session.eval(ids[500:600]), more)
    session.truncate(0)
    assert np.array_equal(session.eval(ids[:100]), model.session(context=windowed.CONTEXT).eval(ids[:100]))


@pytest.mark.parametrize("kv", KV_TYPES)
@pytest.mark.parametrize("held", [1, 69, 70, 71, 190, 600])
def test_copies_of_a_ring_go_on_with_its_bits(
    model: edgellm.Model, ids: list[int], kv: str, held: int
) -> None:
    session = model.session(context=windowed.CONTEXT, kv=kv)
    in_chunks(session, ids[:held], 99)
    state = session.to_bytes()
    copies = [
        session.fork(),
        session.fork(context=held + 40),
        model.session_from_bytes(state),
        model.session_from_bytes(state, context=held + 40),
    ]
    assert all(copy.to_bytes() == state for copy in copies)
    more = [5, 6, 7] * 12
    want = session.eval(more, logits="all")
    for copy in copies:
        assert np.array_equal(copy.eval(more, logits="all"), want)
        copy.truncate(held)
        assert np.array_equal(copy.eval(more[:1]), want[0])


def test_sessions_in_a_batch_have_the_bits_they_have_alone(model: edgellm.Model, ids: list[int]) -> None:
    lengths, kinds = [300, 1, 70, 131], ["f16", "q8_0", "f32", "q8_0"]
    alone = [
        model.session(context=windowed.CONTEXT, kv=kv).eval(ids[:n], logits="all")
        for n, kv in zip(lengths, kinds, strict=True)
    ]
    batch = edgellm.Batch(model, [model.session(context=windowed.CONTEXT, kv=kv) for kv in kinds])
    parts: list[list[np.ndarray]] = [[] for _ in lengths]
    for start in range(0, 300, 40):
        step = batch.eval([ids[start : min(start + 40, n)] for n in lengths], logits="all")
        for own, rows in zip(parts, step, strict=True):
            own.extend([] if rows is None else [rows])
    for own, want in zip(parts, alone, strict=True):
        assert np.array_equal(np.concatenate(own), want)


@contextmanager
def between_micro_batches(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` again and again in this thread, where an evaluation looks for signals."""
    over = threading.Event()

    def ring() -> None:
        while not over.wait(0.0002):
            signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: act())
    thread = threading.Thread(target=ring)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def interrupted(model: edgellm.Model, ids: list[int], start: int) -> edgellm.Session:
    """Return a session whose evaluation of what follows `start` was interrupted in the middle."""
    while True:  # until a signal comes in time
        session = model.session(context=windowed.CONTEXT)
        if start:
            session.eval(ids[:start])

        def interrupt(session: edgellm.Session = session) -> None:
            if start + MICRO_BATCH <= session.position < len(ids):
                raise KeyboardInterrupt

        try:
            with between_micro_batches(interrupt):
                session.eval(ids[start:])
        except KeyboardInterrupt:
            return session


def test_interruption_goes_back_or_stays_after_whole_micro_batches(tmp_path: Path) -> None:
    """Where a ring has given up what it held before, the position says what is held instead."""
    path = tmp_path / "slow.gguf"
    ids = windowed.write(path, 2000, hidden_size=256, intermediate_size=1024)
    with edgellm.load(path, threads=1) as model:
        for start in (0, 100):
            session = interrupted(model, ids, start)
            fresh = model.session(context=windowed.CONTEXT)
            assert (session.position - start) % MICRO_BATCH == 0
            if session.position:
                fresh.eval(ids[: session.position])
                assert session.to_bytes() == fresh.to_bytes()
            else:
                assert np.array_equal(session.eval(ids[:1]), fresh.eval(ids[:1]))


def test_a_window_longer_than_the_context_is_none(tmp_path: Path) -> None:
    ids = windowed.write(tmp_path / "m.gguf", 90, sliding_window=5000)
    with edgellm.load(tmp_path / "m.gguf") as model:
        session = model.session(context=100)
        session.eval(ids)
        session.truncate(1)
        assert session.nbytes == model.plan(100).kv_bytes + model.plan(100).session_bytes


def test_closing_the_model_in_an_evaluation_leaves_the_position(tmp_path: Path) -> None:
    path = tiny_model.write(tmp_path / "m.gguf", width=256, ffn=1024, layers=4, context=4096)
    model = edgellm.load(path, threads=1)
    session = model.session(context=4096)
    session.eval([1, 2, 3])

    def close() -> None:
        if 3 < session.position < 4003:
            model.close()

    def evaluate() -> None:
        while True:  # until a signal comes in time
            session.eval([1] * 4000)
            session.truncate(3)

    with between_micro_batches(close), pytest.raises(ValueError, match="closed"):
        evaluate()
    assert session.position == 3
