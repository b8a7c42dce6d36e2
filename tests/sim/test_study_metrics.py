"""Metrics: each formula against numbers worked out by hand, and against NumPy where it has the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.sim import metrics

values = st.lists(st.one_of(st.floats(0, 1e6), st.just(math.inf)), min_size=1, max_size=60)


def columns(**changes):
    base = {
        "status": np.array(["ok", "ok", "failed", "rejected"], dtype=object),
        "reason": np.array(["", "", "deadline missed", "model does not fit: 3 GB"], dtype=object),
        "first_token_s": np.array([0.5, 1.5, 0.1, np.inf]),
        "e2e_s": np.array([1.0, 3.0, np.inf, np.inf]),
        "tpot_s": np.array([0.1, np.nan, 0.1, np.nan]),
        "energy_j": np.array([2.0, 4.0, 6.0, 0.0]),
        "device_energy_j": np.array([2.0, 1.0, 1.0, 0.0]),
        "bytes_up": np.array([0.0, 100.0, 100.0, 0.0]),
        "bytes_down": np.array([0.0, 10.0, 0.0, 0.0]),
        "left_home_bytes": np.array([0.0, 80.0, 80.0, 0.0]),
        "left_home_text_bytes": np.array([0.0, 80.0, 80.0, 0.0]),
        "cost_usd": np.array([0.0, 0.01, 0.01, 0.0]),
        "escalated": np.array([False, True, True, False]),
        "tokens_wasted": np.array([0.0, 8.0, 0.0, 0.0]),
    }
    return base | changes


@given(values, st.sampled_from([1, 5, 25, 50, 75, 95, 99, 100]))
def test_percentile_is_the_smallest_value_that_covers_the_share(sample, q):
    got = metrics.percentile(sample, q)
    assert got in sample
    assert sum(v <= got for v in sample) * 100 >= q * len(sample)
    below = [v for v in sample if v < got]
    assert not below or len(below) * 100 < q * len(sample)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.sampled_from([5, 50, 95, 99]))
def test_percentile_of_finite_values_agrees_with_numpy(sample, q):
    assert metrics.percentile(sample, q) == np.percentile(sample, q, method="inverted_cdf")


def test_percentile_turns_infinite_exactly_when_too_many_are_not_served():
    served = [1.0] * 95
    assert metrics.percentile([*served, *[math.inf] * 5], 95) == 1.0
    assert metrics.percentile([*served[:-1], *[math.inf] * 6], 95) == math.inf
    assert metrics.percentile([math.inf] * 3, 50) == math.inf


def test_percentile_refuses_nan_and_bad_q():
    with pytest.raises(ValueError, match="NaN"):
        metrics.percentile([1.0, math.nan], 50)
    with pytest.raises(ValueError, match="q must be"):
        metrics.percentile([1.0], 0)
    assert math.isnan(metrics.percentile([], 50))


def test_request_metrics_match_numbers_worked_out_by_hand():
    got = metrics.request_metrics(columns(), metrics.SloLimits(e2e_s=2.0), 10.0)
    want = {
        "requests": 4.0, "served_share": 0.5, "ttft_p50_s": 1.5, "ttft_p95_s": math.inf, "e2e_p50_s": 3.0,
        "e2e_p99_s": math.inf, "tpot_p50_s": math.inf, "goodput_per_s": 0.1, "slo_attainment": 0.25,
        "energy_per_request_j": 6.0, "device_energy_per_request_j": 2.0, "bytes_up_per_request": 50.0,
        "bytes_down_per_request": 2.5, "left_home_bytes_per_request": 40.0,
        "left_home_text_bytes_per_request": 40.0, "cost_usd_per_1000": 10.0, "escalated_share": 0.5,
        "tokens_wasted_per_request": 2.0,
    }  # fmt: skip
    assert {k: got[k] for k in want} == pytest.approx(want)


def test_a_failed_request_counts_as_infinite_though_it_had_a_first_token():
    got = metrics.request_metrics(columns(), metrics.SloLimits(), 1.0)
    assert got["ttft_p50_s"] == 1.5
    assert got["ttft_p95_s"] == math.inf


def test_slo_limits_are_inclusive_and_each_counts():
    assert metrics.good(columns(), metrics.SloLimits(e2e_s=3.0)).tolist() == [True, True, False, False]
    assert metrics.good(columns(), metrics.SloLimits(ttft_s=1.0)).tolist() == [True, False, False, False]
    assert metrics.good(columns(), metrics.SloLimits(tpot_s=0.05)).tolist() == [False, True, False, False]
    assert metrics.good(columns(), metrics.SloLimits()).sum() == 2


def test_nothing_served_gives_no_energy_per_request_rather_than_zero():
    nobody = columns(status=np.array(["failed"] * 4, dtype=object))
    got = metrics.request_metrics(nobody, metrics.SloLimits(), 1.0)
    assert math.isnan(got["energy_per_request_j"])
    assert got["slo_attainment"] == 0.0
    assert got["e2e_p50_s"] == math.inf


def test_no_request_at_all_is_not_a_division_by_zero():
    empty = {name: value[:0] for name, value in columns().items()}
    got = metrics.request_metrics(empty, metrics.SloLimits(), 1.0)
    assert got["goodput_per_s"] == 0.0
    assert math.isnan(got["e2e_p50_s"])


def test_reasons_are_counted_without_their_details():
    assert metrics.reasons(columns()) == {"deadline missed": 1, "model does not fit": 1}
    assert metrics.reasons({"status": ["unfinished"], "reason": [""]}) == {"unfinished": 1}


def test_mixed_quality_is_nan_when_a_part_is_unknown():
    ppl, top1 = metrics.mixed_quality({"a": 3, "b": 1}, {"a": 10.0}, {"a": 1.0, "b": 0.5})
    assert math.isnan(ppl)
    assert top1 == 0.875
    assert all(math.isnan(v) for v in metrics.mixed_quality({}, {}, {}))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_front_is_never_empty_and_beats_the_rest(points):
    x, y = [p[0] for p in points], [p[1] for p in points]
    beaten = metrics.dominated(x, y, True, True)
    front = [p for p, b in zip(points, beaten, strict=True) if not b]
    assert front
    for p, b in zip(points, beaten, strict=True):
        assert b == any(f[0] <= p[0] and f[1] <= p[1] and f != p for f in front)


def test_the_front_keeps_equal_points_and_drops_nan():
    assert metrics.dominated([1, 1], [1, 1], True, True) == [False, False]
    assert metrics.dominated([1, math.nan], [1, 0], True, True) == [False, True]
    assert metrics.dominated([1, 2], [math.inf, math.inf], True, True) == [False, True]
    assert metrics.dominated([1, 2], [1, 2], True, False) == [False, False]
