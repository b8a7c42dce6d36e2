"""Counters and histograms in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
STEP_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) and not value.is_integer() else str(int(value))


def lines(name: str, kind: str, text: str, values: Iterable[tuple[dict[str, str], float]]) -> list[str]:
    r"""One metric with its values by label.

    Examples
    --------
    >>> print("\n".join(lines("up", "gauge", "Whether it runs.", [({}, 1)])))
    # HELP up Whether it runs.
    # TYPE up gauge
    up 1
    """
    out = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in values:
        shown = ",".join(f'{key}="{_escaped(own)}"' for key, own in labels.items())
        out.append(f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}")
    return out


class Histogram:
    """How often a value was at or below each of some bounds.

    Examples
    --------
    >>> sizes = Histogram("batch", "Texts together.", (1, 2))
    >>> sizes.observe(2)
    >>> print("\\n".join(sizes.lines()))
    # HELP batch Texts together.
    # TYPE batch histogram
    batch_bucket{le="1"} 0
    batch_bucket{le="2"} 1
    batch_bucket{le="+Inf"} 1
    batch_sum 2
    batch_count 1
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, list(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self) -> list[str]:
        """The metric as text."""
        out = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} histogram"]
        total = 0
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            out.append(f'{self._name}_bucket{{le="{bound}"}} {total}')
        return [*out, f"{self._name}_sum {_number(self._sum)}", f"{self._name}_count {total}"]
