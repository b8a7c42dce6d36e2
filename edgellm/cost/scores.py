"""Validations as text, Markdown and JSON, and the errors known for a device, a model and a format."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from .model_profile import ModelProfile
from .profile import DeviceProfile
from .tables import Measurements, read_measurements
from .validation import LIMITS, Scored, Summary, Validation, summarize, validate

#: What quantity of the simulator a class of figures is about.
_QUANTITY = {"ttft": "prefill", "threads": "decode"}


def shipped_tables() -> tuple[Measurements, ...]:
    """Return the tables of published measurements that ship with the package.

    Examples
    --------
    >>> sum(len(table.figures) for table in shipped_tables()) > 150
    True
    """
    folder = resources.files("edgellm.cost").joinpath("data", "validation")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    with resources.as_file(folder) as root:
        return tuple(read_measurements(root / name) for name in names)


def known_errors(device: DeviceProfile, model: ModelProfile, quant: str) -> list[dict[str, Any]]:
    """Return how far predictions for a device were from published measurements.

    The errors are those of rows that were predicted, after fitting to others of the same table: what the
    formula gets wrong once a device is calibrated. A device in a shipped profile that was not calibrated on
    yours carries more (docs/calibration.md).

    Returns
    -------
    list of dict
        By quantity ("decode", "cluster", "sync", "prefill", "energy", "bytes"), the closest scope that has
        rows: "same device, model and format", "same device and format", "same device" or "all devices".
        Keys: quantity, rows, median, worst (shares), tables, scope. Empty where nothing was compared.

    Examples
    --------
    >>> from edgellm import cost
    >>> rows = known_errors(cost.load_device("rk3588-npu"), cost.load_model("phi-3-mini"), "i8")
    >>> [(row["quantity"], row["scope"]) for row in rows if row["quantity"] == "decode"]
    [('decode', 'same device, model and format')]
    """
    name = device.name.partition("@")[0].partition(" (")[0]
    found: list[dict[str, Any]] = []
    for quantity in dict.fromkeys(row["quantity"] for row in _records()):
        rows = [row for row in _records() if row["quantity"] == quantity]
        same = [row for row in rows if row["device"] == name]
        stored = [row for row in same if row["quant"] == quant]
        scopes = (
            ("same device, model and format", [row for row in stored if row["model"] == model.name]),
            ("same device and format", stored),
            ("same device", same),
            ("all devices", rows),
        )
        scope, used = next((s, r) for s, r in scopes if r)
        errors = [abs(row["error"]) for row in used]
        found.append(
            {
                "quantity": quantity,
                "rows": len(used),
                "median": statistics.median(errors),
                "worst": max(errors),
                "tables": sorted({row["table"] for row in used}),
                "scope": scope,
            }
        )
    return found


@functools.cache
def _records() -> tuple[dict[str, Any], ...]:
    raw = resources.files("edgellm.cost").joinpath("data", "errors.json").read_text("utf-8")
    return tuple(json.loads(raw))


def error_records(validations: Iterable[Validation]) -> str:
    """Return the JSON that `known_errors` reads."""
    lines = []
    for found in validations:
        for s in found.scored:
            if s.figure.calibrates or s.kind not in LIMITS:
                continue
            record = {
                "quantity": _QUANTITY.get(s.kind, s.kind),
                "table": found.table.id,
                "device": s.figure.device,
                "model": s.figure.setting.model.name,
                "quant": s.figure.setting.quant,
                "error": round(s.error, 3) + 0.0,
            }
            lines.append(json.dumps(record))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def as_json(found: Validation) -> dict[str, Any]:
    """Return a validation as plain data: rows, errors by class, best numbers of nodes, parameters."""
    return {
        "id": found.table.id,
        "title": found.table.title,
        "source": found.table.source,
        "passed": found.passed,
        "rows": [
            {
                "row": s.figure.row,
                "model": s.figure.setting.model.name,
                "device": s.figure.device,
                "runtime": s.figure.runtime,
                "quant": s.figure.setting.format,
                "threads": s.figure.setting.threads,
                "nodes": s.figure.setting.nodes,
                "context": s.figure.setting.context,
                "prompt": s.figure.setting.prompt,
                "measure": s.figure.measure,
                "class": s.kind,
                "calibrates": s.figure.calibrates,
                "published": s.figure.value,
                "predicted": s.predicted,
                "error": s.error,
                "profile_error": s.profile_error,
            }
            for s in found.scored
        ],
        "classes": {
            s.kind: {"rows": s.count, "median": s.median, "worst": s.worst, "passed": s.passed}
            for s in found.summaries
        },
        "best_nodes": [
            {"model": b.label, "published": b.published, "predicted": b.predicted} for b in found.best_nodes
        ],
        "parameters": {
            where: {name: {"value": e.value, "low": e.low, "high": e.high} for name, e in fitted.items()}
            for where, fitted in found.parameters.items()
        },
    }


def as_text(found: Validation) -> str:
    """Return a validation for a terminal."""
    lines = [found.table.title, f"source: {found.table.source}", ""]
    for s in found.scored:
        star = "*" if s.figure.calibrates else " "
        lines.append(
            f"{star} {_what(s):58.58} {_figure(s.figure.value):>10} {_figure(s.predicted):>10}"
            f" {_percent(s.error):>9}"
        )
    lines += ["", "columns: published, predicted, error; * calibrates and is not scored", ""]
    lines += [_verdict(s) for s in found.summaries]
    lines += [
        f"best number of nodes, {b.label}: published {b.published}, predicted {b.predicted}"
        for b in found.best_nodes
    ]
    for where, fitted in found.parameters.items():
        lines += ["", f"parameters of {where}, with 95 % intervals:"]
        lines += [f"  {name:32} {e.value:.4g}  ({e.low:.3g} to {e.high:.3g})" for name, e in fitted.items()]
    return "\n".join(lines) + "\n"


def as_markdown(validations: Sequence[Validation]) -> str:
    """Return what docs/calibration.md holds between its markers."""
    everything = tuple(s for found in validations for s in found.scored)
    lines = ["### In sum", "", "| figures | rows | median | worst | allowed | |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | --- |"]
    for s in summarize(everything):
        name, median, worst = LIMITS[s.kind]
        lines.append(
            f"| {name} | {s.count} | {_percent(s.median, '')} | {_percent(s.worst, '')} |"
            f" {_percent(median, '')}, {_percent(worst, '')} | {'kept' if s.passed else 'not kept'} |"
        )
    best = [b for found in validations for b in found.best_nodes]
    right = sum(b.published == b.predicted for b in best)
    lines += ["", f"Best number of nodes: right for {right} of {len(best)} models."]
    plain = [abs(s.profile_error) for s in everything if s.profile_error is not None and s.kind != "bytes"]
    lines += [
        f"Shipped profiles without any fit, {len(plain)} figures: median error "
        f"{_percent(statistics.median(plain), '')}, worst {_percent(max(plain), '')}.",
    ]
    for found in validations:
        lines += ["", f"### {found.table.title}", "", f"Source: {found.table.source}."]
        lines += [found.table.note] if found.table.note else []
        lines += [
            "",
            "| run | published | predicted | error | profile |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        lines += [_row(s) for s in found.scored]
        lines += [""] if found.summaries else []
        lines += [f"- {_verdict(s)}" for s in found.summaries]
    return "\n".join(lines) + "\n"


def shipped_validations() -> tuple[Validation, ...]:
    """Return the validations of all shipped tables."""
    return tuple(validate(table) for table in shipped_tables())


def _row(s: Scored) -> str:
    star = " *" if s.figure.calibrates else ""
    profile = "" if s.profile_error is None else _percent(s.profile_error)
    fitted = s.kind != "profile"
    error = _percent(s.error) if fitted else ""
    predicted = _figure(s.predicted) if fitted else _figure(s.predicted if s.profile is None else s.profile)
    return f"| {_what(s)}{star} | {_figure(s.figure.value)} | {predicted} | {error} | {profile} |"


def _what(s: Scored) -> str:
    f, setting = s.figure, s.figure.setting
    parts = [f.label, setting.format]
    parts += [f.runtime] if f.runtime else []
    parts += [f"{setting.nodes} nodes"] if setting.nodes > 1 else []
    parts += [f"{setting.threads} threads"] if setting.threads is not None else []
    parts += [f"prompt {setting.prompt}"] if setting.prompt else []
    parts += [f"at {setting.context}"] if setting.context else []
    return f"{f.measure}: {', '.join(parts)}"


def _verdict(s: Summary) -> str:
    name, median, worst = LIMITS[s.kind]
    return (
        f"{name}: {s.count} rows, median {_percent(s.median, '')} (at most {_percent(median, '')}), worst "
        f"{_percent(s.worst, '')} (at most {_percent(worst, '')}): {'kept' if s.passed else 'NOT KEPT'}"
    )


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 1e5 else f"{value:.4g}"


def _percent(ratio: float, sign: str = "+") -> str:
    text = f"{100 * ratio:{sign}.1f}"
    return ("0.0" if float(text) == 0 else text) + " %"  # no sign where it rounds to nothing
