"""The double precision functions behind RoPE's tables, against arbitrary precision."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm import _core

GOLDEN = "22c4e3aff776095d8e1de506328f1596763710042d1ce5d53de9e0ffe213c4a3"


@given(st.floats(-(2.0**20), 2.0**20, allow_nan=False))
def test_sincos_error_is_bounded(x):
    sine, cosine = _core.testing_sincos(x)
    assert abs(sine - math.sin(x)) <= 4e-16
    assert abs(cosine - math.cos(x)) <= 4e-16


@pytest.mark.parametrize("position", [0, 1, 2, 710, 8191, 131071, 2**20])
def test_sincos_of_positions_lies_on_the_circle(position):
    sine, cosine = _core.testing_sincos(float(position))
    assert abs(Fraction(sine) ** 2 + Fraction(cosine) ** 2 - 1) <= 1e-15


def test_sincos_of_zero_is_exact():
    assert _core.testing_sincos(0.0) == (0.0, 1.0)


@given(st.floats(1, 1e9), st.floats(-1, 1))
def test_pow_error_is_bounded(base, y):
    assert abs(_core.testing_pow(base, y) / math.pow(base, y) - 1) <= 1e-14


def test_rope_tables_keep_their_bits():
    # The same on every machine: additions, multiplications and divisions alone.
    table = [_core.testing_sincos(1000 * _core.testing_pow(1e5, -i / 64)) for i in range(0, 64, 2)]
    assert hashlib.sha256(np.array(table, "<f8").tobytes()).hexdigest() == GOLDEN
