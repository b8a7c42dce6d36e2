"""Every kernel of every instruction set gives the bits of `ref`, whatever the sizes and values.

All buffers end at a page that must not be touched, so a read or write past the end is a crash here.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import _core, _testing, cpu
from edgellm.quant import TYPES
from tests.unit.kernel_cases import FILLS, ISAS, SIZES, TYPE_NAMES, fill, random_rows, row_bytes, same_bits

pytestmark = pytest.mark.parametrize("isa", ISAS) if ISAS else pytest.mark.skip("this machine runs ref alone")

BLOCK = _testing.BLOCK


@pytest.mark.parametrize("kind", FILLS)
def test_quantize_act_q8_has_the_bits_of_ref(isa, kind):
    for k in (0, 32, 64, 576):
        x = fill(kind, (2, k), seed=k)
        assert _testing.quantize_act_q8(isa, x).tobytes() == _testing.quantize_act_q8("ref", x).tobytes()


def test_quantize_act_q8_rounds_ties_as_ref(isa):
    x = np.arange(-127, 129, dtype=np.float32)[None, :] / 2
    x[0, ::32] = 127  # inverse is 1, so that halves are ties
    assert _testing.quantize_act_q8(isa, x).tobytes() == _testing.quantize_act_q8("ref", x).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantize_act_q8_of_non_finite_values_is_defined(isa, value):
    x = np.linspace(-1, 1, 32, dtype=np.float32)[None, :].copy()
    x[0, 5] = value
    got, want = _testing.quantize_act_q8(isa, x), _testing.quantize_act_q8("ref", x)
    assert got["q"].tobytes() == want["q"].tobytes()
    assert got["sum"] == want["q"].astype(int).sum()


@pytest.mark.parametrize("op", ["silu", "gelu", "gelu_tanh", "softmax"])
@pytest.mark.parametrize("kind", FILLS)
def test_elementwise_has_the_bits_of_ref(isa, op, kind):
    for n in SIZES:
        x = fill(kind, n, seed=n, top=100)
        assert same_bits(_testing.elementwise(op, isa, x), _testing.elementwise(op, "ref", x)), n


def test_activations_of_every_exponent_have_the_bits_of_ref(isa):
    bits = np.arange(0, 0x7F000000, 0x00010003, dtype=np.uint32)
    x = np.concatenate([bits, bits | 0x80000000]).view(np.float32)
    x = x[np.abs(x) < 1e12]  # x^3 of gelu_tanh stays finite
    for op in ("silu", "gelu", "gelu_tanh"):
        assert same_bits(_testing.elementwise(op, isa, x), _testing.elementwise(op, "ref", x)), op


@pytest.mark.parametrize("kind", FILLS)
def test_two_operand_ops_have_the_bits_of_ref(isa, kind):
    for n in SIZES:
        a, b = fill(kind, n, seed=n), fill("random", n, seed=n + 1)
        for op in ("swiglu", "geglu_tanh"):
            assert same_bits(_testing.elementwise(op, isa, a, b), _testing.elementwise(op, "ref", a, b)), op
        assert same_bits(_testing.add(isa, a, b), _testing.add("ref", a, b))


@pytest.mark.parametrize("kind", FILLS)
def test_norms_have_the_bits_of_ref(isa, kind):
    for n in SIZES:
        x, w, b = fill(kind, n, seed=n), fill("random", n, seed=n + 1), fill("random", n, seed=n + 2)
        for op, bias in (("rms_norm", None), ("layer_norm", b), ("layer_norm", None)):
            got = _testing.norm(op, isa, x, w, bias, 1e-5)
            assert same_bits(got, _testing.norm(op, "ref", x, w, bias, 1e-5)), (op, n)


@pytest.mark.parametrize("kind", FILLS)
def test_rope_has_the_bits_of_ref(isa, kind):
    for heads, d, rotated in [(0, 8, 8), (1, 8, 2), (3, 64, 64), (2, 64, 48), (2, 34, 34), (1, 128, 0)]:
        x, cs = fill(kind, (heads, d)), fill("random", (rotated // 2, 2), seed=7)
        assert same_bits(_testing.rope(isa, x, rotated, cs), _testing.rope("ref", x, rotated, cs))


@pytest.mark.parametrize("kind", FILLS)
def test_float16_conversions_have_the_bits_of_ref(isa, kind):
    for n in SIZES:
        x = fill(kind, n, seed=n)
        half = _testing.to_f16("ref", x)
        assert _testing.to_f16(isa, x).tobytes() == half.tobytes()
        assert _testing.to_f32(isa, half).tobytes() == _testing.to_f32("ref", half).tobytes()


@pytest.mark.parametrize("words", [0, 1, 2, 3, 4, 5, 6, 7, 8, 13])
@pytest.mark.parametrize("rows", [1, 2, 7, 15, 16])
def test_interleave_has_the_bytes_of_ref(isa, rows, words):
    for blocks, gap, spare in [(1, 0, 0), (3, 2, 0), (5, 6, 64)]:
        step = words * 4 + gap
        x = np.random.default_rng(words).integers(0, 256, rows * blocks * step - gap, np.uint8)
        size = (blocks * step, rows, blocks, words, step, 0x80402010, spare)
        got = _testing.interleave(isa, x, *size)
        assert got.tobytes() == _testing.interleave("ref", x, *size).tobytes(), (blocks, gap)


@pytest.mark.parametrize("type_name", TYPE_NAMES)
@pytest.mark.parametrize("rows", [1, 5, 16, 18])
def test_packed_tiles_have_the_bytes_of_ref(isa, type_name, rows):
    for k in {1: (1, 33, 256), 32: (32, 96, 768), 256: (256, 768)}[TYPES[type_name].block_values]:
        raw = np.random.default_rng(k).integers(0, 256, (rows, row_bytes(type_name, k)), np.uint8)
        got = _testing.pack(type_name, k, raw, isa)
        assert got.tobytes() == _testing.pack(type_name, k, raw).tobytes(), k


@pytest.mark.parametrize("type_name", TYPE_NAMES)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 33])
def test_gemm_has_the_bits_of_ref(isa, type_name, m):
    for n, k in [(1, 256), (16, 256), (33, 512)]:
        tiles = _testing.pack(type_name, k, random_rows(type_name, n, k))
        x = fill("random", (m, k), seed=n)
        for spare in (0, 3):
            got = _testing.gemm(type_name, isa, n, k, tiles, x, spare)
            assert same_bits(got, _testing.gemm(type_name, "ref", n, k, tiles, x, spare)), (n, k, spare)


@pytest.mark.parametrize("type_name", TYPE_NAMES)
@pytest.mark.parametrize("kind", FILLS)
def test_gemm_of_extreme_activations_has_the_bits_of_ref(isa, type_name, kind):
    for k in (32, 96, 576) if TYPES[type_name].block_values <= 32 else (256, 768):
        tiles = _testing.pack(type_name, k, random_rows(type_name, 19, k))
        x = fill(kind, (13, k))
        got = _testing.gemm(type_name, isa, 19, k, tiles, x)
        assert same_bits(got, _testing.gemm(type_name, "ref", 19, k, tiles, x)), k


@pytest.mark.parametrize("type_name", TYPE_NAMES)
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_gemm_of_extreme_weights_has_the_bits_of_ref(isa, type_name, byte):
    rows = random_rows(type_name, 17, 256)
    scales = random_rows(type_name, 17, 256, seed=1) != rows  # bytes that are random, not set
    extreme = np.where(scales & (type_name not in ("f32", "f16", "bf16")), byte, rows).astype(np.uint8)
    finite = np.isfinite(_unpack_all(type_name, 256, _testing.pack(type_name, 256, extreme), 17)).all()
    tiles = _testing.pack(type_name, 256, extreme if finite else rows)
    for kind in ("all_max", "alternating", "random"):
        x = fill(kind, (5, 256))
        got = _testing.gemm(type_name, isa, 17, 256, tiles, x)
        assert same_bits(got, _testing.gemm(type_name, "ref", 17, 256, tiles, x)), kind


def _unpack_all(type_name, k, tiles, n):
    return np.stack([_testing.unpack(type_name, k, tiles, row) for row in range(n)])


def _caches(d, s, context, kind, isa="ref"):
    return _testing.kv_caches(isa, fill("random", (s, d), 0), fill("wide", (s, d), 1), context, kind)


@pytest.mark.parametrize("kind", _testing.KINDS)
@pytest.mark.parametrize("d", [8, 24, 64, 72, 128, 256])
def test_kv_write_has_the_bits_of_ref(isa, d, kind):
    for got, want in zip(_caches(d, 21, 32, kind, isa), _caches(d, 21, 32, kind), strict=True):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("kind", _testing.KINDS)
@pytest.mark.parametrize("d", [8, 24, 64, 72, 128, 256])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 7, 12])
def test_attention_has_the_bits_of_ref(isa, d, rows, kind):
    rng = np.random.default_rng(d + rows)
    for s, context in [(1, 16), (16, 16), (64, 64), (65, 80), (150, 160)]:
        k_cache, v_cache = _caches(d, s, context, kind)  # what is not written is NaN
        q = fill("random", (rows, d), seed=s)
        growing = sorted(rng.integers(0, s, rows).tolist())
        for last in (growing, growing[::-1], [s - 1] * rows, rng.integers(0, s, rows).tolist()):
            got = _testing.attention(isa, q, last, 0.125, k_cache, v_cache)
            assert same_bits(got, _testing.attention("ref", q, last, 0.125, k_cache, v_cache)), (s, last)


@pytest.mark.parametrize("kind", _testing.KINDS)
@pytest.mark.parametrize("d", [40, 96, 128, 136, 256])
@pytest.mark.parametrize("rows", [47, 97, 203])
def test_attention_of_many_rows_has_the_bits_of_ref(isa, d, rows, kind):
    s = 150
    k_cache, v_cache = _caches(d, s, 160, kind)
    q = fill("random", (rows, d), seed=rows)
    last = sorted(np.random.default_rng(rows).integers(0, s, rows).tolist())
    got = _testing.attention(isa, q, last, 0.125, k_cache, v_cache)
    assert same_bits(got, _testing.attention("ref", q, last, 0.125, k_cache, v_cache))


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(sorted(_testing.KINDS)), d=st.sampled_from([8, 40, 64, 136]))
def test_attention_in_a_ring_has_the_bits_of_a_masked_cache(isa, data, kind, d):
    s = data.draw(st.integers(1, 700))
    window = data.draw(st.integers(1, s))
    tokens = data.draw(st.integers(1, 40))
    ring = -(-(window + tokens - 1) // 64) * 64
    rows = data.draw(st.sampled_from([1, 2, 3, 7]))
    last = [p for p in range(max(0, s - tokens), s) for _ in range(rows)]
    keys, values = fill("random", (s, d), 0), fill("wide", (s, d), 1)
    q = fill("random", (len(last), d), seed=s)
    unlimited = _testing.kv_caches("ref", keys, values, -(-s // 16) * 16, kind)
    masked = _testing.attention(isa, q, last, 0.125, *unlimited, window=window)
    assert same_bits(masked, _testing.attention("ref", q, last, 0.125, *unlimited, window=window))
    held = min(s, ring)
    caches = _testing.kv_caches("ref", keys[s - held :], values[s - held :], ring, kind, first=s - held)
    assert same_bits(masked, _testing.attention(isa, q, last, 0.125, *caches, window=window, ring=ring))


@settings(max_examples=40)
@given(data=st.data())
def test_attention_of_a_row_does_not_depend_on_the_others(isa, data):
    s = data.draw(st.integers(1, 140))
    rows = data.draw(st.integers(1, 9))
    last = data.draw(st.lists(st.integers(0, s - 1), min_size=rows, max_size=rows))
    k_cache, v_cache = _caches(16, s, -(-s // 16) * 16, "f16")
    q = fill("random", (rows, 16), seed=s)
    together = _testing.attention(isa, q, last, 0.25, k_cache, v_cache)
    alone = [
        _testing.attention(isa, q[r : r + 1], last[r : r + 1], 0.25, k_cache, v_cache) for r in range(rows)
    ]
    assert same_bits(together, np.concatenate(alone))


@settings(max_examples=40)
@given(
    name=st.sampled_from(TYPE_NAMES),
    m=st.integers(1, 30),
    cut=st.integers(0, 30),
    n=st.integers(1, 40),
    blocks=st.integers(1, 5),
)
def test_gemm_of_a_row_does_not_depend_on_the_others(isa, name, m, cut, n, blocks):
    k, cut = blocks * max(BLOCK, TYPES[name].block_values), min(cut, m)
    tiles = _testing.pack(name, k, random_rows(name, n, k))
    x = fill("random", (m, k), seed=n)
    parts = [_testing.gemm(name, isa, n, k, tiles, part) for part in (x[:cut], x[cut:])]
    assert same_bits(_testing.gemm(name, isa, n, k, tiles, x), np.concatenate(parts))


def test_every_kernel_of_the_isa_is_tested_here(isa):
    tested = {
        "quantize_act_q8",
        "interleave",
        "silu",
        "gelu",
        "gelu_tanh",
        "softmax",
        "swiglu",
        "geglu_tanh",
        "add",
        "rms_norm",
        "layer_norm",
    }
    tested |= {
        "rope",
        "f32_to_f16",
        "f16_to_f32",
        "kv_write_f16",
        "attention_f16",
        "kv_write_f32",
        "attention_f32",
        "kv_write_q8_0",
        "attention_q8_0",
    }
    tested |= {
        f"gemm_{'q8' if _testing.layout(t) in _testing.QUANTIZED else 'f32'}_{_testing.layout(t)}"
        for t in TYPE_NAMES
    }
    assert {op for op, row in _core.testing_kernel_list() if row == isa} <= tested
    assert tested == set(cpu.kernels())
