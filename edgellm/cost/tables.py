"""Tables of published measurements: the format that a person writes, read strictly.

benchmarks/validation/README.md documents the format.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .constant import ProfileError
from .load import load_model, model_from_mapping
from .model_profile import KV_BYTES, QUANTS, ModelProfile
from .reading import check_keys, read_table, read_text, required
from .split import HEADS
from .units import UnitError, near_matches, parse_quantity

TABLE_SCHEMA = 1
#: What a row may state.
MEASURES = (
    "tok_per_s", "ms_per_token", "compute_ms", "sync_ms", "ttft_ms", "prefill_tok_per_s", "j_per_token",
    "watts", "network_bytes", "sent_bytes", "received_bytes", "weight_bytes",
)  # fmt: skip
#: What errors are grouped by; a table may state one for all of its rows.
CLASSES = ("bytes", "decode", "cluster", "sync", "threads", "ttft", "energy")
_BYTES = ("network_bytes", "sent_bytes", "received_bytes", "weight_bytes")
_WORDS = ("model", "label", "device", "runtime", "quant", "head", "kv", "buffer", "split_head")
_NUMBERS = ("threads", "nodes", "context", "prompt")
_TOP = ("schema", "id", "title", "source", "note", "class", "formats", "models", "defaults", "rows")
MAX_TABLE_BYTES = 4 << 20


#: A path, or a mapping as parsed from TOML.
TableSource = str | Path | Mapping[str, Any]


class TableError(ValueError):
    """A table that cannot be used; the message names table, row and key."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What was run: everything that a prediction depends on but the device."""

    model: ModelProfile
    format: str  # as the table calls it
    quant: str  # the storage type that this is
    head: str | None
    kv: str
    buffer: str
    split_head: str  # "root", "sharded", or "" where a table does not say
    threads: int | None
    nodes: int
    context: int
    prompt: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number."""

    row: int
    label: str
    device: str  # a profile's name or path, or "" where nothing is known of the device
    runtime: str
    setting: Setting
    measure: str
    value: float
    unit: float  # of bytes: what the value was counted in
    calibrates: bool


@dataclass(frozen=True, slots=True)
class Measurements:
    """A table: figures and where they were published."""

    id: str
    title: str
    source: str
    note: str
    kind: str  # one of CLASSES, or "" where it follows from the rows
    figures: tuple[Figure, ...]


def read_measurements(source: TableSource) -> Measurements:
    """Read a table of published measurements.

    Parameters
    ----------
    source : path, or mapping as parsed from TOML

    Raises
    ------
    TableError
        If it is malformed; the message names row and key.

    Examples
    --------
    >>> rows = [{"model": "qwen2.5-0.5b", "quant": "q8_0", "tok_per_s": 20.0, "calibrates": True}]
    >>> table = {"schema": 1, "id": "mine", "title": "Mine", "source": "my own board", "rows": rows}
    >>> read_measurements(table).figures[0].value
    20.0
    """
    if isinstance(source, Mapping):
        return _measurements(source, "table", None)
    path = Path(source)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TABLE_BYTES + 1)
    except OSError as err:
        raise TableError(f"{path}: cannot be read: {err.strerror or err}") from None
    if len(raw) > MAX_TABLE_BYTES:
        raise TableError(f"{path}: more than {MAX_TABLE_BYTES} bytes; not a table")
    try:
        data = tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as err:
        raise TableError(f"{path}: not valid TOML: {err}") from None
    return _measurements(data, str(path), path.parent)


def _measurements(data: Mapping[str, Any], where: str, base: Path | None) -> Measurements:
    try:
        check_keys(data, _TOP, where)
        if required(data, "schema", where) != TABLE_SCHEMA:
            raise TableError(f"{where}: schema: this version reads schema {TABLE_SCHEMA}")
        kind = read_text(data, "class", where, default="")
        if kind and kind not in CLASSES:
            raise TableError(f"{where}: class: unknown value {kind!r}{near_matches(kind, CLASSES)}")
        formats = read_table(data, "formats", where)
        for name, quant in formats.items():
            if quant not in QUANTS:
                raise TableError(
                    f"{where}: formats.{name}: unknown quantization{near_matches(str(quant), QUANTS)}"
                )
        models = _models(read_table(data, "models", where), where)
        defaults = read_table(data, "defaults", where)
        check_keys(defaults, (*_WORDS, *_NUMBERS), where, "defaults.")
        rows = required(data, "rows", where)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise TableError(f"{where}: rows: must be a list of tables, and not empty")
        figures: list[Figure] = []
        for i, row in enumerate(rows, 1):
            inside = f"{where}: row {i}"
            check_keys(row, (*_WORDS, *_NUMBERS, *MEASURES, "measure", "value", "calibrates"), inside)
            figures += _figures({**defaults, **row}, i, formats, models, inside, base)
        return Measurements(
            id=read_text(data, "id", where),
            title=read_text(data, "title", where),
            source=read_text(data, "source", where),
            note=read_text(data, "note", where, default=""),
            kind=kind,
            figures=tuple(figures),
        )
    except ProfileError as err:
        raise TableError(str(err)) from None


def _models(data: Mapping[str, Any], where: str) -> dict[str, ModelProfile]:
    """Return the shapes that a table states itself; `title`, `source` and so on may be left out."""
    found: dict[str, ModelProfile] = {}
    for name, raw in data.items():
        if not isinstance(raw, dict):
            raise TableError(f"{where}: models.{name}: must be a table, got {raw!r}")
        full = {
            "schema": 1,
            "kind": "model",
            "name": name,
            "title": name,
            "source": where,
            "context": 1 << 20,
        }
        shape = {"tied": False, **full, **raw}
        if "head_dim" not in shape and shape.get("heads"):
            shape["head_dim"] = shape.get("width", 0) // shape["heads"]
        shape.setdefault("kv_heads", shape.get("heads"))
        found[name] = model_from_mapping(shape, f"{where}: models.{name}")
    return found


def _figures(
    row: Mapping[str, Any],
    number: int,
    formats: Mapping[str, str],
    models: Mapping[str, ModelProfile],
    where: str,
    base: Path | None,
) -> list[Figure]:
    name = read_text(row, "model", where)
    model = models[name] if name in models else load_model(name, base)
    written = read_text(row, "quant", where)
    quant = formats.get(written, written.lower())  # "Q4_K_M" is written both ways
    if quant not in QUANTS:
        known = (*formats, *QUANTS)
        raise TableError(f"{where}: quant: unknown quantization{near_matches(written, known)}")
    head = row.get("head")
    if head is not None and head not in QUANTS:
        raise TableError(f"{where}: head: unknown quantization{near_matches(str(head), QUANTS)}")
    setting = Setting(
        model=model,
        format=written,
        quant=quant,
        head=head,
        kv=_choice(row, "kv", tuple(KV_BYTES), "f16", where),
        buffer=_choice(row, "buffer", tuple(KV_BYTES), "q8_0", where),
        split_head=_choice(row, "split_head", ("", *HEADS), "", where),
        threads=_whole(row, "threads", 1, where) if "threads" in row else None,
        nodes=_whole(row, "nodes", 1, where, 1),
        context=_whole(row, "context", 0, where, 0),
        prompt=_whole(row, "prompt", 1, where, 0),
    )
    if setting.nodes > 1 and (model.kv_heads % setting.nodes or model.heads % setting.nodes):
        raise TableError(
            f"{where}: nodes: {name} has {model.kv_heads} key-value heads, so not over {setting.nodes} nodes"
        )
    stated = {key: row[key] for key in MEASURES if key in row}
    if "measure" in row:
        stated[_choice(row, "measure", MEASURES, "", where)] = required(row, "value", where)
    if not stated:
        raise TableError(f"{where}: no measure; one of {', '.join(MEASURES)}")
    calibrates = row.get("calibrates", False)
    if not isinstance(calibrates, bool):
        raise TableError(f"{where}: calibrates: must be true or false, got {calibrates!r}")
    found = []
    for measure, raw in stated.items():
        if measure in ("ttft_ms", "prefill_tok_per_s") and not setting.prompt:
            raise TableError(f"{where}: prompt: missing; {measure} needs the number of tokens read")
        value, unit = _value(raw, measure, f"{where}: {measure}")
        found.append(
            Figure(
                row=number,
                label=read_text(row, "label", where, default=model.title),
                device=read_text(row, "device", where, default=""),
                runtime=read_text(row, "runtime", where, default=""),
                setting=setting,
                measure=measure,
                value=value,
                unit=unit,
                calibrates=calibrates,
            )
        )
    return found


def _value(raw: object, measure: str, where: str) -> tuple[float, float]:
    """Return the value, and for bytes what they were counted in."""
    unit = 1.0
    try:
        if measure in _BYTES:
            if isinstance(raw, str):
                match = re.search(r"[A-Za-z]+$", raw.strip())
                unit = parse_quantity(f"1 {match.group()}" if match else raw, "bytes")
            value = parse_quantity(raw, "bytes", bare=True)
        else:
            value = parse_quantity(raw, "count", bare=True)
    except UnitError as err:
        raise TableError(f"{where}: {err}") from None
    if not 1e-12 < value < 1e18:
        raise TableError(f"{where}: must be positive, got {raw!r}")
    return value, unit


def _choice(row: Mapping[str, Any], key: str, known: tuple[str, ...], default: str, where: str) -> str:
    value = row.get(key, default)
    if value not in known:
        raise TableError(f"{where}: {key}: unknown value {value!r}{near_matches(str(value), known)}")
    return str(value)


def _whole(row: Mapping[str, Any], key: str, low: int, where: str, default: int = 0) -> int:
    value = row.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not (low <= value < 2**24 or value == default)
    ):
        raise TableError(f"{where}: {key}: must be a whole number from {low}, got {value!r}")
    return value
