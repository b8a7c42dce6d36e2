"""Turns `[workload]` of a scenario file, and the files of prompts and arrivals it names, into streams."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.cost.units import near_matches

from ._build_conversation import build_conversation
from ._schema import Table, resolve_path
from .fleet import Fleet
from .workload import (
    BYTES_PER_TOKEN,
    DATA_CLASSES,
    Empirical,
    Fixed,
    Kind,
    Lengths,
    LogNormal,
    Poisson,
    Prompt,
    Stream,
    Trace,
    TraceRow,
    Uniform,
    Workload,
)

#: Bigger files of prompts or arrivals are refused: they would not fit in memory as requests.
MAX_FILE_BYTES = 256 << 20
_MAX_TOKENS = 10_000_000
_TRACE_COLUMNS = ("arrival_s", "node", "kind", "prompt_tokens", "output_tokens", "deadline_s")
_PROMPT_KEYS = ("prompt", "kind", "prompt_tokens", "output_tokens")

CountTokens = Callable[[str], int]


def build_workload(
    top: Table,
    fleet: Fleet,
    models: Mapping[str, Any],
    base: Path | None,
    count_tokens: CountTokens | None,
    context: int,
    backlog: Mapping[str, int],
) -> tuple[Workload, list[bytes]]:
    """Return the workload of `[workload]`, and the contents of the files that it read.

    `context` is the most that a conversation's prompt repeats unless it says, `backlog` how many requests
    wait at each node of a kind ("SITE/NODE") when the run begins.
    """
    table = top.table("workload", "", open_keys=True)
    if not table.data:
        raise top.fail("workload", "missing; a scenario needs at least one stream of requests")
    files: list[bytes] = []
    known = {f"{node.site}/{node.key}" for node in fleet.nodes}
    streams = []
    for name, stream in table.tables("workload.*"):
        at = stream.text("at")
        if at not in known:
            raise stream.fail("at", f"no node {at!r} in the fleet{near_matches(at, known)}")
        site, _, key = at.rpartition("/")
        kinds_table = stream.table("kinds", "", open_keys=True)
        if not kinds_table.data:
            raise stream.fail("kinds", "missing; a stream needs at least one kind of request")
        kinds = tuple(
            _kind(kind, entry, models, base, count_tokens, files)
            for kind, entry in kinds_table.tables("workload.*.kinds.*")
        )
        arrivals = _arrivals(stream.table("arrivals", "workload.*.arrivals"), base, files)
        if isinstance(arrivals, Trace):
            _check_trace(arrivals, stream, kinds, fleet)
        conversation = build_conversation(stream, context)
        streams.append(Stream(name, site, key, arrivals, kinds, conversation, backlog.get(at, 0)))
    return Workload(tuple(streams)), files


def _kind(
    name: str,
    table: Table,
    models: Mapping[str, Any],
    base: Path | None,
    count_tokens: CountTokens | None,
    files: list[bytes],
) -> Kind:
    model = table.text("model")
    if model not in models:
        raise table.fail("model", f"unknown model {model!r}{near_matches(model, models)}")
    per_token = table.quantity("bytes_per_token", "count", BYTES_PER_TOKEN)
    prompts: tuple[Prompt, ...] = ()
    if "prompts" in table:
        if "prompt_tokens" in table:
            raise table.fail("prompt_tokens", "either prompts or prompt_tokens, not both")
        prompts = _prompts(table, name, base, count_tokens, per_token, files)
    elif "prompt_tokens" not in table:
        raise table.fail("prompt_tokens", "missing (or give prompts, the path of a file)")
    return Kind(
        name=name,
        weight=table.quantity("weight", "count", 1.0),
        model=model,
        prompt_tokens=Fixed(1) if prompts else read_lengths(table, "prompt_tokens"),
        output_tokens=read_lengths(table, "output_tokens"),
        prefix_tokens=table.whole("prefix_tokens", 0, low=0, high=_MAX_TOKENS),
        prompts=prompts,
        data_class=table.choice("data_class", DATA_CLASSES, "text"),
        deadline_s=table.optional_quantity("deadline", "s"),
        bytes_per_token=per_token,
    )


def read_lengths(
    table: Table, name: str, pattern: str = "workload.*.kinds.*.lengths", most: int = _MAX_TOKENS
) -> Lengths:
    """Return the distribution of lengths under `name`: a whole number, or a table with `dist`."""
    if name not in table:
        raise table.fail(name, "missing")
    if not isinstance(table.data[name], dict):
        return Fixed(table.whole(name, high=most))
    entry = table.table(name, pattern)
    dist = entry.choice("dist", tuple(_DIST_KEYS))
    for key in entry.data:
        if key != "dist" and key not in _DIST_KEYS[dist]:
            raise entry.fail(key, f"not a parameter of {dist!r}{near_matches(key, _DIST_KEYS[dist])}")
    if dist == "fixed":
        return Fixed(entry.whole("value", high=most))
    if dist == "uniform":
        low = entry.whole("low", high=most)
        return Uniform(low, entry.whole("high", low=low, high=most))
    if dist == "lognormal":
        low = entry.whole("low", 1, high=most)
        high = entry.whole("high", most, low=low, high=most)
        median = entry.quantity("median", "count")
        return LogNormal(median, entry.quantity("sigma", "count", zero=True), low, high)
    values = entry.list_of("values", int)
    if not values or not all(1 <= v <= most for v in values):
        raise entry.fail("values", f"must be whole numbers from 1 to {most}, at least one")
    weights = tuple(entry.amount("weights", w, "count") for w in entry.data.get("weights", ()))
    if weights and len(weights) != len(values):
        raise entry.fail("weights", f"{len(weights)} weights for {len(values)} values")
    return Empirical(values, weights)


_DIST_KEYS = {
    "fixed": ("value",),
    "uniform": ("low", "high"),
    "lognormal": ("median", "sigma", "low", "high"),
    "empirical": ("values", "weights"),
}


def _arrivals(table: Table, base: Path | None, files: list[bytes]) -> Poisson | Trace:
    process = table.choice("process", ("poisson", "diurnal", "trace"))
    wanted = {"poisson": ("rate",), "diurnal": ("rate", "hours", "start_hour"), "trace": ("path",)}[process]
    for key in table.data:
        if key != "process" and key not in wanted:
            raise table.fail(key, f"not a parameter of {process!r}{near_matches(key, wanted)}")
    if process == "trace":
        return Trace(_trace_rows(table, resolve_path(table.text("path"), base), files))
    rate = table.quantity("rate", "per_s")
    if process == "poisson":
        return Poisson(rate)
    raw = table.data.get("hours", ())
    if not isinstance(raw, list) or len(raw) != 24:
        raise table.fail(
            "hours", "must be a list of 24 numbers, the relative rate of each hour from midnight"
        )
    hours = [table.amount("hours", hour, "count", zero=True) for hour in raw]
    if sum(hours) <= 0:
        raise table.fail("hours", "at least one hour must be above 0")
    start = table.quantity("start_hour", "count", 0.0, zero=True)
    if start >= 24:
        raise table.fail("start_hour", f"must be below 24, got {start:g}")
    mean = sum(hours) / 24.0
    return Poisson(rate, tuple(hour / mean for hour in hours), start)


def _read(table: Table, key: str, path: Path, files: list[bytes]) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as err:
        raise table.fail(key, f"{path}: cannot be read: {err.strerror or err}") from None
    except ValueError as err:
        raise table.fail(key, f"not a path: {err}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise table.fail(key, f"{path}: more than {MAX_FILE_BYTES} bytes")
    files.append(raw)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise table.fail(key, f"{path}: not UTF-8: {err}") from None


def _trace_rows(table: Table, path: Path, files: list[bytes]) -> tuple[TraceRow, ...]:
    reader = csv.DictReader(io.StringIO(_read(table, "path", path, files), newline=""), strict=True)
    rows: list[TraceRow] = []
    try:
        columns = reader.fieldnames or []
        if "arrival_s" not in columns:
            raise table.fail("path", f"{path}: the first line must name the columns, arrival_s among them")
        for column in columns:
            if column not in _TRACE_COLUMNS:
                raise table.fail("path", f"{path}: column {column!r}{near_matches(column, _TRACE_COLUMNS)}")
        for raw in reader:
            where = f"{path}, line {reader.line_num}"
            if None in raw or None in raw.values():
                raise table.fail("path", f"{where}: {len(columns)} columns expected")
            rows.append(_trace_row(table, raw, where))
    except csv.Error as err:
        raise table.fail("path", f"{path}, line {reader.line_num}: {err}") from None
    if not rows:
        raise table.fail("path", f"{path}: no arrivals")
    return tuple(rows)


def _trace_row(table: Table, raw: Mapping[str, str], where: str) -> TraceRow:
    def number(column: str) -> float | None:
        text = (raw.get(column) or "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise table.fail("path", f"{where}: {column}: must be a number, 0 or more, got {text!r}")
        return value

    def tokens(column: str) -> int | None:
        value = number(column)
        if value is not None and (value != int(value) or not 1 <= value <= _MAX_TOKENS):
            raise table.fail("path", f"{where}: {column}: must be a whole number from 1 to {_MAX_TOKENS}")
        return None if value is None else int(value)

    arrival_s = number("arrival_s")
    if arrival_s is None:
        raise table.fail("path", f"{where}: arrival_s: missing")
    deadline_s = number("deadline_s")
    if deadline_s == 0:
        raise table.fail("path", f"{where}: deadline_s: must be positive")
    return TraceRow(
        arrival_s=arrival_s,
        node=(raw.get("node") or "").strip() or None,
        kind=(raw.get("kind") or "").strip() or None,
        prompt_tokens=tokens("prompt_tokens"),
        output_tokens=tokens("output_tokens"),
        deadline_s=deadline_s,
    )


def _check_trace(trace: Trace, table: Table, kinds: tuple[Kind, ...], fleet: Fleet) -> None:
    names = {kind.name for kind in kinds}
    for row in trace.rows:
        if row.kind is not None and row.kind not in names:
            raise table.fail("arrivals", f"the trace names kind {row.kind!r}{near_matches(row.kind, names)}")
        if row.node is not None and row.node not in fleet:
            raise table.fail("arrivals", f"the trace names node {row.node!r}, which is not in the fleet")


def _prompts(
    table: Table,
    kind: str,
    base: Path | None,
    count_tokens: CountTokens | None,
    per_token: float,
    files: list[bytes],
) -> tuple[Prompt, ...]:
    """Read real prompts: JSONL (one object a line) or text (one prompt a line)."""
    path = resolve_path(table.text("prompts"), base)
    lines = _read(table, "prompts", path, files).split("\n")
    found: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry: Any = {"prompt": line.strip()}
        if path.suffix in (".jsonl", ".json"):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as err:
                raise table.fail("prompts", f"{where}: not JSON: {err}") from None
        prompt = _prompt(table, entry, where, kind, count_tokens, per_token)
        if prompt is not None:
            found.append(prompt)
    if not found:
        raise table.fail("prompts", f"{path}: no prompt for kind {kind!r}")
    return tuple(found)


def _prompt(
    table: Table, entry: Any, where: str, kind: str, count_tokens: CountTokens | None, per_token: float
) -> Prompt | None:
    """Return the prompt of one line, or None if it belongs to another kind."""
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or not entry["prompt"]:
        raise table.fail("prompts", f'{where}: must be an object with "prompt", a text')
    for key in entry:
        if key not in _PROMPT_KEYS:
            raise table.fail("prompts", f"{where}: {key}: unknown key{near_matches(key, _PROMPT_KEYS)}")
    if entry.get("kind", kind) != kind:
        return None
    lengths: dict[str, int | None] = {}
    for key in ("prompt_tokens", "output_tokens"):
        value = entry.get(key)
        good = value is None or (isinstance(value, int) and not isinstance(value, bool))
        if not good or (value is not None and not 1 <= value <= _MAX_TOKENS):
            raise table.fail("prompts", f"{where}: {key}: must be a whole number from 1 to {_MAX_TOKENS}")
        lengths[key] = value
    text = entry["prompt"]
    tokens = lengths["prompt_tokens"]
    if tokens is None:
        estimate = math.ceil(len(text.encode("utf-8", "replace")) / per_token)
        tokens = max(1, estimate if count_tokens is None else count_tokens(text))
    return Prompt(text, tokens, lengths["output_tokens"])
