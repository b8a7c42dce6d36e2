"""The prefix cache: restored bits, exact keys, least recently used first, its memory, its threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.session import KV_TYPES
from tests.helpers import tiny_model, windowed

IDS = [i * 13 % 90 + 3 for i in range(400)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0", context=1024)


@pytest.fixture
def model(path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(path, threads=2) as model:
        yield model


def saved(model: edgellm.Model, cache: edgellm.PrefixCache, ids: list[int]) -> None:
    with model.session(context=512, kv=cache.kv) as session:
        session.eval(ids)
        cache.save(session, ids)


@pytest.mark.parametrize("kv", KV_TYPES)
def test_restored_bits_are_evaluated_bits(model: edgellm.Model, kv: str) -> None:
    cache = edgellm.PrefixCache(model, 10_000_000, kv)
    saved(model, cache, IDS[:200])
    for ids, want in (
        (IDS[:200], 192),
        (IDS, 192),
        (IDS[:192], 128),  # one token at least is left to be evaluated
        (IDS[:193], 192),
        (IDS[:130] + [1] * 70, 128),
        ([1, *IDS], 0),
        (IDS[:64], 0),
        ([], 0),
    ):
        session = model.session(context=512, kv=kv)
        assert cache.load(session, ids) == want == session.position
        if want:
            plain = model.session(context=512, kv=kv)
            assert np.array_equal(session.eval(ids[want:]), plain.eval(ids))
            assert session.to_bytes() == plain.to_bytes()
    assert (cache.hits, cache.misses) == (5, 3)


def test_a_small_context_takes_what_fits(model: edgellm.Model) -> None:
    cache = edgellm.PrefixCache(model, 10_000_000)
    saved(model, cache, IDS[:200])
    assert cache.load(model.session(context=130), IDS) == 128
    assert cache.load(model.session(context=63), IDS) == 0


def test_windows_are_restored_where_they_were_saved(tmp_path: Path) -> None:
    ids = windowed.write(tmp_path / "m.gguf", 700)
    with edgellm.load(tmp_path / "m.gguf", threads=2) as model:
        for kv in KV_TYPES:
            cache = edgellm.PrefixCache(model, 50_000_000, kv)
            first = model.session(context=1000, kv=kv)
            for end in (300, 650):  # at the end of the shared part, and of it all
                first.eval(ids[first.position : end])
                cache.save(first, ids[:end])
            for other, want in (
                (ids, 640),
                (ids[:300] + [7] * 50, 256),
                (ids[:520] + [7] * 50, 256),
                (ids[:520] + [7] * 50, 512),
            ):
                session = model.session(context=1000, kv=kv)
                assert cache.load(session, other) == want
                plain = model.session(context=1000, kv=kv)
                assert np.array_equal(session.eval(other[want:]), plain.eval(other))
                cache.save(session, other)
            again = model.session(context=1000, kv=kv)
            late = model.session(context=1000, kv=kv)
            late.eval(ids)
            cache.clear()
            cache.save(late, ids)  # windows of the beginning are gone
            assert cache.load(again, ids[:300]) == 0
            assert cache.load(again, ids) == 640
            cache.close()


def test_the_least_recently_used_goes_first(model: edgellm.Model) -> None:
    cache = edgellm.PrefixCache(model, 10_000_000)
    saved(model, cache, IDS[:64])
    one = cache.nbytes
    cache.close()
    cache = edgellm.PrefixCache(model, 4 * one)
    a, b, c = ([k, *IDS[:128]] for k in (1, 2, 3))
    saved(model, cache, a)
    saved(model, cache, b)
    assert (len(cache), cache.nbytes) == (4, 4 * one)
    assert cache.load(model.session(context=512), a) == 128
    saved(model, cache, c)
    loads = [cache.load(model.session(context=512), ids) for ids in (a, b, c)]
    assert loads == [128, 0, 128]
    saved(model, cache, IDS[:400])  # longer than there is room: its beginning
    assert cache.nbytes <= cache.max_bytes
    assert cache.load(model.session(context=512), IDS) == 256
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
    assert cache.load(model.session(context=512), IDS) == 0


def test_bad_calls_are_refused(model: edgellm.Model, path: Path) -> None:
    cache = edgellm.PrefixCache(model, 10_000_000, "f16")
    session = model.session(context=512, kv="f16")
    session.eval(IDS[:100])
    with pytest.raises(ValueError, match="99 tokens for a session that holds 100"):
        cache.save(session, IDS[:99])
    with pytest.raises(ValueError, match="holds 100 tokens already"):
        cache.load(session, IDS)
    with pytest.raises(ValueError, match="caches of f16, the session's is q8_0"):
        cache.load(model.session(context=64, kv="q8_0"), IDS)
    with edgellm.load(path) as stranger, pytest.raises(ValueError, match="another model"):
        cache.load(stranger.session(context=64), IDS)
    for bad in ({"max_bytes": -1}, {"max_bytes": 1, "kv": "q4_0"}):
        with pytest.raises(ValueError, match=r"max_bytes|kv"):
            edgellm.PrefixCache(model, **bad)  # type: ignore[arg-type]  # the point of the test
    session.close()
    with pytest.raises(ValueError, match="closed"):
        cache.save(session, IDS[:100])


def test_memory_returns_to_where_it_was(model: edgellm.Model) -> None:
    before = model.live_bytes
    cache = edgellm.PrefixCache(model, 300_000)
    for turn in range(300):
        ids = [turn % 90, turn // 90, *IDS[: 70 + turn % 100]]
        with model.session(context=256) as session:
            at = cache.load(session, ids)
            session.eval(ids[at:])
            cache.save(session, ids)
        assert cache.nbytes <= cache.max_bytes
        assert cache.nbytes == sum(block.nbytes for block in cache._blocks.values())
    assert model.live_bytes == before + 300_000
    cache.close()
    assert (model.live_bytes, cache.nbytes) == (before, 0)


def test_threads_share_a_cache(model: edgellm.Model) -> None:
    cache = edgellm.PrefixCache(model, 200_000)  # too little for all, so that blocks come and go
    texts = [[k, *IDS[:200]] for k in range(8)]
    want = [model.session(context=256).eval(ids) for ids in texts]
    failures: list[int] = []

    def run(seed: int) -> None:
        for turn in range(30):
            k = (seed * 7 + turn * 3) % len(texts)
            with model.session(context=256) as session:
                at = cache.load(session, texts[k])
                if not np.array_equal(session.eval(texts[k][at:]), want[k]):
                    failures.append(k)
                cache.save(session, texts[k])

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.hits + cache.misses == 120
