"""Models made on the spot, whose weights are zero: only their shape matters, and they say nothing.

The probe has many narrow layers, so that its decode time is nearly all overhead per layer. The second model
is wide and shallow and comes in any storage type. `edgellm calibrate` writes both to temporary files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from edgellm.conversion.gguf_writer import GgufWriter
from edgellm.quant import QuantTensor, quantize

from .model_profile import ModelProfile

#: Deep and narrow: a layer holds 40,960 weights, some microseconds of reading.
PROBE = ModelProfile(
    name="probe",
    title="Deep and narrow probe",
    layers=48,
    width=64,
    heads=4,
    kv_heads=4,
    head_dim=16,
    ffn=128,
    vocab=258,
    tied=True,
    context=256,
    source="made by edgellm calibrate",
)
PROBE_QUANT = "q8_0"

Tensor = QuantTensor | np.ndarray[Any, np.dtype[np.float32]]


def second_model(memory_bytes: float) -> ModelProfile:
    """Return a wide and shallow shape, as big as a small share of a memory allows.

    Examples
    --------
    >>> second_model(16e9).layers, second_model(1e8).layers
    (8, 1)
    """
    shape = replace(
        PROBE, name="second", title="Wide and shallow model", layers=1, width=1024, heads=16, kv_heads=4,
        head_dim=64, ffn=2816,
    )  # fmt: skip
    layer_bytes = 34 / 32 * shape.body_matrix_params
    return replace(shape, layers=int(min(max(memory_bytes / 32 // layer_bytes, 1), 8)))


def write_synthetic(file: BinaryIO, shape: ModelProfile, quant: str) -> None:
    """Write a model of a shape as a GGUF file: the probe's vocabulary, matrices in one storage type."""
    writer = GgufWriter()
    for key, (value, kind) in _metadata(shape).items():
        writer.add(key, value, kind)
    writer.write_tensors(file, _tensors(shape, quant))


def _metadata(shape: ModelProfile) -> dict[str, tuple[Any, str]]:
    tokens = ["<|endoftext|>", "<|im_end|>", *_byte_characters()]
    return {
        "general.architecture": ("llama", "string"),
        "general.name": (shape.name, "string"),
        "llama.block_count": (shape.layers, "u32"),
        "llama.context_length": (shape.context, "u32"),
        "llama.embedding_length": (shape.width, "u32"),
        "llama.feed_forward_length": (shape.ffn, "u32"),
        "llama.attention.head_count": (shape.heads, "u32"),
        "llama.attention.head_count_kv": (shape.kv_heads, "u32"),
        "llama.attention.layer_norm_rms_epsilon": (1e-5, "f32"),
        "llama.rope.freq_base": (10000.0, "f32"),
        "llama.rope.dimension_count": (shape.head_dim, "u32"),
        "llama.vocab_size": (len(tokens), "u32"),
        "tokenizer.ggml.model": ("gpt2", "string"),
        "tokenizer.ggml.pre": ("smollm", "string"),
        "tokenizer.ggml.tokens": (tokens, "array of string"),
        "tokenizer.ggml.token_type": ([3, 3] + [1] * 256, "array of i32"),
        "tokenizer.ggml.merges": ((), "array of string"),
        "tokenizer.ggml.bos_token_id": (0, "u32"),
        "tokenizer.ggml.eos_token_id": (1, "u32"),
        "tokenizer.ggml.add_bos_token": (False, "bool"),
    }


def _tensors(shape: ModelProfile, quant: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    made: dict[tuple[int, int], Tensor] = {}

    def matrix(name: str, n: int, k: int) -> None:
        if (n, k) not in made:
            made[n, k] = quantize(np.zeros((n, k), np.float32), quant)
        found[name] = made[n, k]

    width, ffn = shape.width, shape.ffn
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    ones = np.ones(width, np.float32)
    matrix("token_embd.weight", shape.vocab, width)
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        found[at + "attn_norm.weight"] = ones
        matrix(at + "attn_q.weight", queries, width)
        matrix(at + "attn_k.weight", keys, width)
        matrix(at + "attn_v.weight", keys, width)
        matrix(at + "attn_output.weight", width, queries)
        found[at + "ffn_norm.weight"] = ones
        matrix(at + "ffn_gate.weight", ffn, width)
        matrix(at + "ffn_up.weight", ffn, width)
        matrix(at + "ffn_down.weight", width, ffn)
    found["output_norm.weight"] = ones
    return found


def _byte_characters() -> list[str]:
    """Return the printable character of each byte in byte-level BPE (GPT-2's table)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]
