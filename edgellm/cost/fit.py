"""Fits the parameters of the roofline to observed times of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .constant import Constant
from .model_profile import ModelProfile
from .profile import DeviceProfile
from .roofline import step_time_s

#: Parameter that can be fitted -> the constants of a device that it stands for, and whether it is a rate.
FITTED: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "bandwidth": (("bandwidth_decode_bytes_per_s", "bandwidth_prefill_bytes_per_s"), True),
    "layer_overhead": (("layer_overhead_s",), False),
    "ops": (("ops_per_s",), True),
    "attention": (("attention_ops_per_s",), True),
}
#: Two runs of the same step agree about so well, as a share.
_NOISE = 0.01
#: What a fitted parameter may become: bytes or operations per second, or seconds per layer.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "bandwidth": (1e-15, 1e-4),
    "layer_overhead": (1e-9, 1.0),
    "ops": (1e-18, 1e-4),
    "attention": (1e-18, 1e-4),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """The measured time of one step of one sequence. `read_bytes` overrides what the format says is read."""

    model: ModelProfile
    quant: str
    tokens: int  # new tokens of the step: 1 for decode
    context: int
    seconds: float
    kv: str = "f16"
    head: str | None = None
    read_bytes: float | None = None

    def predict_s(self, device: DeviceProfile) -> float:
        """Return the time that a device's profile predicts for this step."""
        if self.read_bytes is not None:
            # the same as a bandwidth that differs by the ratio of the bytes
            ratio = self.read_bytes / self.model.active_bytes(self.quant, self.head)
            device = _set(device, "bandwidth", _get(device, "bandwidth") * ratio)
        return step_time_s(
            self.model, self.quant, device, [self.tokens], [self.context], kv=self.kv, head=self.head
        )

    def error(self, device: DeviceProfile) -> float:
        """Return the relative error of the prediction; positive where it is too slow."""
        return self.predict_s(device) / self.seconds - 1.0


def fit_device(
    device: DeviceProfile, observed: Iterable[Observation], names: Sequence[str], source: str = "fitted"
) -> DeviceProfile:
    """Return the device with the named parameters fitted to observations.

    The time of a step is linear in seconds per layer and in the inverse of each rate once it is known which
    of reading and computing takes longer. So this is least squares on relative errors, repeated until that
    choice stands; parameters stay positive. Each fitted constant carries its 95 % interval, from the slopes
    and from how far the observations are off, at least 1 %; what they do not determine has a wide one.

    Parameters
    ----------
    device : DeviceProfile
        Where the search starts, and the value of every other parameter.
    observed : iterable of Observation
        At least as many as there are names.
    names : sequence of str
        Keys of `FITTED`.
    source : str
        What the fitted constants give as their source.

    Raises
    ------
    ValueError
        If there are too few observations, or a name is unknown.
    """
    used = list(observed)
    for name in names:
        if name not in FITTED:
            raise ValueError(f"unknown parameter {name!r}; known: {', '.join(FITTED)}")
    if len(used) < len(names):
        raise ValueError(f"{len(names)} parameters need as many observations, got {len(used)}")
    current = device
    for _ in range(40):
        values = [_get(current, name) for name in names]
        times = [point.predict_s(current) for point in used]
        # a sum of terms, each proportional to one parameter: a small change of it shows its term
        small = 1e-6
        terms = np.empty((len(used), len(names)))
        for column, (name, value) in enumerate(zip(names, values, strict=True)):
            changed = _set(current, name, value * (1.0 + small))
            for line, (point, time_s) in enumerate(zip(used, times, strict=True)):
                terms[line, column] = (point.predict_s(changed) - time_s) / (point.seconds * small)
        want = np.array([1.0 - t / point.seconds for point, t in zip(used, times, strict=True)])
        change, *_ = np.linalg.lstsq(terms, want, rcond=1e-9)
        for name, value, delta in zip(names, values, change.tolist(), strict=True):
            low, high = _BOUNDS[name]
            moved = value * min(max(1.0 + delta, 0.2), 5.0)
            current = _set(current, name, min(max(moved, low), high), source)
        if bool(np.all(np.abs(change) < 1e-9)):
            break
    return _with_intervals(current, names, terms, want)


def _with_intervals(
    device: DeviceProfile, names: Sequence[str], terms: NDArray[np.float64], off: NDArray[np.float64]
) -> DeviceProfile:
    """Return the device with an interval on each fitted constant."""
    free = max(len(off) - len(names), 1)
    noise = max(float(np.sqrt(np.sum(off**2) / free)), _NOISE)
    # a weak prior of a factor of ten keeps what is not determined finite
    spread = noise * np.sqrt(
        np.diag(np.linalg.inv(terms.T @ terms + np.eye(len(names)) * (noise / 2.3) ** 2))
    )
    found = dict(device.constants())
    changed: dict[str, Constant] = {}
    for name, deviation in zip(names, spread.tolist(), strict=True):
        reach = math.exp(1.96 * deviation)
        for key in FITTED[name][0]:
            value = found[key].value
            changed[key] = replace(found[key], low=value / reach, high=value * reach)
    return device.with_constants(changed)


def _get(device: DeviceProfile, name: str) -> float:
    """Return a parameter as seconds per something, so that time is linear in it."""
    keys, rate = FITTED[name]
    value = dict(device.constants())[keys[0]].value
    return 1.0 / value if rate else max(value, _BOUNDS[name][0])


def _set(device: DeviceProfile, name: str, seconds_per: float, source: str = "fitted") -> DeviceProfile:
    keys, rate = FITTED[name]
    value = 1.0 / seconds_per if rate else seconds_per
    units = dict(device.constants())
    constants = {key: Constant(value, units[key].unit, source) for key in keys}
    return replace(device, **constants)  # type: ignore[arg-type]  # the keys are names of Constant fields
