"""Fields of a JSON body, taken one by one: every type and range is checked, and nothing is left unread."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgellm.server.errors import bad

MAX_DEPTH = 100


def parse(raw: bytes) -> dict[str, Any]:
    """A body as a JSON object.

    Raises
    ------
    ApiError
        If it is no JSON object, nested too deeply, or holds what JSON or UTF-8 does not have.

    Examples
    --------
    >>> parse(b'{"n": 1}')
    {'n': 1}
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        for text in _strings(value):
            text.encode("utf-8")
    except UnicodeDecodeError:
        raise bad("the body is not UTF-8") from None
    except UnicodeEncodeError:
        raise bad("the body holds a lone surrogate") from None
    except RecursionError:
        raise bad("the body is nested too deeply") from None
    except ValueError as error:
        raise bad(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise bad(f"the body must be a JSON object, got {_kind(value)}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _strings(value: object) -> Iterator[str]:
    """Every string, keys included; RecursionError if nested deeper than MAX_DEPTH."""
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise RecursionError
            if isinstance(item, dict):
                yield from item
                stack.extend((own, depth + 1) for own in item.values())
            else:
                stack.extend((own, depth + 1) for own in item)


def _kind(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class Fields:
    """The fields of an object. null counts as absent, as OpenAI's optional fields have it.

    Parameters
    ----------
    data : dict
        From JSON.
    where : str
        Put before names in messages, such as ``"stream_options."``.

    Examples
    --------
    >>> fields = Fields({"n": 2})
    >>> fields.integer("n", 1, 1, 8), fields.number("top_p", 1.0, 0, 1)
    (2, 1.0)
    >>> fields.finish()
    """

    def __init__(self, data: Mapping[str, Any], where: str = "") -> None:
        self._data = {name: value for name, value in data.items() if value is not None}
        self._where = where
        self._known: set[str] = set()

    def take(self, name: str) -> Any:
        """The value as it is, None if absent."""
        self._known.add(name)
        return self._data.get(name)

    def refuse(self, name: str, harmless: Collection[Any], why: str) -> None:
        """An error if the field is there with a value that asks for what we do not have."""
        value = self.take(name)
        if value is not None and not any(type(value) is type(own) and value == own for own in harmless):
            raise bad(f"{self._where}{name}: {why}", self._where + name, "unsupported")

    def wrong(self, name: str, expected: str, value: object) -> Exception:
        """The error for a value of the wrong type or range."""
        shown = _kind(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            text = repr(value)
            shown += f" ({text if len(text) <= 60 else text[:57] + '...'})"
        return bad(f"{self._where}{name} must be {expected}, got {shown}", self._where + name)

    def number(self, name: str, default: float, least: float, most: float = math.inf) -> float:
        """A number in [least, most]."""
        value = self.take(name)
        if value is None:
            return default
        bounds = f"in {least:g}..{most:g}" if most < math.inf else f"of at least {least:g}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(name, f"a number {bounds}", value)
        if value > 1e30:
            raise self.wrong(name, f"a number {bounds} and below 1e30", value)
        return float(value)

    def integer(self, name: str, default: int | None, least: int, most: int) -> Any:
        """A whole number in [least, most]; 2.0 is one."""
        value = self.take(name)
        if value is None:
            return default
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not least <= value <= most:
            raise self.wrong(name, f"a whole number in {least}..{most}", value)
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "a boolean", value)
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string", value)
        return value

    def choice(self, name: str, default: str, known: Collection[str]) -> str:
        """One of some strings."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in known:
            raise self.wrong(name, f"one of {', '.join(sorted(known))}", value)
        return value

    def object(self, name: str) -> Fields | None:
        """The fields of an object."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return Fields(value, f"{self._where}{name}.")

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A string or an array of strings, none of them empty."""
        value = self.take(name)
        if value is None:
            return ()
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or len(listed) > most:
            raise self.wrong(name, f"a string or an array of at most {most} strings", value)
        for text in listed:
            if not isinstance(text, str) or not text or len(text) > 1000:
                raise self.wrong(name, "made of strings of 1 to 1000 characters", text)
        return tuple(listed)

    def names(self) -> list[str]:
        """Names of the fields that are there."""
        return list(self._data)

    def finish(self) -> None:
        """An error if a field is there that nobody has asked for: a misspelt option must not be ignored."""
        for name in self._data:
            if name not in self._known:
                near = difflib.get_close_matches(name[:60], self._known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise bad(
                    f"there is no parameter {(self._where + name)[:80]!r}{hint}",
                    (self._where + name)[:80],
                    "unknown_parameter",
                )
