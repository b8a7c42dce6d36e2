"""Small Llama models whose weights come from a counter, so that two environments make the same ones.

benchmarks/parity/make_goldens.py computes their logits with transformers, once, and the file
tests/unit/test_model_goldens.py compares the engine with those. So this one imports NumPy only.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

VOCAB = 300
POSITIONS = 32


@dataclasses.dataclass(frozen=True)
class Golden:
    """A shape, in the words of GGUF."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    tied: bool = True
    rope_base: float = 10000.0
    rope_factor: float = 1.0
    eps: float = 1e-5


CASES = {
    "grouped, tied": Golden(),
    "one head each, separate head": Golden(kv_heads=4, tied=False, rope_base=500000.0, eps=1e-6),
    "one key-value head, wide heads": Golden(layers=3, kv_heads=1, head_dim=32, tied=False, eps=1e-3),
    "positions scaled": Golden(heads=6, kv_heads=3, width=96, ffn=64, rope_factor=4.0, rope_base=100.0),
}


def uniform(case: int, index: int, shape: tuple[int, ...], scale: float) -> npt.NDArray[np.float32]:
    """Values in [-scale, scale) that depend on the arguments only: Philox promises stable bits."""
    raw = np.random.Philox(key=[case, index]).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(40)).astype(np.float32) / 2.0**23 - 1.0).reshape(shape) * np.float32(scale)


def weights(name: str) -> dict[str, npt.NDArray[np.float32]]:
    """Weights by their GGUF names, rows of queries and keys in the order of transformers (two halves)."""
    golden, case = CASES[name], list(CASES).index(name)
    shapes: dict[str, tuple[tuple[int, ...], float]] = {"token_embd": ((VOCAB, golden.width), 0.3)}
    for layer in range(golden.layers):
        shapes |= {
            f"blk.{layer}.attn_q": ((golden.heads * golden.head_dim, golden.width), 0.35),
            f"blk.{layer}.attn_k": ((golden.kv_heads * golden.head_dim, golden.width), 0.35),
            f"blk.{layer}.attn_v": ((golden.kv_heads * golden.head_dim, golden.width), 0.1),
            f"blk.{layer}.attn_output": ((golden.width, golden.heads * golden.head_dim), 0.1),
            f"blk.{layer}.ffn_gate": ((golden.ffn, golden.width), 0.2),
            f"blk.{layer}.ffn_up": ((golden.ffn, golden.width), 0.2),
            f"blk.{layer}.ffn_down": ((golden.width, golden.ffn), 0.1),
            f"blk.{layer}.attn_norm": ((golden.width,), 0.2),
            f"blk.{layer}.ffn_norm": ((golden.width,), 0.2),
        }
    shapes["output_norm"] = ((golden.width,), 0.2)
    if not golden.tied:
        shapes["output"] = ((VOCAB, golden.width), 0.2)
    found = {}
    for index, (stem, (shape, scale)) in enumerate(shapes.items()):
        value = uniform(case, index, shape, scale)
        found[f"{stem}.weight"] = value + np.float32(1.0) if stem.endswith("norm") else value
    return found


def ids(name: str) -> npt.NDArray[np.int64]:
    """The (POSITIONS,) tokens that the logits are for."""
    raw = np.random.Philox(key=[1000, list(CASES).index(name)]).random_raw(POSITIONS)
    return (raw % np.uint64(VOCAB)).astype(np.int64)


def permute(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows from the order of transformers (two halves) to that of GGUF (rotated pairs side by side)."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )
