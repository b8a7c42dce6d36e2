"""The engine beside transformers: committed logits of small float32 models of several shapes."""

from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.conversion.gguf_writer import GgufWriter
from tests.helpers import golden_llama, tiny_model

MAX_DIFFERENCE = 1e-3


def write_model(path: Path, name: str) -> Path:
    """Write a golden model as a float32 GGUF."""
    golden = golden_llama.CASES[name]
    metadata: dict[str, tuple[object, str] | None] = {
        "llama.attention.key_length": (golden.head_dim, "u32"),
        "llama.attention.value_length": (golden.head_dim, "u32"),
        "llama.rope.dimension_count": (golden.head_dim, "u32"),
    }
    if golden.rope_factor != 1.0:
        metadata["llama.rope.scaling.type"] = ("linear", "string")
        metadata["llama.rope.scaling.factor"] = (golden.rope_factor, "f32")
    shape = tiny_model.Tiny(
        layers=golden.layers,
        width=golden.width,
        heads=golden.heads,
        kv_heads=golden.kv_heads,
        ffn=golden.ffn,
        rope_base=golden.rope_base,
        eps=golden.eps,
        tied=golden.tied,
        metadata=metadata,
    )
    writer = GgufWriter()
    for key, (value, kind) in tiny_model.entries(shape).items():
        writer.add(key, value, kind)
    weights = golden_llama.weights(name)
    for tensor, value in weights.items():
        if tensor.endswith("attn_q.weight"):
            weights[tensor] = golden_llama.permute(value, golden.heads)
        elif tensor.endswith("attn_k.weight"):
            weights[tensor] = golden_llama.permute(value, golden.kv_heads)
    with open(path, "wb") as file:
        writer.write_tensors(file, weights)
    return path


@pytest.mark.parametrize("name", golden_llama.CASES)
def test_logits_of_a_float32_model_are_those_of_transformers(name: str, root: Path, tmp_path: Path) -> None:
    with np.load(root / "tests" / "data" / "llama_goldens.npz") as goldens:
        want = goldens[name]
    with edgellm.load(write_model(tmp_path / "model.gguf", name), threads=2) as model:
        got = model.session(context=64).eval(golden_llama.ids(name).tolist(), logits="all")
    assert got.shape == want.shape == (golden_llama.POSITIONS, golden_llama.VOCAB)
    assert np.all(np.abs(got - want) <= MAX_DIFFERENCE)  # written so that NaN fails
