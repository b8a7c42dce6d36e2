"""Small models of every family, in the words of transformers: shapes, weights from a counter, tokens.

One description, three readers, none of which can see another's mistake: `benchmarks/parity/families.py`
gives it to transformers and writes the golden logits, `family_gguf.py` writes it as a GGUF, and the engine
is compared with the goldens. So this module imports NumPy only.
"""

import dataclasses
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shapes = dict[str, tuple[tuple[int, ...], float]]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3", "gpt2")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a sequence.

    Attributes
    ----------
    family : str
        One of `FAMILIES`.
    config : dict
        Keyword arguments of the family's configuration class in transformers.
    tokens : int
        Length of the sequence.
    vocabulary : str
        "bpe" or "spm": which kind of tokenizer the file carries.
    """

    family: str
    config: dict[str, Any]
    tokens: int
    vocabulary: str = "bpe"

    def get(self, name: str, default: Any = None) -> Any:
        """An entry of the configuration."""
        return self.config.get(name, default)

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self.config["n_embd" if self.family == "gpt2" else "hidden_size"])

    @property
    def heads(self) -> int:
        """Query heads."""
        return int(self.config["n_head" if self.family == "gpt2" else "num_attention_heads"])

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        return int(self.get("num_key_value_heads", self.heads))

    @property
    def head_dim(self) -> int:
        """Values of a head."""
        return int(self.get("head_dim", self.width // self.heads))

    @property
    def layers(self) -> int:
        """Blocks."""
        return int(self.config["n_layer" if self.family == "gpt2" else "num_hidden_layers"])

    @property
    def ffn(self) -> int:
        """Width of the feed-forward part."""
        return 4 * self.width if self.family == "gpt2" else int(self.config["intermediate_size"])

    @property
    def context(self) -> int:
        """Positions that the model is said to have been trained for."""
        return int(self.config["n_positions" if self.family == "gpt2" else "max_position_embeddings"])

    @property
    def vocab(self) -> int:
        """Tokens."""
        return int(self.config["vocab_size"])

    @property
    def tied(self) -> bool:
        """Whether the head is the token embedding."""
        return bool(self.config["tie_word_embeddings"])

    @property
    def rope(self) -> dict[str, Any]:
        """Rotation of the layers that see every position."""
        parameters: dict[str, Any] = self.get("rope_parameters", {})
        return dict(parameters.get("full_attention", parameters))

    @property
    def rope_dims(self) -> int:
        """Leading values of a head that are rotated."""
        return int(self.head_dim * self.rope.get("partial_rotary_factor", 1.0))


def _decoder(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    *,
    vocab: int = 300,
    context: int = 512,
    tied: bool = True,
    eps: float = 1e-5,
    theta: float = 10000.0,
    rope: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What the configurations of all families but GPT-2 have in common."""
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "rms_norm_eps": eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta, **(rope or {})},
        **more,
    }


def _gemma3(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    *,
    head_dim: int,
    window: int,
    factor: float | None = None,
    theta: float = 1_000_000.0,
    local_theta: float = 10_000.0,
    scalar: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Gemma 3: two rotations, a window on five of six layers."""
    config = _decoder(layers, width, heads, kv_heads, ffn, **{"eps": 1e-6, **more})
    full: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if factor is not None:
        full |= {"rope_type": "linear", "factor": factor}
    config["rope_parameters"] = {
        "full_attention": full,
        "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
    }
    return config | {
        "head_dim": head_dim,
        "sliding_window": window,
        "query_pre_attn_scalar": scalar or head_dim,
    }


def _phi3(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    *,
    original: int = 4096,
    partial: float = 1.0,
    long: bool = False,
    window: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Phi-3: `long` gives it factors of LongRoPE, which begin behind `original` positions."""
    rope: dict[str, Any] = {"partial_rotary_factor": partial}
    if long:
        pairs = int(width // heads * partial) // 2
        rope |= {
            "rope_type": "longrope",
            "short_factor": [1.0 + 0.05 * i for i in range(pairs)],
            "long_factor": [1.5 + 0.5 * i for i in range(pairs)],
        }
    config = _decoder(layers, width, heads, kv_heads, ffn, **{"tied": False, "rope": rope, **more})
    return config | {
        "original_max_position_embeddings": original,
        "sliding_window": window,
        "pad_token_id": None,
    }


def _gpt2(
    layers: int,
    width: int,
    heads: int,
    *,
    vocab: int = 300,
    context: int = 320,
    tied: bool = True,
    eps: float = 1e-5,
) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": context,
        "layer_norm_epsilon": eps,
        "tie_word_embeddings": tied,
    }


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

CASES: dict[str, Case] = {
    # Llama and its like
    "llama, grouped, tied": Case("llama", _decoder(2, 64, 4, 2, 96), 32),
    "llama, one head each, separate head": Case(
        "llama", _decoder(2, 64, 4, 4, 96, tied=False, theta=500000.0, eps=1e-6), 65, "spm"
    ),
    "llama, one key-value head, wide heads": Case(
        "llama", _decoder(3, 64, 4, 1, 96, tied=False, eps=1e-3, head_dim=32), 130
    ),
    "llama, one layer, odd sizes": Case("llama", _decoder(1, 45, 3, 3, 77, vocab=277, head_dim=24), 200),
    "llama, linear positions": Case(
        "llama", _decoder(2, 96, 6, 3, 64, theta=100.0, rope={"rope_type": "linear", "factor": 4.0}), 100
    ),
    "llama, 3.1 frequencies": Case(
        "llama",
        _decoder(2, 128, 4, 2, 96, theta=500000.0, context=65536, tied=False)
        | {"rope_parameters": {**LLAMA3, "rope_theta": 5e5, "original_max_position_embeddings": 8192}},
        300,
    ),
    "llama, 3.2 frequencies, small base": Case(
        "llama",
        _decoder(3, 72, 3, 1, 100, context=4096)
        | {
            "rope_parameters": {
                **LLAMA3,
                "factor": 32.0,
                "rope_theta": 300.0,
                "original_max_position_embeddings": 128,
            }
        },
        300,
    ),
    "llama, yarn": Case("llama", _decoder(2, 64, 2, 1, 80, context=256, rope=YARN), 256),
    "llama, attention biases": Case("llama", _decoder(2, 64, 4, 2, 96, attention_bias=True), 40),
    "llama, all biases": Case("llama", _decoder(2, 48, 2, 2, 56, attention_bias=True, mlp_bias=True), 33),
    "llama, heads of 12 with biases": Case("llama", _decoder(2, 48, 4, 2, 56, attention_bias=True), 70),
    "llama, one token": Case("llama", _decoder(2, 40, 5, 1, 60), 1),
    "smollm": Case("llama", _decoder(3, 144, 9, 3, 384, theta=100000.0, context=2048), 150),
    "mistral, window": Case("mistral", _decoder(3, 64, 4, 2, 96, tied=False, sliding_window=40), 150, "spm"),
    "mistral, window of one block, wide heads": Case(
        "mistral", _decoder(2, 80, 5, 5, 64, tied=False, sliding_window=64, head_dim=48), 193
    ),
    "mistral, no window": Case("mistral", _decoder(2, 64, 4, 1, 96, sliding_window=None), 70),
    # Qwen2: biases of queries, keys and values
    "qwen2, grouped, tied": Case("qwen2", _decoder(2, 56, 7, 1, 120, theta=1e6, eps=1e-6), 90),
    "qwen2, separate head": Case("qwen2", _decoder(3, 80, 5, 5, 90, tied=False, vocab=311, eps=1e-3), 64),
    "qwen2, yarn": Case("qwen2", _decoder(2, 96, 3, 1, 64, theta=1e6, context=256, rope=YARN), 250),
    "qwen2, yarn with its settings": Case(
        "qwen2",
        _decoder(
            2,
            128,
            2,
            2,
            64,
            theta=10000.0,
            context=300,
            tied=False,
            rope={**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "factor": 3.0},
        ),
        290,
    ),
    "qwen2, linear positions": Case(
        "qwen2", _decoder(1, 64, 4, 2, 48, rope={"rope_type": "linear", "factor": 2.5}), 120
    ),
    "qwen2, heads of 10": Case("qwen2", _decoder(2, 40, 4, 2, 64, theta=1e6), 80),
    "qwen2, one token": Case("qwen2", _decoder(2, 64, 4, 2, 48), 1),
    # Qwen3: norms of queries and keys
    "qwen3, heads of their own size": Case(
        "qwen3", _decoder(3, 64, 4, 2, 96, head_dim=32, theta=1e6, eps=1e-6), 140
    ),
    "qwen3, separate head": Case("qwen3", _decoder(2, 40, 5, 5, 64, head_dim=24, tied=False, vocab=283), 66),
    "qwen3, biases": Case("qwen3", _decoder(1, 64, 2, 1, 64, head_dim=64, attention_bias=True, eps=1e-3), 31),
    "qwen3, heads of 128": Case("qwen3", _decoder(2, 90, 3, 1, 70, head_dim=128), 80),
    "qwen3, heads of 20": Case("qwen3", _decoder(2, 60, 6, 3, 64, head_dim=20, eps=1e-3), 75),
    "qwen3, yarn": Case("qwen3", _decoder(2, 64, 4, 4, 64, head_dim=16, context=256, rope=YARN), 256),
    # Gemma 3
    "gemma3, window": Case("gemma3", _gemma3(7, 64, 4, 1, 96, head_dim=32, window=16), 100, "spm"),
    "gemma3, global layers scaled": Case(
        "gemma3", _gemma3(6, 48, 4, 2, 56, head_dim=16, window=33, factor=8.0, eps=1e-3), 150, "spm"
    ),
    "gemma3, long beside its window": Case(
        "gemma3", _gemma3(8, 40, 2, 1, 64, head_dim=64, window=64, vocab=301), 300, "spm"
    ),
    "gemma3, one layer": Case("gemma3", _gemma3(1, 64, 4, 4, 96, head_dim=24, window=24), 90, "spm"),
    "gemma3, within its window": Case(
        "gemma3", _gemma3(6, 80, 4, 2, 64, head_dim=256, window=512, theta=5000.0), 40, "spm"
    ),
    "gemma3, 62 layers": Case(
        "gemma3", _gemma3(62, 32, 2, 1, 40, head_dim=24, window=20, scalar=16, factor=8.0), 50, "spm"
    ),
    "gemma3, heads of 4": Case("gemma3", _gemma3(7, 32, 4, 1, 48, head_dim=4, window=100), 90, "spm"),
    "gemma3, one token": Case("gemma3", _gemma3(6, 64, 2, 1, 48, head_dim=32, window=8), 1, "spm"),
    # Phi-3: fused projections
    "phi3, plain": Case("phi3", _phi3(2, 96, 3, 3, 80, eps=1e-3), 70, "spm"),
    "phi3, grouped, window": Case("phi3", _phi3(3, 64, 4, 2, 72, window=47), 130, "spm"),
    "phi3, part of a head rotated": Case("phi3", _phi3(2, 128, 4, 2, 100, partial=0.75, tied=True), 90),
    "phi3, heads of 36": Case("phi3", _phi3(2, 108, 3, 1, 72, partial=0.5), 100, "spm"),
    "phi3, long factors not yet in use": Case(
        "phi3", _phi3(2, 64, 2, 1, 80, long=True, original=256, context=1024), 256, "spm"
    ),
    "phi3, long factors in use": Case(
        "phi3", _phi3(2, 64, 2, 1, 80, long=True, original=256, context=1024), 257, "spm"
    ),
    "phi3, long factors of a part of a head": Case(
        "phi3", _phi3(1, 160, 5, 5, 64, long=True, partial=0.75, original=64, context=256, vocab=290), 180
    ),
    # GPT-2
    "gpt2, tied": Case("gpt2", _gpt2(2, 64, 4), 100),
    "gpt2, separate head": Case("gpt2", _gpt2(3, 72, 3, tied=False, vocab=287, eps=1e-3), 64),
    "gpt2, one layer": Case("gpt2", _gpt2(1, 40, 5, context=64), 64),
    "gpt2, wide heads": Case("gpt2", _gpt2(2, 112, 1), 300),
    "gpt2, heads of 7": Case("gpt2", _gpt2(2, 21, 3), 90),
    "gpt2, one token": Case("gpt2", _gpt2(2, 48, 2), 1),
}


def uniform(case: int, index: int, shape: tuple[int, ...], scale: float) -> Array:
    """Values in [-scale, scale) that depend on the arguments only: Philox promises stable bits."""
    raw = np.random.Philox(key=[case, index]).random_raw(math.prod(shape))
    return ((raw >> np.uint64(40)).astype(np.float32) / 2.0**23 - 1.0).reshape(shape) * np.float32(scale)


def _attention_shapes(case: Case, at: str) -> Shapes:
    queries, pairs = case.heads * case.head_dim, case.kv_heads * case.head_dim
    strong, mild = 2.8 / math.sqrt(case.width), 1.0 / math.sqrt(case.width)
    back = ((case.width, queries), 0.9 / math.sqrt(queries))
    if case.family == "phi3":
        return {
            f"{at}.qkv_proj.weight": ((queries + 2 * pairs, case.width), strong),
            f"{at}.o_proj.weight": back,
        }
    shapes: Shapes = {
        f"{at}.q_proj.weight": ((queries, case.width), strong),
        f"{at}.k_proj.weight": ((pairs, case.width), strong),
        f"{at}.v_proj.weight": ((pairs, case.width), mild),
        f"{at}.o_proj.weight": back,
    }
    if case.family == "qwen2" or case.get("attention_bias", False):
        shapes |= {f"{at}.q_proj.bias": ((queries,), 0.5), f"{at}.k_proj.bias": ((pairs,), 0.5)}
        shapes[f"{at}.v_proj.bias"] = ((pairs,), 0.5)
        if case.family != "qwen2":
            shapes[f"{at}.o_proj.bias"] = ((case.width,), 0.5)
    if case.family in ("qwen3", "gemma3"):
        shapes |= {f"{at}.{name}_norm.weight": ((case.head_dim,), 0.4) for name in "qk"}
    return shapes


def _ffn_shapes(case: Case, at: str) -> Shapes:
    into, out = 1.7 / math.sqrt(case.width), ((case.width, case.ffn), 0.9 / math.sqrt(case.ffn))
    names = ("gate_up_proj",) if case.family == "phi3" else ("gate_proj", "up_proj")
    rows = case.ffn * 2 // len(names)
    shapes: Shapes = {f"{at}.{name}.weight": ((rows, case.width), into) for name in names}
    shapes[f"{at}.down_proj.weight"] = out
    if case.get("mlp_bias", False):
        shapes |= {f"{at}.{name}.bias": ((case.ffn,), 0.3) for name in names}
        shapes[f"{at}.down_proj.bias"] = ((case.width,), 0.3)
    return shapes


def _gpt2_shapes(case: Case) -> Shapes:
    width = case.width
    shapes: Shapes = {
        "transformer.wte.weight": ((case.vocab, width), 0.4),
        "transformer.wpe.weight": ((case.context, width), 0.4),
    }
    for layer in range(case.layers):
        at = f"transformer.h.{layer}"
        for name, n, k in (  # as (in, out), the way of its Conv1D
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes[f"{at}.{name}.weight"] = ((n, k), 2.0 / math.sqrt(n))
            shapes[f"{at}.{name}.bias"] = ((k,), 0.3)
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{name}.weight": ((width,), 0.3), f"{at}.{name}.bias": ((width,), 0.3)}
    shapes |= {"transformer.ln_f.weight": ((width,), 0.3), "transformer.ln_f.bias": ((width,), 0.3)}
    return shapes


def shapes(case: Case) -> Shapes:
    """Shape and size of values of every tensor, by the name that transformers gives it."""
    if case.family == "gpt2":
        found = _gpt2_shapes(case)
    else:
        found = {"model.embed_tokens.weight": ((case.vocab, case.width), 0.4)}
        norms = ["input_layernorm", "post_attention_layernorm"]
        if case.family == "gemma3":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for layer in range(case.layers):
            at = f"model.layers.{layer}"
            found |= _attention_shapes(case, f"{at}.self_attn")
            found |= _ffn_shapes(case, f"{at}.mlp")
            found |= {f"{at}.{name}.weight": ((case.width,), 0.3) for name in norms}
        found["model.norm.weight"] = ((case.width,), 0.3)
    if not case.tied:
        found["lm_head.weight"] = ((case.vocab, case.width), 3.0 / math.sqrt(case.width))
    return found


def _number(case: Case) -> int:
    """A number of a case, by what it is and not by where it stands in a list."""
    words = sorted((key, repr(value)) for key, value in case.config.items())
    return zlib.crc32(repr((case.family, words, case.tokens)).encode())


def weights(case: Case) -> dict[str, Array]:
    """Weights by the names and in the layout of transformers."""
    found = {}
    for index, (name, (shape, scale)) in enumerate(shapes(case).items()):
        value = uniform(_number(case), index, shape, scale)
        is_norm = "norm" in name or ".ln_" in name
        # Gemma's norms multiply by one more than their weight.
        centred = is_norm and name.endswith("weight") and case.family != "gemma3"
        found[name] = value + np.float32(1.0) if centred else value
    return found


def ids(case: Case) -> npt.NDArray[np.int64]:
    """The (tokens,) sequence that the logits are for."""
    raw = np.random.Philox(key=[_number(case), 1 << 32]).random_raw(case.tokens)
    return (raw % np.uint64(case.vocab)).astype(np.int64)


def kept(case: Case) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Positions and tokens whose logits are committed: ends, and where a block or the window does."""
    window = case.get("sliding_window") or 0
    edges = {0, 1, 63, 64, 65, window - 1, window, window + 1, case.tokens - 2, case.tokens - 1}
    edges |= set(np.linspace(0, case.tokens - 1, 6, dtype=int).tolist())
    positions = sorted(at for at in edges if 0 <= at < case.tokens)
    return np.array(positions, np.intp), np.linspace(0, case.vocab - 1, 24, dtype=np.intp)
