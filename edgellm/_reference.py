"""The operations in float64, written for clarity: what the kernels are measured against.

Each function gives the value and a magnitude; a kernel's error must stay below a bound from
``docs/numerics.md`` times that magnitude.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
EPS = 2.0**-24  # half the distance from 1 to the next float32: the error of one rounding


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def f64(a: npt.ArrayLike) -> F64:
    """Give an array as float64, exactly."""
    return np.asarray(a, np.float64)


def gemm(w: npt.ArrayLike, x: npt.ArrayLike) -> tuple[F64, F64]:
    """x w^T, and the sum of the magnitudes of its terms."""
    w, x = f64(w), f64(x)
    return x @ w.T, np.abs(x) @ np.abs(w).T


def dequantize_act(blocks: npt.NDArray[np.void]) -> F64:
    """Values that rounded activations stand for: (m, k / 32) blocks to (m, k)."""
    values = f64(blocks["scale"])[..., None] * f64(blocks["q"])
    return values.reshape(blocks.shape[0], -1)


def rms_norm(x: npt.ArrayLike, w: npt.ArrayLike, eps: float) -> tuple[F64, F64]:
    """x / sqrt(mean(x^2) + eps) * w"""
    x, w = f64(x), f64(w)
    y = x / np.sqrt(np.mean(x * x) + eps) * w
    return y, np.abs(y)


def layer_norm(x: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike | None, eps: float) -> tuple[F64, F64]:
    """(x - mean) / sqrt(var + eps) * w + b; the magnitude counts what cancels in x - mean."""
    x, w = f64(x), f64(w)
    bias = np.zeros_like(x) if b is None else f64(b)
    spread = np.sqrt(np.var(x) + eps)
    y = (x - x.mean()) / spread * w + bias
    cancelled = (np.abs(x) + np.abs(x).mean()) / spread
    # An error of the mean shifts every value and, through the variance, scales it.
    return y, np.abs(w) * cancelled * (1 + np.abs(x - x.mean()) / spread) + np.abs(bias)


def softmax(x: npt.ArrayLike) -> tuple[F64, F64]:
    """exp(x - max) / sum; exp magnifies the rounding of x - max, so the magnitude grows with it."""
    x = f64(x)
    distance = x - x.max()
    e = np.exp(distance)
    y = e / e.sum()
    near = np.where(np.isfinite(distance), distance, 0.0)
    return y, y * (8 + 2 * np.abs(near))


def silu(x: npt.ArrayLike) -> tuple[F64, F64]:
    """x / (1 + exp(-x))"""
    x = f64(x)
    y = x * np.exp(-np.logaddexp(0, -x))
    return y, np.abs(y)


def gelu(x: npt.ArrayLike) -> tuple[F64, F64]:
    """x Phi(x)"""
    x = f64(x)
    return 0.5 * x * _erfc(-x / math.sqrt(2)), np.abs(x)


def gelu_tanh(x: npt.ArrayLike) -> tuple[F64, F64]:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"""
    x = f64(x)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * np.exp(-np.logaddexp(0, -2 * inner)), np.abs(x)


def swiglu(gate: npt.ArrayLike, up: npt.ArrayLike) -> tuple[F64, F64]:
    """silu(gate) * up"""
    y = silu(gate)[0] * f64(up)
    return y, np.abs(y)


def geglu_tanh(gate: npt.ArrayLike, up: npt.ArrayLike) -> tuple[F64, F64]:
    """gelu_tanh(gate) * up; the magnitude is that of gate times up."""
    y, magnitude = gelu_tanh(gate)
    return y * f64(up), magnitude * np.abs(f64(up))


def rope(x: npt.ArrayLike, rotated: int, cs: npt.ArrayLike) -> tuple[F64, F64]:
    """Rotate adjacent pairs of (heads, d) by cs of shape (rotated / 2, 2)."""
    x, cs = f64(x), f64(cs)
    y, magnitude = x.copy(), np.abs(x)
    a, b = x[:, 0:rotated:2], x[:, 1:rotated:2]
    c, s = cs[:, 0], cs[:, 1]
    y[:, 0:rotated:2], y[:, 1:rotated:2] = a * c - b * s, a * s + b * c
    magnitude[:, 0:rotated:2] = np.abs(a * c) + np.abs(b * s)
    magnitude[:, 1:rotated:2] = np.abs(a * s) + np.abs(b * c)
    return y, magnitude


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    last: list[int],
    scale: float,
    window: int | None = None,
) -> tuple[F64, F64]:
    """Softmax attention of rows of q over keys 0 .. last[r], or the last `window` of them; k, v as stored.

    The magnitude is the weighted mean of |v| times one plus the sum of magnitudes of a score's terms.
    """
    q, k, v = f64(q), f64(k), f64(v)
    y, magnitude = np.zeros_like(q), np.zeros_like(q)
    for r, end in enumerate(last):
        seen = slice(0 if window is None else max(0, end + 1 - window), end + 1)
        terms = np.abs(q[r]) @ np.abs(k[seen]).T * abs(scale)
        p = softmax(k[seen] @ q[r] * scale)[0]
        y[r] = p @ v[seen]
        magnitude[r] = (p @ np.abs(v[seen])) * (1 + terms.max())
    return y, magnitude


def _head_blocks(x: npt.ArrayLike) -> F64:
    """(s, d) values as (s, blocks, 32), the last block filled up with zeros."""
    x = f64(x)
    filled = np.zeros((x.shape[0], -(-x.shape[1] // 32) * 32))
    filled[:, : x.shape[1]] = x
    return filled.reshape(x.shape[0], -1, 32)


def quantize_kv_q8(x: npt.ArrayLike) -> F64:
    """What a q8_0 cache holds of (s, d) float32 keys or values: blocks of 32 of a head, scale in float16."""
    x = f64(x)
    blocks = _head_blocks(x).astype(np.float32)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    held = amax >= np.float32(2.0**-100)
    safe = np.where(held, amax, np.float32(1.0))
    q = np.where(held, np.rint(blocks * (np.float32(127.0) / safe)), np.float32(0.0))
    scale = np.where(held, amax / np.float32(127.0), np.float32(0.0))
    d = np.minimum(scale, np.float32(65504.0)).astype(np.float16)
    return (f64(d) * q).reshape(x.shape[0], -1)[:, : x.shape[1]]


def kv_q8_bound(x: npt.ArrayLike) -> F64:
    """Bound on the error of rounding (s, d) keys or values below 8.3e6 to q8_0."""
    x = f64(x)
    blocks = _head_blocks(x)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    bound = np.broadcast_to(amax / 254 * (1 + 2.0**-10), blocks.shape) + 2.0**-11 * np.abs(blocks)
    return (bound + 127 * 2.0**-25).reshape(x.shape[0], -1)[:, : x.shape[1]]


def quantize_act_bound(x: npt.ArrayLike) -> F64:
    """Bound on the error of rounding (m, k) activations to 8 bits per block of 32."""
    x = f64(x)
    blocks = x.reshape(x.shape[0], -1, 32)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    bound = np.broadcast_to(amax / 254 * (1 + 2.0**-20), blocks.shape) + 2.0**-22 * np.abs(blocks)
    tiny = np.where(amax < 2.0**-100, amax, 0.0)
    return (bound + tiny).reshape(x.shape)
