"""What users of other engines complain about, one named test each, with the thread where it stands."""

import gc
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import tiny_model

import edgellm
import edgellm.quant

PROMPT = "The kitchen light is on. To save energy, the house should"


@pytest.fixture(scope="module")
def model(smollm2):
    with edgellm.load(str(smollm2), threads=1) as loaded:
        yield loaded


def rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, timeout=300
    )


def test_a_37_byte_file_does_not_abort_the_loader(tmp_path):
    """llama.cpp 24884."""
    rng = random.Random(24884)
    heads = [
        b"",
        b"GGUF",
        b"GGUF\x03\0\0\0",
        b"GGUF\x03\0\0\0" + b"\xff" * 16,
        b"GGUF\x02\0\0\0" + b"\x01" * 16,
    ]
    for head in heads:
        for _ in range(40):
            path = tmp_path / "tiny.gguf"
            path.write_bytes((head + rng.randbytes(37))[:37])
            with pytest.raises(edgellm.FormatError):
                edgellm.load(str(path))


def test_two_concurrent_sessions_of_one_model_do_not_abort(model):
    """llama-cpp-python 1367."""
    ids = model.tokenizer.encode(PROMPT)[:8]
    want = model.session(context=64).eval(ids)
    got: list[np.ndarray] = []

    def work() -> None:
        for _ in range(2):
            got.append(model.session(context=64).eval(ids))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    assert all(np.array_equal(want, logits) for logits in got)


def test_two_threads_on_one_session_do_not_corrupt_it(model):
    session = model.session(context=64)
    ids = model.tokenizer.encode(PROMPT)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for token in ids:
                session.eval([token])
        except (ValueError, RuntimeError) as error:  # refusing is as good as waiting
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures or session.position == 2 * len(ids)


def test_memory_is_returned_after_close(smollm2):
    """llama-cpp-python 1442, onnxruntime 18749, 23339."""

    def once() -> None:
        with edgellm.load(str(smollm2), threads=2) as m:
            session = m.session(context=256)
            session.eval(m.tokenizer.encode(PROMPT))

    once()
    gc.collect()
    before = rss_bytes()
    for _ in range(4):
        once()
    gc.collect()
    assert rss_bytes() - before < 16 << 20


def test_a_quiet_engine_prints_nothing(smollm2):
    """llama-cpp-python 1245: verbose=False ignored."""
    code = "import sys, edgellm\nwith edgellm.load(sys.argv[1]) as m: m.generate('Hello', max_tokens=2)\n"
    done = child(code, str(smollm2))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_python_threads_run_during_inference(model):
    """LiteRT-LM 2066: the GIL held during inference."""
    ids = (model.tokenizer.encode(PROMPT) * 40)[:200]
    session = model.session(context=512)
    ticks, stop = 0, threading.Event()

    def tick() -> None:  # sleeps, so that a switch just before the call counts one and no more
        nonlocal ticks
        while not stop.wait(0.0005):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = ticks
        session.eval(ids)
        during = ticks - before
    finally:
        stop.set()
        thread.join()
    assert during >= 10


def test_memory_stays_below_what_is_usual(model):
    """LiteRT-LM 2966: memory doubled between releases."""
    assert model.plan(context=2048).total_bytes < 286 << 20  # what llama.cpp takes for the same file


def test_one_cpu_of_a_cpuset_is_enough(smollm2):
    """onnxruntime 10113, 10166: crash or hang under a cpuset."""
    code = (
        "import os, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import edgellm\n"
        "with edgellm.load(sys.argv[1]) as m:\n"
        "    print(len(m.generate('Hello', max_tokens=3, temperature=0).ids))\n"
    )
    done = child(code, str(smollm2))
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


def test_results_do_not_differ_by_cpu(smollm2):
    """onnxruntime 14642, 26324; tensorflow 45237, 55448."""
    seen = []
    for isa in edgellm.cpu.runnable_isas():
        for threads in (1, 2):
            with edgellm.load(str(smollm2), isa=isa, threads=threads) as m:
                seen.append(m.session(context=64).eval(m.tokenizer.encode(PROMPT), logits="all").tobytes())
    assert len(set(seen)) == 1


def test_a_wrong_name_is_an_attribute_error(model):
    """executorch 5648: segmentation fault on a wrong method name."""
    for owner in (model, model.session(context=16), model.tokenizer, edgellm.ops, edgellm.quant):
        with pytest.raises(AttributeError):
            owner.no_such_method()


def test_a_closed_model_says_so(smollm2):
    m = edgellm.load(str(smollm2), threads=1)
    session = m.session(context=16)
    m.close()
    m.close()
    with pytest.raises((ValueError, RuntimeError), match="closed"):
        m.generate("Hello", max_tokens=1)
    with pytest.raises((ValueError, RuntimeError), match="closed"):
        session.eval([1])


def test_a_wrong_argument_names_itself(model):
    """executorch 16712: silent wrong output."""
    with pytest.raises(ValueError, match="kv"):
        model.session(context=16, kv="q9_9")
    with pytest.raises(ValueError, match="isa"):
        edgellm.load("nowhere.gguf", isa="avx9000")
    session = model.session(context=4)
    with pytest.raises(edgellm.ContextError):
        session.eval([1, 2, 3, 4, 5])
    for bad in ([-1], [10**9]):
        with pytest.raises(ValueError, match="ids"):
            session.eval(bad)


@pytest.mark.parametrize("kind", sorted(edgellm.quant.TYPES))
def test_gguf_of_every_type_is_taken(tmp_path, kind):
    """CTranslate2 1465: GGUF refused."""
    blocks = edgellm.quant.TYPES[kind].block_values
    path = tiny_model.write(
        tmp_path / "tiny.gguf", quant=kind, width=max(64, blocks), heads=8, ffn=256, layers=1
    )
    with edgellm.load(str(path), threads=1) as loaded:
        assert np.isfinite(loaded.session(context=16).eval([1, 2, 3])).all()


def test_memory_is_what_the_plan_says_and_a_cap_holds(tmp_path):
    """LiteRT-LM 2966: memory doubled between releases; a plan that is kept to the byte cannot."""
    path = tiny_model.write(tmp_path / "tiny.gguf")
    with edgellm.load(str(path), threads=1) as loaded:
        plan = loaded.plan(context=256)
    assert plan.total_bytes == plan.model_bytes + plan.kv_bytes + plan.session_bytes
    with edgellm.load(str(path), threads=1, max_bytes=plan.total_bytes) as loaded:
        loaded.session(context=256)
    with (
        edgellm.load(str(path), threads=1, max_bytes=plan.total_bytes - 1) as loaded,
        pytest.raises(MemoryError, match=str(plan.total_bytes - 1)),
    ):
        loaded.session(context=256)
