"""Arithmetic of a comparison, without clock, file or process: rates, ratios, shares, targets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

OURS, LLAMA, PLAIN = "edgellm", "llama.cpp", "llama.cpp plain"
OURS_EDGE = "edgellm, edge image"
BF16, FP32 = "torch bf16", "torch fp32"
READ_SHARE = 0.85

#: Least ratio to llama.cpp by quantization, for decode; the first three also pass with `READ_SHARE`.
DECODE = {"q4_0": 1.6, "q4_1": 1.6, "q8_0": 1.4, "q4_k_m": 3.0}
PREFILL_AMX, PREFILL_AMX_BF16, PREFILL = 3.0, 1.5, 1.5
BATCH, LOAD, LOAD_EDGE = 2.0, 5.0, 50.0
MEMORY, PLAN = 0.5, 0.02
IMPORT_S, EXTENSION_BYTES, BUILD_S = 0.030, 1_000_000, 120.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the least and the largest value."""

    median: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For a JSON file."""
        return {"median": self.median, "low": self.low, "high": self.high}


def spread(values: Sequence[float]) -> Spread:
    """Median, least and largest.

    Raises
    ------
    ValueError
        If there are no values.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    if not values:
        raise ValueError("no values")
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times faster than theirs ours is: of each round's two times, taken one after the other.

    Raises
    ------
    ValueError
        If the rounds do not pair up.

    Examples
    --------
    >>> ratio([1.0, 2.0, 1.0], [3.0, 4.0, 4.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


def summary(
    seconds: Mapping[str, Sequence[float]], amount: float, reads: Sequence[float] = ()
) -> dict[str, Any]:
    """Rates by engine and ratios of ours to each other engine, of one interleaved run.

    Parameters
    ----------
    seconds : mapping of str to (r,) sequence of float
        Times of r rounds by engine; a peer may have fewer rounds than ours: the first ones.
    amount : float
        What one round does: tokens, or 1 for "per second".
    reads : sequence of float
        Bytes per second read side by side, kept for `with_share_of_read`.
    """
    ours = seconds[OURS]
    found: dict[str, Any] = {
        "seconds": {name: list(values) for name, values in seconds.items()},
        "rate": {name: spread([amount / s for s in values]).as_dict() for name, values in seconds.items()},
        "ratio": {
            name: ratio(ours[: len(values)], values).as_dict()
            for name, values in seconds.items()
            if name != OURS
        },
    }
    if reads:
        found["read_bytes_per_s"] = statistics.median(reads)
    return found


def share_of_read(row: Mapping[str, Any]) -> float | None:
    """Weights that one token needs, times tokens per second, by the bytes per second that were read."""
    read, weights = row.get("read_bytes_per_s"), row.get("token_bytes")
    if not read or not weights:
        return None
    return float(row["rate"][OURS]["median"] * weights / read)


def share_of_peak(row: Mapping[str, Any]) -> float | None:
    """Operations of the matrix products per second, by the most that registers did."""
    peak, operations = row.get("peak_ops_per_s"), row.get("token_ops")
    if not peak or not operations:
        return None
    return float(row["rate"][OURS]["median"] * operations / peak)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target of issue 4, the figure beside it, and whether it is met."""

    target: str
    figure: str
    met: bool


def verdicts(row: Mapping[str, Any], amx: bool) -> list[Verdict]:
    """Judge one row; none where the row has no target, or no peer to be judged by."""
    kind, quant = row["kind"], row.get("quant", "")
    if kind == "memory":
        return _memory_verdicts(row)
    if kind == "package":
        return _package_verdicts(row)
    ratios = {name: found["median"] for name, found in row.get("ratio", {}).items()}
    if LLAMA not in ratios or row.get("model") != "SmolLM2-135M":
        return []
    against = ratios[LLAMA]
    if kind == "decode" and quant in DECODE:
        return [_decode_verdict(row, quant, against)]
    if kind == "prefill":
        least = PREFILL_AMX if amx else PREFILL
        found = [at_least(f"{least:g} x llama.cpp", against, least)]
        if amx and BF16 in ratios:
            found.append(at_least(f"{PREFILL_AMX_BF16:g} x torch bf16", ratios[BF16], PREFILL_AMX_BF16))
        return found
    least = {"batch": BATCH, "load": LOAD, "load edge": LOAD_EDGE}.get(kind, 0.0)
    return [at_least(f"{least:g} x llama.cpp", against, least)] if least else []


def at_least(target: str, value: float, least: float) -> Verdict:
    """Met if the value is not below; NaN is not met."""
    return Verdict(target, f"{value:.2f}", value >= least)


def _decode_verdict(row: Mapping[str, Any], quant: str, against: float) -> Verdict:
    least = DECODE[quant]
    share = share_of_read(row)
    if quant == "q4_k_m" or share is None:
        return at_least(f"{least:g} x llama.cpp", against, least)
    return Verdict(
        f"{least:g} x llama.cpp, or {READ_SHARE:.0%} of reading",
        f"{against:.2f}, {share:.0%}",
        against >= least or share >= READ_SHARE,
    )


def _memory_verdicts(row: Mapping[str, Any]) -> list[Verdict]:
    ours, found = row["beyond_bytes"][OURS], []
    theirs = row["beyond_bytes"].get(LLAMA)
    if theirs:
        part = ours / theirs
        found.append(Verdict(f"at most {MEMORY:g} of llama.cpp", f"{part:.2f}", part <= MEMORY))
    off = ours / row["plan_bytes"] - 1.0
    found.append(Verdict(f"within {PLAN:.0%} of plan()", f"{off:+.1%}", abs(off) <= PLAN))
    return found


def _package_verdicts(row: Mapping[str, Any]) -> list[Verdict]:
    took, size, build = row["import_s"][OURS]["median"], row["extension_bytes"], row["build_s"]
    found = [
        Verdict(
            f"import at most {IMPORT_S * 1e3:.0f} ms over NumPy", f"{took * 1e3:.1f} ms", took <= IMPORT_S
        ),
        Verdict("extension at most 1 MB", f"{size / 1e6:.2f} MB", size <= EXTENSION_BYTES),
    ]
    if build is not None:
        found.append(Verdict("build from sdist at most 2 minutes", f"{build:.0f} s", build <= BUILD_S))
    return found


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far log-probabilities of two engines are from each other on one text (DESIGN.md, section 5).

    Attributes
    ----------
    distance : float
        Mean difference of the log-probability of the observed token, ours from llama.cpp's.
    yardstick : float
        The same of llama.cpp from itself at another micro-batch.
    chance : float
        The same of two unrelated tokens: what a broken engine would be like.
    same_top : float
        Share of positions with the same most likely token.
    """

    distance: float
    yardstick: float
    chance: float
    same_top: float

    #: Few tokens make the means rough, and some formats leave llama.cpp equal to itself at any micro-batch:
    #: parity.md is the careful comparison, this stops a broken engine.
    MOST_RATIO: ClassVar[float] = 2.0
    MOST_OF_CHANCE: ClassVar[float] = 0.1
    LEAST_SAME_TOP: ClassVar[float] = 0.8

    @property
    def holds(self) -> bool:
        """Whether they agree as far as two correct engines do; NaN does not."""
        bound = max(self.MOST_RATIO * self.yardstick, self.MOST_OF_CHANCE * self.chance)
        return self.distance <= bound and self.same_top >= self.LEAST_SAME_TOP
