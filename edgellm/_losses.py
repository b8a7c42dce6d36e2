"""Losses on NumPy arrays, in double precision. `edgellm.ops` is their front door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm import _check, _core
from edgellm._check import F32


def cross_entropy(
    logits: F32, targets: Sequence[int] | npt.NDArray[np.integer[Any]], *, isa: str | None = None
) -> float:
    """Mean of ``-log softmax(logits)[target]``, in nats.

    Parameters
    ----------
    logits : (v,) or (n, v) ndarray of float32
        Finite scores of v classes.
    targets : int or (n,) sequence of int
        0 to v - 1, one for each row.
    isa : str, optional
        Checked, but without effect: the sums are taken in double precision, the same on every machine.

    Returns
    -------
    loss : float
        ``exp(loss)`` is the perplexity.

    Raises
    ------
    TypeError
        If `logits` is not float32 or `targets` are not integers.
    ValueError
        If shapes do not fit, a target is out of range, there is no row, or `logits` is not C-contiguous or
        holds NaN or infinity.

    Examples
    --------
    >>> round(edgellm.ops.cross_entropy(np.zeros((1, 4), np.float32), [2]), 6)
    1.386294
    """
    logits = _check.finite("cross_entropy", "logits", logits, (1, 2))
    which = np.asarray(targets)
    if not (which.size == 0 or np.issubdtype(which.dtype, np.integer)):
        raise TypeError(f"cross_entropy: targets must be integers, got {which.dtype}")
    rows = logits if logits.ndim == 2 else logits[None, :]
    if rows.size == 0:
        raise ValueError(f"cross_entropy: logits must not be empty, got shape {logits.shape}")
    if which.shape != logits.shape[:-1] and which.shape != rows.shape[:1]:
        raise ValueError(f"cross_entropy: targets must have shape {logits.shape[:-1]}, got {which.shape}")
    if int(which.min()) < 0 or int(which.max()) >= rows.shape[1]:
        raise ValueError(f"cross_entropy: targets must lie in 0..{rows.shape[1] - 1}")
    return _core.ops_cross_entropy(rows, which.astype(np.int64).reshape(-1), isa)


def mse(a: F32, b: F32) -> float:
    """Mean of the squared differences, in double precision.

    Parameters
    ----------
    a, b : ndarray of float32
        Finite, C-contiguous, of one shape, not empty.

    Returns
    -------
    error : float

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If the shapes differ, an array is empty, not C-contiguous, or holds NaN or infinity.

    Examples
    --------
    >>> edgellm.ops.mse(np.float32([1, 2]), np.float32([1, 4]))
    2.0
    """
    a, b = _check.finite("mse", "a", a), _check.finite("mse", "b", b)
    _check.same_shape("mse", "b", b, "a", a)
    if a.size == 0:
        raise ValueError("mse: a must not be empty")
    return _core.ops_mse(a, b)
