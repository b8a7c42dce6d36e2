"""Where the keys of a TOML file stand, so that an error can name the line.

`tomllib` says what a file means but not where. This scanner reads the same text again, once something is
known to be wrong, and notes the line of every key. It expects valid TOML; of anything else it returns what
it understood before it got lost, and never raises.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Names of tables and keys from the top, and places in arrays.
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'")
_LONG = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}' + r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]+")
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class _Lost(Exception):
    """The text is not TOML from here on."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.lines: dict[KeyPath, int] = {}
        self._explicit: set[KeyPath] = set()
        self._arrays: dict[KeyPath, int] = {}  # of tables -> their last index
        self._starts = [0] + [m.end() for m in re.finditer("\n", text)]

    def scan(self) -> None:
        base: KeyPath = ()
        while True:
            self._skip(_GAP)
            if self.at >= len(self.text):
                return
            base = self._header() if self.text[self.at] == "[" else self._pair(base)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _Lost
        self.at = found.end()
        return found.group()

    def _take(self, token: str) -> bool:
        here = self.text.startswith(token, self.at)
        self.at += len(token) if here else 0
        return here

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _Lost

    def _note(self, path: KeyPath, at: int, explicit: bool) -> None:
        """Keep the line of what is written out rather than of what a longer key only implies."""
        if path not in self.lines or (explicit and path not in self._explicit):
            self.lines[path] = bisect_right(self._starts, at)
        if explicit:
            self._explicit.add(path)

    def _key(self) -> list[tuple[str, int]]:
        """Return the parts of a dotted key and where each begins."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_BLANK)
            at = self.at
            if self.text[at : at + 1] in ('"', "'"):
                parts.append((_unquoted(self._skip(_QUOTED)), at))
            else:
                parts.append((self._skip(_BARE), at))
            self._skip(_BLANK)
            if not self._take("."):
                return parts

    def _header(self) -> KeyPath:
        self._expect("[")
        many = self._take("[")
        parts = self._key()
        self._expect("]]" if many else "]")
        path: KeyPath = ()
        for i, (name, at) in enumerate(parts):
            path = (*path, name)
            last = i == len(parts) - 1
            self._note(path, at, last)
            if last and many:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
                self._note(path, at, last)
        return path

    def _pair(self, base: KeyPath) -> KeyPath:
        path = base
        parts = self._key()
        self._expect("=")
        for i, (name, at) in enumerate(parts):
            path = (*path, name)
            self._note(path, at, i == len(parts) - 1)
        self._skip(_BLANK)
        self._value(path)
        return base

    def _value(self, path: KeyPath) -> None:
        first = self.text[self.at : self.at + 3]
        if first in ('"""', "'''"):
            self._skip(_LONG)
        elif first[:1] in ('"', "'"):
            self._skip(_QUOTED)
        elif self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        else:
            self._skip(_PLAIN)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while True:
            self._skip(_GAP)
            if self._take("]"):
                return
            self._note((*path, index), self.at, True)
            self._value((*path, index))
            index += 1
            self._skip(_GAP)
            if not self._take(","):
                self._expect("]")
                return

    def _inline_table(self, path: KeyPath) -> None:
        self._skip(_GAP)
        while not self._take("}"):
            self._pair(path)
            self._skip(_GAP)
            if not self._take(","):
                self._expect("}")
                return
            self._skip(_GAP)


def _unquoted(text: str) -> str:
    if text[0] == "'" or "\\" not in text:
        return text[1:-1]
    try:
        return str(tomllib.loads(f"k={text}")["k"])
    except ValueError:
        raise _Lost from None


def key_lines(text: str) -> dict[KeyPath, int]:
    r"""Return the line, from 1, on which each key of a TOML text stands.

    A table has the line of its header, or of the first key that implies it; an entry of an array is found
    under its place.

    Examples
    --------
    >>> key_lines('a = 1\n[fleet."my home".hub]\nuplink = { to = "x",\n link = "y" }\n')[
    ...     "fleet", "my home", "hub", "uplink", "to"]
    3
    >>> key_lines("[[links]]\na = 1\n[[links]]\na = 2\n")["links", 1, "a"]
    4
    """
    scanner = _Scanner(text)
    with suppress(_Lost, RecursionError):
        scanner.scan()
    return scanner.lines


def line_of(text: str, message: str) -> int:
    """Return the line of the deepest key of a TOML text with which an error message begins.

    Parameters
    ----------
    text : str
        The file.
    message : str
        Begins with a full dotted key, as every error about a scenario or a profile does. Of a key that is
        not in the file, the table where it is missing is found; of none at all, line 1.

    Examples
    --------
    >>> line_of("[fleet.home]\\ncount = -1\\n", "fleet.home.count: must be positive")
    2
    >>> line_of("[fleet.home]\\ncount = 2\\n", "fleet.home.device: missing")
    1
    """
    best, line = 0, 1
    for path, at in key_lines(text).items():
        for written in (_dotted(path, True), _dotted(path, False)):
            whole = message.startswith(written) and message[len(written) : len(written) + 1] in ".[: "
            if whole and len(written) > best:
                best, line = len(written), at
    return line


def _dotted(path: KeyPath, quoted: bool) -> str:
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (written_key(part) if quoted else part)
    return out


def written_key(name: str) -> str:
    """Return a key as errors write it: quoted where it is more than letters, digits, - and _.

    Examples
    --------
    >>> written_key("home"), written_key("smollm2-135m:q4_0")
    ('home', '"smollm2-135m:q4_0"')
    """
    if name.replace("-", "").replace("_", "").isalnum():
        return name
    return json.dumps(name, ensure_ascii=False)


def parse_toml(raw: bytes, where: str) -> Mapping[str, Any]:
    """Parse the bytes of a TOML file.

    Parameters
    ----------
    raw : bytes
        The whole file.
    where : str
        What errors call it.

    Raises
    ------
    ValueError
        If it is no UTF-8 or no TOML; the message begins with "where:line: ".

    Examples
    --------
    >>> parse_toml(b"a = 1\\nb = = 2", "x.toml")
    Traceback (most recent call last):
        ...
    ValueError: x.toml:2: not valid TOML: Invalid value (column 5)
    """
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise ValueError(f"{where}:{line}: not valid TOML: not UTF-8 ({err.reason})") from None
    except RecursionError:
        raise ValueError(f"{where}:1: not valid TOML: nested too deeply") from None
    except ValueError as err:
        text = str(err)
        found = _AT.search(text)
        line = (
            raw.count(b"\n") + (not raw.endswith(b"\n")) if found is None or not found[1] else int(found[1])
        )
        if found is not None:
            end = f" (column {found[2]})" if found[2] else " (the file ends here)"
            text = text[: found.start()] + end
        raise ValueError(f"{where}:{max(1, line)}: not valid TOML: {text}") from None
