"""What a study reports, each figure defined once.

Pure arithmetic over arrays: no clock, no random numbers, no SimGrid, no pandas.
A request that was not served (rejected, failed, unfinished, or past its deadline)
has latency infinity in every percentile, so a strategy cannot look fast by
dropping the hard requests.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SloLimits:
    """What counts as a good answer; None means that nothing is asked.

    Attributes
    ----------
    ttft_s, tpot_s, e2e_s : float or None
        Upper limits, inclusive, in seconds.
    target : float
        Share of requests that should meet them, in (0, 1].
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    target: float = 0.95


def percentile(values: ArrayLike, q: float) -> float:
    """Return the percentile `q` by the inverted-CDF method.

    The smallest value v of the sample such that at least q % of the sample is <= v:
    sorted(values)[ceil(q / 100 * n) - 1]. It is always one of the sample's own values, so
    an infinite latency is never interpolated into a number.

    Parameters
    ----------
    values : (n,) array_like of float
        Latencies in any unit; infinity stands for "not served". NaN is refused.
    q : float
        In (0, 100].

    Returns
    -------
    float
        NaN for an empty sample.

    Raises
    ------
    ValueError
        If q is out of range or a value is NaN.

    Notes
    -----
    Source: Hyndman and Fan (1996), definition 1; numpy's method="inverted_cdf".

    Examples
    --------
    >>> percentile([1.0, 2.0, 3.0, float("inf")], 75)
    3.0
    >>> percentile([1.0, 2.0, 3.0, float("inf")], 76)
    inf
    """
    if not 0 < q <= 100:
        raise ValueError(f"percentile: q must be in (0, 100], got {q}")
    sample = np.sort(np.asarray(values, dtype=np.float64))
    if sample.size == 0:
        return math.nan
    if np.isnan(sample[-1]):  # sort puts NaN last
        raise ValueError("percentile: values must not contain NaN")
    rank = math.ceil(q * sample.size / 100 - 1e-9)  # 1e-9: 0.07 * 100 is 7.000000000000001
    return float(sample[max(rank, 1) - 1])


def mean_over_seeds(values: Sequence[float]) -> float:
    """Return the mean of one figure over seeds; infinite if it is infinite for any seed, NaN if NaN for any.

    Examples
    --------
    >>> mean_over_seeds([1.0, float("inf")])
    inf
    """
    return float(sum(values) / len(values)) if values else math.nan


def latencies_s(column: ArrayLike, served: ArrayLike) -> FloatArray:
    """Return the column with infinity for every request that was not served.

    Parameters
    ----------
    column : (n,) array_like of float
        Seconds; ignored (may be NaN) where not served.
    served : (n,) array_like of bool

    Returns
    -------
    (n,) ndarray of float64
        A served request without a mark (NaN) counts as infinite, too.

    Examples
    --------
    >>> latencies_s([1.0, 2.0], [True, False]).tolist()
    [1.0, inf]
    """
    values = np.where(np.asarray(served, dtype=bool), np.asarray(column, dtype=np.float64), np.inf)
    return np.where(np.isnan(values), np.inf, values)


def good(requests: Mapping[str, Any], slo: SloLimits) -> NDArray[np.bool_]:
    """Return, for each request, whether it was served within every limit of the SLO.

    Parameters
    ----------
    requests : mapping of str to (n,) arrays
        Columns "status", "first_token_s", "e2e_s", "tpot_s".
    slo : SloLimits

    Returns
    -------
    (n,) ndarray of bool
        A TPOT that does not exist (an answer of one token) meets its limit.
    """
    ok = np.asarray(requests["status"]) == "ok"
    result: NDArray[np.bool_] = ok.copy()
    if slo.ttft_s is not None:
        result &= latencies_s(requests["first_token_s"], ok) <= slo.ttft_s
    if slo.e2e_s is not None:
        result &= latencies_s(requests["e2e_s"], ok) <= slo.e2e_s
    if slo.tpot_s is not None:
        tpot = np.asarray(requests["tpot_s"], dtype=np.float64)
        result &= np.where(np.isnan(tpot), 0.0, tpot) <= slo.tpot_s
    return result


#: Reasons of what could never have worked, however long one waits; a detail with the arithmetic follows.
INFEASIBLE = ("link infeasible", "model does not fit", "context exceeded")


def reasons(requests: Mapping[str, Any]) -> dict[str, int]:
    """Count the requests that were not served, by reason, most frequent first (ties by name).

    An attempt that was followed by another is not counted, and a detail after the first colon ("link
    infeasible: 300 bytes exceed 222") is dropped.

    Examples
    --------
    >>> reasons({"status": ["ok", "failed", "failed"], "reason": ["", "deadline missed", "x: 1"]})
    {'deadline missed': 1, 'x': 1}
    """
    status, reason = np.asarray(requests["status"]), np.asarray(requests["reason"])
    missed = (status != "ok") & (status != "retried")
    counts: Counter[str] = Counter()
    for (text, state), number in Counter(zip(reason[missed], status[missed], strict=True)).items():
        counts[str(text).split(":")[0].strip() or str(state)] += number
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _ratio(total: float, count: float) -> float:
    return total / count if count > 0 else math.nan


def request_metrics(requests: Mapping[str, Any], slo: SloLimits, duration_s: float) -> dict[str, float]:
    """Return every figure that follows from the requests of one run (one strategy, one seed).

    Parameters
    ----------
    requests : mapping of str to (n,) arrays
        The columns of a run; see docs/study.md, "One row per request".
    slo : SloLimits
    duration_s : float
        Length of the simulated period in which requests arrive; > 0.

    Returns
    -------
    dict of str to float
        requests, served_share, ttft_p50_s .. e2e_p99_s, goodput_per_s, slo_attainment,
        energy_per_request_j, device_energy_per_request_j, bytes_up_per_request, bytes_down_per_request,
        left_home_bytes_per_request, left_home_<class>_bytes_per_request,
        cost_usd_per_1000, attempts_per_request, escalated_share, tokens_wasted_per_request.
        Formulas: docs/study.md, "The table". With no request at all, rates are 0 and the rest NaN.
    """
    if not duration_s > 0:
        raise ValueError(f"request_metrics: duration_s must be positive, got {duration_s}")
    status = np.asarray(requests["status"])
    ok, last = status == "ok", status != "retried"  # of several attempts the last is the outcome
    n, served = int(last.sum()), int(ok.sum())
    within = int(good(requests, slo).sum())

    def total(name: str) -> float:
        return float(np.sum(np.asarray(requests[name], dtype=np.float64)))

    out: dict[str, float] = {"requests": float(n), "served_share": _ratio(served, n)}
    for label, column in (("ttft", "first_token_s"), ("e2e", "e2e_s"), ("tpot", "tpot_s")):
        values = _tpot_s(requests, ok, last) if label == "tpot" else latencies_s(requests[column], ok)[last]
        for q in (50, 95, 99):
            out[f"{label}_p{q}_s"] = percentile(values, q)
    out["goodput_per_s"] = within / duration_s
    out["slo_attainment"] = _ratio(within, n)
    out["energy_per_request_j"] = _ratio(total("energy_j"), served)
    out["device_energy_per_request_j"] = _ratio(total("device_energy_j"), served)
    out["bytes_up_per_request"] = _ratio(total("bytes_up"), n)
    out["bytes_down_per_request"] = _ratio(total("bytes_down"), n)
    out["left_home_bytes_per_request"] = _ratio(total("left_home_bytes"), n)
    for name in left_home_columns(requests):
        out[f"{name}_per_request"] = _ratio(total(name), n)
    out["cost_usd_per_1000"] = 1000.0 * _ratio(total("cost_usd"), served)
    out["attempts_per_request"] = _ratio(float(last.size), n)
    out["escalated_share"] = _ratio(total("escalated"), n)
    out["tokens_wasted_per_request"] = _ratio(total("tokens_wasted"), n)
    return out


def _tpot_s(requests: Mapping[str, Any], ok: NDArray[np.bool_], last: NDArray[np.bool_]) -> FloatArray:
    # An answer of one token has no time between tokens: it is left out, not counted as infinite.
    tpot = np.asarray(requests["tpot_s"], dtype=np.float64)
    values = np.where(ok, tpot, np.inf)
    kept: FloatArray = values[last & ~np.isnan(values)]
    return kept


def left_home_columns(requests: Mapping[str, Any]) -> list[str]:
    """Return the names of the privacy columns by data class, sorted.

    Examples
    --------
    >>> left_home_columns({"left_home_text_bytes": [], "left_home_bytes": [], "id": []})
    ['left_home_text_bytes']
    """
    return sorted(
        name
        for name in requests
        if name.startswith("left_home_") and name.endswith("_bytes") and name != "left_home_bytes"
    )


def mixed_quality(
    answered: Mapping[str, int], perplexity: Mapping[str, float], agreement: Mapping[str, float]
) -> tuple[float, float]:
    """Return the quality of a strategy whose answers came from several models.

    Perplexity is exp(sum_m w_m ln ppl_m) and agreement sum_m w_m a_m, with w_m the share of served
    requests that model m answered: what an evaluation text would score if its tokens were spread over the
    models as the answers were.

    Parameters
    ----------
    answered : mapping of str to int
        Served requests by answering model.
    perplexity, agreement : mapping of str to float
        By model; a missing or NaN value makes that result NaN.

    Returns
    -------
    perplexity, agreement : float

    Examples
    --------
    >>> ppl, top1 = mixed_quality({"a": 1, "b": 1}, {"a": 4.0, "b": 9.0}, {"a": 1.0, "b": 0.5})
    >>> round(ppl, 6), top1
    (6.0, 0.75)
    """
    total = sum(answered.values())
    if total == 0:
        return math.nan, math.nan
    log_ppl = sum(n / total * math.log(perplexity.get(m, math.nan)) for m, n in answered.items() if n)
    top1 = sum(n / total * agreement.get(m, math.nan) for m, n in answered.items() if n)
    return math.exp(log_ppl), top1


def dominated(x: ArrayLike, y: ArrayLike, x_smaller_is_better: bool, y_smaller_is_better: bool) -> list[bool]:
    """Return, for each point, whether another point is at least as good in both and better in one.

    A point with NaN in either coordinate counts as dominated; infinity is an ordinary (worst or best) value.

    Examples
    --------
    >>> dominated([1, 2, 3], [3, 1, 3], True, True)
    [False, False, True]
    """
    signs = np.array([1.0 if smaller else -1.0 for smaller in (x_smaller_is_better, y_smaller_is_better)])
    return beaten(np.column_stack([x, y]).astype(np.float64) * signs)


def beaten(values: NDArray[np.float64]) -> list[bool]:
    """Return, for each row, whether another row is nowhere larger and somewhere smaller.

    A row with NaN counts as beaten; infinity is an ordinary value.

    Parameters
    ----------
    values : (n, d) ndarray
        Smaller is better in every column.

    Examples
    --------
    >>> beaten(np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 1.0], [0.0, 9.0, 9.0]]))
    [True, False, False]
    """
    out = []
    for row in values:
        no_worse = np.all(values <= row, axis=1)
        better = np.any(values < row, axis=1)
        out.append(bool(np.isnan(row).any() or np.any(no_worse & better)))
    return out
