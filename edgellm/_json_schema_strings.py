"""JSON strings as GBNF: any string, counted characters, or the texts of a regular language.

A string that is only counted may use any escape. One of a regular language writes each character in one way
(escaped where JSON demands it), so that the language says exactly which texts there are.
"""

from __future__ import annotations

from collections.abc import Callable

from edgellm._json_schema_pattern import search
from edgellm._json_schema_regex import (
    ALL,
    ANY_SET,
    EMPTY,
    NOTHING,
    Automaton,
    Ranges,
    Regex,
    both,
    complement,
    length_bounds,
    points,
    rep,
    union,
)

# One code point in any notation: surrogates only as a pair of escapes.
CHAR = (
    r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt]'
    r' | "u" ([0-9a-cA-CeEfF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}'
    r' | [dD] [89abAB] [0-9a-fA-F]{2} "\\u" [dD] [c-fC-F] [0-9a-fA-F]{2}))'
)

_SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
_MUST_ESCAPE: Ranges = union(((0, 31),), points('"\\'))

_HOST = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DATE = (
    "[0-9]{3}[1-9]-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_MAIL = "[a-zA-Z0-9_+-]{1,30}(\\.[a-zA-Z0-9_+-]{1,20})?@" + f"{_HOST}(\\.{_HOST}){{0,2}}"
_PATH = "(/[a-zA-Z0-9._~-]{0,60}){0,8}"
_URI = f"https?://{_HOST}(\\.{_HOST}){{0,2}}(:[1-9][0-9]{{0,3}})?{_PATH}(\\?[a-zA-Z0-9=&._~-]{{0,80}})?(#[a-zA-Z0-9_-]{{0,40}})?"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = "[0-9a-fA-F]"

# Each lies within what its specification allows: strict, so that every validator agrees.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": "P([0-9]{1,4}D(T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS]|[0-9]{1,4}[YMW])",
    "email": _MAIL,
    "hostname": f"{_HOST}(\\.{_HOST}){{0,2}}",
    "ipv4": f"{_OCTET}(\\.{_OCTET}){{3}}",
    "ipv6": f"({_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}|::({_HEX}{{1,4}}:){{0,5}}{_HEX}{{1,4}}|::",
    "uri": _URI,
    "uri-reference": f"{_URI}|/[a-zA-Z0-9._~-]{{1,60}}{_PATH}",
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "json-pointer": "(/[a-zA-Z0-9._-]{0,40}){0,8}",
    "relative-json-pointer": "(0|[1-9][0-9]{0,2})(/[a-zA-Z0-9._-]{0,40}){0,8}",
    "regex": "[a-zA-Z0-9 _-]{1,40}",
}
FORMATS |= {"idn-email": _MAIL, "idn-hostname": FORMATS["hostname"], "iri": _URI, "uri-template": _URI}
FORMATS["iri-reference"] = FORMATS["uri-reference"]


def format_language(name: str) -> Regex | None:
    """The language of a format, or None for one that nobody knows (an annotation)."""
    return search(f"^({FORMATS[name]})$") if name in FORMATS else None


def literal(text: str) -> str:
    """GBNF that reads exactly `text`."""
    return '"' + "".join(_char(ord(c), '"\\') for c in text) + '"'


def _char(point: int, special: str) -> str:
    if 32 <= point < 127:
        return "\\" + chr(point) if chr(point) in special else chr(point)
    return f"\\x{point:02X}" if point < 256 else f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"


def _class(ranges: Ranges) -> str:
    parts = []
    for low, high in ranges:
        parts.append(
            _char(low, '\\]^-["') + (f"-{_char(high, chr(92) + ']^-[' + chr(34))}" if high > low else "")
        )
    return "[" + "".join(parts) + "]"


def _set(ranges: Ranges) -> str:
    """One character of the ranges, as it stands within a JSON string."""
    plain = complement(union(complement(ranges), _MUST_ESCAPE))
    ways = [_class(plain)] if plain else []
    short = "".join(_char(ord(c), '"\\') for p, c in _SHORT.items() if any(a <= p <= b for a, b in ranges))
    if short:
        ways.append(f'"\\\\" [{short}]')
    hexes = [p for p in range(32) if p not in _SHORT and any(a <= p <= b for a, b in ranges)]
    if len(hexes) == 27:
        ways.append('"\\\\u00" ("0" [0-7bBeEfF] | "1" [0-9a-fA-F])')
    elif hexes:
        ways.append('"\\\\u00" (' + " | ".join(f'"{p:02x}"' for p in hexes) + ")")
    return ways[0] if len(ways) == 1 and plain else "(" + " | ".join(ways) + ")"


def _counts(low: int, high: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}.get((low, high))
    return short if short is not None else f"{{{low},{'' if high is None else high}}}"


class Strings:
    """Writes strings as expressions.

    `add(name, body)` gives the name of a rule of that body; one of None is put into `rules` afterwards.
    """

    def __init__(self, add: Callable[[str, str | None], str], rules: dict[str, str]) -> None:
        self._add = add
        self._rules = rules

    def any(self, low: int, high: int | None) -> str:
        """A string of low to high code points."""
        char = self._add("char", CHAR)
        if (low, high) == (0, None):
            return self._add("string", f'"\\"" {char}* "\\""')
        return f'"\\"" {char}{_counts(low, high)} "\\""'

    def of(self, language: Regex, low: int, high: int | None) -> str | None:
        """A string of the language and of low to high code points, or None if there is none.

        Raises
        ------
        TooLargeError
            If the automaton of both conditions has too many states.
        """
        least, most = length_bounds(language)
        if language == ALL:
            return self.any(low, high)
        if low > least or (high is not None and (most is None or high < most)):
            language = both(language, rep(("set", ANY_SET), low, high))
        if language == NOTHING:
            return None
        if language[0] in ("and", "not"):
            body = self._automaton(language)
            return None if body is None else f'"\\"" {body} "\\""'
        return self._add("text", f'"\\"" {self._direct(language)} "\\""')

    def _direct(self, x: Regex) -> str:
        """A language without intersection and complement, part by part."""
        kind = x[0]
        if kind == "set":
            return self._add("any", _set(ANY_SET)) if x[1] == ANY_SET else _set(x[1])
        if kind == "rep":
            return f"({self._direct(x[1])}){_counts(x[2], x[3])}"
        if x == EMPTY:
            return '""'
        parts = [self._direct(part) for part in x[1]]
        return " ".join(parts) if kind == "cat" else "(" + " | ".join(parts) + ")"

    def _automaton(self, x: Regex) -> str | None:
        automaton = Automaton(x)
        if 0 not in automaton.steps:
            return None
        names = {state: self._add("state", None) for state in automaton.steps}
        for state, steps in automaton.steps.items():
            ways = [f"{_set(ranges)} {names[to]}" for ranges, to in steps]
            body = " | ".join((['""'] if state in automaton.final else []) + ways)
            if state in automaton.all:
                body = self._add("any", _set(ANY_SET)) + "*"
            self._rules[names[state]] = body
        return names[0]
