"""A session's state: copied, saved, restored from hostile bytes, shifted when full, given back."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from edgellm import cpu
from edgellm.session import KV_TYPES
from tests.helpers import tiny_model, windowed

IDS = [i * 7 % 90 + 3 for i in range(150)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0", context=2048)


@pytest.fixture
def model(path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(path, threads=2) as model:
        yield model


@pytest.mark.parametrize("head", [8, 24, 40, 64])
@pytest.mark.parametrize("quant", ["f32", "q4_0"])
def test_a_q8_0_cache_gives_the_same_bits_everywhere(quant: str, head: int, tmp_path: Path) -> None:
    """Whatever tiles of columns a thread takes, no block of 32 values is cut."""
    path = tiny_model.write(tmp_path / "m.gguf", quant=quant, width=4 * head, ffn=64)
    seen = set()
    for isa in cpu.runnable_isas():
        for threads, chunk in ((1, 150), (2, 1), (3, 50), (16, 150)):
            if isa == "ref" and chunk == 1:
                continue
            with edgellm.load(path, threads=threads, isa=isa) as model:
                session = model.session(context=200, kv="q8_0")
                parts = [session.eval(IDS[i : i + chunk], logits="all") for i in range(0, 150, chunk)]
            seen.add(np.concatenate(parts).tobytes())
    assert len(seen) == 1
    assert np.isfinite(np.frombuffer(seen.pop(), np.float32)).all()


def test_q8_0_takes_little_more_than_half_of_f16(model: edgellm.Model) -> None:
    half, byte = model.plan(512, "f16").kv_bytes, model.plan(512, "q8_0").kv_bytes
    assert 0.5 < byte / half < 0.6
    assert model.session(512, "q8_0").nbytes == byte + model.plan(512, "q8_0").session_bytes


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_fork_has_the_bits_of_evaluating_again(model: edgellm.Model, kv: str) -> None:
    session = model.session(context=200, kv=kv)
    empty = session.fork()
    session.eval(IDS[:77])
    fork = session.fork(context=300)
    assert (fork.position, fork.context, fork.kv) == (77, 300, kv)
    want = session.eval(IDS[77:])
    assert np.array_equal(fork.eval(IDS[77:]), want)
    assert np.array_equal(empty.eval(IDS), want)
    fork.truncate(10)
    assert session.position == 150
    with pytest.raises(edgellm.ContextError):
        session.fork(context=100)
    with pytest.raises(ValueError, match="context"):
        session.fork(context=0)


def test_equal_states_give_equal_bytes(model: edgellm.Model) -> None:
    one, two = model.session(context=200), model.session(context=1000)
    one.eval(IDS)
    two.eval(IDS[:100])
    two.eval([9] * 60)
    two.truncate(100)
    two.eval(IDS[100:])
    assert one.to_bytes() == two.to_bytes()


def test_saved_bytes_say_type_and_length(model: edgellm.Model) -> None:
    session = model.session(context=100, kv="q8_0")
    session.eval(IDS[:90])
    again = model.session_from_bytes(session.to_bytes())
    assert (again.kv, again.position) == ("q8_0", 90)
    with pytest.raises(ValueError, match="another type"):
        model.session_from_bytes(session.to_bytes(), kv="f16")
    with pytest.raises(TypeError):
        model.session_from_bytes("text")  # type: ignore[arg-type]  # the point of the test


@pytest.fixture(scope="module")
def states(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[edgellm.Model, bytes]]]:
    rings = tmp_path_factory.mktemp("rings") / "gemma3.gguf"
    ids = windowed.write(rings, 300)
    found = []
    with edgellm.load(path, threads=1) as plain, edgellm.load(rings, threads=1) as ring:
        for kv in KV_TYPES:
            for model, own in ((plain, IDS), (ring, ids)):
                session = model.session(context=600, kv=kv)
                session.eval(own)
                found.append((model, session.to_bytes()))
        yield found


@settings(max_examples=300)
@given(data=st.data())
def test_hostile_bytes_are_an_error_or_a_session(
    states: list[tuple[edgellm.Model, bytes]], data: st.DataObject
) -> None:
    model, state = data.draw(st.sampled_from(states))
    raw = bytearray(state)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.one_of(st.integers(0, 40), st.integers(0, len(raw) - 1)))
        raw[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # numbers of the head, at their edges
        edges = [0, 1, 63, 64, 300, 2**31, 2**32, 2**63, 2**64 - 1]
        struct.pack_into(
            "<Q", raw, data.draw(st.sampled_from([8, 16, 24])), data.draw(st.sampled_from(edges))
        )
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw)), st.just(len(raw) + 1)))
    hostile = bytes(raw[:cut]) + b"x" * (cut - len(raw))
    try:
        session = model.session_from_bytes(hostile)
    except edgellm.FormatError:
        return
    # Whatever the values are, it is a session; a cache has no bits that are not numbers, or not finite.
    assert hostile[:32] == state[:32]
    assert session.eval([1]).shape == (model.config.vocab,)
    assert session.position == struct.unpack_from("<Q", state, 16)[0] + 1


def test_a_full_session_is_an_error_or_shifts(model: edgellm.Model) -> None:
    with pytest.raises(edgellm.ContextError):
        model.session(context=20).eval(IDS[:21])
    session = model.session(context=20, overflow="shift", keep=3)
    for i in range(100):
        session.eval([IDS[i]])
        assert session.position <= 20
        assert session.position + session.dropped == i + 1
    got = session.eval([5])
    held = IDS[:3] + [*IDS[:100], 5][3 + session.dropped :]
    assert np.array_equal(got, model.session(context=20).eval(held))
    with pytest.raises(edgellm.ContextError, match="3 are kept"):
        session.eval([1] * 18)
    session.truncate(10)
    fork = session.fork()
    for _ in range(30):
        fork.eval([7])
    assert (session.position, fork.overflow, fork.keep) == (10, "shift", 3)
    for bad in ({"overflow": "drop"}, {"overflow": "shift", "keep": 20}, {"keep": -1}):
        with pytest.raises(ValueError, match="session: "):
            model.session(context=20, **bad)  # type: ignore[arg-type]  # the point of the test


def test_a_shift_in_a_batch_and_in_rings(states: list[tuple[edgellm.Model, bytes]]) -> None:
    model, _ = states[1]
    shifting = model.session(context=500, overflow="shift", keep=10)
    batch = edgellm.Batch(model, [shifting, model.session(context=2000)])
    for turn in range(20):
        batch.eval([[turn % 9] * 60, [turn % 9] * 60])
    assert shifting.position + shifting.dropped == 1200
    assert shifting.dropped > 0
    text = [turn % 9 for turn in range(20) for _ in range(60)]
    held = text[:10] + text[10 + shifting.dropped :]
    assert np.array_equal(shifting.eval([1]), model.session(context=500).eval([*held, 1]))


def test_a_session_from_elsewhere_cannot_shift(model: edgellm.Model) -> None:
    session = model.session(context=100)
    session.eval(IDS[:90])
    again = model.session_from_bytes(session.to_bytes(), context=100)
    with pytest.raises(edgellm.ContextError):
        again.eval(IDS[:20])


def test_a_closed_session_gives_its_memory_back(model: edgellm.Model) -> None:
    before = model.live_bytes
    with model.session(context=1000) as session:
        assert model.live_bytes == before + session.nbytes
        session.eval([1])
        other = session.fork()
    assert session.closed
    assert session.nbytes == 0
    session.close()
    for call in (
        lambda: session.eval([1]),
        lambda: session.position,
        lambda: session.context,
        lambda: session.truncate(0),
        session.to_bytes,
        session.fork,
        lambda: edgellm.Batch(model, [session]).eval([[1]]),
    ):
        with pytest.raises(ValueError, match=r"the session .*is closed"):
            call()
    assert model.live_bytes == before + other.nbytes
    del other
    gc.collect()
    assert model.live_bytes == before
    model.session(context=64)
    assert model.live_bytes == before


def test_all_that_is_alive_counts_together(path: Path) -> None:
    with edgellm.load(path, threads=1) as free:
        one, needed = free.plan(256), free.plan(512)
    each = one.kv_bytes + one.session_bytes
    cap = needed.model_bytes + 2 * each
    with edgellm.load(path, threads=1, max_bytes=cap) as model:
        first, second = model.session(256), model.session(256)
        for call in (
            lambda: model.session(256),
            first.fork,
            lambda: model.session_from_bytes(first.to_bytes(), context=64),
            lambda: edgellm.PrefixCache(model, 1),
        ):
            with pytest.raises(
                MemoryError, match=rf"model \d+ \+ sessions alive {2 * each} .*max_bytes is {cap}"
            ):
                call()
        second.close()
        cache = edgellm.PrefixCache(model, each)
        with pytest.raises(MemoryError, match=f"prefix caches {each}"):
            first.fork()
        cache.close()
        assert first.fork().position == 0
        assert edgellm.PrefixCache(model, each).nbytes == 0
        assert model.session(256).position == 0
