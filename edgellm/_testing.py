"""Doors for tests: every kernel on raw memory, in buffers that end at a page that must not be touched.

Not part of the public interface. Sizes are checked here, because the C side checks nothing.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm import _core, cpu
from edgellm.quant import TYPES

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

BLOCK, LANES, KEYS, KEY_BLOCK = 32, 16, 16, 64
ACT_Q8 = np.dtype([("scale", "<f4"), ("sum", "<i4"), ("sum_lo", "<i4"), ("q", "i1", (BLOCK,))])
_QUANTS = "q4_0 q4_1 q8_0 q5_0 q5_1 iq4_nl q4_k q5_k q2_k q3_k q6_k tq2_0"
QUANTIZED = tuple(f"{name}x16" for name in _QUANTS.split())
LAYOUTS = ("f32x16", "f16x16", "bf16x16", *QUANTIZED)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def guarded(shape: int | tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Make an array whose last byte is followed by a page that cannot be read or written.

    Every byte is 0xFF, which reads as NaN. So the start is as misaligned as the size makes it.
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    nbytes = count * dtype.itemsize
    page = mmap.PAGESIZE
    size = -(-max(nbytes, 1) // page) * page
    memory = mmap.mmap(-1, size + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _libc.mprotect(address + size, page, 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")
    a = np.frombuffer(memory, dtype, count, offset=size - nbytes).reshape(shape)
    a.view(np.uint8)[...] = 0xFF
    return a


def put(a: npt.ArrayLike, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Copy an array to guarded memory."""
    source = np.asarray(a, dtype)
    out = guarded(source.shape, source.dtype)
    out[...] = source
    return out


def kernels() -> list[tuple[str, str]]:
    """Give the rows of kernels.def that this machine can run, as (operation, isa)."""
    isas = cpu.runnable_isas()
    return [row for row in _core.testing_kernel_list() if row[1] in isas]


@functools.cache
def selected(isa: str) -> dict[str, str]:
    """Give the ISA of each operation's kernel under a cap; "amxbf16", which no cap names, is not exact."""
    return cpu.kernels(exact=False) if isa == "amxbf16" else cpu.kernels(isa)


def call(op: str, isa: str, sizes: tuple[int, ...], buffers: tuple[Any, ...], scalar: float = 0.0) -> None:
    """Call the kernel that a cap at `isa` selects: the ISA's own where it has one, else the next one below.

    `buffers` are arrays or None, in the order of the contract's parameters.
    """
    held = [None if b is None or b.size == 0 else b.reshape(-1).view(np.uint8).data for b in buffers]
    empty = np.zeros(1, np.uint8).data  # an extent of zero still gets a pointer
    views = tuple(
        empty if view is None and given is not None else view
        for view, given in zip(held, buffers, strict=True)
    )
    _core.testing_call_kernel(op, selected(isa)[op], sizes, scalar, views)


def elementwise(op: str, isa: str, *inputs: npt.ArrayLike) -> F32:
    """Call silu, gelu, gelu_tanh, swiglu, geglu_tanh or softmax."""
    x = [put(a) for a in inputs]
    y = guarded(x[0].shape)
    call(op, isa, (x[0].size,), (*x, y))
    return y


def add(isa: str, x: npt.ArrayLike, y: npt.ArrayLike) -> F32:
    """x + y"""
    out = put(y)
    call("add", isa, (out.size,), (put(x), out))
    return out


def norm(op: str, isa: str, x: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike | None, eps: float) -> F32:
    """Call rms_norm (b is None) or layer_norm."""
    x, w = put(x), put(w)
    y = guarded(x.shape)
    biases = () if op == "rms_norm" else (None if b is None else put(b),)
    call(op, isa, (x.size,), (x, w, *biases, y), eps)
    return y


def rope(isa: str, x: npt.ArrayLike, rotated: int, cs: npt.ArrayLike) -> F32:
    """Rotate x of shape (heads, d); cs is (rotated / 2, 2)."""
    out = put(x)
    call("rope", isa, (out.shape[0], out.shape[1], rotated), (put(cs), out))
    return out


def to_f16(isa: str, x: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Give the bits of x as float16."""
    values = put(x)
    y = guarded(values.shape, np.uint16)
    call("f32_to_f16", isa, (values.size,), (values, y))
    return y


def to_f32(isa: str, x: npt.ArrayLike) -> F32:
    """Give float16 bits as float32."""
    bits = put(x, np.uint16)
    y = guarded(bits.shape)
    call("f16_to_f32", isa, (bits.size,), (bits, y))
    return y


def quantize_act_q8(isa: str, x: npt.ArrayLike) -> npt.NDArray[Any]:
    """Round x of shape (m, k) to blocks of shape (m, k / 32) of dtype `ACT_Q8`."""
    values = put(x)
    m, k = values.shape
    y = guarded((m, k // BLOCK), ACT_Q8)
    for row in range(m):
        call("quantize_act_q8", isa, (k,), (values[row], y[row]))
    return y


def tile_bytes(type: str, k: int) -> int:
    """Bytes of one packed tile."""
    return _core.testing_pack_sizes(TYPES[type].number, k)[2]


def layout(type: str) -> str:
    """Name of the layout that a GGUF type is packed to."""
    return LAYOUTS[_core.testing_pack_sizes(TYPES[type].number, 256)[0]]


def interleave(
    isa: str, x: U8, row_bytes: int, rows: int, blocks: int, words: int, x_step: int, flip: int, spare: int
) -> U8:
    """Interleave words of `rows` rows of x; `spare` bytes, which stay 0xFF, lie between the blocks of y."""
    y = guarded(blocks * (words * 64 + spare), np.uint8)
    call(
        "interleave",
        isa,
        (rows, blocks, words, row_bytes, x_step, flip, words * 64 + spare),
        (put(x, np.uint8), y),
    )
    return y


def pack(type: str, k: int, rows: npt.NDArray[np.uint8], isa: str = "ref") -> U8:
    """Pack rows of a GGUF type, (n, bytes of a row), into tiles in guarded memory."""
    number = TYPES[type].number
    n = rows.shape[0]
    assert rows.shape[1] == _core.testing_pack_sizes(number, k)[1]
    size = tile_bytes(type, k)
    tiles = guarded((-(-n // LANES), size), np.uint8)
    for tile in range(tiles.shape[0]):
        part = np.ascontiguousarray(rows[tile * LANES : (tile + 1) * LANES])
        by = selected(isa)["interleave"]
        _core.testing_pack_tile(by, number, part.shape[0], k, put(part, np.uint8).data, tiles[tile].data)
    return tiles


def unpack(type: str, k: int, tiles: U8, row: int) -> F32:
    """Values of one row of packed tiles."""
    y = guarded(k)
    _core.testing_unpack_lane(TYPES[type].number, k, tiles[row // LANES].data, row % LANES, y.data)
    return y


def gemm(type: str, isa: str, n: int, k: int, tiles: U8, x: npt.ArrayLike, spare: int = 0) -> F32:
    """Multiply packed weights by x of shape (m, k); `spare` values lie between rows of x and of y."""
    kind = layout(type)
    values = np.asarray(x, np.float32)
    m = values.shape[0]
    y = guarded((m, n + spare))
    held: npt.NDArray[Any]
    if kind in QUANTIZED:
        op, width = f"gemm_q8_{kind}", k // BLOCK
        held = guarded((m, width + spare), ACT_Q8)
        held[:, :width] = quantize_act_q8("ref", values)
    else:
        op, width = f"gemm_f32_{kind}", k
        held = guarded((m, k + spare))
        held[:, :k] = values
    call(op, isa, (m, n, k, width + spare, n + spare), (tiles, held, y))
    assert not spare or np.all(np.isnan(y[:, n:])), "a kernel wrote between the rows"
    return np.ascontiguousarray(y[:, :n])


KINDS = {"f16": np.uint16, "f32": np.float32, "q8_0": np.uint8}  # of a cache, and what it is an array of


def _row_values(kind: str, d: int) -> int:
    """Entries of one position's keys or values in the cache of a head."""
    return d + 2 * -(-d // BLOCK) if kind == "q8_0" else d


def kv_caches(
    isa: str, keys: F32, values: F32, context: int, kind: str = "f16", first: int = 0
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Write (s, d) keys and values at positions from `first` on into caches of `context` positions.

    Position p goes to p modulo `context`; what is not written stays NaN.
    """
    s, d = keys.shape
    assert context % KEYS == 0
    width = _row_values(kind, d)
    k_cache = guarded((context // KEYS, width, KEYS), KINDS[kind])
    v_cache = guarded((context, width), KINDS[kind])
    for p in range(s):
        place = (first + p) % context
        call(f"kv_write_{kind}", isa, (d, place), (put(keys[p]), put(values[p]), k_cache, v_cache))
    return k_cache, v_cache


def attention(
    isa: str,
    q: F32,
    last: list[int],
    scale: float,
    k_cache: npt.NDArray[Any],
    v_cache: npt.NDArray[Any],
    window: int | None = None,
    ring: int | None = None,
) -> F32:
    """Attend with q of shape (rows, d) over caches of `kv_caches`.

    Row r sees positions 0 .. last[r], or the last `window` of them. With `ring` the caches hold the last so
    many positions.
    """
    rows, d = q.shape
    assert len(last) == rows
    places = -(-v_cache.shape[0] // KEY_BLOCK) * KEY_BLOCK if ring is None else ring
    assert ring is None or ring == v_cache.shape[0]
    assert ring is not None or all(end < v_cache.shape[0] for end in last)
    y = guarded(q.shape)
    offset, ends = put(np.arange(rows) * d, np.uintp), put(last, np.uintp)
    op = next(f"attention_{kind}" for kind, dtype in KINDS.items() if dtype == v_cache.dtype)
    seen = 2 ** (8 * np.dtype(np.uintp).itemsize) - 1 if window is None else window
    call(op, isa, (rows, d, seen, places), (put(q), offset, ends, k_cache, v_cache, y), scale)
    return y
