"""transformers for a Llama GGUF; runs in an environment with torch, transformers and gguf.

Usage: python peer_torch.py MODEL.gguf IDS.npy OUT.npy writes the logits of one sequence; without arguments
it is behind the pipe of `serving.py`. Requests:

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
from transformers import LlamaConfig, LlamaForCausalLM


def field(reader: gguf.GGUFReader, name: str, default: Any = None) -> Any:
    """Value of a metadata entry."""
    entry = reader.get_field(name)
    return default if entry is None else entry.contents()


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows from the order of GGUF (rotated pairs side by side) to that of transformers (in two halves)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config_of(reader: gguf.GGUFReader, tied: bool, vocab: int) -> LlamaConfig:
    """The transformers configuration of a GGUF of the Llama family."""
    heads = field(reader, "llama.attention.head_count")
    width = field(reader, "llama.embedding_length")
    theta = field(reader, "llama.rope.freq_base", 10000.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if field(reader, "llama.rope.scaling.type", "none") == "linear":
        rope |= {"rope_type": "linear", "factor": field(reader, "llama.rope.scaling.factor")}
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(reader, "llama.attention.head_count_kv", heads),
        head_dim=field(reader, "llama.attention.key_length", width // heads),
        rms_norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters=rope,
        max_position_embeddings=field(reader, "llama.context_length"),
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )


def load(path: Path) -> LlamaForCausalLM:
    """A transformers model with the float32 values of a GGUF's weights."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "output": "lm_head",
    }
    parts = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    config = config_of(reader, "output.weight" not in tensors, len(tensors["token_embd.weight"]))
    for layer in range(config.num_hidden_layers):
        for part, name in parts.items():
            names[f"blk.{layer}.{part}"] = f"model.layers.{layer}.{name}"
    state = {}
    for name, value in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.endswith("attn_q"):
            value = unpermute(value, config.num_attention_heads)
        elif stem.endswith("attn_k"):
            value = unpermute(value, config.num_key_value_heads)
        state[names[stem] + ".weight"] = torch.from_numpy(np.array(value, np.float32))
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or missing != (["lm_head.weight"] if config.tie_word_embeddings else []):
        raise SystemExit(f"{path.name}: weights do not match: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def logits(model: LlamaForCausalLM, ids: np.ndarray) -> np.ndarray:
    """(t, v) float32 logits of one sequence."""
    with torch.no_grad():
        out = model(torch.from_numpy(ids.astype(np.int64))[None])
    return np.asarray(out.logits[0].float().numpy())


class Peer:
    """One model per type of number, for timing."""

    def __init__(self) -> None:
        self.loaded: dict[str, tuple[str, LlamaForCausalLM]] = {}

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
        source, ids_path, out_path = sys.argv[1:]
        np.save(out_path, logits(load(Path(source)), np.load(ids_path)))
