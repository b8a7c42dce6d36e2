"""What may be concluded from runs of a simulation: intervals, warm-up, batches, how many runs are enough.

Pure NumPy: no clock, no random numbers, no study. docs/statistics.md tells which of these a study uses where,
and why. Latencies may be infinite (a request that was not served): what needs a variance then falls back on
ranks, which infinity does not disturb, and a difference of two infinite values is unknown, not zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgellm.sim.distributions import binomial_cdf, t_cdf, t_quantile
from edgellm.sim.metrics import percentile

FloatArray = NDArray[np.float64]

#: Differences below this share of the values are rounding, not a difference.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that covers the true value with probability `level`.

    Attributes
    ----------
    estimate, low, high : float
        In the unit of the values; `low` and `high` are NaN where no interval can be given.
    n : int
        Independent values that it rests on.
    method : {"t", "rank", "none"}
        Student's t, order statistics, or nothing.
    p_value : float
        Two-sided, of the hypothesis that the true value is 0; NaN where there is no interval.
    level : float
    """

    estimate: float
    low: float
    high: float
    n: int
    method: str
    p_value: float = math.nan
    level: float = 0.95

    @property
    def half_width(self) -> float:
        """Half the width; NaN where it is not finite."""
        width = (self.high - self.low) / 2.0
        return width if math.isfinite(width) else math.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside (an interval that does not exist excludes nothing)."""
        return self.low > 0.0 or self.high < 0.0


# Intervals over independent replications.


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of independent values with its interval, t(level) s / sqrt(n).

    Parameters
    ----------
    values : (n,) array_like of float
        One per replication. Where one is infinite the estimate is infinite and the interval is that of the
        median, by ranks.
    level : float
        In (0, 1).

    Returns
    -------
    Interval
        Without bounds for fewer than two values, or where one is NaN.

    Notes
    -----
    Source: Law, Simulation Modeling and Analysis (2015), section 9.4.1.

    Examples
    --------
    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> found.estimate, round(found.half_width, 3)
    (2.0, 2.484)
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    n = int(sample.size)
    mean = float(np.sum(sample) / n) if n else math.nan
    if n < 2 or math.isnan(mean):
        return Interval(mean, math.nan, math.nan, n, "none", level=level)
    if not math.isfinite(mean):
        return rank_interval(sample, level)
    error = float(np.std(sample, ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return Interval(mean, mean, mean, n, "t", 1.0 if mean == 0.0 else 0.0, level)
    half = t_quantile(0.5 + level / 2.0, n - 1) * error
    p_value = 2.0 * t_cdf(-abs(mean) / error, n - 1)
    return Interval(mean, mean - half, mean + half, n, "t", p_value, level)


def rank_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the median of independent values with its distribution-free interval; infinities are allowed.

    The k-th smallest and k-th largest value, with the largest k for which 1 - 2 P(Bin(n, 1/2) < k) is at
    least `level`. NaN (a difference of two infinite values) counts as the smallest for the lower bound and
    as the largest for the upper one. The p value is that of the sign test.

    Source: Conover, Practical Nonparametric Statistics (1999), sections 3.2 and 3.4.

    Examples
    --------
    >>> found = rank_interval([1, 2, 3, 4, 5, 6, 7, 8, 9, float("inf")])
    >>> found.low, found.estimate, found.high
    (2.0, 5.5, 9.0)
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    n = int(sample.size)
    lower = np.sort(np.where(np.isnan(sample), -np.inf, sample))
    upper = np.sort(np.where(np.isnan(sample), np.inf, sample))
    with np.errstate(invalid="ignore"):  # between -inf and inf there is no middle
        low_middle, high_middle = (
            0.5 * (s[(n - 1) // 2] + s[n // 2]) if n else math.nan for s in (lower, upper)
        )
    median = float(low_middle) if low_middle == high_middle else math.nan
    k = 0
    while k < n and 1.0 - 2.0 * binomial_cdf(k, n, 0.5) >= level:
        k += 1
    above, below = int(np.sum(sample > 0.0)), int(np.sum(sample < 0.0))
    unknown = n - above - below  # zeros and NaN: for neither side
    p_value = min(1.0, 2.0 * binomial_cdf(min(above, below) + unknown, n, 0.5)) if n else math.nan
    if k == 0:
        return Interval(median, -math.inf, math.inf, n, "rank", p_value, level)
    return Interval(median, float(lower[k - 1]), float(upper[n - k]), n, "rank", p_value, level)


def paired_interval(values: ArrayLike, baseline: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of `values - baseline` with its interval, the two paired by common random numbers.

    Parameters
    ----------
    values, baseline : (n,) array_like of float
        One per replication, the same random numbers at the same place. Pairs with a NaN are left out.
    level : float

    Returns
    -------
    Interval
        Of the mean difference by Student's t. Where a difference is infinite: of the median difference by
        ranks, which needs six pairs for 95 %; a difference of two infinite values is unknown.

    Raises
    ------
    ValueError
        If the lengths differ.

    Notes
    -----
    Source: Law (2015), section 10.2.1 (paired-t) and 11.2 (common random numbers).

    Examples
    --------
    >>> found = paired_interval([2.0, 3.0, 4.5], [1.0, 2.5, 3.0])
    >>> found.estimate, round(found.low, 3), round(found.high, 3)
    (1.0, -0.242, 2.242)
    >>> paired_interval([float("inf")] * 10, [float("inf")] * 10).excludes_zero
    False
    >>> paired_interval([float("inf")] * 10, [1.0] * 10).excludes_zero
    True
    """
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (values, baseline))
    if a.size != b.size:
        raise ValueError(f"paired_interval: {a.size} values and {b.size} of the baseline; they are paired")
    kept = ~(np.isnan(a) | np.isnan(b))
    a, b = a[kept], b[kept]
    with np.errstate(invalid="ignore"):
        differences = a - b
    if np.all(np.isfinite(differences)):
        scale = np.maximum(np.abs(a), np.abs(b))
        return mean_interval(np.where(np.abs(differences) <= ROUNDING * scale, 0.0, differences), level)
    if differences.size < 2:
        return Interval(math.nan, math.nan, math.nan, int(differences.size), "none", level=level)
    return rank_interval(differences, level)


def quantile_interval(values: ArrayLike, q: float, level: float = 0.95) -> Interval:
    """Return a percentile of independent values with its distribution-free interval.

    The bounds are order statistics: the l-th and u-th smallest value with P(Bin(n, q) < l) and
    P(Bin(n, q) >= u) at most (1 - level) / 2 each. Requests of one run wait for each other and are not
    independent: there, the interval is too narrow, and the one over replications is the one to report.

    Parameters
    ----------
    values : (n,) array_like of float
        Infinity is allowed, NaN is not.
    q : float
        Percentile, in (0, 100).
    level : float

    Returns
    -------
    Interval
        -inf or inf where the sample is too small for that bound (p99 needs 368 values for an upper one).

    Notes
    -----
    Source: Conover (1999), section 3.2; Le Boudec, Performance Evaluation (2010), theorem 2.1.

    Examples
    --------
    >>> found = quantile_interval(range(1, 1001), 50)
    >>> found.estimate, found.low, found.high
    (500.0, 469.0, 532.0)
    """
    if not 0.0 < q < 100.0:
        raise ValueError(f"quantile_interval: q must be in (0, 100), got {q}")
    sample = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n, share, tail = int(sample.size), q / 100.0, (1.0 - level) / 2.0
    estimate = percentile(sample, q)
    if n == 0:
        return Interval(estimate, math.nan, math.nan, 0, "none", level=level)
    first = _last_below(n, share, tail)  # l - 1: P(Bin <= l - 1) <= tail
    last = n - 1 - _last_below(n, 1.0 - share, tail)  # u - 1: P(Bin >= u) <= tail
    low = float(sample[first]) if first >= 0 else -math.inf
    high = float(sample[last]) if last < n else math.inf
    return Interval(estimate, low, high, n, "rank", level=level)


def _last_below(n: int, p: float, tail: float) -> int:
    """Return the largest k with P(Bin(n, p) <= k) <= tail, -1 if there is none."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_cdf(middle, n, p) <= tail else (low, middle)
    return low


def quantile_over_replications(samples: Sequence[ArrayLike], q: float, level: float = 0.95) -> Interval:
    """Return the mean over replications of each one's percentile, with its interval.

    Replications are independent, so this interval holds however requests of one run depend on each other.

    Examples
    --------
    >>> quantile_over_replications([[1, 2, 3], [2, 3, 4], [3, 4, 5]], 50).estimate
    3.0
    """
    return mean_interval([percentile(sample, q) for sample in samples], level)


def replications_needed(
    values: ArrayLike, half_width: float, relative: bool = False, level: float = 0.95
) -> int:
    """Return the least number of replications for an interval of at most this half width.

    The least n with t(n - 1) s / sqrt(n) <= half_width, with the variance of the replications so far.

    Parameters
    ----------
    values : (n,) array_like of float
        Of at least two replications, finite.
    half_width : float
        Positive; in the unit of the values, or, if `relative`, as a share of their mean's absolute value.
    relative : bool
    level : float

    Raises
    ------
    ValueError
        If there are fewer than two values, one is not finite, or the half width is not positive.

    Notes
    -----
    Source: Law (2015), section 9.4.1, "Obtaining a specified precision".

    Examples
    --------
    >>> replications_needed([1.0, 2.0, 3.0], 0.5)
    18
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size < 2 or not np.all(np.isfinite(sample)):
        raise ValueError("replications_needed: at least two values, all finite")
    target = half_width * abs(float(np.mean(sample))) if relative else half_width
    deviation = float(np.std(sample, ddof=1))
    if deviation == 0.0:
        return 2
    if not target > 0.0:
        raise ValueError(f"replications_needed: the half width must be positive, got {target}")
    low, high = 1, 2

    def enough(n: int) -> bool:
        return t_quantile(0.5 + level / 2.0, n - 1) * deviation / math.sqrt(n) <= target

    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for how many there are, in the same order (Holm's step-down method).

    The chance that any of several true null hypotheses has an adjusted value below 0.05 is at most 5 %. NaN
    stays NaN and is not counted.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    out, worst = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[i]))
        out[i] = worst
    return out


# One long run.


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Where a run becomes steady.

    Attributes
    ----------
    index : int
        Observations to leave out at the beginning.
    steady : bool
        Whether one can tell: the best cut lies in the first half.
    """

    index: int
    steady: bool


def mser5(values: ArrayLike, size: int = 5) -> WarmUp:
    """Return how many of the first observations to leave out: MSER-5.

    Means of `size` observations in a row are cut at the d that makes the squared standard error of the rest
    smallest, sum_{i >= d} (x_i - mean_d)^2 / (n - d)^2. A best cut in the second half says that the run is
    too short to tell.

    Parameters
    ----------
    values : (n,) array_like of float
        In order of time, finite.
    size : int
        5 in the published rule.

    Notes
    -----
    Source: White (1997), Simulation 69(6) 323-334; White, Cobb and Spratt (2000), Winter Simulation
    Conference, 755-760.

    Examples
    --------
    >>> mser5([100.0] * 10 + [1.0, 2.0] * 100).index
    10
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    n = sample.size // size
    if n < 4:
        return WarmUp(0, False)
    if not np.all(np.isfinite(sample)):
        raise ValueError("mser5: values must be finite")
    means = sample[: n * size].reshape(n, size).mean(axis=1)
    centred = means - means.mean()  # sums of squares about a far away origin would lose their digits
    count = np.arange(n, 0, -1, dtype=np.float64)
    total = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred**2)[::-1])[::-1]
    statistic = np.maximum(squares - total**2 / count, 0.0) / count**2
    # The last few batches always look calm; the rule is only read up to them.
    best = int(np.argmin(statistic[: max(1, n - 5)]))
    return WarmUp(best * size, best <= n // 2)


@dataclass(frozen=True, slots=True)
class BatchMeans:
    """The mean of one long run, from the means of its batches.

    Attributes
    ----------
    interval : Interval
    means : (b,) ndarray of float64
    size : int
        Observations in each batch.
    correlation : float
        Lag-1 autocorrelation of the batch means.
    independent : bool
        Whether von Neumann's ratio finds nothing against independence at 5 % (one-sided); if not, the run is
        too short for so many batches and the interval too narrow.
    """

    interval: Interval
    means: FloatArray
    size: int
    correlation: float
    independent: bool


def batch_means(values: ArrayLike, batches: int = 20, level: float = 0.95) -> BatchMeans:
    """Return the mean of a steady run with an interval that allows for its autocorrelation.

    The run, warm-up left out, is cut into `batches` parts of equal length whose means are treated as
    independent; observations that do not fill a batch are left out at the beginning.

    Parameters
    ----------
    values : (n,) array_like of float
        In order of time, finite.
    batches : int
        10 to 30 is advised (Schmeiser 1982, Operations Research 30, 556-568).
    level : float

    Raises
    ------
    ValueError
        If there are fewer than two batches, or fewer values than batches.

    Notes
    -----
    Source: Law (2015), section 9.5.3; the test of independence is von Neumann's (1941), with the normal
    approximation (b - 2) / (b^2 - 1) of the variance, as in Alexopoulos and Seila (1998).

    Examples
    --------
    >>> found = batch_means(list(range(100)) * 10, 10)
    >>> found.interval.estimate, found.size
    (49.5, 100)
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if batches < 2 or sample.size < batches:
        raise ValueError(f"batch_means: {sample.size} values cannot make {batches} batches")
    if not np.all(np.isfinite(sample)):
        raise ValueError("batch_means: values must be finite")
    size = sample.size // batches
    means = sample[sample.size - size * batches :].reshape(batches, size).mean(axis=1)
    correlation = lag_one(means)
    return BatchMeans(mean_interval(means, level), means, size, correlation, looks_independent(means))


def lag_one(values: ArrayLike) -> float:
    """Return the autocorrelation of values and their successors; 0 where they do not vary.

    Examples
    --------
    >>> round(lag_one([1.0, -1.0] * 50), 2)
    -0.99
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    centred = sample - sample.mean()
    spread = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / spread if spread > 0.0 else 0.0


def looks_independent(means: ArrayLike, alpha: float = 0.05) -> bool:
    """Return whether von Neumann's ratio finds no positive correlation between neighbours at `alpha`.

    Examples
    --------
    >>> looks_independent([1, 3, 2, 4, 1, 3, 2, 4]), looks_independent(range(20))
    (True, False)
    """
    sample = np.asarray(means, dtype=np.float64).ravel()
    b = sample.size
    centred = sample - sample.mean()
    spread = float(centred @ centred)
    if b < 4 or spread == 0.0:
        return True
    ends = float((centred[0] ** 2 + centred[-1] ** 2) / 2.0)
    ratio = (float(centred[1:] @ centred[:-1]) + ends) / spread  # lag one, with the ends made whole
    deviation = math.sqrt((b - 2) / (b * b - 1.0))
    return ratio <= NormalDist().inv_cdf(1.0 - alpha) * deviation
