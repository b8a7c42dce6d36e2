"""ECMA-262 regular expressions, as JSON schema's `pattern` has them, to languages of code points.

Where ECMA and Python read an escape differently (`\\d` beyond ASCII), what is written here lies in both
readings, so that validators of either kind agree with the texts that come out.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

from edgellm._json_schema_regex import (
    ALL,
    ANY,
    EMPTY,
    LAST,
    Ranges,
    Regex,
    alt,
    cat,
    complement,
    points,
    rep,
    union,
)

MAX_DEPTH = 50
MAX_COUNT = 1 << 20

_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = union(_DIGIT, ((65, 90), (95, 95), (97, 122)))
_SPACE: Ranges = union(
    ((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029))
)
_SPACE = union(_SPACE, ((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)))
_LINE_ENDS = points("\n\r\u2028\u2029")
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


class PatternError(ValueError):
    """A pattern that is malformed, or that has no grammar."""


@cache
def _wide(kind: str) -> Ranges:
    """What any reading of \\d, \\w or \\s takes in."""
    if kind == "s":
        return union(_SPACE, ((0x1C, 0x1F), (0x85, 0x85), (0x180E, 0x180E), (0xFEFF, 0xFEFF)))
    found, start = [], -1
    for p in range(sys.maxunicode + 2):
        c = chr(p) if p <= sys.maxunicode else ""
        inside = (
            c.isalnum() or c == "_" or c.isdigit()
            if kind == "w"
            else c != "" and unicodedata.category(c) == "Nd"
        )
        if inside and start < 0:
            start = p
        elif not inside and start >= 0:
            found.append((start, p - 1))
            start = -1
    return union(tuple(found))


def _escape_set(kind: str, negated: bool) -> Ranges:
    """The class of an escape: as narrow as any reading, or within a negated class as wide."""
    narrow = {"d": _DIGIT, "w": _WORD, "s": _SPACE}[kind.lower()]
    if kind.islower():
        return _wide(kind) if negated else narrow
    return complement(narrow) if negated else complement(_wide(kind.lower()))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def fail(self, why: str) -> PatternError:
        return PatternError(f"pattern {self.text!r}, position {self.at}: {why}")

    def peek(self, n: int = 1) -> str:
        return self.text[self.at : self.at + n]

    def take(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def search(self) -> Regex:
        """The texts in which the pattern is found: anything around it, where no anchor holds it."""
        branches = []
        while True:
            start = self.take("^")
            body = self.sequence()
            end = self.take("$")
            if self.peek() and self.peek() != "|":
                raise self.fail(
                    "an anchor inside of a pattern" if self.peek() in "^$" or end else "unbalanced )"
                )
            branches.append(cat(*([] if start else [ALL]), body, *([] if end else [ALL])))
            if not self.take("|"):
                return alt(*branches)

    def choice(self) -> Regex:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail("more than 50 groups within each other")
        branches = [self.sequence()]
        while self.take("|"):
            branches.append(self.sequence())
        self.depth -= 1
        return alt(*branches)

    def sequence(self) -> Regex:
        parts = []
        while self.peek() not in ("", "|", ")", "$"):
            parts.append(self.quantified(self.atom()))
        return cat(*parts)

    def quantified(self, x: Regex) -> Regex:
        c = self.peek()
        bounds: tuple[int, int | None]
        if c and c in "*+?":
            self.at += 1
            bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}[c]
        elif c == "{" and (counted := self.counts()) is not None:
            bounds = counted
        else:
            return x
        self.take("?")  # lazy or not, the language is the same
        if self.peek() and self.peek() in "*+?":
            raise self.fail("nothing to repeat")
        return rep(x, *bounds)

    def counts(self) -> tuple[int, int | None] | None:
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : max(end, 0)].partition(",")
        if not (low.isascii() and low.isdigit()) or (high and not (high.isascii() and high.isdigit())):
            return None  # a brace by itself
        if len(low) > 7 or len(high) > 7 or max(int(low), int(high or 0)) > MAX_COUNT:
            raise self.fail(f"a count over {MAX_COUNT}")
        self.at = end + 1
        least = int(low)
        most = (int(high) if high else None) if comma else least
        if most is not None and most < least:
            raise self.fail("counts out of order")
        return least, most

    def atom(self) -> Regex:
        c = self.peek()
        if self.take("("):
            if self.peek(2) == "?<" and self.peek(3) not in ("?<=", "?<!"):
                self.at = max(self.text.find(">", self.at), self.at) + 1
            elif not self.take("?:") and self.peek() == "?":
                raise self.fail(
                    "lookaround has no grammar" if self.peek(2)[1:] in "=!<" else "an unknown group"
                )
            x = self.choice()
            if not self.take(")"):
                raise self.fail("an anchor inside of a pattern" if self.peek() == "$" else "( without )")
            return x
        if c == "[":
            return ("set", self.char_class())
        if c in "*+?":
            raise self.fail("nothing to repeat")
        if c == "^":
            raise self.fail("an anchor inside of a pattern")
        self.at += 1
        if c == ".":
            return ("set", complement(_LINE_ENDS))
        if c == "\\":
            kind = self.peek()
            if kind and kind in "dDwWsS":
                self.at += 1
                return ("set", _escape_set(kind, negated=False))
            if kind and kind in "bB":
                raise self.fail("a word boundary has no grammar")
            if kind and (kind in "123456789k"):
                raise self.fail("a back reference has no grammar")
            return ("set", self.one(self.escape()))
        return ("set", self.one(ord(c)))

    def one(self, point: int) -> Ranges:
        if 0xD800 <= point <= 0xDFFF:
            raise self.fail("a surrogate by itself")
        return ((point, point),)

    def escape(self) -> int:
        """A character behind a backslash."""
        c = self.peek()
        self.at += 1
        if c in _CONTROLS and not (c == "0" and self.peek().isdigit()):
            return _CONTROLS[c]
        if c == "x":
            return self.hexadecimal(2)
        if c == "u" and self.take("{"):
            end = self.text.find("}", self.at)
            return self.hexadecimal(end - self.at, 1)
        if c == "u":
            high = self.hexadecimal(4)
            if 0xD800 <= high <= 0xDBFF and self.take("\\u"):
                return 0x10000 + (high - 0xD800 << 10) + (self.hexadecimal(4) - 0xDC00)
            return high
        if c == "c" and self.peek().isascii() and self.peek().isalpha():
            self.at += 1
            return ord(self.text[self.at - 1]) % 32
        if c == "" or (c.isalnum() and c.isascii()):
            raise self.fail(f"the escape \\{c} is not supported")
        return ord(c)

    def hexadecimal(self, digits: int, behind: int = 0) -> int:
        text = self.peek(max(digits, 0))
        if not 0 < digits <= 8 or len(text) < digits or any(c not in "0123456789abcdefABCDEF" for c in text):
            raise self.fail("a malformed escape")
        self.at += digits + behind
        if int(text, 16) > LAST:
            raise self.fail("a code point beyond Unicode")
        return int(text, 16)

    def char_class(self) -> Ranges:
        self.take("[")
        negated = self.take("^")
        parts: list[Ranges] = []
        while not self.take("]"):
            low = self.class_item(parts, negated)
            if low is not None and self.peek() == "-" and self.peek(2) not in ("-", "-]"):
                self.take("-")
                high = self.class_item(parts, negated)
                if high is None or high < low:
                    raise self.fail("a range out of order")
                parts.append(((low, high),))
            elif low is not None:
                parts.append(((low, low),))
        found = union(*parts)
        return complement(found) if negated else complement(complement(found))  # no surrogates

    def class_item(self, parts: list[Ranges], negated: bool) -> int | None:
        """A character, or None for an escape that is a class of its own."""
        c = self.peek()
        self.at += 1
        if not c:
            raise self.fail("[ without ]")
        if c != "\\":
            return ord(c)
        kind = self.peek()
        if kind and kind in "dDwWsS":
            self.at += 1
            parts.append(_escape_set(kind, negated))
            return None
        if kind == "b":
            self.at += 1
            return 8
        if kind == "-":
            self.at += 1
            return ord("-")
        return self.escape()


@cache
def search(pattern: str) -> Regex:
    """The language of texts in which `pattern` is found.

    Raises
    ------
    PatternError
        If it is malformed, or looks around, refers back, or has an anchor elsewhere than at its ends.
    """
    parser = _Parser(pattern)
    if pattern == "":
        return ALL
    found = parser.search()
    if parser.at < len(pattern):
        raise parser.fail("unbalanced )")
    return found


__all__ = ["ANY", "EMPTY", "PatternError", "search"]
