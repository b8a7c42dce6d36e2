"""Headers of GGUF files: metadata and where each tensor lies.

The bytes are checked by the C core before anything is believed (every count, length, offset, type and
alignment); this module opens files and turns checked bytes into Python values.
"""

import os
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Union, overload

import numpy as np
import numpy.typing as npt

from edgellm import _core

__all__ = ["Header", "Strings", "Tensor", "read"]

KINDS = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")
"""Value types of GGUF metadata, in the order of their numbers."""

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {kind: np.dtype(f"<{kind[0]}{int(kind[1:]) // 8}") for kind in KINDS if kind[-1].isdigit()}
)
"""NumPy's type of each numeric value type."""

Scalar = int | float | bool | str
Value = Union[Scalar, npt.NDArray[Any], "Strings"]

_FIRST_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in a file.

    Attributes
    ----------
    name : str
    type : str
        A name of `edgellm.quant.TYPES`.
    shape : tuple of int
        Extents in values, NumPy's way round: the last is the one that blocks run along.
    offset : int
        Of the first byte, from the start of the file.
    nbytes : int
    """

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Strings(Sequence[str]):
    """A long array of strings, such as a vocabulary, decoded one by one when it is looked at.

    Bytes that are no UTF-8 show as U+FFFD; `raw` gives them as they are.
    """

    __slots__ = ("_count", "_data", "_ends")

    def __init__(self, data: bytes, count: int) -> None:
        self._data = data
        self._count = count
        self._ends: array[int] | None = None

    def __len__(self) -> int:
        return self._count

    def raw(self, index: int) -> bytes:
        """Give the bytes of one string."""
        end = self._index()[index]
        index %= self._count
        begin = (0 if index == 0 else self._index()[index - 1]) + 8
        return self._data[begin:end]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return self.raw(index).decode("utf-8", errors="replace")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(self._count))

    def _index(self) -> "array[int]":
        if self._ends is None:
            ends, at = array("Q"), 0
            for _ in range(self._count):
                at += 8 + int.from_bytes(self._data[at : at + 8], "little")
                ends.append(at)
            self._ends = ends
        return self._ends

    def __repr__(self) -> str:
        return f"<{self._count} strings>"


class Header:
    """The checked header of a GGUF file; made by `read`.

    Attributes
    ----------
    path : str
    version : int
        2 or 3.
    alignment : int
        Of tensor data, in bytes.
    data_offset : int
        Where tensor data starts, in bytes from the start of the file.
    file_bytes : int
    metadata : mapping of str to value
        Numbers, bools and strings as Python's; numeric arrays as read-only ndarrays; arrays of strings as
        `Strings`. Strings that are no UTF-8 show U+FFFD in place of what cannot be decoded.
    tensors : tuple of Tensor
        In the file's order.
    """

    def __init__(
        self, path: str, raw: bytes, file_bytes: int, parsed: tuple[int, int, int, list[Any], list[Any]]
    ) -> None:
        self.path = path
        self.file_bytes = file_bytes
        self.version, self.alignment, self.data_offset, entries, tensors = parsed
        self.tensors = tuple(Tensor(*row) for row in tensors)
        self.metadata: Mapping[str, Value] = MappingProxyType(
            {
                key: _value(raw[begin:end], kind, element, count)
                for key, kind, element, count, begin, end in entries
            }
        )
        self._raw: dict[str, tuple[int, int, int, bytes]] = {
            key: (kind, element, count, raw[begin:end]) for key, kind, element, count, begin, end in entries
        }

    def kind(self, key: str) -> str:
        """Value type of an entry: ``"u32"``, ``"string"``, ``"array of f32"``..."""
        kind, element, _, _ = self._raw[key]
        return KINDS[kind] if KINDS[kind] != "array" else f"array of {KINDS[element]}"

    def raw_value(self, key: str) -> bytes:
        """Type number and value of an entry as the file has them, to be copied into another file."""
        kind, element, count, value = self._raw[key]
        numbers = kind.to_bytes(4, "little")
        if KINDS[kind] == "array":
            numbers += element.to_bytes(4, "little") + count.to_bytes(8, "little")
        return numbers + value

    def __repr__(self) -> str:
        return f"<GGUF header of {self.path!r}: {len(self.metadata)} entries, {len(self.tensors)} tensors>"


def read(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a GGUF file.

    Parameters
    ----------
    path : path-like
        A GGUF file, version 2 or 3, little-endian.

    Returns
    -------
    header : Header
        Tensor data is not read.

    Raises
    ------
    FormatError
        If the file is malformed, or holds a version, tensor type or nesting that cannot be read; the
        message names the entry or tensor.
    OSError
        If the file cannot be opened or read, or becomes shorter while it is read.

    Examples
    --------
    >>> import edgellm.gguf
    >>> header = edgellm.gguf.read("model.gguf")  # doctest: +SKIP
    >>> header.metadata["general.architecture"], header.tensors[0].shape  # doctest: +SKIP
    ('llama', (49152, 576))
    """
    check_regular(path)
    with open(path, "rb", buffering=0) as file:
        return read_open(file.fileno(), os.fspath(path))


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError if `path` is no regular file (opening a pipe would wait for its writer)."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{os.fspath(path)}: not a regular file")


def read_open(descriptor: int, path: str) -> Header:
    """Read and check the header of an open file; `path` is for messages. See `read`."""
    file_bytes = os.fstat(descriptor).st_size
    window = min(_FIRST_WINDOW_BYTES, file_bytes)
    while True:
        raw = read_exactly(descriptor, 0, window, path)
        parsed = _core.gguf_parse(raw, file_bytes, Path(path).name)
        if not isinstance(parsed, int):
            return Header(path, raw, file_bytes, parsed)
        window = parsed


def read_exactly(descriptor: int, offset: int, n: int, path: str) -> bytes:
    """Read `n` bytes at `offset`; OSError if the file ends before, as when it is cut short meanwhile."""
    parts = []
    while n > 0:
        part = os.pread(descriptor, min(n, 1 << 30), offset)
        if not part:
            raise OSError(f"{path}: the file ends {n} bytes early; was it cut short while being read?")
        parts.append(part)
        offset += len(part)
        n -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _value(raw: bytes, kind: int, element: int, count: int) -> Value:
    name = KINDS[element]
    if name == "string":
        return Strings(raw, count) if KINDS[kind] == "array" else raw[8:].decode("utf-8", errors="replace")
    dtype = np.dtype(np.bool_) if name == "bool" else DTYPES[name]
    values = np.frombuffer(raw, dtype)
    if KINDS[kind] == "array":
        return values
    scalar: Scalar = values[0].item()
    return scalar
