"""Models and sessions: what they answer, and what bad calls get."""

from __future__ import annotations

import _thread
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edgellm


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tiny_model import write

    path: Path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write(path, quant="q8_0")
    return path


@pytest.fixture
def model(path: Path) -> edgellm.Model:
    return edgellm.load(path, threads=2)


def test_plan_is_what_is_allocated(model: edgellm.Model) -> None:
    plan = model.plan(context=100)
    c = model.config
    assert (
        plan.kv_bytes == c.layers * c.kv_heads * 2 * 128 * c.head_dim * 2
    )  # rounded to blocks of 64 positions
    assert plan.total_bytes == plan.model_bytes + plan.kv_bytes + plan.session_bytes
    with pytest.raises(MemoryError, match=str(plan.model_bytes)):
        edgellm.load(model.path, threads=2, max_bytes=plan.model_bytes - 1)
    capped = edgellm.load(model.path, threads=2, max_bytes=plan.total_bytes)
    capped.session(context=100)
    with pytest.raises(MemoryError, match="max_bytes"):
        capped.session(context=129)


def test_eval_refuses_what_is_no_token(model: edgellm.Model) -> None:
    session = model.session(context=16)
    for bad in ([model.config.vocab], [-1], [2**40], []):
        with pytest.raises(ValueError, match="ids"):
            session.eval(bad)
    with pytest.raises(TypeError):
        session.eval([1.5])  # type: ignore[list-item]  # the point of the test
    with pytest.raises(ValueError, match="'last' or 'all'"):
        session.eval([1], logits="some")  # type: ignore[arg-type]  # the point of the test
    assert session.position == 0


def test_full_context_is_an_error_that_changes_nothing(model: edgellm.Model) -> None:
    session = model.session(context=8)
    session.eval([1, 2, 3, 4, 5])
    with pytest.raises(edgellm.ContextError, match="4 tokens do not fit: 5 of the context's 8"):
        session.eval([1, 2, 3, 4])
    assert session.position == 5
    session.eval([1, 2, 3])


def test_context_beyond_training_is_refused(model: edgellm.Model) -> None:
    for context in (0, -1, model.config.context + 1):
        with pytest.raises((ValueError, OverflowError)):
            model.session(context=context)


def test_unknown_arguments_of_load_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="sse9"):
        edgellm.load(path, isa="sse9")
    with pytest.raises(ValueError, match="threads"):
        edgellm.load(path, threads=0)
    with pytest.raises(ValueError, match="threads"):
        edgellm.load(path, threads=100_000)
    with pytest.raises(ValueError, match="signature"):
        edgellm.load(path, verify=b"key")
    with pytest.raises(FileNotFoundError, match="none"):
        edgellm.load("none.gguf")
    with pytest.raises(OSError, match="not a regular file"):
        edgellm.load(os.fspath(path.parent))


def test_closed_model_says_so(model: edgellm.Model) -> None:
    session = model.session(context=16)
    session.eval([1])
    model.close()
    model.close()
    assert model.closed
    for call in (lambda: session.eval([1]), lambda: session.truncate(0), session.to_bytes, model.session):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_foreign_session_bytes_are_refused(model: edgellm.Model, tmp_path: Path) -> None:
    from tests.helpers.tiny_model import write

    session = model.session(context=16)
    session.eval([1, 2, 3])
    state = session.to_bytes()
    for bad in (b"", state[:10], state[:-1], state + b"x", b"x" * len(state)):
        with pytest.raises(edgellm.FormatError):
            model.session_from_bytes(bad, context=16)
    with pytest.raises(edgellm.ContextError):
        model.session_from_bytes(state, context=2)
    other = tmp_path / "other.gguf"
    write(other, quant="q8_0", seed=99)
    with edgellm.load(other) as stranger, pytest.raises(edgellm.FormatError, match="another model"):
        stranger.session_from_bytes(state, context=16)


def test_two_threads_use_two_sessions_of_one_model(model: edgellm.Model) -> None:
    ids = np.random.default_rng(0).integers(0, model.config.vocab, (4, 60)).tolist()
    want = [model.session(context=64).eval(row) for row in ids]
    got: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        session = model.session(context=64)
        for token in ids[index]:
            got[index] = session.eval([token])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[i], want[i]) for i in range(4))


def test_one_session_shared_by_threads_stays_whole(model: edgellm.Model) -> None:
    session = model.session(context=128)
    threads = [threading.Thread(target=lambda: [session.eval([5]) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.position == 80
    alone = model.session(context=128)
    assert np.array_equal(alone.eval([5] * 81), session.eval([5]))


def test_model_survives_a_fork(model: edgellm.Model) -> None:
    want = model.session(context=16).eval([1, 2, 3])
    child = os.fork()
    if child == 0:
        same = np.array_equal(model.session(context=16).eval([1, 2, 3]), want)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_ctrl_c_stops_a_generation(model: edgellm.Model) -> None:
    def interrupt() -> None:
        time.sleep(0.1)
        _thread.interrupt_main()

    def generate_for_ever() -> None:
        while True:  # the tiny model is quick
            model.generate([1, 2, 3], max_tokens=500, temperature=1.5)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        generate_for_ever()
    assert model.generate([1, 2, 3], max_tokens=3).ids  # the model is still good


def test_stream_joined_is_the_completion(model: edgellm.Model) -> None:
    for seed in range(5):
        done = model.generate([1, 2, 3], max_tokens=60, temperature=1.0, seed=seed)
        assert "".join(model.stream([1, 2, 3], max_tokens=60, temperature=1.0, seed=seed)) == done.text
        assert done.text == model.tokenizer.decode(done.ids)


def test_stop_string_ends_the_text_before_it(model: edgellm.Model) -> None:
    done = model.generate([1, 2, 3], max_tokens=80, temperature=1.0, seed=1)
    stop = done.text[5:8]
    cut = model.generate([1, 2, 3], max_tokens=80, temperature=1.0, seed=1, stop=stop)
    assert cut.text == done.text[: done.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert "".join(model.stream([1, 2, 3], max_tokens=80, temperature=1.0, seed=1, stop=[stop])) == cut.text


def test_generation_stops_at_a_full_context(model: edgellm.Model) -> None:
    done = model.generate([1, 2, 3], max_tokens=100, temperature=1.0, context=10)
    assert done.finish_reason in ("length", "stop")
    assert len(done.ids) <= 8
    with pytest.raises(edgellm.ContextError, match="11 tokens do not fit in a context of 10"):
        model.generate(list(range(11)), context=10)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repeat_penalty": 0.0},
        {"stop": [""]},
    ],
)
def test_bad_sampling_arguments_are_named_at_the_call(model: edgellm.Model, bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        model.stream([1, 2], **bad)  # type: ignore[arg-type]  # the point of the test


def test_perplexity_of_windows_is_the_definition(model: edgellm.Model) -> None:
    ids = np.random.default_rng(5).integers(0, model.config.vocab, 50).tolist()
    total, scored = 0.0, 0
    for start in range(0, 50, 16):
        logprob, _, _ = model.session(context=16).score(ids[start : start + 16])
        total, scored = total + logprob.sum(), scored + len(logprob)
    assert model.perplexity(ids, context=16) == pytest.approx(np.exp(-total / scored), rel=1e-12)
    for bad in ([], [1]):
        with pytest.raises(ValueError, match="nothing can be scored"):
            model.perplexity(bad)


def test_generation_does_not_depend_on_threads(path: Path) -> None:
    texts = set()
    for threads in (1, 2, 4):
        with edgellm.load(path, threads=threads) as m:
            texts.add(m.generate([1, 2, 3], max_tokens=40, temperature=0.9, seed=11).text)
    assert len(texts) == 1
