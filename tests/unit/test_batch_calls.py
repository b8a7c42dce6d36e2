"""Batches: members come and go, bad calls change nothing, threads wait for each other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tiny_model import write

    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0")


@pytest.fixture
def model(path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(path, threads=2) as model:
        yield model


def positions(batch: edgellm.Batch) -> list[int]:
    return [session.position for session in batch.sessions]


def test_members_join_leave_and_pause(model: edgellm.Model) -> None:
    a, b, c = (model.session(context=32) for _ in range(3))
    batch = edgellm.Batch(model, [a, b])
    assert [x is not None and x.shape for x in batch.eval([[1, 2], []])] == [(model.config.vocab,), False]
    batch.add(c)
    assert batch.eval([[], [3], [4, 5]])[0] is None
    batch.remove(a)
    batch.eval([[6], [7]])
    assert (len(batch), batch.sessions, positions(batch), a.position) == (2, (b, c), [2, 3], 2)
    assert np.array_equal(a.eval([9]), model.session(context=8).eval([1, 2, 9]))
    assert edgellm.Batch(model).eval([]) == []
    assert batch.eval([[], []]) == [None, None]


def test_all_logits_have_a_row_for_each_token(model: edgellm.Model) -> None:
    batch = edgellm.Batch(model, [model.session(context=200) for _ in range(3)])
    ids = [[1] * 150, [], [2] * 140]  # more than a micro-batch holds
    got = batch.eval(ids, logits="all")
    assert got[1] is None
    for row, logits in ((0, got[0]), (2, got[2])):
        want = model.session(context=200).eval(ids[row], logits="all")
        assert logits is not None
        assert np.array_equal(logits, want)


def test_what_is_no_member_is_refused(model: edgellm.Model, path: Path) -> None:
    session = model.session(context=8)
    batch = edgellm.Batch(model, [session])
    with pytest.raises(ValueError, match="member already"):
        batch.add(session)
    with pytest.raises(ValueError, match="member already"):
        edgellm.Batch(model, [session, session])
    with pytest.raises(ValueError, match="no member"):
        batch.remove(model.session(context=8))
    with pytest.raises(TypeError, match="a member is a Session, got int"):
        batch.add(3)  # type: ignore[arg-type]  # the point of the test
    with edgellm.load(path) as other, pytest.raises(ValueError, match="another model"):
        batch.add(other.session(context=8))
    assert batch.sessions == (session,)


def test_bad_tokens_change_no_member(model: edgellm.Model) -> None:
    batch = edgellm.Batch(model, [model.session(context=8), model.session(context=8)])
    batch.eval([[1], [2, 3]])
    with pytest.raises(edgellm.ContextError, match=r"member 1: 7 tokens do not fit: 2 of the context's 8"):
        batch.eval([[1], [1] * 7])
    for bad in ([model.config.vocab], [-1], [2**40]):
        with pytest.raises(ValueError, match=r"ids\[1\]"):
            batch.eval([[1], bad])
    for wrong in ([[1]], [[1], [2], [3]], []):
        with pytest.raises(ValueError, match=f"{len(wrong)} lists of tokens for 2 sessions"):
            batch.eval(wrong)
    with pytest.raises(TypeError):
        batch.eval([1, 2])  # type: ignore[list-item]  # the point of the test
    with pytest.raises(ValueError, match="'last' or 'all'"):
        batch.eval([[1], [2]], logits="some")  # type: ignore[arg-type]  # the point of the test
    assert positions(batch) == [1, 2]
    batch.eval([[1] * 7, [1] * 6])


def test_closed_model_says_so(model: edgellm.Model) -> None:
    session = model.session(context=8)
    batch = edgellm.Batch(model, [session])
    model.close()
    with pytest.raises(ValueError, match="closed"):
        batch.eval([[1]])
    with pytest.raises(ValueError, match="closed"):
        session.eval([1])


def test_batch_may_outlive_names_of_its_sessions(model: edgellm.Model) -> None:
    batch = edgellm.Batch(model, [model.session(context=8) for _ in range(20)])
    logits = batch.eval([[i] for i in range(20)])
    for i, row in enumerate(logits):
        assert row is not None
        assert np.array_equal(row, model.session(context=8).eval([i]))


def test_batches_that_share_sessions_take_turns(model: edgellm.Model) -> None:
    """Two threads list the same sessions in opposite orders, a third uses one by itself: no deadlock."""
    a, b = model.session(context=250), model.session(context=250)
    batches = [edgellm.Batch(model, [a, b]), edgellm.Batch(model, [b, a])]
    work = [lambda batch=batch: batch.eval([[5], [5]]) for batch in batches] + [lambda: a.eval([5])]
    threads = [threading.Thread(target=lambda call=call: [call() for _ in range(40)]) for call in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert (a.position, b.position) == (120, 80)
    assert np.array_equal(a.eval([5]), model.session(context=250).eval([5] * 121))


def signal_when_under_way(batch: edgellm.Batch, number: signal.Signals) -> threading.Thread:
    """Signal the main thread as soon as a step of the next call has been done."""
    before = positions(batch)

    def wait() -> None:
        while positions(batch) == before:
            time.sleep(0.0005)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ctrl_c_between_micro_batches_changes_no_member(model: edgellm.Model) -> None:
    batch = edgellm.Batch(model, [model.session(context=250) for _ in range(40)])
    batch.eval([[i] for i in range(40)])
    thread = signal_when_under_way(batch, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        batch.eval([[i] * 200 for i in range(40)])  # 63 micro-batches
    thread.join()
    assert positions(batch) == [1] * 40
    got = batch.eval([[i] * 5 for i in range(40)])
    for i in (0, 17, 39):
        assert np.array_equal(got[i], model.session(context=16).eval([i] * 6))


def test_model_closed_between_micro_batches_is_an_error(model: edgellm.Model) -> None:
    batch = edgellm.Batch(model, [model.session(context=250) for _ in range(40)])
    old = signal.signal(signal.SIGUSR1, lambda *_: model.close())
    try:
        thread = signal_when_under_way(batch, signal.SIGUSR1)
        with pytest.raises(ValueError, match="closed"):
            batch.eval([[1] * 200 for _ in range(40)])
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert positions(batch) == [0] * 40
