"""Inputs for kernels: sizes at the edges of vectors, and fills that random data almost never gives."""

import numpy as np

from edgellm import _core, _testing
from edgellm.quant import TYPES

# 0, 1, each vector width and one either side, a tail after several, one large.
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 576, 1000, 4099]
FILLS = ["random", "zeros", "minus_zeros", "all_max", "all_min", "alternating", "subnormal", "wide"]
ISAS = [isa for isa in dict.fromkeys(isa for _, isa in _testing.kernels()) if isa != "ref"]
TYPE_NAMES = sorted(TYPES)


def fill(kind, shape, seed=0, top=1e4):
    """An array of float32 of one of FILLS."""
    rng = np.random.default_rng([seed, FILLS.index(kind)])
    random = rng.standard_normal(shape).astype(np.float32)
    sign = np.where(np.arange(np.prod(shape)) % 2 == 0, 1, -1).reshape(shape)
    return {
        "random": random,
        "zeros": np.zeros(shape, np.float32),
        "minus_zeros": np.full(shape, -0.0, np.float32),
        "all_max": np.full(shape, top, np.float32),
        "all_min": np.full(shape, -top, np.float32),
        "alternating": (top * sign).astype(np.float32),
        "subnormal": (random * np.float32(1e-41)).astype(np.float32),
        "wide": (random * np.exp2(rng.integers(-40, 12, shape))).astype(np.float32),
    }[kind]


def random_rows(type_name, n, k, seed=0):
    """n rows of a GGUF type with random bits and finite scales, as (n, bytes of a row)."""
    rng = np.random.default_rng([seed, n, k])
    info = TYPES[type_name]
    if type_name == "f32":
        return rng.standard_normal((n, k)).astype(np.float32).view(np.uint8).reshape(n, -1)
    raw = rng.integers(0, 256, (n, k // info.block_values, info.block_bytes), np.uint8)
    halves = [np.arange(0, raw.shape[2], 2)] if type_name in ("f16", "bf16") else HALVES.get(type_name, [[0]])
    for at in np.concatenate(halves):
        raw[:, :, at + 1] = raw[:, :, at + 1] & 0x87 | 0x28  # an exponent that makes values of about 0.1
        if type_name == "bf16":
            raw[:, :, at + 1] = raw[:, :, at + 1] & 0x80 | 0x3F
    return raw.reshape(n, -1)


# Where in a block the f16 scales are; elsewhere than at 0.
HALVES = {
    "q4_1": [[0, 2]],
    "q5_1": [[0, 2]],
    "q2_k": [[80, 82]],
    "q3_k": [[108]],
    "q4_k": [[0, 2]],
    "q5_k": [[0, 2]],
    "q6_k": [[208]],
    "tq1_0": [[52]],
    "tq2_0": [[64]],
}


def same_bits(got, want):
    """Whether two float arrays are the same, bit by bit; NaN never is."""
    got, want = np.ascontiguousarray(got), np.ascontiguousarray(want)
    return (
        got.shape == want.shape
        and got.dtype == want.dtype
        and not np.isnan(want).any()
        and got.tobytes() == want.tobytes()
    )


def row_bytes(type_name, k):
    return _core.testing_pack_sizes(TYPES[type_name].number, k)[1]
