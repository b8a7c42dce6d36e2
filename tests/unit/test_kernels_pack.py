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


def test_integers_of_every_type_stay_below_the_contract():
    # |s q| <= 4096 in q8_sx16 (el_blocks.h), seen from outside: |w| <= 4096 |d| + 255 |m| with d = m = 1
    for type_name in TYPE_NAMES:
        if _testing.layout(type_name) != "q8_sx16":
            continue
        rows = random_rows(type_name, 16, 256)
        tiles = _testing.pack(type_name, 256, rows)
        part = tiles[0]
        scales = part[8 * 128 : 8 * 128 + 256].view(np.int8).reshape(8, 2, 16).astype(int)
        values = part[8 * 128 + 512 :].reshape(8, 8, 16, 4).astype(int) - 128
        assert np.abs(scales).max() * np.abs(values).max() <= 4096
