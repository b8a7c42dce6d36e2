"""Ten thousand loads and closes leave nothing behind: no memory, no descriptors, no threads."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import edgellm
from tests.helpers import tiny_model

LOADS = 10_000
GENERATIONS = 2_000
WARM = 500


def held() -> tuple[int, int, int]:
    """Resident pages of memory, open descriptors, threads of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def use(paths: list[Path], bad: Path, turn: int) -> None:
    """Load and use a model in one of several ways, and let go of it in one of several orders."""
    path = paths[turn // 8 % 2]
    model = edgellm.load(path, threads=1 + turn % 2)
    if turn % 8 < 4:
        sessions = [model.session(context=16), model.session(context=16, kv="f32")]
        batch = edgellm.Batch(model, sessions)
        batch.eval([[1, 2], [3]], logits="all" if turn % 2 else "last")
        if turn % 8 == 1:
            with pytest.raises(edgellm.ContextError):
                batch.eval([[1] * 20, [2]])
        if turn % 8 == 2:
            copy = model.session_from_bytes(sessions[0].to_bytes(), context=16)
            copy.truncate(0)
        if turn % 8 == 3:
            cache = edgellm.PrefixCache(model, 1 << 20, "f16")
            with model.session(context=128, kv="f16") as long:
                long.eval([1] * 70)
                cache.save(long, [1] * 70)
                long.fork(context=80).close()
            with model.session(context=128, kv="f16") as again:
                assert cache.load(again, [1] * 70) == 64
    if turn % 8 == 5:
        with pytest.raises(edgellm.FormatError):
            edgellm.load(bad)
    if turn % 8 == 6:
        with pytest.raises(MemoryError):
            edgellm.load(path, max_bytes=1)
    if turn % 3:
        model.close()


def test_ten_thousand_loads_leave_nothing(tmp_path: Path) -> None:
    path = tiny_model.write(
        tmp_path / "tiny.gguf", width=32, heads=2, kv_heads=1, ffn=32, layers=1, types={"attn_v": "f32"}
    )
    image = tmp_path / "tiny.edge"
    edgellm.convert(path, image, machine="portable")
    bad = tmp_path / "cut.gguf"
    bad.write_bytes(path.read_bytes()[:-100])
    for turn in range(WARM):
        use([path, image], bad, turn)
    before = held()
    for turn in range(LOADS):
        use([path, image], bad, turn)
    after = held()
    assert after[1:] == before[1:]
    # A leak of 64 bytes at each load would be 156 pages; malloc's own housekeeping stays far below.
    # A sanitizer keeps what was freed, to find uses of it.
    assert after[0] - before[0] <= 100 or "EDGELLM_SANITIZED" in os.environ


def generate(model: edgellm.Model, turn: int) -> None:
    """Generate in one of several ways, some of which end early or badly."""
    prompt = [1 + turn % 7, 2, 3, 2, 3]
    draft = (None, "lookup", model)[turn % 3]
    if turn % 5 == 0:
        steps = model.stream(prompt, 20, draft=draft)
        next(iter(steps), None)
        if turn % 2:
            steps.close()  # type: ignore[attr-defined]  # it is a generator
    elif turn % 5 == 1:
        model.completions(prompt, 3, max_tokens=5, temperature=1.0, draft=draft)
    elif turn % 5 == 2:
        with pytest.raises(ValueError, match="no token is allowed"):
            model.generate(prompt, logit_bias=dict.fromkeys(range(model.config.vocab), -float("inf")))
    else:
        model.generate(prompt, 10, temperature=1.0, seed=turn, draft=draft, logprobs=2, stop=["xyz"])


def test_two_thousand_generations_leave_nothing(tmp_path: Path) -> None:
    path = tiny_model.write(tmp_path / "tiny.gguf", width=32, heads=2, kv_heads=1, ffn=32, layers=1)
    with edgellm.load(path, threads=1) as model:
        for turn in range(WARM):
            generate(model, turn)
        before = held()
        for turn in range(GENERATIONS):
            generate(model, turn)
        after = held()
    # A leak of a session each would be thousands of pages.
    assert after[0] - before[0] < 256 or "EDGELLM_SANITIZED" in os.environ
    assert after[1:] == before[1:]
