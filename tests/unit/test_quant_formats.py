"""Formats against the `gguf` package: the same bits, whatever the bytes or values."""

import pickle
import warnings

import gguf
import numpy as np
import pytest

import edgellm
from edgellm import quant

BLOCKS = 512
FILLS = (
    "random", "every_magnitude", "block_magnitudes", "halves", "zeros", "zeros_of_both_signs", "positive",
    "subnormal", "almost_subnormal", "largest", "one_huge", "any_finite_bits",
)  # fmt: skip


def oracle(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name.upper()]


def assert_same_bits(got, want):
    assert got.dtype == want.dtype == np.float32
    assert got.shape == want.shape
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(np.uint32)[~nan], want.view(np.uint32)[~nan])


def values(fill: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(n)
    coin = rng.integers(0, 2, n) == 1
    bits = rng.integers(0, 2**32, n, dtype=np.uint32)
    finite = np.where((bits & 0x7F800000) == 0x7F800000, bits & 0x807FFFFF, bits).astype(np.uint32)
    most = float(np.finfo(np.float32).max)
    filled = {
        "random": normal,
        "every_magnitude": normal * np.exp(rng.uniform(-90, 80, n)),
        "block_magnitudes": normal * np.repeat(np.exp(rng.uniform(-100, 85, n // 256)), 256),
        "halves": rng.integers(-255, 256, n) / 2,
        "zeros": np.zeros(n),
        "zeros_of_both_signs": np.where(coin, 0.0, -0.0),
        "positive": np.where(coin, 0.0, np.where(rng.integers(0, 2, n) == 1, -0.0, np.abs(normal))),
        "subnormal": rng.integers(-200, 200, n) * 1e-45,
        "almost_subnormal": normal * 1e-38,
        "largest": np.where(coin, most, -most),
        "one_huge": np.where(np.arange(n) % 256 == 77, 3e38, normal),
        "any_finite_bits": finite.view(np.float32),
    }[fill]
    return np.ascontiguousarray(filled.astype(np.float32))


def test_types_are_those_of_gguf():
    assert set(quant.TYPES) == {
        "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
        "iq4_nl", "tq1_0", "tq2_0",
    }  # fmt: skip
    for name, info in quant.TYPES.items():
        assert info.number == oracle(name)
        assert (info.block_values, info.block_bytes) == gguf.GGML_QUANT_SIZES[oracle(name)]


@pytest.mark.parametrize("name", quant.TYPES)
def test_dequantize_of_random_bytes_has_the_bits_of_gguf(name):
    """Random bytes reach every scale: zero, subnormal, negative, infinite, NaN."""
    info = quant.TYPES[name]
    rng = np.random.default_rng(quant.TYPES[name].number)
    blocks = BLOCKS * 4 if info.block_values > 1 else 1 << 17
    raw = rng.integers(0, 256, (blocks // 8, 8 * info.block_bytes), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = gguf.quants.dequantize(raw, oracle(name))
    got = quant.from_bytes(raw, name, want.shape).dequantize()
    assert_same_bits(got, want)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_dequantize_of_every_16_bit_pattern_has_the_bits_of_gguf(name):
    raw = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    want = gguf.quants.dequantize(raw, oracle(name)).reshape(-1)
    assert_same_bits(quant.from_bytes(raw, name, (1 << 16,)).dequantize(), want)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", quant.QUANTIZABLE)
def test_quantize_has_the_bits_of_gguf(name, fill):
    a = values(fill, 256 * BLOCKS).reshape(-1, 1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow to infinite scales, division by subnormals
        want = gguf.quants.quantize(a, oracle(name))
    got = quant.quantize(a, name)
    assert got.tobytes() == want.tobytes()
    assert got.shape == a.shape
    assert got.nbytes == want.nbytes


@pytest.mark.parametrize("name", [n for n in quant.QUANTIZABLE if n != "f32"])
def test_quantize_of_zeros_is_zero(name):
    back = quant.quantize(np.zeros((2, 256), np.float32), name).dequantize()
    np.testing.assert_array_equal(back, np.zeros((2, 256), np.float32))


@pytest.mark.parametrize(
    ("name", "steps"), [("q4_0", 16), ("q4_1", 15), ("q5_0", 32), ("q5_1", 31), ("q8_0", 254)]
)
def test_quantize_is_within_a_step(name, steps):
    """One step of the grid, plus the rounding of scale and minimum to float16 over the whole range."""
    a = values("random", 256 * 64).reshape(-1, 32)
    back = quant.quantize(a, name).dequantize()
    width = 2 * np.abs(a).max(axis=1, keepdims=True)
    assert np.all(np.abs(back - a) <= width / steps + width * 2.0**-10)


def test_quantize_of_its_own_values_changes_nothing():
    once = quant.quantize(values("random", 4096).reshape(2, -1), "q8_0")
    assert quant.quantize(once.dequantize(), "q8_0").dequantize().tobytes() == once.dequantize().tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", quant.QUANTIZABLE)
def test_quantize_of_a_value_that_is_not_finite_is_a_value_error(name, bad):
    a = np.zeros((4, 256), np.float32)
    a[3, 255] = bad
    with pytest.raises(ValueError, match=r"value 1023 is (NaN|infinite)"):
        quant.quantize(a, name)


@pytest.mark.parametrize(
    ("a", "name", "error", "words"),
    [
        (np.zeros((2, 32)), "q4_0", TypeError, "a must be float32, got float64"),
        (np.zeros((2, 32), ">f4"), "q4_0", TypeError, "float32, got >f4"),
        ([[0.0] * 32], "q4_0", TypeError, "a must be an ndarray of float32, got list"),
        (np.zeros((2, 33), np.float32), "q4_0", ValueError, "blocks of 32 values, and 33"),
        (np.zeros((2, 128), np.float32), "tq1_0", ValueError, "blocks of 256 values, and 128"),
        (np.zeros((), np.float32), "f32", ValueError, "at least one dimension"),
        (np.zeros((32, 32), np.float32).T, "q8_0", ValueError, "C-contiguous"),
        (
            np.zeros((2, 256), np.float32),
            "q4_k",
            ValueError,
            "'q4_k' can be read, not made; possible are f32",
        ),
        (np.zeros((2, 256), np.float32), "q9_9", ValueError, "unknown type 'q9_9'; known are f32, f16"),
        (np.zeros((2, 256), np.float32), 8, TypeError, "type must be a string such as 'q4_0', got int"),
    ],
)
def test_quantize_names_what_is_wrong(a, name, error, words):
    with pytest.raises(error, match=words):
        quant.quantize(a, name)


@pytest.mark.parametrize(
    ("raw", "name", "shape", "error", "words"),
    [
        (bytes(17), "q4_0", (1, 32), ValueError, "takes 18 bytes, got 17"),
        (bytes(18), "q4_0", (1, 31), ValueError, "blocks of 32 values, and 31"),
        (bytes(18), "q4_0", (-1, 32), ValueError, "extents of at least 0"),
        (bytes(18), "q4_0", (), ValueError, "extents of at least 0"),
        (bytes(18), "q4_0", (1.5, 32), TypeError, "sequence of integers"),
        (bytes(18), "q4_0", 32, TypeError, "sequence of integers"),
        ("text", "q4_0", (1, 32), TypeError, "bytes-like, got str"),
        (np.zeros(36, np.uint8)[::2], "q4_0", (1, 32), ValueError, "C-contiguous"),
        (bytes(18), "iq2_xxs", (1, 32), ValueError, "unknown type 'iq2_xxs'"),
        (bytes(18), "q4_0", (2**62, 2**62, 32), ValueError, "got 18"),
    ],
)
def test_from_bytes_names_what_is_wrong(raw, name, shape, error, words):
    with pytest.raises(error, match=words):
        quant.from_bytes(raw, name, shape)


@pytest.mark.parametrize("name", quant.TYPES)
def test_tensor_tells_its_shape_and_bytes(name):
    info = quant.TYPES[name]
    raw = bytes(6 * 256 // info.block_values * info.block_bytes)
    tensor = edgellm.quant.from_bytes(bytearray(raw), name.upper(), np.array([2, 3, 256]))
    assert (tensor.type, tensor.shape, tensor.nbytes, tensor.tobytes()) == (name, (2, 3, 256), len(raw), raw)
    assert tensor.dequantize().shape == (2, 3, 256)
    assert info.bits_per_value == 8 * len(raw) / (6 * 256)


def test_from_bytes_copies_what_may_change():
    raw = bytearray(quant.quantize(np.full((1, 32), 127, np.float32), "q8_0").tobytes())
    tensor = quant.from_bytes(raw, "q8_0", (1, 32))
    raw[:] = bytes(len(raw))
    np.testing.assert_array_equal(tensor.dequantize(), np.full((1, 32), 127, np.float32))


def test_empty_tensors_stay_empty():
    for shape in [(0, 32), (3, 0)]:
        tensor = quant.quantize(np.zeros(shape, np.float32), "q4_0")
        assert (tensor.nbytes, tensor.dequantize().shape) == (0, shape)


def test_unaligned_array_is_quantized():
    raw = bytearray(1 + 4 * 32)
    a = np.frombuffer(raw, np.float32, 32, offset=1)
    a[:] = np.arange(32)
    assert quant.quantize(a, "f32").tobytes() == bytes(raw[1:])


def test_tensor_is_immutable_and_can_be_pickled():
    tensor = quant.quantize(np.ones((1, 32), np.float32), "q8_0")
    with pytest.raises(AttributeError, match="immutable"):
        tensor.shape = (32,)
    with pytest.raises(TypeError, match=r"made by edgellm\.quant\.quantize"):
        quant.QuantTensor()
    assert pickle.loads(pickle.dumps(tensor)).tobytes() == tensor.tobytes()
