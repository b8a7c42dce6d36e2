"""A small, complete and valid Llama-family GGUF with random weights, made in milliseconds.

>>> write(tmp_path / "tiny.gguf", quant="q8_0")                      # doctest: +SKIP
>>> write(path, quant="q4_k", width=256, ffn=512)                    # doctest: +SKIP
>>> write(path, tied=False, types={"output.weight": "f16"})          # doctest: +SKIP
>>> write(path, metadata={"llama.block_count": (99, "u32")})         # doctest: +SKIP
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.conversion.gguf_writer import GgufWriter
from edgellm.quant import QUANTIZABLE, TYPES, QuantTensor, from_bytes, quantize

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n", "Ġ c", "i t",
    "i s", "a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n", "a l", "a r", "Ġt o",
    "Ġ m", "Ġo f", "Ġ in", "Ġ d", "Ġ h", "Ġan d", "i c", "l e", "Ġt h", "i on", "a s", "Ġ l",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tiny:
    """Shape and formats of the model; `types` overrides `quant` by tensor name or by its last part."""

    quant: str = "q4_0"
    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    context: int = 256
    rope_base: float = 10000.0
    eps: float = 1e-5
    tied: bool = True
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, tuple[Any, str] | None] = dataclasses.field(default_factory=dict)
    alignment: int = 32
    seed: int = 0


def byte_characters() -> list[str]:
    """The printable character of each byte in byte-level BPE (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]


def vocabulary() -> list[str]:
    """300 tokens: three special ones, the 256 bytes, and one for each merge."""
    return [*SPECIAL, *byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]


def random_tensor(rng: np.random.Generator, type: str, shape: tuple[int, ...], scale: float) -> QuantTensor:
    """A tensor of any format with values of about `scale`; formats we cannot make get random blocks."""
    if type in QUANTIZABLE:
        return quantize((rng.standard_normal(shape) * scale).astype(np.float32), type)
    info = TYPES[type]
    blocks = int(np.prod(shape)) // info.block_values
    raw = rng.integers(0, 256, (blocks, info.block_bytes), dtype=np.uint8)
    # Where float16 scales stand in a block, and what multiplies them at the middle of the range.
    fields = {
        "q2_k": {80: 11.0, 82: 7.0},
        "q3_k": {108: 32.0},
        "q4_k": {0: 230.0, 2: 30.0},
        "q5_k": {0: 480.0, 2: 30.0},
        "q6_k": {208: 1000.0},
        "iq4_nl": {0: 60.0},
    }[type]
    for offset, middle in fields.items():
        d = (scale / middle * rng.uniform(0.5, 1.5, (blocks, 1))).astype("<f2")
        raw[:, offset : offset + 2] = d.view(np.uint8)
    return from_bytes(raw, type, shape)


def tensors(tiny: Tiny) -> dict[str, QuantTensor | npt.NDArray[np.float32]]:
    """Every tensor by its GGUF name; norms are float32 arrays."""
    rng = np.random.default_rng(tiny.seed)
    kv_width = tiny.width // tiny.heads * tiny.kv_heads
    found: dict[str, QuantTensor | npt.NDArray[np.float32]] = {}

    def norm(name: str) -> None:
        found[name] = (1.0 + 0.1 * rng.standard_normal(tiny.width)).astype(np.float32)

    def matrix(name: str, n: int, k: int, scale: float) -> None:
        part = name.split(".")[-2] if name.startswith("blk.") else name.split(".")[0]
        type = tiny.types.get(name, tiny.types.get(part, tiny.quant))
        found[name] = random_tensor(rng, type, (n, k), scale)

    matrix("token_embd.weight", len(vocabulary()), tiny.width, 0.5)
    for layer in range(tiny.layers):
        at = f"blk.{layer}."
        norm(at + "attn_norm.weight")
        for name, n, k in (
            ("attn_q", tiny.width, tiny.width),
            ("attn_k", kv_width, tiny.width),
            ("attn_v", kv_width, tiny.width),
            ("attn_output", tiny.width, tiny.width),
        ):
            matrix(f"{at}{name}.weight", n, k, k**-0.5)
        norm(at + "ffn_norm.weight")
        matrix(at + "ffn_gate.weight", tiny.ffn, tiny.width, tiny.width**-0.5)
        matrix(at + "ffn_up.weight", tiny.ffn, tiny.width, tiny.width**-0.5)
        matrix(at + "ffn_down.weight", tiny.width, tiny.ffn, tiny.ffn**-0.5)
    norm("output_norm.weight")
    if not tiny.tied:
        matrix("output.weight", len(vocabulary()), tiny.width, tiny.width**-0.5)
    return found


def entries(tiny: Tiny) -> dict[str, tuple[Any, str]]:
    """The metadata of the file: key to (value, kind)."""
    tokens = vocabulary()
    types = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))  # 3 is a control token
    found: dict[str, tuple[Any, str]] = {
        "general.architecture": ("llama", "string"),
        "general.name": ("tiny", "string"),
        "llama.block_count": (tiny.layers, "u32"),
        "llama.context_length": (tiny.context, "u32"),
        "llama.embedding_length": (tiny.width, "u32"),
        "llama.feed_forward_length": (tiny.ffn, "u32"),
        "llama.attention.head_count": (tiny.heads, "u32"),
        "llama.attention.head_count_kv": (tiny.kv_heads, "u32"),
        "llama.attention.layer_norm_rms_epsilon": (tiny.eps, "f32"),
        "llama.rope.freq_base": (tiny.rope_base, "f32"),
        "llama.rope.dimension_count": (tiny.width // tiny.heads, "u32"),
        "llama.vocab_size": (len(tokens), "u32"),
        "tokenizer.ggml.model": ("gpt2", "string"),
        "tokenizer.ggml.pre": ("smollm", "string"),
        "tokenizer.ggml.tokens": (tokens, "array of string"),
        "tokenizer.ggml.token_type": (types, "array of i32"),
        "tokenizer.ggml.merges": (MERGES, "array of string"),
        "tokenizer.ggml.bos_token_id": (1, "u32"),
        "tokenizer.ggml.eos_token_id": (2, "u32"),
        "tokenizer.ggml.unknown_token_id": (0, "u32"),
        "tokenizer.ggml.padding_token_id": (2, "u32"),
        "tokenizer.ggml.add_space_prefix": (False, "bool"),
        "tokenizer.ggml.add_bos_token": (False, "bool"),
        "tokenizer.chat_template": (CHATML, "string"),
        "general.quantization_version": (2, "u32"),
    }
    for key, change in tiny.metadata.items():
        if change is None:
            found.pop(key, None)
        else:
            found[key] = change
    return found


def write(path: Path, tiny: Tiny | None = None, **changes: Any) -> Path:
    """Write the model; `changes` are fields of `Tiny`. Returns the path."""
    tiny = dataclasses.replace(tiny or Tiny(), **changes)
    writer = GgufWriter(tiny.alignment)
    for key, (value, kind) in entries(tiny).items():
        writer.add(key, value, kind)
    with open(path, "wb") as file:
        writer.write_tensors(file, tensors(tiny))
    return path
