"""The Llama forward pass in float64, straight from the paper's formulas: an oracle for whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm import gguf, quant

PARTS = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
Array = npt.NDArray[np.float64]


def weights(path: Path) -> dict[str, Array]:
    """Every tensor of a file as float64."""
    raw = path.read_bytes()
    out = {}
    for t in gguf.read(path).tensors:
        data = raw[t.offset : t.offset + t.nbytes]
        shape = t.shape if len(t.shape) == 2 else (1, *t.shape)
        out[t.name] = quant.from_bytes(data, t.type, shape).dequantize().astype(np.float64).reshape(t.shape)
    return out


def rms_norm(x: Array, w: Array, eps: float) -> Array:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * w


def rotate(x: Array, base: float) -> Array:
    """Rotary embedding of (positions, heads, d) on adjacent pairs, positions from 0."""
    positions, _, d = x.shape
    angle = np.arange(positions)[:, None] * base ** (-np.arange(0, d, 2) / d)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def attention(q: Array, k: Array, v: Array, kv: type[np.floating[Any]]) -> Array:
    """Causal attention; q is (t, heads, d), k and v are (t, kv_heads, d), rounded to `kv` as in the cache."""
    t, heads, d = q.shape
    group = heads // k.shape[1]
    k, v = (np.repeat(x.astype(kv).astype(np.float64), group, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(d)
    scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", p, v).reshape(t, heads * d)


def forward(path: Path, ids: list[int], kv: type[np.floating[Any]] = np.float16) -> Array:
    """Logits (n, vocab) of n tokens, with a cache of type `kv`."""
    meta: dict[str, Any] = dict(gguf.read(path).metadata)
    w = weights(path)
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    eps, base = meta["llama.attention.layer_norm_rms_epsilon"], meta["llama.rope.freq_base"]
    x = w["token_embd.weight"][ids]
    t = len(ids)
    for i in range(meta["llama.block_count"]):
        part = {name: w[f"blk.{i}.{name}.weight"] for name in PARTS}
        h = rms_norm(x, part["attn_norm"], eps)
        q = rotate((h @ part["attn_q"].T).reshape(t, heads, -1), base)
        k = rotate((h @ part["attn_k"].T).reshape(t, kv_heads, -1), base)
        v = (h @ part["attn_v"].T).reshape(t, kv_heads, -1)
        x = x + attention(q, k, v, kv) @ part["attn_output"].T
        h = rms_norm(x, part["ffn_norm"], eps)
        gate = h @ part["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part["ffn_up"].T)) @ part["ffn_down"].T
    x = rms_norm(x, w["output_norm.weight"], eps)
    return x @ w.get("output.weight", w["token_embd.weight"]).T
