"""Sessions with a float32 cache: when they are the default, the same bits everywhere, saved and restored."""

from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm import cpu
from tests.helpers import tiny_model

IDS = list(range(3, 150))  # more than two blocks of keys


def logits(path: Path, kv: str | None, isa: str, threads: int, chunk: int) -> bytes:
    with edgellm.load(path, threads=threads, isa=isa) as model:
        session = model.session(context=200, kv=kv)
        parts = [session.eval(IDS[i : i + chunk], logits="all") for i in range(0, len(IDS), chunk)]
    assert np.isfinite(np.concatenate(parts)).all()
    return np.concatenate(parts).tobytes()


@pytest.mark.parametrize("head", [8, 24, 64])
@pytest.mark.parametrize("quant", ["f32", "q4_0"])
def test_a_float32_cache_gives_the_same_bits_everywhere(quant: str, head: int, tmp_path: Path) -> None:
    path = tiny_model.write(tmp_path / "m.gguf", quant=quant, width=4 * head, ffn=64)
    seen = {
        logits(path, "f32", isa, threads, chunk)
        for isa in cpu.runnable_isas()
        for threads, chunk in ((1, len(IDS)), (2, 1), (3, 50))
    }
    assert len(seen) == 1
    assert seen != {logits(path, "f16", "ref", 1, len(IDS))}


def test_the_default_cache_is_float32_for_float32_matrices_only(tmp_path: Path) -> None:
    whole = tiny_model.write(tmp_path / "whole.gguf", quant="f32")
    mixed = tiny_model.write(tmp_path / "mixed.gguf", quant="f32", types={"ffn_down": "f16"})
    with edgellm.load(whole) as model:
        assert model.default_kv == "f32"
        assert (
            model.plan(64).kv_bytes
            == model.plan(64, kv="f32").kv_bytes
            == 2 * model.plan(64, kv="f16").kv_bytes
        )
    assert logits(whole, None, "ref", 1, 64) == logits(whole, "f32", "ref", 1, 64)
    with edgellm.load(mixed) as model:
        assert model.default_kv == "f16"
        assert model.plan(64).kv_bytes == model.plan(64, kv="f16").kv_bytes


def test_a_saved_session_keeps_its_cache_type(tmp_path: Path) -> None:
    with edgellm.load(tiny_model.write(tmp_path / "m.gguf")) as model:
        session = model.session(context=200, kv="f32")
        session.eval(IDS[:100])
        state = session.to_bytes()
        again = model.session_from_bytes(state, context=150, kv="f32")
        assert again.eval(IDS[100:]).tobytes() == session.eval(IDS[100:]).tobytes()
        with pytest.raises(ValueError, match="another type"):
            model.session_from_bytes(state, context=150, kv="f16")


@pytest.mark.parametrize("kv", ["F16", "q9", "", 1, []])
def test_an_unknown_cache_type_is_named(kv: object, tmp_path: Path) -> None:
    with (
        edgellm.load(tiny_model.write(tmp_path / "m.gguf")) as model,
        pytest.raises(ValueError, match=r"kv: unknown cache type .* f16, f32"),
    ):
        model.session(kv=kv)  # type: ignore[arg-type]  # that is the test
