"""A number of a profile: its value, its unit, where it came from and how far it may be off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

_P = TypeVar("_P")


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number with its unit, its source and its spread.

    `low` and `high` bound what was seen by different people or units; both are None where only one figure is
    known. `guess` marks data-sheet or general knowledge that nobody here measured or re-read at its source.
    """

    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None
    guess: bool = False

    def __float__(self) -> float:
        return self.value


def constants_of(profile: Any, prefix: str = "") -> Iterator[tuple[str, Constant]]:
    """Yield (key, constant) for every number of a profile; keys of its tables are dotted."""
    for item in fields(profile):
        yield from _below(getattr(profile, item.name), prefix + item.name)


def _below(value: object, key: str) -> Iterator[tuple[str, Constant]]:
    if isinstance(value, Constant):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _below(inner, f"{key}.{name}")
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            yield from _below(inner, f"{key}.{i}")
    elif is_dataclass(value):
        yield from constants_of(value, f"{key}.")


def with_constants(profile: _P, changed: Mapping[str, Constant], prefix: str = "") -> _P:
    """Return a profile with some constants replaced; keys as `constants_of` gives them.

    Raises
    ------
    KeyError
        If a key is not one of the profile's constants.
    """
    known = dict(constants_of(profile, prefix))
    for key in changed:
        if key not in known:
            raise KeyError(key)
    return _rebuilt(profile, changed, prefix)  # type: ignore[no-any-return]  # same class as it came


def _rebuilt(value: Any, changed: Mapping[str, Constant], prefix: str) -> Any:
    new: dict[str, Any] = {}
    for item in fields(value):
        old = getattr(value, item.name)
        found = _changed(old, changed, prefix + item.name)
        if found is not old:
            new[item.name] = found
    return replace(value, **new) if new else value


def _changed(value: Any, changed: Mapping[str, Constant], key: str) -> Any:
    if isinstance(value, Constant):
        return changed.get(key, value)
    if not any(name.startswith(f"{key}.") for name in changed):
        return value
    if isinstance(value, Mapping):
        inner = {name: _changed(one, changed, f"{key}.{name}") for name, one in value.items()}
        return type(value)(inner)  # type: ignore[call-arg]  # a read-only view of a dict
    if isinstance(value, tuple):
        return tuple(_changed(one, changed, f"{key}.{i}") for i, one in enumerate(value))
    return _rebuilt(value, changed, f"{key}.")
