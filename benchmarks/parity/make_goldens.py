"""Write tests/data/llama_goldens.npz: logits of transformers for the models of tests/helpers/golden_llama.py.

Runs in the environment of the torch peer: python make_goldens.py. With --check it writes nothing and says
how far the committed values are from what this environment computes.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from peer_torch import logits
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "tests" / "data" / "llama_goldens.npz"

spec = importlib.util.spec_from_file_location("golden_llama", ROOT / "tests" / "helpers" / "golden_llama.py")
assert spec is not None
assert spec.loader is not None
golden_llama = importlib.util.module_from_spec(spec)
sys.modules["golden_llama"] = golden_llama
spec.loader.exec_module(golden_llama)

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
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


def transformers_name(name: str) -> str:
    """The name that transformers gives to a tensor of a GGUF."""
    parts = name.split(".")
    layer = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    return f"{layer}{NAMES[parts[-2]]}.weight"


def model_of(name: str) -> LlamaForCausalLM:
    """The transformers model of a golden case."""
    golden = golden_llama.CASES[name]
    rope = {"rope_type": "default", "rope_theta": golden.rope_base}
    if golden.rope_factor != 1.0:
        rope |= {"rope_type": "linear", "factor": golden.rope_factor}
    config = LlamaConfig(
        vocab_size=golden_llama.VOCAB,
        hidden_size=golden.width,
        intermediate_size=golden.ffn,
        num_hidden_layers=golden.layers,
        num_attention_heads=golden.heads,
        num_key_value_heads=golden.kv_heads,
        head_dim=golden.head_dim,
        rms_norm_eps=golden.eps,
        rope_parameters=rope,
        max_position_embeddings=256,
        tie_word_embeddings=golden.tied,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    state = {transformers_name(k): torch.from_numpy(v) for k, v in golden_llama.weights(name).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert missing == (["lm_head.weight"] if golden.tied else []), missing
    model.tie_weights()
    return model


def main() -> None:
    """Compute, then write or compare."""
    found = {name: logits(model_of(name), golden_llama.ids(name)) for name in golden_llama.CASES}
    if "--check" in sys.argv[1:]:
        with np.load(TARGET) as held:
            for name, value in found.items():
                print(f"{name}: at most {np.abs(held[name] - value).max():.1e} from the committed logits")
        return
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **found)
    for name, value in found.items():
        print(f"{name}: {value.shape}, largest {np.abs(value).max():.2f}")


if __name__ == "__main__":
    main()
