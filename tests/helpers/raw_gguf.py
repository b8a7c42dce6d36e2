"""GGUF files byte by byte, right or wrong as a test needs them."""

import struct

MAGIC = b"GGUF"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
Q4_0 = 2


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A string; `length` may lie."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    """A metadata entry from the bytes of its value."""
    return string(key) + struct.pack("<I", kind) + value


def array(element: int, count: int, values: bytes) -> bytes:
    """The value of an array; `count` may lie."""
    return struct.pack("<IQ", element, count) + values


def tensor(
    name: str | bytes, extents: tuple[int, ...], kind: int, offset: int, dims: int | None = None
) -> bytes:
    """The description of a tensor; extents innermost first, as the file has them."""
    head = string(name) + struct.pack("<I", len(extents) if dims is None else dims)
    return head + struct.pack(f"<{len(extents)}Q", *extents) + struct.pack("<IQ", kind, offset)


def file(
    entries: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    n_entries: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; the counts may lie."""
    n_entries = len(entries) if n_entries is None else n_entries
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    raw = MAGIC + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(entries) + b"".join(tensors)
    return raw + bytes(-len(raw) % alignment) + data
