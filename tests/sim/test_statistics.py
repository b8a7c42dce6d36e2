"""Statistics of a study against SciPy, published rules worked by hand, and how often intervals cover."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.sim import statistics as stats
from edgellm.sim.distributions import beta_cdf, binomial_cdf, t_cdf, t_quantile

finite = st.floats(-1e6, 1e6)
latency = st.one_of(st.floats(0, 1e6), st.just(math.inf))


@given(st.floats(0.001, 0.999), st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_t_quantiles_are_those_of_scipy(p, df):
    assert t_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-9, abs=1e-9)
    assert t_cdf(2.0 * p, df) == pytest.approx(scipy.stats.t.cdf(2.0 * p, df), rel=1e-10)


@given(st.integers(0, 1_000_000), st.integers(1, 1_000_000), st.floats(0.001, 0.999))
@settings(max_examples=150, deadline=None)
def test_binomial_is_that_of_scipy(k, n, p):
    k = min(k, n)
    assert binomial_cdf(k, n, p) == pytest.approx(scipy.stats.binom.cdf(k, n, p), rel=1e-6, abs=1e-9)
    near = int(n * p)
    assert binomial_cdf(near, n, p) == pytest.approx(scipy.stats.binom.cdf(near, n, p), rel=1e-6)


def test_distributions_end_where_they_should():
    assert (beta_cdf(-1.0, 2, 3), beta_cdf(2.0, 2, 3)) == (0.0, 1.0)
    assert (binomial_cdf(-1, 5, 0.5), binomial_cdf(5, 5, 0.5)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="p must be"):
        t_quantile(1.0, 3)


@given(st.lists(finite, min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_mean_interval_is_that_of_scipy(sample):
    found = stats.mean_interval(sample)
    error = np.std(sample, ddof=1) / math.sqrt(len(sample))
    low, high = (
        scipy.stats.t.interval(0.95, len(sample) - 1, np.mean(sample), error)
        if error
        else (np.mean(sample),) * 2
    )
    assert (found.low, found.high) == (
        pytest.approx(low, rel=1e-8, abs=1e-6),
        pytest.approx(high, rel=1e-8, abs=1e-6),
    )


def test_paired_interval_and_its_p_value_are_those_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1.0, 1.0, 12), rng.normal(0.8, 2.0, 12)
    want = scipy.stats.ttest_rel(a, b)
    found = stats.paired_interval(a, b)
    assert (found.low, found.high) == pytest.approx(want.confidence_interval(0.95))
    assert found.p_value == pytest.approx(want.pvalue)


@given(st.lists(latency, min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_rank_interval_is_built_on_the_sign_test(sample):
    found = stats.rank_interval(sample)
    n = len(sample)
    below = sum(x < found.low for x in sample)
    assert 2.0 * scipy.stats.binom.cdf(below, n, 0.5) <= 0.05 + 1e-12 or found.low == -math.inf
    signs = np.sign(sample)
    plus, minus = int((signs > 0).sum()), int((signs < 0).sum())
    if plus + minus == n:
        want = scipy.stats.binomtest(min(plus, minus), n, 0.5).pvalue
        assert found.p_value == pytest.approx(want)


def test_six_pairs_are_the_least_that_ranks_can_judge():
    for n, judged in ((5, False), (6, True)):
        assert stats.paired_interval([math.inf] * n, [1.0] * n).excludes_zero is judged


def test_difference_of_infinite_values_has_no_winner():
    both = stats.paired_interval([math.inf] * 20, [math.inf] * 20)
    assert (both.low, both.high) == (-math.inf, math.inf)
    assert both.p_value == 1.0
    # Nine of ten pairs say that b is better, one cannot say: by ranks that is still enough, with two not.
    one = stats.paired_interval([math.inf] * 10, [math.inf] + [1.0] * 9)
    two = stats.paired_interval([math.inf] * 10, [math.inf] * 2 + [1.0] * 8)
    assert (one.excludes_zero, two.excludes_zero) == (True, False)
    assert one.p_value == pytest.approx(2 * 11 / 1024)


def test_rounding_is_not_a_difference():
    a = np.array([0.1 + 0.2, 1.1 + 2.2, 0.7 + 0.1]) * 1e5
    b = np.array([0.3, 3.3, 0.8]) * 1e5
    assert np.any(a != b)
    assert not stats.paired_interval(a, b).excludes_zero
    assert stats.paired_interval([2.0] * 3, [1.0] * 3).excludes_zero  # no spread at all


def test_pairs_must_be_pairs_and_nan_is_left_out():
    with pytest.raises(ValueError, match="paired"):
        stats.paired_interval([1.0], [1.0, 2.0])
    assert stats.paired_interval([math.nan, 2.0, 3.0], [1.0, 1.0, 1.0]).n == 2
    assert not stats.paired_interval([1.0], [2.0]).excludes_zero
    assert not stats.paired_interval([math.inf], [2.0]).excludes_zero


@pytest.mark.parametrize(("n", "q"), [(1000, 50), (400, 95), (1000, 99), (5000, 99)])
def test_quantile_interval_covers_as_often_as_it_says(n, q):
    rng = np.random.default_rng(n + q)
    truth = -math.log(1.0 - q / 100.0)
    runs = 600
    hits = 0
    for sample in rng.exponential(1.0, (runs, n)):
        found = stats.quantile_interval(sample, q)
        hits += found.low <= truth <= found.high
    # at least 95 %, and, as ranks are whole, not much more: 3 standard errors of 600 runs are 2.7 %
    assert 0.95 - 0.027 <= hits / runs <= 0.99 + 0.01


@given(st.lists(latency, min_size=1, max_size=200), st.sampled_from([5.0, 50.0, 95.0, 99.0]))
@settings(max_examples=60, deadline=None)
def test_quantile_interval_is_the_binomials(sample, q):
    found = stats.quantile_interval(sample, q)
    ordered, n = sorted(sample), len(sample)
    assert found.low <= found.estimate <= found.high
    first = [i for i in range(n) if scipy.stats.binom.cdf(i, n, q / 100) <= 0.025]
    last = [i for i in range(n) if scipy.stats.binom.sf(i, n, q / 100) <= 0.025]
    assert found.low == (ordered[first[-1]] if first else -math.inf)
    assert found.high == (ordered[last[0]] if last else math.inf)


def test_p99_needs_368_values_for_an_upper_bound():
    assert stats.quantile_interval(range(367), 99).high == math.inf
    assert stats.quantile_interval(range(368), 99).high == 367.0


def _ar1(rng, n, phi, start):
    noise = rng.normal(size=n)
    out = np.empty(n)
    at = start
    for i in range(n):
        at = phi * at + noise[i]
        out[i] = at
    return out


def test_mean_and_paired_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(3)
    runs, hits, paired, alone = 2000, 0, 0.0, 0.0
    for _ in range(runs):
        common = rng.normal(0.0, 3.0, 10)
        a, b = common + rng.normal(0.5, 1.0, 10), common + rng.normal(0.0, 1.0, 10)
        found = stats.paired_interval(a, b)
        hits += found.low <= 0.5 <= found.high
        paired += found.half_width
        alone += math.hypot(stats.mean_interval(a).half_width, stats.mean_interval(b).half_width)
    assert abs(hits / runs - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / runs)
    assert paired < 0.5 * alone  # what common random numbers are for


def test_batch_means_cover_where_a_naive_interval_does_not():
    rng = np.random.default_rng(4)
    batches = naive = 0
    runs = 200
    for _ in range(runs):
        run = _ar1(rng, 4000, 0.9, 0.0)
        found = stats.batch_means(run, 20)
        batches += abs(found.interval.estimate) <= found.interval.half_width
        naive += abs(run.mean()) <= stats.mean_interval(run).half_width
    assert batches / runs >= 0.90
    assert naive / runs <= 0.6


def test_batch_means_say_when_batches_are_too_short():
    rng = np.random.default_rng(5)
    short = [stats.batch_means(_ar1(rng, 400, 0.99, 0.0), 20).independent for _ in range(50)]
    long_ = [stats.batch_means(_ar1(rng, 4000, 0.5, 0.0), 20).independent for _ in range(50)]
    assert sum(short) <= 10
    assert sum(long_) >= 43
    with pytest.raises(ValueError, match="cannot make"):
        stats.batch_means([1.0], 20)


def test_mser5_finds_the_end_of_a_transient():
    rng = np.random.default_rng(6)
    cuts = []
    for _ in range(40):
        run = rng.normal(0.0, 1.0, 3000)
        run[:300] += np.linspace(8.0, 0.0, 300)
        found = stats.mser5(run)
        assert found.steady
        cuts.append(found.index)
    assert 150 <= np.median(cuts) <= 450
    calm = [stats.mser5(rng.normal(0.0, 1.0, 3000)).index for _ in range(40)]
    assert np.median(calm) <= 300


def test_mser5_is_its_formula():
    rng = np.random.default_rng(7)
    run = np.concatenate([rng.normal(5.0, 1.0, 60), rng.normal(0.0, 1.0, 240)])
    means = run.reshape(-1, 5).mean(axis=1)
    n = len(means)
    by_hand = [np.sum((means[d:] - means[d:].mean()) ** 2) / (n - d) ** 2 for d in range(n - 5)]
    assert stats.mser5(run).index == 5 * int(np.argmin(by_hand))


def test_mser5_says_when_it_cannot_tell():
    assert not stats.mser5(np.arange(1000.0)).steady
    assert not stats.mser5([1.0, 2.0]).steady
    with pytest.raises(ValueError, match="finite"):
        stats.mser5([1.0, math.inf] * 30)


def test_replications_needed_are_enough_and_one_less_is_not():
    sample = [10.0, 12.0, 9.0, 11.0, 13.0]
    s = np.std(sample, ddof=1)
    n = stats.replications_needed(sample, 0.05, relative=True)
    width = [scipy.stats.t.ppf(0.975, m - 1) * s / math.sqrt(m) for m in (n - 1, n)]
    assert width[1] <= 0.05 * 11.0 < width[0]
    assert stats.replications_needed([3.0, 3.0], 0.0) == 2
    for wrong in ([1.0], [1.0, math.inf]):
        with pytest.raises(ValueError, match="at least two"):
            stats.replications_needed(wrong, 1.0)
    with pytest.raises(ValueError, match="positive"):
        stats.replications_needed(sample, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_holm_lies_between_one_test_and_bonferroni(p_values):
    adjusted = stats.holm(p_values)
    assert all(p <= a <= min(1.0, len(p_values) * p) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)


def test_holm_leaves_out_what_has_no_p_value():
    assert stats.holm([0.02, math.nan]) == [0.02, pytest.approx(math.nan, nan_ok=True)]
