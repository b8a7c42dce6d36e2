"""Draw models of every family at random, so that parity is not only that of the shapes we thought of."""

import random
from typing import Any

from tests.helpers.families import FAMILIES, LLAMA3, Case

HEAD_DIMS = (4, 8, 10, 12, 16, 20, 24, 32, 40, 64, 96, 100, 128)


def _rope(draw: random.Random, family: str, head_dim: int, context: int) -> dict[str, Any]:
    """Rotation of a Llama, Mistral or Qwen."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": draw.choice([100.0, 1e4, 5e5, 1e6])}
    kinds = ["default", "default", "linear", "yarn"]
    if family in ("llama", "mistral"):  # the converter writes such factors for these alone
        kinds.append("llama3")
    kind = draw.choice(kinds)
    if kind == "linear":
        rope |= {"rope_type": "linear", "factor": draw.choice([1.5, 2.0, 8.0])}
    elif kind == "yarn" and head_dim >= 16:
        rope |= {
            "rope_type": "yarn",
            "factor": draw.choice([2.0, 4.0, 10.0]),
            "original_max_position_embeddings": context // 4,
        }
    elif kind == "llama3":
        rope |= LLAMA3 | {"original_max_position_embeddings": context // draw.choice([2, 8])}
    return rope


def draw_case(draw: random.Random, family: str) -> Case:
    """One model and sequence."""
    heads = draw.randint(1, 6)
    kv_heads = draw.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head_dim = draw.choice(HEAD_DIMS)
    width = heads * draw.randint(max(1, 24 // heads), 128 // heads)
    layers, tokens = draw.choice([1, 1, 2, 3, 5]), draw.choice([1, 2, 17, 64, 65, 130, 257, 300])
    vocab, tied, eps = draw.randint(280, 340), draw.random() < 0.5, draw.choice([1e-6, 1e-5, 1e-3])
    context = draw.choice([512, 2048])
    if family == "gpt2":
        return Case(
            family,
            {
                "vocab_size": vocab, "n_embd": heads * draw.choice((7, 8, 12, 16, 24, 64)), "n_layer": layers,
                "n_head": heads, "n_positions": 320, "layer_norm_epsilon": eps, "tie_word_embeddings": tied,
            },
            tokens,
        )  # fmt: skip
    config: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": draw.randint(20, 160),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "rms_norm_eps": eps,
        "head_dim": head_dim,
        "rope_parameters": _rope(draw, family, head_dim, context),
    }
    more = {"mistral": _mistral, "qwen2": _qwen2, "gemma3": _gemma3, "phi3": _phi3, "llama": _llama}
    more.get(family, lambda draw, config: None)(draw, config)
    return Case(family, config, tokens, "spm" if family in ("gemma3", "mistral") else "bpe")


def _llama(draw: random.Random, config: dict[str, Any]) -> None:
    config["attention_bias"] = draw.random() < 0.3
    config["mlp_bias"] = draw.random() < 0.2


def _mistral(draw: random.Random, config: dict[str, Any]) -> None:
    config["sliding_window"] = draw.choice([None, 1, 20, 64, 100, 1000])


def _qwen2(draw: random.Random, config: dict[str, Any]) -> None:
    del config["head_dim"]  # it has no such setting
    config["hidden_size"] = config["num_attention_heads"] * (dim := draw.choice((8, 12, 16, 20, 24, 64)))
    if dim < 16:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}


def _gemma3(draw: random.Random, config: dict[str, Any]) -> None:
    config["num_hidden_layers"] = draw.choice([1, 5, 6, 7, 12, 13])
    config["tie_word_embeddings"] = True
    config["query_pre_attn_scalar"] = config["head_dim"]
    config["sliding_window"] = draw.choice([1, 16, 63, 64, 65, 512])
    full: dict[str, Any] = {"rope_type": "default", "rope_theta": draw.choice([1e4, 1e6])}
    if draw.random() < 0.5:
        full |= {"rope_type": "linear", "factor": 8.0}
    local = {"rope_type": "default", "rope_theta": draw.choice([1e4, 1e4, 500.0])}
    config["rope_parameters"] = {"full_attention": full, "sliding_attention": local}


def _phi3(draw: random.Random, config: dict[str, Any]) -> None:
    del config["head_dim"]  # nor this one
    dim = draw.choice((12, 16, 32, 40, 64))
    partial = draw.choice([1.0, 1.0, 0.75, 0.5])
    config["hidden_size"] = config["num_attention_heads"] * dim
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": partial}
    pairs = int(dim * partial) // 2
    config["original_max_position_embeddings"] = draw.choice([64, 256, 4096])
    if draw.random() < 0.6:
        config["original_max_position_embeddings"] = draw.choice([64, 256])
        rope |= {
            "rope_type": "longrope",
            "short_factor": [draw.uniform(1.0, 1.5) for _ in range(pairs)],
            "long_factor": [draw.uniform(1.0, 20.0) for _ in range(pairs)],
        }
    config["rope_parameters"] = rope
    config["sliding_window"] = draw.choice([None, None, 30, 64])
    config["pad_token_id"] = None


def cases(count: int, seed: int) -> list[Case]:
    """`count` models of each family."""
    draw = random.Random(seed)
    return [draw_case(draw, family) for family in FAMILIES for _ in range(count)]
