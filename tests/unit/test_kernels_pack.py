"""Packed tiles hold what the file holds: every type, every lane, rows that are missing."""

import numpy as np
import pytest

from edgellm import _core, _testing, quant
from edgellm.quant import TYPES
from tests.unit.kernel_cases import TYPE_NAMES, fill, random_rows, same_bits


@pytest.mark.parametrize("type_name", TYPE_NAMES)
def test_unpacked_rows_are_the_dequantized_file(type_name):
    n, k = 21, 512
    rows = random_rows(type_name, n, k)
    tiles = _testing.pack(type_name, k, rows)
    want = quant.from_bytes(rows.tobytes(), type_name, (n, k)).dequantize()
    for row in range(n):
        assert same_bits(_testing.unpack(type_name, k, tiles, row), want[row]), row


@pytest.mark.parametrize("type_name", TYPE_NAMES)
def test_any_bytes_unpack_to_the_dequantized_file(type_name):
    k = 256
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 256, (16, _core.testing_pack_sizes(TYPES[type_name].number, k)[1]), np.uint8)
    tiles = _testing.pack(type_name, k, rows)
    want = quant.from_bytes(rows.tobytes(), type_name, (16, k)).dequantize()
    got = np.stack([_testing.unpack(type_name, k, tiles, row) for row in range(16)])
    finite = np.isfinite(want)
    assert same_bits(got[finite], want[finite])
    assert np.array_equal(np.isfinite(got), finite)


@pytest.mark.parametrize("type_name", TYPE_NAMES)
def test_missing_rows_of_a_tile_are_zero_weights(type_name):
    k = 256
    tiles = _testing.pack(type_name, k, random_rows(type_name, 3, k))
    y = _testing.gemm(type_name, "ref", 16, k, tiles, fill("random", (2, k)))
    assert same_bits(y[:, 3:], np.zeros((2, 13), np.float32))
    assert y[:, :3].all()


@pytest.mark.parametrize("type_name", TYPE_NAMES)
def test_row_bytes_agree_with_the_format(type_name):
    info = TYPES[type_name]
    assert _core.testing_pack_sizes(info.number, 512)[1] == 512 // info.block_values * info.block_bytes
    assert _testing.tile_bytes(type_name, 512) % 64 == 0
    if info.block_values > 1:
        assert _core.testing_pack_sizes(info.number, 511)[1] == 0


def test_unknown_type_has_no_layout():
    for number in (4, 5, 9, 15, 16, 31, 99, 2**32 - 1):
        assert _core.testing_pack_sizes(number, 256) == (-1, 0, 0)


def test_sizes_that_overflow_are_zero():
    assert _testing.tile_bytes("f32", 2**62) == 0
    assert _core.testing_pack_sizes(TYPES["f32"].number, 2**62)[1] == 0


# The layouts of el_blocks.h once more, for NumPy: planes, what is added, sub-scales, minima, super-block.
LAYOUTS = {
    "q4_0x16": ("N", -8, "", False, False),
    "q4_1x16": ("N", 0, "", True, False),
    "q8_0x16": ("8", -128, "", False, False),
    "q5_0x16": ("NB", -16, "", False, False),
    "q5_1x16": ("NB", 0, "", True, False),
    "iq4_nlx16": ("N", 0, "", False, False),
    "q4_kx16": ("N", 0, "sn", True, True),
    "q5_kx16": ("NB", 0, "sn", True, True),
    "q2_kx16": ("C", 0, "packed", True, True),
    "q3_kx16": ("CB", -4, "signed", False, True),
    "q6_kx16": ("NC", -32, "signed", False, True),
    "tq2_0x16": ("C", -1, "", False, True),
}
CODEBOOK = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int16)


def _plane(kind, raw):
    """Values (blocks, 32, 16) of one plane, given as (blocks, bytes)."""
    groups = {
        "8": lambda g, at: at[:, g],
        "N": lambda g, at: at[:, g % 4] >> (g // 4 * 4) & 15,
        "C": lambda g, at: at[:, g % 2] >> (g // 2 * 2) & 3,
        "B": lambda g, at: at[:, 0] >> g & 1,
    }
    at = raw.reshape(len(raw), -1, 16, 4)
    values = np.stack([groups[kind](g, at) for g in range(8)], 1)  # (blocks, 8, 16, 4)
    return values.transpose(0, 1, 3, 2).reshape(len(raw), 32, 16).astype(np.int16)


def _weights(layout, tile, k):
    """Weights (16, k) of one tile and, as (16, k), the integer factors of d: what el_blocks.h promises."""
    planes, offset, subs, minima, super_blocks = LAYOUTS[layout]
    blocks, at = k // 32, 0

    def part(count, dtype):
        nonlocal at
        taken = tile[at : at + count * np.dtype(dtype).itemsize].view(dtype)
        at += -(-taken.nbytes // 64) * 64
        return taken

    heads = k // 256 if super_blocks else blocks
    repeat = blocks // heads
    d = part(heads * 16, np.float16).reshape(heads, 1, 16).repeat(repeat, 0).astype(np.float32)
    m = part(heads * 16 * minima, np.float16).reshape(-1, 1, 16).repeat(repeat, 0).astype(np.float32)
    s = n = np.ones((blocks, 2, 16), np.int16)
    if subs == "sn":
        s, n = (
            part(blocks * 16, np.uint8).reshape(blocks, 1, 16).repeat(2, 1).astype(np.int16) for _ in "sn"
        )
    elif subs == "packed":
        both = part(blocks * 32, np.uint8).reshape(blocks, 2, 16)
        s, n = (both & 15).astype(np.int16), (both >> 4).astype(np.int16)
    elif subs == "signed":
        s = part(blocks * 32, np.int8).reshape(blocks, 2, 16).astype(np.int16)
    sizes = {"8": 512, "N": 256, "C": 128, "B": 64}
    q = tile[at:].reshape(blocks, sum(sizes[p] for p in planes))
    v, shift, first = 0, 0, 0
    for plane in planes:
        v = v + (_plane(plane, q[:, first : first + sizes[plane]]) << shift)
        first, shift = first + sizes[plane], shift + {"8": 8, "N": 4, "C": 2, "B": 1}[plane]
    v = CODEBOOK[v] if layout == "iq4_nlx16" else v + offset
    s, n = s.repeat(16, 1), n.repeat(16, 1)
    w = d * s.astype(np.float32) * v
    if minima:
        w = w - m * n.astype(np.float32) if super_blocks else w + m
    return w.reshape(k, 16).T, (s * v).reshape(k, 16).T


@pytest.mark.parametrize("type_name", [t for t in TYPE_NAMES if _testing.layout(t) in LAYOUTS])
def test_tile_is_laid_out_as_the_header_says(type_name):
    for k in (256, 768):
        rows = random_rows(type_name, 16, k)
        tile = _testing.pack(type_name, k, rows)[0]
        want = quant.from_bytes(rows.tobytes(), type_name, (16, k)).dequantize()
        got, factors = _weights(_testing.layout(type_name), tile, k)
        assert np.array_equal(got, want)
        assert np.abs(factors).max() <= 4096  # numerics.md: integers of a block stay below 2^24


def test_every_quantized_layout_is_drawn():
    assert {_testing.layout(t) for t in TYPE_NAMES} & set(_testing.QUANTIZED) == set(LAYOUTS)
