"""Write a case of `families.py` as the GGUF that llama.cpp's converter would make of that model.

Names of tensors and keys come from the `gguf` package, so they are not ours to get wrong.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.helpers.families import Array, Case, weights

NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6
PRE = {"llama": "llama-bpe", "mistral": "default", "qwen2": "qwen2", "qwen3": "qwen2", "gpt2": "gpt-2"}
MERGES = (
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n",
)  # fmt: skip
PIECES = (
    "▁t", "▁a", "he", "in", "re", "on", "▁the", "er", "▁s", "at", "▁w", "▁o", "en", "▁", "e", "t", "a", "o",
)  # fmt: skip


def architecture(case: Case) -> str:
    """What general.architecture says."""
    return "llama" if case.family == "mistral" else case.family


def _bpe(writer: gguf.GGUFWriter, case: Case) -> None:
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    alphabet = [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]
    tokens = ["<|endoftext|>", *alphabet, *(merge.replace(" ", "") for merge in MERGES)]
    types = [CONTROL] + [NORMAL] * (len(tokens) - 1)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), case.vocab)]
    types += [UNUSED] * (case.vocab - len(types))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE.get(case.family, "default"))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def _spm(writer: gguf.GGUFWriter, case: Case) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(PIECES)]
    scores = [0.0] * 259 + [-float(i) for i in range(len(PIECES))]
    missing = case.vocab - len(tokens)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), case.vocab)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores + [-10000.0] * missing)
    writer.add_token_types(types + [UNUSED] * missing)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(case.family != "gemma3")


def _gpt2(writer: gguf.GGUFWriter, case: Case) -> None:
    writer.add_block_count(case.layers)
    writer.add_context_length(case.context)
    writer.add_embedding_length(case.width)
    writer.add_feed_forward_length(case.ffn)
    writer.add_head_count(case.heads)
    writer.add_layer_norm_eps(case.config["layer_norm_epsilon"])


def _phi3(writer: gguf.GGUFWriter, case: Case) -> None:
    original = case.config["original_max_position_embeddings"]
    writer.add_context_length(case.context)
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_embedding_length(case.width)
    writer.add_feed_forward_length(case.ffn)
    writer.add_block_count(case.layers)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(case.config["rms_norm_eps"])
    writer.add_rope_dimension_count(case.rope_dims)
    writer.add_rope_freq_base(case.rope["rope_theta"])
    writer.add_sliding_window(case.get("sliding_window") or 0)
    if "long_factor" in case.rope:
        scale = case.context / original
        factor = math.sqrt(1.0 + math.log(scale) / math.log(original)) if scale > 1.0 else 1.0
        writer.add_rope_scaling_attn_factors(factor)


def _rope(writer: gguf.GGUFWriter, case: Case) -> None:
    rope = case.rope
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def _decoder(writer: gguf.GGUFWriter, case: Case) -> None:
    writer.add_block_count(case.layers)
    writer.add_context_length(case.context)
    writer.add_embedding_length(case.width)
    writer.add_feed_forward_length(case.ffn)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(case.config["rms_norm_eps"])
    _rope(writer, case)
    if "head_dim" in case.config:
        writer.add_key_length(case.head_dim)
        writer.add_value_length(case.head_dim)
    if architecture(case) == "llama":
        writer.add_vocab_size(case.vocab)
        writer.add_rope_dimension_count(case.head_dim)
    if case.get("sliding_window"):
        writer.add_sliding_window(case.config["sliding_window"])
    local = case.config["rope_parameters"].get("sliding_attention")
    if local and local["rope_theta"] != 10000.0:  # files older than this key leave it out, as most are
        writer.add_rope_freq_base_swa(local["rope_theta"])


def _rope_factors(case: Case) -> dict[str, Array]:
    """Tensors that divide the frequencies."""
    rope, found = case.rope, {}
    for name in ("long", "short"):
        if f"{name}_factor" in rope:
            found[f"rope_factors_{name}.weight"] = np.array(rope[f"{name}_factor"], np.float32)
    if rope.get("rope_type") == "llama3":
        frequency = rope["rope_theta"] ** -(np.arange(0, case.head_dim, 2) / case.head_dim)
        turns = rope["original_max_position_embeddings"] * frequency / (2.0 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
        found["rope_freqs.weight"] = (1.0 / ((1.0 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return found


def permute(value: Array, heads: int) -> Array:
    """Rows from the order of transformers (two halves) to that of a Llama GGUF (pairs side by side)."""
    halves = value.reshape(heads, 2, len(value) // heads // 2, *value.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))


def tensors(case: Case) -> dict[str, Array]:
    """Tensors by their GGUF names."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture(case))
    names = gguf.get_tensor_name_map(arch, case.layers)
    found = _rope_factors(case)
    for name, value in weights(case).items():
        if architecture(case) == "llama" and ".q_proj." in name:
            value = permute(value, case.heads)
        elif architecture(case) == "llama" and ".k_proj." in name:
            value = permute(value, case.kv_heads)
        elif case.family == "gemma3" and name.endswith("norm.weight"):
            value = value + np.float32(1.0)
        elif case.family == "gpt2" and ".c_" in name and name.endswith(".weight"):
            value = np.ascontiguousarray(value.T)
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = value
    return found


def _quantized(name: str, value: Array, quant: str) -> tuple[Any, gguf.GGMLQuantizationType]:
    """A matrix in another format, where its columns are whole blocks of it; others stay float32."""
    kind = gguf.GGMLQuantizationType[quant.upper()]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if value.ndim < 2 or "norm" in name or name.startswith("position") or value.shape[-1] % block:
        return value, gguf.GGMLQuantizationType.F32
    return gguf.quants.quantize(value, kind), kind


def write(
    path: Path, case: Case, metadata: Mapping[str, Any] | None = None, quants: Sequence[str] = ("f32",)
) -> Path:
    """Write the model.

    Parameters
    ----------
    metadata : mapping
        Entries to add, or to put in place of others: uint32, float32, bool, string, or a list of one.
    quants : sequence of str
        Formats that matrices take in turn, so that parts of a layer differ.
    """
    with contextlib.closing(gguf.GGUFWriter(path, architecture(case))) as writer:
        writer.add_name("small")
        {"gpt2": _gpt2, "phi3": _phi3}.get(case.family, _decoder)(writer, case)
        (_spm if case.vocabulary == "spm" else _bpe)(writer, case)
        kinds = {
            bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array
        }  # fmt: skip
        for key, value in (metadata or {}).items():
            writer.kv_data[0].pop(key, None)
            kinds.get(type(value), writer.add_string)(key, value)
        for i, (name, value) in enumerate(tensors(case).items()):
            data, kind = _quantized(name, value, quants[i % len(quants)])
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return path
