"""Writing GGUF files, version 3: a header, then tensor data as it comes.

Source of the layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgellm.gguf import DTYPES, KINDS
from edgellm.quant import TYPES, QuantTensor

__all__ = ["GgufWriter"]

_MOST_DIMENSIONS = 4


class GgufWriter:
    """Collects metadata and the tensors' places, then writes header and data in one pass.

    Parameters
    ----------
    alignment : int
        Of every tensor's data, in bytes: a power of two.

    Examples
    --------
    >>> import io, numpy as np, edgellm.quant
    >>> writer = GgufWriter()
    >>> writer.add("general.architecture", "llama", "string")
    >>> writer.add_tensor("w", "f32", (2, 2))
    >>> file = io.BytesIO()
    >>> writer.write(file, [np.eye(2, dtype=np.float32).tobytes()])
    >>> file.getvalue()[:4]
    b'GGUF'
    """

    def __init__(self, alignment: int = 32) -> None:
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"alignment must be a power of two, got {alignment}")
        self._alignment = alignment
        self._entries: dict[str, bytes] = {}
        self._tensors: dict[str, tuple[str, tuple[int, ...], int]] = {}
        if alignment != 32:
            self.add("general.alignment", alignment, "u32")

    def add(self, key: str, value: Any, kind: str) -> None:
        """Set an entry of metadata; one of the same key is replaced where it stands.

        Parameters
        ----------
        key : str
        value : int, float, bool, str, or a sequence of these
        kind : str
            ``"u32"``, ``"f32"``, ``"bool"``, ``"string"``... (`edgellm.gguf.KINDS`), or
            ``"array of "`` and one of them.
        """
        element = kind.removeprefix("array of ")
        if element not in KINDS or element == "array":
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, or an array of one; got {kind!r}")
        number = struct.pack("<I", KINDS.index(element))
        if element == kind:
            self._entries[key] = number + _encode([value], kind)
        else:
            head = struct.pack("<I", KINDS.index("array")) + number + struct.pack("<Q", len(value))
            self._entries[key] = head + _encode(value, element)

    def add_raw(self, key: str, raw: bytes) -> None:
        """Set an entry from what `edgellm.gguf.Header.raw_value` gave."""
        self._entries[key] = raw

    def add_tensor(self, name: str, type: str, shape: Sequence[int]) -> None:
        """Announce a tensor; its data follows in the same order when `write` is called."""
        if name in self._tensors:
            raise ValueError(f"tensor {name!r} is there already")
        info = TYPES[type]
        extents = tuple(int(extent) for extent in shape)
        if not 1 <= len(extents) <= _MOST_DIMENSIONS or min(extents) < 1 or extents[-1] % info.block_values:
            raise ValueError(f"tensor {name!r}: shape {extents} does not suit {type}")
        self._tensors[name] = (type, extents, math.prod(extents) // info.block_values * info.block_bytes)

    def header(self) -> bytes:
        """Everything before the data, padded to the alignment."""
        parts = [b"GGUF", struct.pack("<IQQ", 3, len(self._tensors), len(self._entries))]
        for key, raw in self._entries.items():
            parts += [_string(key), raw]
        offset = 0
        for name, (type, shape, nbytes) in self._tensors.items():
            extents = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            parts += [_string(name), extents, struct.pack("<IQ", TYPES[type].number, offset)]
            offset += nbytes + -nbytes % self._alignment
        raw = b"".join(parts)
        return raw + bytes(-len(raw) % self._alignment)

    def write(self, file: BinaryIO, data: Iterable[bytes | Iterable[bytes]]) -> None:
        """Write the file.

        Parameters
        ----------
        file : binary file
        data : iterable
            For each tensor in order its bytes, or an iterable of consecutive pieces of them.

        Raises
        ------
        ValueError
            If the data of a tensor is missing, or of another length than its shape takes.
        """
        file.write(self.header())
        pieces = iter(data)
        for name, (_, _, nbytes) in self._tensors.items():
            given = next(pieces, None)
            if given is None:
                raise ValueError(f"tensor {name!r} has no data")
            written = 0
            for piece in [given] if isinstance(given, bytes) else given:
                file.write(piece)
                written += len(piece)
            if written != nbytes:
                raise ValueError(f"tensor {name!r} takes {nbytes} bytes, got {written}")
            file.write(bytes(-nbytes % self._alignment))
        if next(pieces, None) is not None:
            raise ValueError("more data than tensors")

    def write_tensors(
        self, file: BinaryIO, tensors: dict[str, QuantTensor | npt.NDArray[np.float32]]
    ) -> None:
        """Announce and write whole tensors: float32 arrays as F32, quantized ones as they are."""
        data = []
        for name, tensor in tensors.items():
            if isinstance(tensor, QuantTensor):
                self.add_tensor(name, tensor.type, tensor.shape)
                data.append(tensor.tobytes())
            else:
                self.add_tensor(name, "f32", tensor.shape)
                data.append(np.ascontiguousarray(tensor, "<f4").tobytes())
        self.write(file, data)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _encode(values: Any, kind: str) -> bytes:
    if kind == "string":
        return b"".join(_string(value) for value in values)
    if kind == "bool":
        return bytes(bool(value) for value in values)
    return np.asarray(values, DTYPES[kind]).tobytes()
