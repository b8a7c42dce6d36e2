"""What the engine has no forward pass for is refused by name, before anything is computed."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import edgellm
from tests.helpers import families, family_gguf
from tests.helpers.families import CASES

KNOWN = ("llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2")
OTHERS = (
    "gemma", "gemma2", "gemma3n", "gemma4", "mamba", "mamba2", "bert", "nomic-bert", "qwen", "qwen2moe",
    "qwen3moe", "qwen3next", "qwen2vl", "deepseek2", "stablelm", "falcon", "phi2", "phimoe", "gptneox",
    "gptj", "mpt", "bloom", "starcoder2", "llama4", "mistral3", "granite", "smollm3", "rwkv7", "t5", "olmo2",
    "cohere2", "command-r", "Llama", "llama\nqwen2", "x" * 300,
)  # fmt: skip


def load_error(path: Path) -> str:
    with pytest.raises(edgellm.FormatError) as error:
        edgellm.load(path)
    return str(error.value)


@pytest.mark.parametrize("name", OTHERS)
def test_another_architecture_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    case = CASES["llama, one token"]
    path = family_gguf.write(tmp_path / "model.gguf", case, {"general.architecture": name})
    message = load_error(path)
    assert f"'{name[:40]}".replace("\n", "?") in message
    assert len(message) < 400
    assert all(known in message for known in KNOWN)


FEATURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts": ("llama, grouped, tied", {"llama.expert_count": 8}, "expert"),
    "experts of Qwen3": ("qwen3, heads of 128", {"qwen3.expert_count": 4}, "expert"),
    "values of another size": (
        "qwen3, heads of 128",
        {"qwen3.attention.value_length": 64},
        "values of 64",
    ),
    "a capped head": ("gemma3, window", {"gemma3.final_logit_softcapping": 30.0}, "softcapping"),
    "capped scores": ("gemma3, window", {"gemma3.attn_logit_softcapping": 50.0}, "softcapping"),
    "an unknown scaling": ("qwen2, one token", {"qwen2.rope.scaling.type": "dynamic"}, "dynamic"),
    "no causal mask": ("gemma3, window", {"gemma3.attention.causal": False}, "causal"),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_that_would_change_the_result_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case, metadata, word = FEATURES[name]
    path = family_gguf.write(tmp_path / "model.gguf", CASES[case], metadata)
    assert word in load_error(path)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_missing_tensor_is_named(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES.values() if case.family == family)
    whole = family_gguf.tensors(case)
    for lost in [name for name in whole if not name.startswith("blk.1") and name != "output.weight"]:
        monkeypatch.setattr(
            family_gguf, "tensors", lambda case, lost=lost: {k: v for k, v in whole.items() if k != lost}
        )
        path = family_gguf.write(tmp_path / "model.gguf", case)
        # What is fused might have come in parts: then the first of them is named.
        part = lost.replace("attn_qkv", "attn_q(kv)?").replace("ffn_up", "ffn_(up|gate)")
        assert re.search(part, load_error(path)), lost


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_tensor_of_another_shape_is_named(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in CASES.values() if case.family == family)
    whole = family_gguf.tensors(case)
    for bent in [name for name in whole if not name.startswith("blk.1") and name != "token_embd.weight"]:
        short = whole[bent][: len(whole[bent]) - 1]
        monkeypatch.setattr(
            family_gguf, "tensors", lambda case, bent=bent, short=short: {**whole, bent: short}
        )
        path = family_gguf.write(tmp_path / "model.gguf", case)
        assert bent in load_error(path), bent


def test_quantized_heads_that_cannot_be_filled_up_are_refused_by_name(tmp_path: Path) -> None:
    """The blocks of a row of attn_output would have to be cut."""
    case = dataclasses.replace(
        CASES["llama, one token"],
        config={**CASES["llama, one token"].config, "hidden_size": 96, "num_attention_heads": 8},
    )
    path = family_gguf.write(tmp_path / "model.gguf", case, quants=("q8_0",))
    assert re.search(r"attn_output.weight is of type q8_0: with heads of 12 ", load_error(path))
