"""Every kernel stays within the bounds of docs/numerics.md from float64. Comparisons fail on NaN."""

import numpy as np
import pytest

from edgellm import _reference, _testing, cpu
from edgellm._reference import EPS
from tests.unit.kernel_cases import FILLS, TYPE_NAMES, fill, random_rows

pytestmark = pytest.mark.parametrize("isa", cpu.runnable_isas())


def within(got, reference, factor, floor=0.0):
    want, magnitude = reference
    return bool(np.all(np.abs(np.asarray(got, np.float64) - want) <= factor * magnitude + floor))


@pytest.mark.parametrize("kind", FILLS)
def test_quantize_act_q8_error_is_bounded(isa, kind):
    x = fill(kind, (3, 96))
    got = _testing.quantize_act_q8(isa, x)
    assert np.all(np.abs(_reference.dequantize_act(got) - x) <= _reference.quantize_act_bound(x))
    assert np.abs(got["q"].astype(int)).max() <= 127
    assert np.array_equal(got["sum"], got["q"].astype(int).sum(axis=-1))
    assert np.array_equal(got["sum_lo"], got["q"][..., :16].astype(int).sum(axis=-1))


def test_quantize_act_q8_of_zeros_is_zero(isa):
    got = _testing.quantize_act_q8(isa, np.zeros((1, 32), np.float32))
    assert not got["scale"].any()
    assert not got["q"].any()


@pytest.mark.parametrize("type_name", TYPE_NAMES)
def test_gemm_error_is_bounded(isa, type_name):
    n, k, m = 18, 512, 3
    tiles = _testing.pack(type_name, k, random_rows(type_name, n, k))
    w = np.stack([_testing.unpack(type_name, k, tiles, row) for row in range(n)])
    x = fill("random", (m, k))
    got = _testing.gemm(type_name, isa, n, k, tiles, x)
    quantized = _testing.layout(type_name) in _testing.QUANTIZED
    seen = _reference.dequantize_act(_testing.quantize_act_q8("ref", x)) if quantized else x
    want, magnitude = _reference.gemm(w, seen)
    if quantized:  # values and minima cancel inside w: their terms count apart
        magnitude = magnitude + np.abs(seen) @ np.full((k, n), 4 * np.abs(w).max())
    assert within(got, (want, magnitude), (k + 4) * EPS)


@pytest.mark.parametrize("n", [1, 17, 576])
@pytest.mark.parametrize("kind", ["random", "alternating", "wide"])
def test_norm_errors_are_bounded(isa, n, kind):
    x, w, b = fill(kind, n), fill("random", n, 1), fill("random", n, 2)
    chain = n / 16 + 16
    got = _testing.norm("rms_norm", isa, x, w, None, 1e-5)
    assert within(got, _reference.rms_norm(x, w, float(np.float32(1e-5))), chain * EPS, 1e-44)
    for bias in (b, None):
        got = _testing.norm("layer_norm", isa, x, w, bias, 1e-5)
        assert within(got, _reference.layer_norm(x, w, bias, float(np.float32(1e-5))), 4 * chain * EPS, 1e-44)


@pytest.mark.parametrize("n", [1, 17, 1000])
def test_softmax_error_is_bounded(isa, n):
    for scale in (1, 30):
        x = fill("random", n) * np.float32(scale)
        assert within(
            _testing.elementwise("softmax", isa, x), _reference.softmax(x), (n / 16 + 8) * EPS, 1.3e-38
        )


def test_softmax_of_minus_infinity_is_exactly_zero(isa):
    x = np.float32([0, -np.inf, 1, -np.inf])
    got = _testing.elementwise("softmax", isa, x)
    assert got[1] == got[3] == 0
    assert got.sum() == pytest.approx(1)


def test_activation_errors_are_bounded(isa):
    x = np.concatenate([np.linspace(-20, 20, 40001), np.geomspace(1e-30, 1e4, 999)]).astype(np.float32)
    assert within(_testing.elementwise("silu", isa, x), _reference.silu(x), 4 * EPS, 1.2e-35)
    assert within(_testing.elementwise("gelu", isa, x), _reference.gelu(x), 1.5e-7)
    assert within(_testing.elementwise("gelu_tanh", isa, x), _reference.gelu_tanh(x), 2e-7)
    up = fill("random", x.size)
    assert within(_testing.elementwise("swiglu", isa, x, up), _reference.swiglu(x, up), 5 * EPS, 1e-34)
    assert within(_testing.elementwise("geglu_tanh", isa, x, up), _reference.geglu_tanh(x, up), 2.2e-7)
    assert np.array_equal(_testing.add(isa, x, up), x + up)


def test_rope_error_is_bounded(isa):
    x, angle = fill("random", (3, 64)), np.random.default_rng(3).uniform(0, 6, 24)
    cs = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert within(_testing.rope(isa, x, 48, cs), _reference.rope(x, 48, cs), 2 * EPS)


def test_float16_conversions_are_those_of_numpy(isa):
    bits = np.arange(0, 1 << 16, dtype=np.uint16)
    numbers = bits[~np.isnan(bits.view(np.float16))]
    assert np.array_equal(_testing.to_f32(isa, numbers), numbers.view(np.float16).astype(np.float32))
    x = np.arange(0, 0x7F800000, 0x3FFF, dtype=np.uint32).view(np.float32)
    ties = (numbers.view(np.float16).astype(np.float64)[:31744] + np.float64(2.0**-25)).astype(np.float32)
    both = np.concatenate([x, -x, ties])
    with np.errstate(over="ignore"):
        assert np.array_equal(_testing.to_f16(isa, both), both.astype(np.float16).view(np.uint16))


def stored(a, kind):
    """What a cache holds of (s, d) float32, in float64."""
    if kind == "q8_0":
        d = a.shape[1]
        return _reference.quantize_kv_q8(a).reshape(len(a), d)
    return a.astype(np.float16 if kind == "f16" else np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", _testing.KINDS)
@pytest.mark.parametrize(("d", "s"), [(64, 1), (64, 200), (128, 65), (24, 90)])
def test_attention_error_is_bounded(isa, d, s, kind):
    q, keys, values = fill("random", (4, d)), fill("random", (s, d), 1), fill("random", (s, d), 2)
    k_cache, v_cache = _testing.kv_caches("ref", keys, values, -(-s // 16) * 16, kind)
    last = [0, s // 2, s - 1, s - 1]
    scale = 1 / np.sqrt(d)
    for window in (None, 1, 50):
        got = _testing.attention(isa, q, last, scale, k_cache, v_cache, window=window)
        want = _reference.attention(
            q, stored(keys, kind), stored(values, kind), last, float(np.float32(scale)), window
        )
        assert within(got, want, 2 * (d + s / 16 + 64) * EPS)


@pytest.mark.parametrize("kind", FILLS)
@pytest.mark.parametrize("d", [8, 40, 64, 256])
def test_rounding_keys_and_values_to_q8_0_is_bounded(isa, d, kind):
    keys, values = fill(kind, (20, d), 1), fill(kind, (20, d), 2, top=3e6)
    k_cache, v_cache = _testing.kv_caches(isa, keys, values, 32, "q8_0")
    blocks = -(-d // 32)
    for x, got in (
        (keys, _keys_of(k_cache, d, blocks)[:20]),
        (values, _scaled(v_cache[:20, : 2 * blocks], v_cache[:20, 2 * blocks :])),
    ):
        assert np.all(np.abs(got - x) <= _reference.kv_q8_bound(x))  # NaN fails
        assert np.array_equal(got, _reference.quantize_kv_q8(x))


def _scaled(scales, q):
    """(s, d) float64 from (s, 2 blocks) bytes of float16 and (s, d) bytes."""
    d = np.ascontiguousarray(scales).view(np.float16).astype(np.float64)
    return np.repeat(d, 32, axis=1)[:, : q.shape[1]] * q.view(np.int8)


def _keys_of(k_cache, d, blocks):
    """(places, d) float64 from (tiles, bytes of a position, 16): scales of all blocks, then values."""
    flat = k_cache.reshape(len(k_cache), -1)
    scales = flat[:, : 32 * blocks].reshape(-1, blocks, 16, 2).transpose(0, 2, 1, 3)
    q = flat[:, 32 * blocks :].reshape(-1, d, 16).transpose(0, 2, 1)
    return _scaled(scales.reshape(-1, 2 * blocks), np.ascontiguousarray(q).reshape(-1, d))


def test_attention_with_equal_keys_is_the_mean_of_values(isa):
    keys, values = np.ones((64, 8), np.float32), fill("random", (64, 8))
    k_cache, v_cache = _testing.kv_caches(isa, keys, values, 64)
    got = _testing.attention(isa, np.ones((1, 8), np.float32), [63], 1.0, k_cache, v_cache)
    mean = values.astype(np.float16).astype(np.float64).mean(axis=0)
    assert np.all(np.abs(got[0] - mean) <= 70 * EPS * np.abs(values).max())
