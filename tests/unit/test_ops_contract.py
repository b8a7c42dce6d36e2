"""edgellm.ops: right values, the same bits on every instruction set, and errors that name the argument."""

import inspect

import numpy as np
import pytest

from edgellm import _reference, cpu, ops, quant
from edgellm._reference import EPS

RNG = np.random.default_rng(11)
X = RNG.standard_normal((5, 64)).astype(np.float32)
W = RNG.standard_normal(64).astype(np.float32)
HEADS = RNG.standard_normal((5, 4, 16)).astype(np.float32)
GROUPS = RNG.standard_normal((9, 2, 16)).astype(np.float32)
M = RNG.standard_normal((20, 64)).astype(np.float32)

CALLS = {
    "matmul": lambda **k: ops.matmul(M, X, **k),
    "matmul_q4_0": lambda **k: ops.matmul(quant.quantize(M, "q4_0"), X, **k),
    "matmul_q5_1": lambda **k: ops.matmul(quant.quantize(M, "q5_1"), X[0], **k),
    "matmul_f16": lambda **k: ops.matmul(M.astype(np.float16), X, **k),
    "rms_norm": lambda **k: ops.rms_norm(X, W, **k),
    "layer_norm": lambda **k: ops.layer_norm(X, W, W, **k),
    "layer_norm_no_bias": lambda **k: ops.layer_norm(X, W, **k),
    "softmax": lambda **k: ops.softmax(X, **k),
    "silu": lambda **k: ops.silu(X, **k),
    "gelu": lambda **k: ops.gelu(X, **k),
    "gelu_tanh": lambda **k: ops.gelu_tanh(X, **k),
    "swiglu": lambda **k: ops.swiglu(X, X[::-1].copy(), **k),
    "rope": lambda **k: ops.rope(X, range(5), **k),
    "rope_heads": lambda **k: ops.rope(HEADS, [0, 5, 7, 9, 2**20], 1e5, 8, **k),
    "attention": lambda **k: ops.attention(HEADS, GROUPS, GROUPS[::-1].copy(), **k),
    "attention_all": lambda **k: ops.attention(X, M, M, 0.1, causal=False, **k),
    "cross_entropy": lambda **k: np.float64(ops.cross_entropy(X, [0, 5, 63, 1, 2], **k)),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_isa_gives_the_same_bits(name):
    results = {CALLS[name](isa=isa).tobytes() for isa in [None, *cpu.runnable_isas()]}
    assert len(results) == 1


def close(got, reference, factor):
    want, magnitude = reference
    return bool(np.all(np.abs(got - want) <= factor * magnitude + 1e-37))


def test_matmul_of_floats_is_the_product():
    assert close(ops.matmul(M, X), _reference.gemm(M, X), 68 * EPS)
    assert np.array_equal(ops.matmul(M, X[1]), ops.matmul(M, X)[1])


@pytest.mark.parametrize("type_name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_matmul_of_quantized_weights_rounds_activations_to_8_bits(type_name):
    w = quant.quantize(M, type_name)
    got = ops.matmul(w, X)
    want = X.astype(np.float64) @ w.dequantize().astype(np.float64).T
    room = _reference.quantize_act_bound(X) @ np.abs(w.dequantize().astype(np.float64)).T
    magnitude = np.abs(X) @ np.abs(w.dequantize()).T + np.abs(X) @ np.full((64, 20), 8.0)
    assert np.all(np.abs(got - want) <= room + 70 * EPS * magnitude)


@pytest.mark.parametrize("type_name", sorted(quant.TYPES))
def test_matmul_takes_every_format(type_name):
    info = quant.TYPES[type_name]
    w = quant.from_bytes(bytes(512 // info.block_values * info.block_bytes * 3), type_name, (3, 512))
    assert np.array_equal(ops.matmul(w, np.ones(512, np.float32)), np.zeros(3, np.float32))


def test_norms_are_within_bounds():
    for row in range(5):
        eps = float(np.float32(1e-5))
        assert close(ops.rms_norm(X, W)[row], _reference.rms_norm(X[row], W, eps), 20 * EPS)
        assert close(ops.layer_norm(X, W, W)[row], _reference.layer_norm(X[row], W, W, eps), 80 * EPS)


def test_elementwise_ops_are_within_bounds():
    assert close(ops.silu(X), _reference.silu(X), 4 * EPS)
    assert close(ops.gelu(X), _reference.gelu(X), 1.5e-7)
    assert close(ops.gelu_tanh(X), _reference.gelu_tanh(X), 2e-7)
    assert close(ops.swiglu(X, X), _reference.swiglu(X, X), 5 * EPS)
    assert ops.gelu(np.array(1, np.float32)).shape == ()


def test_softmax_rows_sum_to_one_and_masks_are_zero():
    masked = X.copy()
    masked[:, 40:] = -np.inf
    y = ops.softmax(masked)
    assert np.abs(y.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
    assert not y[:, 40:].any()


def test_rope_turns_by_the_angle_of_the_position():
    y = ops.rope(X, [3] * 5, 100.0)
    angle = 3 * 100.0 ** (-2 * np.arange(32) / 64)
    cs = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert close(y, _reference.rope(X, 64, cs), 4 * EPS)
    assert np.array_equal(ops.rope(X, [0] * 5), X)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("d", [16, 13, 1])
def test_attention_is_within_bounds(causal, d):
    q, k = HEADS[:, :, :d].copy(), GROUPS[:, :, :d].copy()
    v = k[::-1].copy()
    y = ops.attention(q, k, v, causal=causal)
    rounded = [a.astype(np.float16).astype(np.float64) for a in (k, v)]
    for head in range(4):
        last = [4 + i if causal else 8 for i in range(5)]
        group = [a[:, head // 2] for a in rounded]
        want = _reference.attention(q[:, head], *group, last, float(np.float32(1 / np.sqrt(d))))
        assert close(y[:, head], want, 200 * EPS)


def test_attention_in_chunks_is_attention_at_once():
    q = RNG.standard_normal((100, 2, 16)).astype(np.float32)
    k, v = (RNG.standard_normal((100, 2, 16)).astype(np.float32) for _ in range(2))
    parts = [ops.attention(q[a:b], k[:b], v[:b]) for a, b in [(0, 1), (1, 37), (37, 64), (64, 100)]]
    assert np.concatenate(parts).tobytes() == ops.attention(q, k, v).tobytes()


def test_cross_entropy_is_the_mean_of_log_losses():
    targets = [0, 5, 63, 1, 2]
    x = X.astype(np.float64)
    want = np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(5), targets])
    assert ops.cross_entropy(X, targets) == pytest.approx(want, rel=1e-12)
    assert ops.cross_entropy(X[0], 0) == pytest.approx(np.log(np.exp(x[0]).sum()) - x[0, 0], rel=1e-12)
    far = np.float32([[0, -1e30]])
    assert ops.cross_entropy(far, [1]) == pytest.approx(1e30)


def test_mse_is_the_mean_of_squares():
    assert ops.mse(X, -X) == pytest.approx(4 * np.mean(X.astype(np.float64) ** 2), rel=1e-12)
    assert ops.mse(X, X) == 0.0


def test_inputs_are_left_alone():
    before = X.copy()
    for name in CALLS:
        CALLS[name]()
    assert np.array_equal(X, before)


def test_misaligned_input_is_accepted():
    raw = np.zeros(4 * 64 + 1, np.uint8)
    x = raw[1:].view(np.float32)
    assert not x.flags.aligned
    x[...] = W
    assert np.array_equal(ops.silu(x), ops.silu(W))


NAN, INF = np.full_like(X, np.nan), np.full_like(X, np.inf)
ONE_NAN = X.copy()
ONE_NAN[3, 5] = np.nan
F32 = ["rms_norm", "layer_norm", "softmax", "silu", "gelu", "gelu_tanh", "swiglu", "rope", "matmul"]


def with_x(name, x):
    """Call an operation with x as its main argument."""
    more = {"rms_norm": (W,), "layer_norm": (W,), "swiglu": (X,), "rope": (range(5),)}
    return ops.matmul(M, x) if name == "matmul" else getattr(ops, name)(x, *more.get(name, ()))


@pytest.mark.parametrize("name", F32)
def test_nan_is_named_with_its_place(name):
    argument = "gate" if name == "swiglu" else "x"
    with pytest.raises(
        ValueError, match=rf"{name}: {argument} must be finite, but {argument}\[3, 5\] is nan"
    ):
        with_x(name, ONE_NAN)


@pytest.mark.parametrize("name", F32)
@pytest.mark.parametrize("x", [NAN, INF], ids=["nan", "inf"])
def test_non_finite_input_is_refused(name, x):
    with pytest.raises(ValueError, match=name):
        with_x(name, x)


@pytest.mark.parametrize("name", F32)
@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", ">f4", "c8", "O"])
def test_wrong_dtype_is_a_type_error(name, dtype):
    with pytest.raises(TypeError, match=rf"{name}: \w+ must be float32, got"):
        with_x(name, X.astype(dtype))


@pytest.mark.parametrize("name", F32)
@pytest.mark.parametrize("x", [None, 1.0, [1.0, 2.0], "x"])
def test_no_array_is_a_type_error(name, x):
    with pytest.raises(TypeError, match=name):
        with_x(name, x)


@pytest.mark.parametrize("name", F32)
def test_other_order_is_a_value_error(name):
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be C-contiguous"):
        with_x(name, np.asfortranarray(X))


BAD = {
    "matmul: x must have 64 columns": lambda: ops.matmul(M, X[:, :32].copy()),
    "matmul: w must have 2 dimensions": lambda: ops.matmul(W, X),
    "matmul: x must have 1 or 2 dimensions": lambda: ops.matmul(M, HEADS),
    "matmul: w must be finite": lambda: ops.matmul(np.full((2, 64), np.nan, np.float32), X),
    "rms_norm: w must have shape": lambda: ops.rms_norm(X, W[:5].copy()),
    "rms_norm: eps must be": lambda: ops.rms_norm(X, W, -1.0),
    "layer_norm: eps must be": lambda: ops.layer_norm(X, W, eps=np.nan),
    "layer_norm: b must have shape": lambda: ops.layer_norm(X, W, W[:5].copy()),
    "softmax: x must have a last axis": lambda: ops.softmax(np.zeros((3, 0), np.float32)),
    "softmax: x has a row of nothing but -inf": lambda: ops.softmax(-INF),
    "swiglu: up must have the shape of gate": lambda: ops.swiglu(X, W),
    "rope: positions must have shape": lambda: ops.rope(X, [1]),
    "rope: positions must lie in": lambda: ops.rope(X, [0, 1, 2, 3, -1]),
    "rope: theta must lie in": lambda: ops.rope(X, range(5), 0.5),
    "rope: rotated must be even": lambda: ops.rope(X, range(5), rotated=3),
    "attention: v must have the shape of k": lambda: ops.attention(HEADS, GROUPS, GROUPS[:3].copy()),
    "attention: q and k must have one head size": lambda: ops.attention(
        HEADS, *[GROUPS[:, :, :8].copy()] * 2
    ),
    "attention: k must have a position": lambda: ops.attention(
        HEADS, *[np.zeros((9, 3, 16), np.float32)] * 2
    ),
    "attention: causal needs": lambda: ops.attention(HEADS, *[GROUPS[:3].copy()] * 2),
    "attention: k and v must be below 65520": lambda: ops.attention(HEADS, *[GROUPS * np.float32(1e6)] * 2),
    "attention: scale must be finite": lambda: ops.attention(HEADS, GROUPS, GROUPS, np.inf),
    "cross_entropy: targets must lie in 0..63": lambda: ops.cross_entropy(X, [0, 0, 0, 0, 64]),
    "cross_entropy: targets must have shape": lambda: ops.cross_entropy(X, [0]),
    "cross_entropy: logits must not be empty": lambda: ops.cross_entropy(X[:0], []),
    "mse: a must not be empty": lambda: ops.mse(X[:0], X[:0]),
    "mse: b must have the shape of a": lambda: ops.mse(X, W),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("(", r"\(")):
        BAD[message]()


@pytest.mark.parametrize("call", [lambda: ops.rope(X, [0.5] * 5), lambda: ops.cross_entropy(X, [0.5] * 5)])
def test_fractional_indices_are_a_type_error(call):
    with pytest.raises(TypeError, match="must be integers"):
        call()


@pytest.mark.parametrize("name", CALLS)
def test_unknown_isa_is_refused(name):
    with pytest.raises(ValueError, match="unknown isa 'mmx'"):
        CALLS[name](isa="mmx")


def test_every_operation_is_documented_and_tested():
    assert {name.split("_q")[0] for name in CALLS} >= set(ops.__all__) - {"mse"}
    for name in ops.__all__:
        text = inspect.getdoc(getattr(ops, name))
        assert all(part in text for part in ("Parameters", "Returns", "Raises", "Examples")), name
