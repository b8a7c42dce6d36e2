import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import cost

PI = cost.load_device("raspberry-pi-5")
SMOL = cost.load_model("smollm2-135m")
QUANTS = ["q4_0", "q4_1", "q8_0", "f16"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(cost.known_profiles("device")),
    st.sampled_from(cost.known_profiles("model")),
    st.sampled_from(QUANTS),
    st.integers(0, 60),
    st.integers(0, 4000),
)
def test_decode_closed_form_equals_the_sum_of_its_steps(
    device: str, model: str, quant: str, tokens: int, context: int
) -> None:
    d, m = cost.load_device(device), cost.load_model(model)
    steps = math.fsum(cost.step_time_s(m, quant, d, [1], [context + i]) for i in range(tokens))
    assert math.isclose(cost.decode_time_s(m, quant, d, tokens, context), steps, rel_tol=1e-9, abs_tol=1e-15)


def test_step_by_hand() -> None:
    # one layer of width 32: 4*32*32 + 3*32*64 = 10,240 weights; head 32 * 100 = 3,200; norms 96
    model = cost.ModelProfile(
        name="tiny", title="", layers=1, width=32, heads=2, kv_heads=2, head_dim=16, ffn=64, vocab=100,
        tied=True, context=128, source="",
    )  # fmt: skip
    assert (model.body_matrix_params, model.embedding_params, model.vector_params) == (10240, 3200, 96)
    assert model.active_bytes("f16") == 2 * (10240 + 3200) + 4 * 96

    def rate(value: float) -> cost.Constant:
        return cost.Constant(value, "", "hand")

    device = replace(
        PI,
        bandwidth_decode_bytes_per_s=rate(1e6),
        bandwidth_prefill_bytes_per_s=rate(2e6),
        ops_per_s=rate(1e8),
        attention_ops_per_s=rate(1e6),
        layer_overhead_s=rate(0.001),
        host_overhead_s=rate(0.01),
    )
    read_s = 27264 / 1e6
    attention_s = 10.5 * max(4 * 32 / 1e6, 128 / 1e6)
    assert cost.step_time_s(model, "f16", device, [1], [10]) == pytest.approx(
        0.001 + read_s + attention_s + 0.01, rel=1e-12
    )
    # a long prompt computes longer than it reads
    ops_s = (2 * 10240 * 100 + 2 * 3200) / 1e8
    assert ops_s > 27264 / 2e6
    assert cost.prefill_time_s(model, "f16", device, 100, 20) == pytest.approx(
        0.001 + ops_s + 100 * 70 * 128e-6 + 0.01, rel=1e-12
    )
    twice = cost.step_time_s(model, "f16", device, [1], [10], slowdown=2.0)
    assert twice == pytest.approx(2 * (0.001 + read_s + attention_s) + 0.01, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(QUANTS), st.integers(1, 500), st.integers(0, 3000), st.integers(1, 500))
def test_time_grows_with_tokens_and_context(quant: str, tokens: int, context: int, more: int) -> None:
    for time_s in (cost.prefill_time_s, cost.decode_time_s):
        base = time_s(SMOL, quant, PI, tokens, context)
        assert base < time_s(SMOL, quant, PI, tokens + more, context)
        assert base < time_s(SMOL, quant, PI, tokens, context + more)


def test_batch_shares_the_reading_of_weights() -> None:
    one = cost.step_time_s(SMOL, "q4_0", PI, [1], [100])
    assert one < cost.step_time_s(SMOL, "q4_0", PI, [1] * 4, [100] * 4) < 4 * one


def test_step_with_bad_numbers_is_an_error() -> None:
    for new, contexts in (([], []), ([1], [1, 2]), ([0], [1]), ([1], [-1])):
        with pytest.raises(ValueError, match=r"must be|needs"):
            cost.step_time_s(SMOL, "q4_0", PI, new, contexts)
    for slowdown in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="slowdown"):
            cost.step_time_s(SMOL, "q4_0", PI, [1], [1], slowdown=slowdown)
    with pytest.raises(ValueError, match="unknown quantization 'q3'"):
        cost.decode_time_s(SMOL, "q3", PI, 1, 1)
    with pytest.raises(ValueError, match="unknown cache type"):
        cost.memory_bytes(SMOL, "q4_0", 10, "q2")
    with pytest.raises(ValueError, match="context"):
        cost.memory_bytes(SMOL, "q4_0", -1)
    with pytest.raises(ValueError, match="tokens"):
        cost.prefill_time_s(SMOL, "q4_0", PI, -1)


def test_memory_counts_the_cache() -> None:
    # 2 (keys, values) * 30 layers * 3 heads * 64 values * 2 bytes
    assert SMOL.kv_bytes_per_token("f16") == 23040
    grown = cost.memory_bytes(SMOL, "q4_0", 1024) - cost.memory_bytes(SMOL, "q4_0", 0)
    assert grown == 1024 * 23040
    assert cost.memory_bytes(SMOL, "q4_0", 1) > cost.load_device("esp32-s3").ram_bytes.value


def test_no_time_for_no_tokens() -> None:
    assert cost.prefill_time_s(SMOL, "q4_0", PI, 0, 100) == 0.0
    assert cost.decode_time_s(SMOL, "q4_0", PI, 0, 100) == 0.0
