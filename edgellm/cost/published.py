"""Published measurements, what the profiles predict for them, and the error of each.

The table in docs/calibration.md comes from here; a test regenerates it, so that errors stay known.
"""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from .load import load_device, load_model
from .profile import Constant, DeviceProfile, ModelProfile
from .roofline import step_time_s

#: Parameter that a table may fit -> the constants of a device that it stands for, and whether it is a rate.
FITTED: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "bandwidth": (("bandwidth_decode_bytes_per_s", "bandwidth_prefill_bytes_per_s"), True),
    "layer_overhead": (("layer_overhead_s",), False),
    "ops": (("ops_per_s",), True),
    "attention": (("attention_ops_per_s",), True),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure. `seconds` is the time of one decode step or of one prefill."""

    model: str
    label: str
    quant: str
    measure: str  # "decode_ms", "decode_tok_per_s", "ttft_ms" or "prefill_tok_per_s"
    value: float
    tokens: int  # new tokens of the step: 1 for decode
    context: int
    kv: str
    head: str | None
    shard: int
    weight_bytes: float | None
    calibrates: bool

    @property
    def seconds(self) -> float:
        """The figure as the time of the step."""
        if self.measure.endswith("_ms"):
            return self.value / 1000.0
        return self.tokens / self.value


@dataclass(frozen=True, slots=True)
class Dataset:
    """Figures of one device, engine and setup."""

    id: str
    title: str
    device: str
    source: str
    note: str
    fits: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is predicted for a row: by the shipped profile, and after fitting to the calibrating rows."""

    row: Row
    profile_s: float
    fitted_s: float | None

    @property
    def profile_error(self) -> float:
        """Relative error of the profile's time; positive where it is too slow."""
        return self.profile_s / self.row.seconds - 1.0

    @property
    def fitted_error(self) -> float | None:
        """Relative error after fitting, None where nothing was fitted."""
        return None if self.fitted_s is None else self.fitted_s / self.row.seconds - 1.0


def published_datasets() -> tuple[Dataset, ...]:
    """Return the published measurements that ship with the package.

    Examples
    --------
    >>> sum(len(dataset.rows) for dataset in published_datasets()) > 40
    True
    """
    raw = resources.files("edgellm.cost").joinpath("data", "published.toml").read_text("utf-8")
    return tuple(_dataset(entry) for entry in tomllib.loads(raw)["dataset"])


def predict(dataset: Dataset) -> tuple[Prediction, ...]:
    """Predict every row, with the shipped profile and with one fitted to the calibrating rows."""
    device = load_device(dataset.device)
    fitted = fit(device, dataset.rows, dataset.fits) if dataset.fits else None
    return tuple(
        Prediction(row, _time_s(row, device), None if fitted is None else _time_s(row, fitted))
        for row in dataset.rows
    )


def fit(device: DeviceProfile, rows: Iterable[Row], names: tuple[str, ...]) -> DeviceProfile:
    """Return the device with the named parameters fitted to the rows that calibrate.

    The time of a step is linear in seconds per layer and in the inverse of each rate once it is known which
    of reading and computing takes longer; so this is least squares on relative errors, repeated until that
    choice stands. A parameter that would come out negative stays as it was.

    Raises
    ------
    ValueError
        If fewer rows calibrate than parameters are asked for, or a parameter is unknown.
    """
    used = [row for row in rows if row.calibrates]
    if len(used) < len(names):
        raise ValueError(f"{len(names)} parameters need as many calibrating rows, got {len(used)}")
    free = list(names)
    current = device
    for _ in range(20):
        base = [_time_s(row, current) for row in used]
        units = [_get(current, name) for name in free]
        # the time is a sum of terms, each proportional to one parameter: a small change gives the term
        step = 1e-6
        terms = np.array(
            [
                [
                    (_time_s(row, _set(current, name, unit * (1 + step))) - t) / (t * step)
                    for name, unit in zip(free, units, strict=True)
                ]
                for row, t in zip(used, base, strict=True)
            ]
        )
        want = np.array([row.seconds / t - 1.0 for row, t in zip(used, base, strict=True)])
        change, *_ = np.linalg.lstsq(terms, want, rcond=1e-9)
        following = current
        for name, unit, delta in zip(free, units, change.tolist(), strict=True):
            following = _set(following, name, unit * min(max(1.0 + delta, 0.2), 5.0))
        current = following
        if np.all(np.abs(change) < 1e-9):
            break
    return current


def calibration_table() -> str:
    """Return the Markdown that docs/calibration.md holds between its markers."""
    lines: list[str] = []
    scored: list[float] = []
    fitted_scored: list[float] = []
    for dataset in published_datasets():
        predictions = predict(dataset)
        lines += [f"### {dataset.title}", "", f"Profile `{dataset.device}`. Source: {dataset.source}."]
        if dataset.note:
            lines += [dataset.note]
        if dataset.fits:
            lines += [f"Fitted to the rows marked *: {', '.join(dataset.fits)}."]
        lines += ["", "| model | format | what | published | profile | error | fitted | error |"]
        lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
        for prediction in predictions:
            row = prediction.row
            lines.append(_line(prediction))
            scored.append(abs(prediction.profile_error))
            if prediction.fitted_error is not None and not row.calibrates:
                fitted_scored.append(abs(prediction.fitted_error))
        lines.append("")
    lines += [
        "### In sum",
        "",
        f"- Shipped profiles, {len(scored)} rows (some were used to choose the profile): median error "
        f"{_percent(statistics.median(scored), '')}, worst {_percent(max(scored), '')}.",
        f"- Fitted to a table's own calibrating rows, the {len(fitted_scored)} other rows: median error "
        f"{_percent(statistics.median(fitted_scored), '')}, worst {_percent(max(fitted_scored), '')}.",
    ]
    return "\n".join(lines) + "\n"


def _line(prediction: Prediction) -> str:
    row = prediction.row
    what = f"decode at {row.context}" if row.tokens == 1 else f"prefill of {row.tokens}"
    star = " *" if row.calibrates else ""
    fitted = "" if prediction.fitted_s is None else _ms(prediction.fitted_s)
    fitted_error = "" if prediction.fitted_error is None else _percent(prediction.fitted_error)
    return (
        f"| {row.label}{star} | {row.quant} | {what} | {_ms(row.seconds)} | {_ms(prediction.profile_s)} |"
        f" {_percent(prediction.profile_error)} | {fitted} | {fitted_error} |"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _percent(ratio: float, sign: str = "+") -> str:
    return f"{100 * ratio:{sign}.1f} %"


def _dataset(entry: Mapping[str, Any]) -> Dataset:
    return Dataset(
        id=entry["id"],
        title=entry["title"],
        device=entry["device"],
        source=entry["source"],
        note=entry.get("note", ""),
        fits=tuple(entry["fits"]),
        rows=tuple(_row(row) for row in entry["rows"]),
    )


def _row(raw: Mapping[str, Any]) -> Row:
    return Row(
        model=raw["model"],
        label=raw.get("label", load_model(raw["model"]).title),
        quant=raw["quant"],
        measure=raw["measure"],
        value=float(raw["value"]),
        tokens=raw.get("tokens", 1),
        context=raw.get("context", 0),
        kv=raw.get("kv", "f16"),
        head=raw.get("head"),
        shard=raw.get("shard", 1),
        weight_bytes=raw.get("weight_bytes"),
        calibrates=raw.get("calibrates", False),
    )


def _time_s(row: Row, device: DeviceProfile) -> float:
    """Predict the time of a row."""
    model = _shard(load_model(row.model), row.shard)
    if row.weight_bytes is not None:
        # a file of other size than its storage type says: scale the bandwidth instead
        factor = model.active_bytes(row.quant, row.head) / row.weight_bytes
        device = _set(device, "bandwidth", _get(device, "bandwidth") / factor)
    return step_time_s(model, row.quant, device, [row.tokens], [row.context], kv=row.kv, head=row.head)


def _shard(model: ModelProfile, n: int) -> ModelProfile:
    """Return what one of n nodes holds when every layer is split by heads and by rows."""
    if n == 1:
        return model
    return replace(
        model,
        heads=model.heads // n,
        kv_heads=model.kv_heads // n,
        ffn=model.ffn // n,
        vocab=model.vocab // n,
    )


def _get(device: DeviceProfile, name: str) -> float:
    """Return a parameter as seconds per something, so that time is linear in it."""
    keys, rate = FITTED[name]
    value: float = getattr(device, keys[0]).value
    return 1.0 / value if rate else max(value, 1e-9)


def _set(device: DeviceProfile, name: str, seconds_per: float) -> DeviceProfile:
    keys, rate = FITTED[name]
    value = 1.0 / seconds_per if rate else seconds_per
    constants = {key: Constant(value, getattr(device, key).unit, "fitted") for key in keys}
    return replace(device, **constants)  # type: ignore[arg-type]  # the keys are those of Constants
