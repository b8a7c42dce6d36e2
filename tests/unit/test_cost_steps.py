"""What a step costs beyond the plain roofline: budgets, threads, formats, unpacking, windows, experts."""

import math
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import cost

PI = cost.load_device("raspberry-pi-5")
QWEN = cost.load_model("qwen2.5-1.5b")


def _constant(value: float) -> cost.Constant:
    return cost.Constant(value, "", "by hand")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(cost.known_profiles("device")),
    st.sampled_from(cost.known_profiles("model")),
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3000)), min_size=1, max_size=5),
    st.floats(0.0, 1.0),
)
def test_budget_shares_are_shares_and_its_time_that_of_the_step(
    device: str, model: str, batch: list[tuple[int, int]], occupancy: float
) -> None:
    d = replace(cost.load_device(device), occupancy=_constant(occupancy))
    m = cost.load_model(model)
    new, contexts = [n for n, _ in batch], [c for _, c in batch]
    found = cost.budget(m, "q4_0", d, new, contexts)
    assert found.seconds == cost.step_time_s(m, "q4_0", d, new, contexts)
    assert 0.0 <= found.compute <= 1.0
    assert 0.0 <= found.memory <= 1.0
    assert found.compute + found.memory > 0.0
    plain = cost.budget(m, "q4_0", replace(d, occupancy=None), new, contexts)
    assert plain.compute == 1.0  # nobody has measured: as today, what runs together shares all


def test_budget_by_hand() -> None:
    device = replace(
        PI,
        bandwidth_decode_bytes_per_s=_constant(1e9),
        ops_per_s=_constant(1e10),
        attention_ops_per_s=_constant(1e12),
        layer_overhead_s=_constant(0.0),
        host_overhead_s=_constant(0.0),
        occupancy=_constant(0.25),
    )
    read_s = QWEN.active_bytes("q8_0") / 1e9
    ops_s = 2 * (QWEN.body_matrix_params + QWEN.embedding_params) / 1e10
    assert ops_s < read_s
    found = cost.budget(QWEN, "q8_0", device, [1], [0])
    assert found.seconds == pytest.approx(read_s, rel=1e-3)
    assert found.memory == pytest.approx(1.0, abs=1e-3)
    assert found.compute == pytest.approx((ops_s + 0.25 * (read_s - ops_s)) / read_s, rel=1e-3)


def test_unpacking_bounds_formats_of_few_bits_and_not_those_of_many() -> None:
    slow = replace(PI, unpack_weights_per_s=_constant(10e9), host_overhead_s=_constant(0.0))
    plain = replace(slow, unpack_weights_per_s=None)
    weights = QWEN.body_matrix_params + QWEN.embedding_params
    time_s = cost.step_time_s(QWEN, "q4_0", slow, [1], [0])
    rest_s = QWEN.layers * PI.layer_overhead_s.value
    assert time_s == pytest.approx(weights / 10e9 + rest_s, rel=1e-3)
    assert time_s > cost.step_time_s(QWEN, "q4_0", plain, [1], [0])
    assert cost.step_time_s(QWEN, "f16", slow, [1], [0]) == cost.step_time_s(QWEN, "f16", plain, [1], [0])


def test_factors_of_a_format_change_only_that_format() -> None:
    table = MappingProxyType({"q8_0": _constant(2.0)})
    device = replace(PI, format_bandwidth=table, format_ops=table, host_overhead_s=_constant(0.0))
    for tokens in (1, 500):
        # overheads and attention stay as they are
        bare = replace(device, layer_overhead_s=_constant(0.0), attention_ops_per_s=_constant(1e18))
        plain = replace(bare, format_bandwidth=MappingProxyType({}), format_ops=MappingProxyType({}))
        fast, slow = (cost.step_time_s(QWEN, "q8_0", d, [tokens], [0]) for d in (bare, plain))
        cache_s = tokens * tokens / 2 * QWEN.kv_bytes_per_token() / PI.bandwidth_decode_bytes_per_s.value
        assert fast - cache_s == pytest.approx((slow - cache_s) / 2, rel=1e-6)
        assert cost.step_time_s(QWEN, "q4_0", bare, [1], [0]) == cost.step_time_s(
            QWEN, "q4_0", plain, [1], [0]
        )


def test_prefill_overhead_counts_in_steps_of_several_tokens_only() -> None:
    device = replace(PI, prefill_layer_overhead_s=_constant(PI.layer_overhead_s.value + 0.001))
    assert cost.step_time_s(QWEN, "q4_0", device, [1], [9]) == cost.step_time_s(QWEN, "q4_0", PI, [1], [9])
    more = cost.step_time_s(QWEN, "q4_0", device, [9], [9]) - cost.step_time_s(QWEN, "q4_0", PI, [9], [9])
    assert more == pytest.approx(0.001 * QWEN.layers)


def test_threads_measured_are_taken_and_others_lie_between_them() -> None:
    device = replace(PI, threads=MappingProxyType({1: _constant(3.0), 2: _constant(1.6)}))
    assert [cost.thread_slowdown(device, n) for n in (1, 2, 4)] == [3.0, 1.6, 1.0]
    # linear in 1 / threads: x + y / 2 = 1.6 and x + y / 4 = 1
    assert cost.thread_slowdown(device, 3) == pytest.approx(0.4 + 2.4 / 3)
    plain = replace(PI, threads=MappingProxyType({}))
    assert [cost.thread_slowdown(plain, n) for n in (1, 2, 3, 4, 8)] == [4.0, 2.0, 4 / 3, 1.0, 1.0]
    with pytest.raises(ValueError, match="threads must be at least 1"):
        cost.thread_slowdown(PI, 0)


def test_device_with_fewer_threads_is_slower_by_their_factor_except_in_the_host() -> None:
    device = replace(PI, threads=MappingProxyType({2: _constant(1.6)}))
    two = cost.with_threads(device, 2)
    assert two.cores.value == 2.0
    host_s = PI.host_overhead_s.value
    for tokens in (1, 64):
        slow = cost.step_time_s(QWEN, "q4_0", two, [tokens], [50]) - host_s
        fast = cost.step_time_s(QWEN, "q4_0", device, [tokens], [50]) - host_s
        assert slow == pytest.approx(1.6 * fast)
    assert device.idle_w.value < two.active_w.value < device.active_w.value
    assert two.active_w.guess
    assert cost.with_threads(device, 4) is device
    with pytest.raises(ValueError, match="has 4 cores, not 5"):
        cost.with_threads(device, 5)


def test_window_bounds_attention_and_cache() -> None:
    windowed = replace(QWEN, window=100, window_pattern=4)
    assert windowed.windowed_layers == 21
    assert windowed.kv_bytes(1000) == pytest.approx(QWEN.kv_bytes(1000) * (7 + 21 * 0.1) / 28)
    each_s = [cost.step_time_s(windowed, "q4_0", PI, [1], [c]) for c in (40, 60, 1000, 2000)]
    full_s = [cost.step_time_s(QWEN, "q4_0", PI, [1], [c]) for c in (40, 60, 1000, 2000)]
    assert each_s[0] == pytest.approx(full_s[0], rel=1e-12)
    assert each_s[1] == pytest.approx(full_s[1], rel=1e-12)
    # beyond the window only every fourth layer goes on
    assert each_s[3] - each_s[2] == pytest.approx((full_s[3] - full_s[2]) / 4, rel=1e-9)
    steps = math.fsum(cost.step_time_s(windowed, "q4_0", PI, [1], [c]) for c in range(80, 130))
    assert cost.decode_time_s(windowed, "q4_0", PI, 50, 80) == pytest.approx(steps, rel=1e-5)


def test_experts_touched_are_what_a_step_reads() -> None:
    sparse = replace(QWEN, experts=16, experts_used=2, expert_ffn=1024)
    device = replace(PI, ops_per_s=_constant(1e18), attention_ops_per_s=_constant(1e18))
    fixed, each = sparse.split_bytes("q4_0")
    assert sparse.active_bytes("q4_0") == pytest.approx(fixed + 2 * each, rel=1e-12)
    times = [cost.step_time_s(sparse, "q4_0", device, [1] * n, [0] * n) for n in (1, 4, 400)]
    experts = [(t - times[0]) * PI.bandwidth_decode_bytes_per_s.value / each + 2 for t in times]
    half_s = sparse.kv_bytes_per_token() / 2 / PI.bandwidth_decode_bytes_per_s.value
    rate = PI.bandwidth_decode_bytes_per_s.value
    for n, t, got in zip((1, 4, 400), times, experts, strict=True):
        caches = (n - 1) * half_s * rate / each
        assert got - caches == pytest.approx(16 * (1 - (1 - 2 / 16) ** n), rel=1e-9), t
