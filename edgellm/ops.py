"""The engine's operations on NumPy arrays: the kernels that models run, one by one.

Arrays are float32, C-contiguous and finite; nothing is converted silently. Every function returns a new
array, releases the GIL and runs on the calling thread. With ``isa=`` an operation takes its best kernel at
or below that instruction set (`edgellm.cpu.runnable_isas`); the bits are the same on all of them.
``docs/numerics.md`` has each operation's exact order of rounding and its bound to float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm import _check, _core
from edgellm._check import F32
from edgellm._losses import cross_entropy, mse
from edgellm.quant import TYPES, QuantTensor

__all__ = [
    "attention",
    "cross_entropy",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "matmul",
    "mse",
    "rms_norm",
    "rope",
    "silu",
    "softmax",
    "swiglu",
]

_MAX_POSITION = 1 << 20
_MAX_HEAD = 256


def matmul(w: QuantTensor | F32 | npt.NDArray[np.float16], x: F32, *, isa: str | None = None) -> F32:
    """Multiply by the transpose of a weight matrix: ``x @ w.T``.

    Parameters
    ----------
    w : (n, k) QuantTensor or ndarray of float32 or float16
        Weights, one row for each output. In a quantized format k is a multiple of 32 (256 for the K-quants,
        tq1_0 and tq2_0).
    x : (k,) or (m, k) ndarray of float32
        Finite values. With quantized weights they are rounded to 8 bits per block of 32 first, as inside
        a model.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : (n,) or (m, n) ndarray of float32

    Raises
    ------
    TypeError
        If `w` or `x` is of another type or dtype.
    ValueError
        If shapes do not fit, an array is not C-contiguous, `x` holds NaN or infinity, or `isa` cannot be had.

    Notes
    -----
    Packs `w` anew in each call; a model packs once.

    Examples
    --------
    >>> w = edgellm.quant.quantize(np.eye(32, dtype=np.float32), "q8_0")
    >>> edgellm.ops.matmul(w, np.full(32, 0.5, np.float32))[:3].round(3)
    array([0.5, 0.5, 0.5], dtype=float32)
    """
    if isinstance(w, QuantTensor):
        number, shape, raw = TYPES[w.type].number, w.shape, w.tobytes()
    elif isinstance(w, np.ndarray) and w.dtype.isnative and w.dtype in (np.float32, np.float16):
        if not w.flags.c_contiguous:
            raise ValueError("matmul: w must be C-contiguous (use numpy.ascontiguousarray)")
        _check.refuse("matmul", "w", w, ~np.isfinite(w))
        number, shape, raw = (0 if w.dtype == np.float32 else 1), w.shape, w.tobytes()
    else:
        kind = w.dtype.str if isinstance(w, np.ndarray) else type(w).__name__
        raise TypeError(f"matmul: w must be a QuantTensor or an ndarray of float32 or float16, got {kind}")
    if len(shape) != 2:
        raise ValueError(f"matmul: w must have 2 dimensions, got shape {shape}")
    x = _check.finite("matmul", "x", x, (1, 2))
    if x.shape[-1] != shape[1]:
        raise ValueError(f"matmul: x must have {shape[1]} columns like w, got shape {x.shape}")
    y = _core.ops_matmul(number, shape[0], raw, x.reshape(-1, shape[1]) if x.ndim == 2 else x[None, :], isa)
    return y if x.ndim == 2 else y[0]


def rms_norm(x: F32, w: F32, eps: float = 1e-5, *, isa: str | None = None) -> F32:
    """Divide by the root of the mean square: ``x / sqrt(mean(x**2) + eps) * w``.

    Parameters
    ----------
    x : (..., n) ndarray of float32
        Normalized along the last axis, which is not empty.
    w : (n,) ndarray of float32
        Gains.
    eps : float
        Added to the mean square.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : (..., n) ndarray of float32

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If shapes do not fit, an array is not C-contiguous or holds NaN or infinity, `eps` is negative, or
        `isa` cannot be had.

    Notes
    -----
    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Examples
    --------
    >>> edgellm.ops.rms_norm(np.float32([3, 4]), np.ones(2, np.float32), 0.0).round(3)
    array([0.849, 1.131], dtype=float32)
    """
    x = _check.finite("rms_norm", "x", x)
    w = _check.vector("rms_norm", "w", w, _check.rows("rms_norm", x))
    return _core.ops_norm(x, w, None, _check.checked_eps("rms_norm", eps), False, isa)


def layer_norm(x: F32, w: F32, b: F32 | None = None, eps: float = 1e-5, *, isa: str | None = None) -> F32:
    """Normalize to mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * w + b``.

    Parameters
    ----------
    x : (..., n) ndarray of float32
        Normalized along the last axis, which is not empty.
    w : (n,) ndarray of float32
        Gains.
    b : (n,) ndarray of float32, optional
        Biases.
    eps : float
        Added to the variance.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : (..., n) ndarray of float32

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If shapes do not fit, an array is not C-contiguous or holds NaN or infinity, `eps` is negative, or
        `isa` cannot be had.

    Notes
    -----
    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> edgellm.ops.layer_norm(np.float32([1, 3]), np.ones(2, np.float32), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    x = _check.finite("layer_norm", "x", x)
    n = _check.rows("layer_norm", x)
    w = _check.vector("layer_norm", "w", w, n)
    b = None if b is None else _check.vector("layer_norm", "b", b, n)
    return _core.ops_norm(x, w, b, _check.checked_eps("layer_norm", eps), True, isa)


def softmax(x: F32, *, isa: str | None = None) -> F32:
    """Turn scores into weights that sum to 1: ``exp(x - max) / sum``, along the last axis.

    Parameters
    ----------
    x : (..., n) ndarray of float32
        The last axis is not empty. Entries may be ``-inf`` and get exactly 0, if a row has a finite one.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : (..., n) ndarray of float32

    Raises
    ------
    TypeError
        If `x` is not float32.
    ValueError
        If `x` has no last axis or an empty one, is not C-contiguous, holds NaN or ``+inf``, or has a row of
        nothing but ``-inf``; if `isa` cannot be had.

    Examples
    --------
    >>> edgellm.ops.softmax(np.float32([0, 0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    x = _check.array("softmax", "x", x)
    _check.rows("softmax", x)
    _check.refuse("softmax", "x", x, ~np.isfinite(x) & ~np.isneginf(x))
    if np.isneginf(x).all(axis=-1).any():
        raise ValueError("softmax: x has a row of nothing but -inf")
    return _core.ops_softmax(x, isa)


def silu(x: F32, *, isa: str | None = None) -> F32:
    """Apply ``x / (1 + exp(-x))`` to each entry.

    Parameters
    ----------
    x : ndarray of float32
        Finite, C-contiguous, of any shape.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` is not float32.
    ValueError
        If `x` is not C-contiguous or holds NaN or infinity, or `isa` cannot be had.

    Notes
    -----
    Source: Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units", 2018.

    Examples
    --------
    >>> edgellm.ops.silu(np.float32([0, 1])).round(4).tolist()
    [0.0, 0.7311...]
    """
    return _core.ops_map("silu", _check.finite("silu", "x", x), isa)


def gelu(x: F32, *, isa: str | None = None) -> F32:
    """Apply ``0.5 * x * (1 + erf(x / sqrt(2)))`` to each entry.

    Parameters
    ----------
    x : ndarray of float32
        Finite, C-contiguous, of any shape.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` is not float32.
    ValueError
        If `x` is not C-contiguous or holds NaN or infinity, or `isa` cannot be had.

    Notes
    -----
    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.

    Examples
    --------
    >>> edgellm.ops.gelu(np.float32([0, 1])).round(4).tolist()
    [0.0, 0.8413...]
    """
    return _core.ops_map("gelu", _check.finite("gelu", "x", x), isa)


def gelu_tanh(x: F32, *, isa: str | None = None) -> F32:
    """Apply ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` to each entry.

    Parameters
    ----------
    x : ndarray of float32
        Finite, C-contiguous, of any shape.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` is not float32.
    ValueError
        If `x` is not C-contiguous or holds NaN or infinity, or `isa` cannot be had.

    Notes
    -----
    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, its approximation.

    Examples
    --------
    >>> edgellm.ops.gelu_tanh(np.float32([0, 1])).round(4).tolist()
    [0.0, 0.8411...]
    """
    return _core.ops_map("gelu_tanh", _check.finite("gelu_tanh", "x", x), isa)


def swiglu(gate: F32, up: F32, *, isa: str | None = None) -> F32:
    """Apply ``silu(gate) * up`` to each pair of entries.

    Parameters
    ----------
    gate, up : ndarray of float32
        Finite, C-contiguous, of one shape.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the same shape.

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If the shapes differ, an array is not C-contiguous or holds NaN or infinity, or `isa` cannot be had.

    Notes
    -----
    Source: Shazeer, "GLU Variants Improve Transformer", 2020.

    Examples
    --------
    >>> edgellm.ops.swiglu(np.float32([0, 1]), np.float32([5, 2])).round(4).tolist()
    [0.0, 1.4621...]
    """
    gate, up = _check.finite("swiglu", "gate", gate), _check.finite("swiglu", "up", up)
    _check.same_shape("swiglu", "up", up, "gate", gate)
    return _core.ops_swiglu(gate, up, isa)


def rope(
    x: F32,
    positions: Sequence[int] | npt.NDArray[np.integer[Any]],
    theta: float = 10000.0,
    rotated: int | None = None,
    *,
    isa: str | None = None,
) -> F32:
    """Rotate adjacent pairs of values by angles that grow with the position.

    Parameters
    ----------
    x : (t, d) or (t, h, d) ndarray of float32
        One row for each position, with h heads of size d.
    positions : (t,) sequence of int
        0 to 2**20.
    theta : float
        Base of the frequencies, 1 to 1e9: pair i turns by ``position * theta**(-2 * i / rotated)`` radians.
    rotated : int, optional
        How many of the first values of a head turn; even. Default: d.
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` is not float32 or `positions` are not integers.
    ValueError
        If shapes do not fit, `x` is not C-contiguous or holds NaN or infinity, or another argument is out
        of range.

    Notes
    -----
    Source: Su et al., "RoFormer", 2021; pairs are adjacent, as GGUF files of Llama models have them.

    Examples
    --------
    >>> edgellm.ops.rope(np.float32([[1, 0]]), [1]).round(4).tolist()
    [[0.5403..., 0.8414...]]
    """
    x = _check.finite("rope", "x", x, (2, 3))
    where = np.asarray(positions)
    if not (where.size == 0 or np.issubdtype(where.dtype, np.integer)):
        raise TypeError(f"rope: positions must be integers, got {where.dtype}")
    if where.shape != x.shape[:1]:
        raise ValueError(
            f"rope: positions must have shape ({x.shape[0]},) like the rows of x, got {where.shape}"
        )
    if where.size and not (int(where.min()) >= 0 and int(where.max()) <= _MAX_POSITION):
        raise ValueError(f"rope: positions must lie in 0..{_MAX_POSITION}")
    if not (1.0 <= theta <= 1e9):
        raise ValueError(f"rope: theta must lie in 1..1e9, got {theta}")
    d = x.shape[-1]
    turned = d if rotated is None else rotated
    if not (0 <= turned <= d and turned % 2 == 0):
        raise ValueError(f"rope: rotated must be even and at most the head size {d}, got {turned}")
    three = x if x.ndim == 3 else x[:, None, :]
    return _core.ops_rope(three, where.astype(np.int64), turned, float(theta), isa).reshape(x.shape)


def attention(
    q: F32, k: F32, v: F32, scale: float | None = None, *, causal: bool = True, isa: str | None = None
) -> F32:
    """Scaled dot-product attention, with grouped heads.

    Parameters
    ----------
    q : (t, d) or (t, h, d) ndarray of float32
        Queries: t positions, h heads of size d, at most 256.
    k, v : (s, d) or (s, g, d) ndarray of float32
        Keys and values; g divides h, and head i uses group ``i // (h // g)``. They are rounded to float16,
        as in the cache of a model.
    scale : float, optional
        Multiplies the scores. Default: ``1 / sqrt(d)``.
    causal : bool
        If true, query i sees keys up to ``s - t + i`` (the queries are the last t positions; t <= s).
    isa : str, optional
        Cap on the instruction set.

    Returns
    -------
    y : ndarray of float32
        Of the shape of `q`.

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If shapes do not fit, an array is not C-contiguous or holds NaN or infinity, `scale` is not finite, or
        `isa` cannot be had.

    Notes
    -----
    Source: Vaswani et al., "Attention Is All You Need", 2017; grouped heads: Ainslie et al., "GQA", 2023.

    Examples
    --------
    >>> q, k = np.zeros((1, 8), np.float32), np.zeros((2, 8), np.float32)
    >>> edgellm.ops.attention(q, k, np.float32([[0] * 8, [1] * 8]))[0, :2].tolist()
    [0.5, 0.5]
    """
    q = _check.finite("attention", "q", q, (2, 3))
    k, v = _check.finite("attention", "k", k, q.ndim), _check.finite("attention", "v", v, q.ndim)
    _check.same_shape("attention", "v", v, "k", k)
    q_3, k_3, v_3 = (a if a.ndim == 3 else a[:, None, :] for a in (q, k, v))
    (t, h, d), (s, g, d_k) = q_3.shape, k_3.shape
    if d != d_k or not 1 <= d <= _MAX_HEAD:
        raise ValueError(f"attention: q and k must have one head size of 1 to {_MAX_HEAD}, got {d} and {d_k}")
    if s == 0 or g == 0 or h % g != 0:
        raise ValueError(f"attention: k must have a position and heads that divide those of q, got {k.shape}")
    if causal and t > s:
        raise ValueError(f"attention: causal needs at least as many keys as queries, got {s} and {t}")
    if np.abs(k).max() >= 65520 or np.abs(v).max() >= 65520:
        raise ValueError("attention: k and v must be below 65520 in magnitude, the range of float16")
    factor = 1.0 / float(np.sqrt(d)) if scale is None else float(scale)
    if not np.isfinite(factor):
        raise ValueError(f"attention: scale must be finite, got {scale}")
    if d % 8:  # zeros add nothing to a score
        q_3, k_3, v_3 = (np.pad(a, ((0, 0), (0, 0), (0, -d % 8))) for a in (q_3, k_3, v_3))
    y = _core.ops_attention(q_3, k_3, v_3, factor, bool(causal), isa)
    return np.ascontiguousarray(y[:, :, :d]).reshape(q.shape)
