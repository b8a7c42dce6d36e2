"""Reads values of a profile's TOML strictly: texts, tables, constants. Every error names file and key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .constant import Constant, ProfileError
from .units import UnitError, near_matches, parse_quantity

_CONSTANT_KEYS = ("value", "low", "high", "source", "guess")


@dataclass(frozen=True, slots=True)
class Field:
    """How one constant is read: its dimension, its bounds, and whether a profile may leave it out."""

    dimension: str
    minimum: float = 0.0
    strict: bool = True  # the minimum itself is excluded
    least: float = 0.0  # a positive value below this is absurd
    maximum: float = 1e24
    optional: bool = False


def read_sources(data: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """Return `[sources]`: short names and what they stand for."""
    sources = read_table(data, "sources", where)
    for key, text in sources.items():
        if not isinstance(text, str) or not text.strip():
            raise ProfileError(f"{where}: sources.{key}: must be text that names the source, got {text!r}")
    return sources


def read_fields(
    data: Mapping[str, Any],
    rules: Mapping[str, Field],
    sources: Mapping[str, str],
    where: str,
    prefix: str = "",
) -> dict[str, Constant]:
    """Return the constants that are there, by key; a missing one that is not optional is an error."""
    found: dict[str, Constant] = {}
    for key, rule in rules.items():
        if key in data:
            found[key] = read_constant(data[key], rule, sources, f"{where}: {prefix}{key}")
        elif not rule.optional:
            raise ProfileError(f"{where}: {prefix}{key}: missing")
    return found


def read_constant(raw: object, rule: Field, sources: Mapping[str, str], where: str) -> Constant:
    """Return the constant that a table { value = ..., source = ... } states."""
    if not isinstance(raw, dict):
        raise ProfileError(f"{where}: must be a table {{ value = ..., source = ... }}, got {raw!r}")
    check_keys(raw, _CONSTANT_KEYS, where)
    source = read_text(raw, "source", where)
    if sources:
        if source not in sources:
            raise ProfileError(
                f"{where}.source: {source!r} is not in [sources]{near_matches(source, sources)}"
            )
        source = sources[source]
    guess = raw.get("guess", False)
    if not isinstance(guess, bool):
        raise ProfileError(f"{where}.guess: must be true or false, got {guess!r}")
    value = _number(required(raw, "value", where), rule, f"{where}.value")
    low = _number(raw["low"], rule, f"{where}.low") if "low" in raw else None
    high = _number(raw["high"], rule, f"{where}.high") if "high" in raw else None
    if (low is not None and low > value) or (high is not None and high < value):
        raise ProfileError(f"{where}: value {value:g} is outside its own spread, low {low} to high {high}")
    return Constant(value, rule.dimension, source, low, high, guess)


def _number(raw: object, rule: Field, where: str) -> float:
    try:
        value = parse_quantity(raw, rule.dimension, bare=True)
    except UnitError as err:
        raise ProfileError(f"{where}: {err}") from None
    if value < rule.minimum or (rule.strict and value == rule.minimum):
        need = "positive" if rule.strict else f"{rule.minimum:g} or more"
        raise ProfileError(f"{where}: must be {need}, got {raw!r}")
    if 0.0 < value < rule.least:
        raise ProfileError(f"{where}: {raw!r} is absurd: less than {rule.least:g}")
    if value > rule.maximum:
        raise ProfileError(f"{where}: must be at most {rule.maximum:g}, got {raw!r}")
    return value


def required(data: Mapping[str, Any], key: str, where: str) -> Any:
    """Return the value of a key that must be there."""
    if key not in data:
        raise ProfileError(f"{where}: {key}: missing")
    return data[key]


def read_text(data: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    """Return a text; without a default it must be there and not empty."""
    value = required(data, key, where) if default is None else data.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise ProfileError(f"{where}: {key}: must be text, got {value!r}")
    return value


def read_table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return a table; an absent one is empty."""
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ProfileError(f"{where}: {key}: must be a table, got {value!r}")
    return value


def check_keys(data: Mapping[str, Any], known: Iterable[str], where: str, prefix: str = "") -> None:
    """Raise for a key that is not known."""
    names = tuple(known)
    for key in data:
        if key not in names:
            raise ProfileError(f"{where}: {prefix}{key}: unknown key{near_matches(key, names)}")
