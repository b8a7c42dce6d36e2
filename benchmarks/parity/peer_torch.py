"""transformers for a Llama or Gemma 3 GGUF; runs in an environment with torch, transformers and gguf.

Usage: python peer_torch.py MODEL.gguf IDS.npy OUT.npy FIRST writes the logits of one sequence, from position
FIRST on; without arguments it is behind the pipe of `serving.py`. Requests:

- ``open``: model, threads, dtype ("float32" or "bfloat16"), cpus
- ``prefill``: ids, dtype -> times of one evaluation with a new cache, logits of the last token only
- ``memory``: -> resident bytes

The weights are dequantized to float32 by the `gguf` package and computed with in float32. Nothing of
edgellm is imported: this is the other side of a comparison.
"""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from serving import pin, serve, timed
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM


def field(reader: gguf.GGUFReader, name: str, default: Any = None) -> Any:
    """Value of a metadata entry."""
    entry = reader.get_field(name)
    return default if entry is None else entry.contents()


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows from the order of GGUF (rotated pairs side by side) to that of transformers (in two halves)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config_of(reader: gguf.GGUFReader, arch: str, tied: bool, vocab: int) -> Any:
    """The transformers configuration of a GGUF."""
    heads = field(reader, f"{arch}.attention.head_count")
    width = field(reader, f"{arch}.embedding_length")
    head_dim = field(reader, f"{arch}.attention.key_length", width // heads)
    theta = field(reader, f"{arch}.rope.freq_base", 10000.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if field(reader, f"{arch}.rope.scaling.type", "none") == "linear":
        rope |= {"rope_type": "linear", "factor": field(reader, f"{arch}.rope.scaling.factor")}
    common = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": field(reader, f"{arch}.feed_forward_length"),
        "num_hidden_layers": field(reader, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field(reader, f"{arch}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": field(reader, f"{arch}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": field(reader, f"{arch}.context_length"),
        "tie_word_embeddings": tied,
        "attn_implementation": "eager",
    }
    if arch == "llama":
        return LlamaConfig(**common, rope_parameters=rope)
    local = {"rope_type": "default", "rope_theta": field(reader, f"{arch}.rope.freq_base_swa", 10000.0)}
    return Gemma3TextConfig(
        **common,
        rope_parameters={"full_attention": rope, "sliding_attention": local},
        sliding_window=field(reader, f"{arch}.attention.sliding_window"),
        query_pre_attn_scalar=head_dim,
    )


def load(path: Path) -> Any:
    """A transformers model with the float32 values of the weights of a Llama or Gemma 3 GGUF."""
    reader = gguf.GGUFReader(path)
    arch = field(reader, "general.architecture")
    if arch not in ("llama", "gemma3"):
        raise SystemExit(f"{path.name}: this peer knows no {arch}")
    tensors = {t.name: t for t in reader.tensors}
    tied = "output.weight" not in tensors
    vocab = len(field(reader, "tokenizer.ggml.tokens"))
    config = config_of(reader, arch, tied, vocab)
    model = (LlamaForCausalLM if arch == "llama" else Gemma3ForCausalLM)(config).eval()
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    state = {}
    for key in model.state_dict():
        if key == "lm_head.weight" and tied:
            continue
        tensor = tensors.pop(names.get_name(key, try_suffixes=(".weight",)))
        value = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if arch == "llama" and ".q_proj." in key:
            value = unpermute(value, config.num_attention_heads)
        elif arch == "llama" and ".k_proj." in key:
            value = unpermute(value, config.num_key_value_heads)
        elif arch == "gemma3" and key.endswith("norm.weight"):
            value = value - np.float32(1.0)
        state[key] = torch.from_numpy(value)
    if tensors:
        raise SystemExit(f"{path.name}: transformers has no place for {', '.join(tensors)}")
    model.load_state_dict(state, strict=False)  # what is tied is set by the next line
    model.tie_weights()
    return model


def logits(model: Any, ids: np.ndarray, first: int) -> np.ndarray:
    """(t - first, v) float32 logits of one sequence, of the positions from `first` on."""
    with torch.no_grad():
        row = torch.from_numpy(ids.astype(np.int64))[None]
        out = model(row, use_cache=False, logits_to_keep=len(ids) - first)
    return np.asarray(out.logits[0].float().numpy())


class Peer:
    """One model per type of number, for timing."""

    def __init__(self) -> None:
        self.loaded: dict[str, tuple[str, Any]] = {}

    def open(self, model: str, threads: int, dtype: str, cpus: list[int] | None = None) -> dict[str, Any]:
        """Load a model as transformers runs it by default: its own fused attention, a cache that is kept."""
        pin(cpus)
        torch.set_num_threads(threads)
        if self.loaded.get(dtype, ("",))[0] != model:
            made = load(Path(model)).to(getattr(torch, dtype))
            made.set_attn_implementation("sdpa")
            self.loaded[dtype] = (model, made)
        return {"version": torch.__version__, "transformers": transformers.__version__}

    def prefill(self, ids: list[int], dtype: str) -> dict[str, float]:
        """Time one evaluation of a prompt."""
        row, model = torch.tensor([ids]), self.loaded[dtype][1]

        def work() -> None:
            model(row, use_cache=True, logits_to_keep=1)

        with torch.inference_mode():
            return timed(work)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve(Peer())
    else:
        source, ids_path, out_path, first = sys.argv[1:]
        np.save(out_path, logits(load(Path(source)), np.load(ids_path), int(first)))
