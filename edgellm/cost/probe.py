"""A model of many narrow layers: its decode time is nearly all overhead per layer, so it separates the two.

The weights are zero and it says nothing; only its shape matters. Written by `edgellm calibrate` to a
temporary file.
"""

from __future__ import annotations

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


def write_probe(file: BinaryIO) -> None:
    """Write the probe as a GGUF file."""
    writer = GgufWriter()
    for key, (value, kind) in _metadata().items():
        writer.add(key, value, kind)
    writer.write_tensors(file, _tensors())


def _metadata() -> dict[str, tuple[Any, str]]:
    tokens = ["<|endoftext|>", "<|im_end|>", *_byte_characters()]
    return {
        "general.architecture": ("llama", "string"),
        "general.name": ("probe", "string"),
        "llama.block_count": (PROBE.layers, "u32"),
        "llama.context_length": (PROBE.context, "u32"),
        "llama.embedding_length": (PROBE.width, "u32"),
        "llama.feed_forward_length": (PROBE.ffn, "u32"),
        "llama.attention.head_count": (PROBE.heads, "u32"),
        "llama.attention.head_count_kv": (PROBE.kv_heads, "u32"),
        "llama.attention.layer_norm_rms_epsilon": (1e-5, "f32"),
        "llama.rope.freq_base": (10000.0, "f32"),
        "llama.rope.dimension_count": (PROBE.head_dim, "u32"),
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


def _tensors() -> dict[str, QuantTensor | np.ndarray[Any, np.dtype[np.float32]]]:
    found: dict[str, QuantTensor | np.ndarray[Any, np.dtype[np.float32]]] = {}

    def matrix(name: str, n: int, k: int) -> None:
        found[name] = quantize(np.zeros((n, k), np.float32), PROBE_QUANT)

    width, ffn = PROBE.width, PROBE.ffn
    ones = np.ones(width, np.float32)
    matrix("token_embd.weight", PROBE.vocab, width)
    for layer in range(PROBE.layers):
        at = f"blk.{layer}."
        found[at + "attn_norm.weight"] = ones
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{at}{name}.weight", width, width)
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
