"""What a file of each family may and may not state; every answer is the right one or an error by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm.conversion.gguf_writer import GgufWriter
from tests.helpers import families, family_gguf, tiny_model

Tensors = dict[str, np.ndarray]
SMALL = {
    "llama": "llama, all biases",
    "qwen2": "qwen2, grouped, tied",
    "qwen3": "qwen3, separate head",
    "gemma3": "gemma3, one layer",
    "phi3": "phi3, part of a head rotated",
    "gpt2": "gpt2, separate head",
}


def write(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    change: Callable[[Tensors], Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """A file of the family, its tensors or its metadata changed."""
    make = family_gguf.tensors

    def changed(case: families.Case) -> Tensors:
        found = make(case)
        if change is not None:
            change(found)
        return found

    monkeypatch.setattr(family_gguf, "tensors", changed)
    return family_gguf.write(path, families.CASES[SMALL[family]], metadata)


@pytest.mark.parametrize("family", SMALL)
def test_parameters_are_the_values_of_the_tensors(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_biases = (
        (lambda t: [t.pop(name) for name in list(t) if name.endswith("bias")]) if family == "llama" else None
    )
    path = write(tmp_path / "m.gguf", monkeypatch, family, no_biases)
    with edgellm.load(path) as model:
        assert model.config.architecture == family
        assert model.config.parameters == sum(np.prod(t.shape) for t in edgellm.gguf.read(path).tensors)


def test_unknown_architecture_is_named_beside_the_known_ones(tmp_path: Path) -> None:
    path = tiny_model.write(tmp_path / "m.gguf", metadata={"general.architecture": ("mamba", "string")})
    with pytest.raises(edgellm.FormatError) as caught:
        edgellm.load(path)
    assert "architecture 'mamba' is not supported" in str(caught.value)
    assert "(known: llama, qwen2, qwen3, gemma3, phi3, gpt2)" in str(caught.value)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gemma3", {"gemma3.final_logit_softcapping": 30.0}, "final_logit_softcapping is not supported"),
    ("gemma3", {"gemma3.attn_logit_softcapping": 50.0}, "attn_logit_softcapping is not supported"),
    ("qwen2", {"qwen2.attention.causal": False}, "not causal"),
    ("qwen3", {"qwen3.expert_count": 8}, "mixture of experts"),
    ("qwen2", {"qwen2.rope.scaling.type": "dynamic"}, "rope scaling 'dynamic' is not supported"),
    ("qwen2", {"qwen2.rope.scaling.type": "longrope"}, "rope_factors_short.weight is missing"),
    ("qwen2", {"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 0.0}, "must be positive"),
    ("qwen2", {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.yarn_ext_factor": 0.5}, "ext_factor"),
    ("phi3", {"phi3.rope.scaling.attn_factor": -1.0}, "must be positive"),
    ("phi3", {"phi3.rope.scaling.original_context_length": 0}, "outside 1 to"),
    ("gemma3", {"gemma3.attention.scale": 0.0}, "must be positive"),
    ("gemma3", {"gemma3.rope.freq_base_swa": float("inf")}, "not finite"),
    ("gemma3", {"gemma3.attention.sliding_window_pattern": 1 << 20}, "outside 0 to"),
    ("gpt2", {"gpt2.attention.value_length": 8}, "per head are not supported"),
]


@pytest.mark.parametrize(("family", "metadata", "message"), REFUSED)
def test_metadata_that_cannot_be_followed_is_refused_by_name(
    family: str, metadata: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.gguf", monkeypatch, family, metadata=metadata)
    with pytest.raises(edgellm.FormatError, match=message):
        edgellm.load(path)


def cut(name: str) -> Callable[[Tensors], Any]:
    return lambda t: t.update({name: np.ascontiguousarray(t[name][:-1])})


MISSHAPEN: list[tuple[str, Callable[[Tensors], Any], str]] = [
    ("qwen2", lambda t: t.pop("blk.1.attn_k.bias"), "blk.1.attn_k.bias is missing"),
    (
        "qwen2",
        lambda t: t.update({"blk.0.attn_output.bias": t["output_norm.weight"]}),
        "attn_output.bias is not one that qwen2 uses",
    ),
    ("qwen3", lambda t: t.pop("blk.0.attn_q_norm.weight"), "attn_q_norm.weight is missing"),
    ("qwen3", cut("blk.1.attn_k_norm.weight"), "attn_k_norm.weight has shape"),
    ("gemma3", lambda t: t.pop("blk.0.post_ffw_norm.weight"), "post_ffw_norm.weight is missing"),
    ("phi3", lambda t: t.pop("blk.0.attn_qkv.weight"), "blk.0.attn_q.weight is missing"),
    ("phi3", cut("blk.0.attn_qkv.weight"), "attn_qkv.weight has shape"),
    ("phi3", cut("blk.0.ffn_up.weight"), "ffn_up.weight has shape"),
    (
        "phi3",
        lambda t: t.update({"output.bias": t["output_norm.weight"]}),
        "output.bias is not one that phi3 uses",
    ),
    ("gpt2", lambda t: t.pop("output_norm.bias"), "output_norm.bias is missing"),
    ("gpt2", cut("blk.0.attn_qkv.bias"), "attn_qkv.bias has shape"),
    ("gpt2", cut("position_embd.weight"), "position_embd.weight has shape"),
    (
        "gpt2",
        lambda t: t.update({"rope_freqs.weight": np.ones(12, np.float32)}),
        "rope_freqs.weight is not one that gpt2 uses",
    ),
    ("llama", cut("blk.0.attn_q.bias"), "attn_q.bias has shape"),
]


@pytest.mark.parametrize(("family", "change", "message"), MISSHAPEN)
def test_tensor_that_is_missing_misshapen_or_unused_is_named(
    family: str,
    change: Callable[[Tensors], Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "m.gguf", monkeypatch, family, change)
    with pytest.raises(edgellm.FormatError, match=message):
        edgellm.load(path)


def test_fused_and_separate_projections_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = families.CASES[SMALL["gpt2"]]
    width = case.width

    def split(t: Tensors) -> None:
        for layer in range(case.layers):
            for part in ("weight", "bias"):
                whole = t.pop(f"blk.{layer}.attn_qkv.{part}")
                for i, letter in enumerate("qkv"):
                    rows = np.ascontiguousarray(whole[i * width : (i + 1) * width])
                    t[f"blk.{layer}.attn_{letter}.{part}"] = rows

    ids = families.ids(case).tolist()
    fused = write(tmp_path / "fused.gguf", monkeypatch, "gpt2")
    separate = write(tmp_path / "separate.gguf", monkeypatch, "gpt2", split)
    with edgellm.load(fused) as one, edgellm.load(separate) as other:
        assert np.array_equal(one.session().eval(ids), other.session().eval(ids))


def pattern(path: Path, flags: list[bool]) -> edgellm.Model:
    """A model of one query head whose file states which layers have a window."""
    tiny = tiny_model.Tiny(layers=len(flags), quant="f32", width=16, heads=2, kv_heads=1, ffn=16)
    entries = tiny_model.entries(tiny)
    entries["llama.attention.sliding_window"] = (64, "u32")
    entries["llama.attention.sliding_window_pattern"] = (flags, "array of bool")
    writer = GgufWriter(32)
    for key, (value, kind) in entries.items():
        writer.add(key, value, kind)
    with open(path, "wb") as file:
        writer.write_tensors(file, tiny_model.tensors(tiny))
    return edgellm.load(path, threads=1)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([True] * 3, (64, 0)),
        ([True, False, True, False], (64, 2)),
        ([True, True, False, True], (64, 3)),
        ([False, False], (0, 0)),
    ],
)
def test_pattern_of_windows_may_be_flags(
    flags: list[bool], expected: tuple[int, int], tmp_path: Path
) -> None:
    with pattern(tmp_path / "m.gguf", flags) as model:
        assert (model.config.window, model.config.window_pattern) == expected


def test_pattern_of_windows_that_does_not_repeat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(edgellm.FormatError, match="layer 3 breaks the pattern"):
        pattern(tmp_path / "m.gguf", [True, False, True, True])


def test_state_opens_only_where_keys_are_turned_by_the_same_frequencies(tmp_path: Path) -> None:
    """LongRoPE: a session beyond the original context has other frequencies from its first token on."""
    case = families.CASES["phi3, long factors of a part of a head"]
    path = family_gguf.write(tmp_path / "m.gguf", case)
    ids = families.ids(case).tolist()[:40]
    with edgellm.load(path) as model:
        assert model.config.rope_original == 64
        short, long = model.session(context=64), model.session(context=65)
        assert not np.array_equal(short.eval(ids), long.eval(ids))
        model.session_from_bytes(short.to_bytes(), context=50)
        with pytest.raises(edgellm.FormatError, match="another model"):
            model.session_from_bytes(short.to_bytes(), context=65)


def test_sessions_with_either_frequencies_share_a_step(tmp_path: Path) -> None:
    case = families.CASES["phi3, long factors of a part of a head"]
    path = family_gguf.write(tmp_path / "m.gguf", case)
    ids = families.ids(case).tolist()[:60]
    with edgellm.load(path, threads=3) as model:
        contexts = (64, 256, 60)
        sessions = [model.session(context=context) for context in contexts]
        edgellm.Batch(model, sessions).eval([ids[:40]] * 3)
        together = edgellm.Batch(model, sessions).eval([ids[40:60]] * 3)
        for context, logits in zip(contexts, together, strict=True):
            assert np.array_equal(model.session(context=context).eval(ids), logits)
        assert np.array_equal(together[0], together[2])
        assert not np.array_equal(together[0], together[1])
