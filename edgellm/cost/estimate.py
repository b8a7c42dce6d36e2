"""Most probable values of positive parameters with intervals: least squares on logarithms, with priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Half width of a 95 % interval in standard deviations.
_WIDE = 1.96
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a parameter before: a value, and the standard deviation of its logarithm."""

    value: float
    spread: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted value, its 95 % interval, and the share of the prior's spread that data removed."""

    value: float
    low: float
    high: float
    learned: float


def estimate(
    misfit: Callable[[Mapping[str, float]], Sequence[float]],
    priors: Mapping[str, Prior],
    starts: Sequence[Mapping[str, float]] = ({},),
) -> dict[str, Estimate]:
    """Return the parameters that fit best.

    Parameters
    ----------
    misfit : callable
        Of the values by name: differences to each observation, in standard deviations.
    priors : mapping of str to Prior
        Every parameter; where data say nothing, it stays at its prior.
    starts : sequence of mapping
        Where the search starts; a name left out starts at its prior. The best end wins: a maximum of two
        bounds has an optimum on either side.

    Returns
    -------
    dict of str to Estimate
        Intervals come from the curvature at the optimum, widened where the misfit is more than the
        observations' own noise.

    Examples
    --------
    >>> found = estimate(lambda v: [(v["a"] - 3.0) / 0.01], {"a": Prior(1.0, 2.0)})
    >>> round(found["a"].value, 3), found["a"].low < 3 < found["a"].high
    (3.0, True)
    """
    names = list(priors)
    if not names:
        return {}

    def values(at: NDArray[np.float64]) -> dict[str, float]:
        return {
            n: priors[n].value * math.exp(priors[n].spread * x)
            for n, x in zip(names, at.tolist(), strict=True)
        }

    def residuals(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(misfit(values(at)), np.float64), at])

    best: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for start in starts:
        begin = np.array(
            [math.log(start[n] / priors[n].value) / priors[n].spread if n in start else 0.0 for n in names]
        )
        found, slopes = _descend(residuals, begin)
        loss = float(np.sum(residuals(found) ** 2))
        if best is None or loss < best[0] - 1e-12:
            best = (loss, found, slopes)
    assert best is not None
    _, found, slopes = best
    count = len(slopes) - len(names)
    data_loss = float(np.sum(residuals(found)[:count] ** 2))
    widen = max(1.0, data_loss / count) if count else 1.0
    weights = np.concatenate([np.full(count, 1.0 / widen), np.ones(len(names))])
    spread = np.sqrt(np.clip(np.diag(np.linalg.inv(slopes.T @ (slopes * weights[:, None]))), 0.0, 1.0))
    central = values(found)
    result: dict[str, Estimate] = {}
    for name, deviation in zip(names, spread.tolist(), strict=True):
        reach = math.exp(_WIDE * priors[name].spread * deviation)
        result[name] = Estimate(central[name], central[name] / reach, central[name] * reach, 1.0 - deviation)
    return result


def _descend(
    residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Levenberg and Marquardt's search; return where it ends, and the slopes there."""
    damping, now = 1e-3, residuals(at)
    loss = float(now @ now)
    slopes = _slopes(residuals, at, now)
    for _ in range(_STEPS):
        normal, gradient = slopes.T @ slopes, slopes.T @ now
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
        step = np.clip(step, -3.0, 3.0)
        tried = residuals(at + step)
        tried_loss = float(tried @ tried)
        if tried_loss < loss:
            small = loss - tried_loss < 1e-10 * (1.0 + loss)
            at, now, loss = at + step, tried, tried_loss
            slopes = _slopes(residuals, at, now)
            damping = max(damping / 5.0, 1e-9)
            if small:
                break
        else:
            damping *= 5.0
            if damping > 1e9:
                break
    return at, slopes


def _slopes(
    residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    at: NDArray[np.float64],
    now: NDArray[np.float64],
) -> NDArray[np.float64]:
    columns = []
    for i in range(len(at)):
        moved = at.copy()
        moved[i] += 1e-5
        columns.append((residuals(moved) - now) / 1e-5)
    return np.stack(columns, axis=1)
