"""Checks of array arguments. Each message names the function, the argument, what was expected, what came."""

from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def array(where: str, name: str, a: object, ndim: int | tuple[int, ...] | None = None) -> F32:
    """Check an argument: float32, C-contiguous, of `ndim` dimensions (any if None)."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{where}: {name} must be an ndarray of float32, got {type(a).__name__}")
    if a.dtype != np.float32 or not a.dtype.isnative:
        raise TypeError(f"{where}: {name} must be float32, got {a.dtype.str}")
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and a.ndim not in allowed:
        expected = " or ".join(map(str, allowed))
        raise ValueError(f"{where}: {name} must have {expected} dimensions, got shape {a.shape}")
    if not a.flags.c_contiguous:
        raise ValueError(f"{where}: {name} must be C-contiguous (use numpy.ascontiguousarray)")
    return a if a.flags.aligned else a.copy()


def refuse(where: str, name: str, a: npt.NDArray[np.floating[Any]], bad: npt.NDArray[np.bool_]) -> None:
    """Raise ValueError naming the first bad entry, if there is one."""
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"[{', '.join(map(str, at))}]" if at else ""
        raise ValueError(f"{where}: {name} must be finite, but {name}{place} is {a[at]}")


def finite(where: str, name: str, a: object, ndim: int | tuple[int, ...] | None = None) -> F32:
    """Check an argument as `array` does, and that no entry is NaN or infinite."""
    checked = array(where, name, a, ndim)
    refuse(where, name, checked, ~np.isfinite(checked))
    return checked


def same_shape(where: str, name: str, a: F32, other: str, b: F32) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{where}: {name} must have the shape of {other}, {b.shape}, got {a.shape}")


def vector(where: str, name: str, a: object, n: int) -> F32:
    checked = finite(where, name, a, 1)
    if checked.shape != (n,):
        raise ValueError(
            f"{where}: {name} must have shape ({n},) like the last axis of x, got {checked.shape}"
        )
    return checked


def rows(where: str, x: F32) -> int:
    """Length of the last axis, which must be there and not empty."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{where}: x must have a last axis that is not empty, got shape {x.shape}")
    return int(x.shape[-1])


def checked_eps(where: str, eps: float) -> float:
    if not (np.isfinite(eps) and eps >= 0):
        raise ValueError(f"{where}: eps must be finite and not negative, got {eps}")
    return float(eps)
