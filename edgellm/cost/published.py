"""Published measurements, what the profiles predict for them, and the error of each.

The table in docs/calibration.md comes from here; a test regenerates it, so that errors stay known.
"""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from .fit import Observation, fit_device
from .load import load_device, load_model
from .model_profile import ModelProfile
from .profile import DeviceProfile


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
    points = [_observation(row) for row in dataset.rows]
    fitted: DeviceProfile | None = None
    if dataset.fits:
        used = [point for point, row in zip(points, dataset.rows, strict=True) if row.calibrates]
        fitted = fit_device(device, used, dataset.fits)
    return tuple(
        Prediction(row, point.predict_s(device), None if fitted is None else point.predict_s(fitted))
        for row, point in zip(dataset.rows, points, strict=True)
    )


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
    text = f"{100 * ratio:{sign}.1f}"
    return ("0.0" if float(text) == 0 else text) + " %"  # no sign where it rounds to nothing


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


def _observation(row: Row) -> Observation:
    return Observation(
        model=_shard(load_model(row.model), row.shard),
        quant=row.quant,
        tokens=row.tokens,
        context=row.context,
        seconds=row.seconds,
        kv=row.kv,
        head=row.head,
        read_bytes=row.weight_bytes,
    )


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
