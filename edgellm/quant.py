"""Quantized tensors in the formats of GGUF files: made from float32, turned back, and carried about.

`from_bytes` takes the bytes of a tensor as a file holds them. Dequantization gives the same float32 bits
as the ``gguf`` package does, and so does quantization, for the formats that ``gguf`` can make.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from edgellm import _core

__all__ = ["QUANTIZABLE", "TYPES", "QuantTensor", "TypeInfo", "from_bytes", "quantize"]


class TypeInfo(NamedTuple):
    """A tensor format: its number in GGUF files, values per block, bytes per block."""

    number: int
    block_values: int
    block_bytes: int

    @property
    def bits_per_value(self) -> float:
        """Bits that one value takes, scales included."""
        return 8.0 * self.block_bytes / self.block_values


TYPES: Mapping[str, TypeInfo] = MappingProxyType(
    {name: TypeInfo(*numbers) for name, numbers in _core.quant_types().items()}
)
"""Every format by its lower-case name, such as ``"q4_k"``."""

QUANTIZABLE: tuple[str, ...] = (
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0",
)  # fmt: skip
"""Formats that `quantize` can make; the others can be read only."""


class QuantTensor:
    """A tensor in one of the formats of `TYPES`. Immutable; made by `quantize` and `from_bytes`.

    Attributes
    ----------
    type : str
        Lower-case name of the format.
    shape : tuple of int
        Extents in values; the last is k, along which blocks run.
    """

    __slots__ = ("__weakref__", "_raw", "shape", "type")

    type: str
    shape: tuple[int, ...]
    _raw: bytes

    def __init__(self) -> None:
        raise TypeError("a QuantTensor is made by edgellm.quant.quantize or edgellm.quant.from_bytes")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"QuantTensor is immutable: cannot set {name!r}")

    @property
    def nbytes(self) -> int:
        """Bytes of the packed values."""
        return len(self._raw)

    def tobytes(self) -> bytes:
        """Give the bytes as a GGUF file holds them: rows one after the other. No copy is made."""
        return self._raw

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Compute the values.

        Returns
        -------
        values : ndarray of float32
            A new array of this tensor's shape. Infinite or NaN scales, which only foreign bytes hold,
            give infinite or NaN values.

        Notes
        -----
        Releases the GIL. Bit for bit what ``gguf.quants.dequantize`` gives (NaN payloads aside).

        Examples
        --------
        >>> import numpy as np, edgellm.quant
        >>> w = edgellm.quant.quantize(np.full((1, 32), 127, np.float32), "q8_0")
        >>> w.dequantize()[0, :2].tolist()
        [127.0, 127.0]
        """
        return _core.dequantize(self._raw, self.type).reshape(self.shape)

    def __repr__(self) -> str:
        return f"QuantTensor(type={self.type!r}, shape={self.shape}, nbytes={self.nbytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return from_bytes, (self._raw, self.type, self.shape)


def quantize(a: npt.NDArray[np.float32], type: str) -> QuantTensor:
    """Round an array to a format.

    Parameters
    ----------
    a : (..., k) ndarray of float32
        Finite values, C-contiguous; k is a multiple of the format's block (1, 32 or 256 values).
    type : str
        One of `QUANTIZABLE`, in any case.

    Returns
    -------
    tensor : QuantTensor
        Of the same shape.

    Raises
    ------
    TypeError
        If `a` is no array of float32, or `type` no string. Nothing is converted silently.
    ValueError
        If `a` is not C-contiguous, has no dimensions, holds NaN or infinity, or k is no multiple of the
        block; if `type` is unknown or cannot be made.

    Notes
    -----
    Releases the GIL. Bit for bit what ``gguf.quants.quantize`` gives on x86-64. Values beyond the range
    of float16 scales give infinite scales there and here.

    Examples
    --------
    >>> import numpy as np, edgellm.quant
    >>> w = edgellm.quant.quantize(np.eye(32, dtype=np.float32), "q4_0")
    >>> w.shape, w.nbytes
    ((32, 32), 576)
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"quantize: a must be an ndarray of float32, got {_kind(a)}")
    if a.dtype != np.float32 or not a.dtype.isnative:
        raise TypeError(
            f"quantize: a must be float32, got {a.dtype.str if a.dtype == np.float32 else a.dtype}"
        )
    name = _type_name("quantize", type)
    if name not in QUANTIZABLE:
        raise ValueError(
            f"quantize: type {name!r} can be read, not made; possible are {', '.join(QUANTIZABLE)}"
        )
    if a.ndim == 0:
        raise ValueError("quantize: a must have at least one dimension, got none")
    if not a.flags.c_contiguous:
        raise ValueError("quantize: a must be C-contiguous (use numpy.ascontiguousarray)")
    _check_k("quantize", a.shape, name)
    return _make(_core.quantize(a if a.flags.aligned else a.copy(), name), name, a.shape)


def from_bytes(
    raw: bytes | bytearray | memoryview | npt.NDArray[Any], type: str, shape: Sequence[SupportsIndex]
) -> QuantTensor:
    """Take the bytes of a tensor as a GGUF file holds them.

    Parameters
    ----------
    raw : bytes-like
        Exactly the bytes of `shape`, C-contiguous. Copied, unless they are `bytes`.
    type : str
        A name of `TYPES`, in any case.
    shape : sequence of int
        Extents in values, such as ``(n, k)``; k is a multiple of the format's block.

    Returns
    -------
    tensor : QuantTensor

    Raises
    ------
    TypeError
        If `raw` is not bytes-like, `type` no string or `shape` no sequence of integers.
    ValueError
        If `type` is unknown, an extent is negative, k is no multiple of the block, or the number of bytes
        is another than the shape takes.

    Examples
    --------
    >>> import edgellm.quant
    >>> edgellm.quant.from_bytes(bytes(288), "q4_k", (2, 256)).dequantize().shape
    (2, 256)
    """
    name = _type_name("from_bytes", type)
    extents = _shape("from_bytes", shape)
    _check_k("from_bytes", extents, name)
    info = TYPES[name]
    expected = math.prod(extents) // info.block_values * info.block_bytes
    try:
        view = memoryview(raw)  # type: ignore[arg-type]  # an ndarray is a buffer
    except TypeError:
        raise TypeError(f"from_bytes: raw must be bytes-like, got {_kind(raw)}") from None
    if not view.c_contiguous:
        raise ValueError("from_bytes: raw must be C-contiguous")
    if view.nbytes != expected:
        raise ValueError(f"from_bytes: {name} of shape {extents} takes {expected} bytes, got {view.nbytes}")
    return _make(raw if isinstance(raw, bytes) else view.tobytes(), name, extents)


def _make(raw: bytes, name: str, shape: tuple[int, ...]) -> QuantTensor:
    tensor = object.__new__(QuantTensor)
    object.__setattr__(tensor, "_raw", raw)
    object.__setattr__(tensor, "type", name)
    object.__setattr__(tensor, "shape", shape)
    return tensor


def _kind(value: object) -> str:
    return value.__class__.__name__


def _type_name(where: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{where}: type must be a string such as 'q4_0', got {_kind(name)}")
    if name.lower() not in TYPES:
        raise ValueError(f"{where}: unknown type {name[:40]!r}; known are {', '.join(TYPES)}")
    return name.lower()


def _shape(where: str, shape: object) -> tuple[int, ...]:
    try:
        extents = tuple(operator.index(extent) for extent in shape)  # type: ignore[attr-defined]  # may fail
    except TypeError:
        raise TypeError(f"{where}: shape must be a sequence of integers, got {shape!r}") from None
    if not extents or min(extents) < 0:
        raise ValueError(f"{where}: shape must have extents of at least 0, got {extents}")
    return extents


def _check_k(where: str, shape: tuple[int, ...], name: str) -> None:
    block = TYPES[name].block_values
    if shape[-1] % block:
        raise ValueError(
            f"{where}: {name} has blocks of {block} values, and {shape[-1]} is no multiple of that"
        )
