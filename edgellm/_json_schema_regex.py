"""Regular languages over code points: ECMA patterns, intersection and complement, as trees of tuples.

    ("set", ((97, 122), ...))    one code point of these ranges, sorted and disjoint
    ("cat", (x, y, ...))         one after the other; ("cat", ()) is the empty text
    ("alt", (x, y, ...))         one of them; ("alt", ()) is nothing at all
    ("rep", x, low, high)        low to high times; high None is no bound
    ("and", (x, y, ...)), ("not", x)

Automata are made by derivatives.

Source: J. A. Brzozowski, "Derivatives of regular expressions", Journal of the ACM 11(4), 1964.
"""

from __future__ import annotations

from functools import cache
from typing import Any

Regex = tuple[Any, ...]
Ranges = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)
MAX_STATES = 2000

EMPTY: Regex = ("cat", ())
NOTHING: Regex = ("alt", ())


class TooLargeError(Exception):
    """An automaton with more states than a grammar should have."""


def union(*parts: Ranges) -> Ranges:
    """All code points of the parts, as sorted ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(r for part in parts for r in part):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(ranges: Ranges) -> Ranges:
    """Every code point that is a character and not in the ranges."""
    rest, start = [], 0
    for low, high in union(ranges, (SURROGATES,)):
        if low > start:
            rest.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        rest.append((start, LAST))
    return tuple(rest)


def points(text: str) -> Ranges:
    return union(tuple((ord(c), ord(c)) for c in text))


ANY_SET: Ranges = complement(())
ANY: Regex = ("set", ANY_SET)


def text_of(text: str) -> Regex:
    """The language of one text."""
    return cat(*(("set", ((ord(c), ord(c)),)) for c in text))


def cat(*parts: Regex) -> Regex:
    flat: list[Regex] = []
    for part in parts:
        if part == NOTHING:
            return NOTHING
        flat.extend(part[1] if part[0] == "cat" else (part,))
    return flat[0] if len(flat) == 1 else ("cat", tuple(flat))


def alt(*parts: Regex) -> Regex:
    flat: dict[Regex, None] = {}
    for part in parts:
        for one in part[1] if part[0] == "alt" else (part,):
            flat[one] = None
    sets = [x[1] for x in flat if x[0] == "set"]
    if len(sets) > 1:
        flat = {x: None for x in flat if x[0] != "set"}
        flat[("set", union(*sets))] = None
    return next(iter(flat)) if len(flat) == 1 else ("alt", tuple(sorted(flat, key=repr)))


def rep(x: Regex, low: int, high: int | None) -> Regex:
    if high == 0 or x == EMPTY:
        return EMPTY
    if x == NOTHING:
        return EMPTY if low == 0 else NOTHING
    if (low, high) == (1, 1):
        return x
    return ("rep", x, low, high)


ALL: Regex = rep(ANY, 0, None)


def both(*parts: Regex) -> Regex:
    """Intersection."""
    flat: dict[Regex, None] = {}
    for part in parts:
        for one in part[1] if part[0] == "and" else (part,):
            if one == NOTHING:
                return NOTHING
            if one != ALL:
                flat[one] = None
    if not flat:
        return ALL
    return next(iter(flat)) if len(flat) == 1 else ("and", tuple(sorted(flat, key=repr)))


def inverse(x: Regex) -> Regex:
    """Every text that is not in x."""
    if x[0] == "not":
        return x[1]  # type: ignore[no-any-return]  # a tree of tuples has no exact type
    return ALL if x == NOTHING else NOTHING if x == ALL else ("not", x)


@cache
def nullable(x: Regex) -> bool:
    kind = x[0]
    if kind == "set":
        return False
    if kind == "rep":
        return x[2] == 0 or nullable(x[1])
    if kind == "not":
        return not nullable(x[1])
    return any(map(nullable, x[1])) if kind == "alt" else all(map(nullable, x[1]))


def derivative(x: Regex, point: int) -> Regex:
    """What may follow `point`."""
    kind = x[0]
    if kind == "set":
        return EMPTY if any(low <= point <= high for low, high in x[1]) else NOTHING
    if kind == "cat":
        ways = []
        for i, part in enumerate(x[1]):
            ways.append(cat(derivative(part, point), *x[1][i + 1 :]))
            if not nullable(part):
                break
        return alt(*ways) if ways else NOTHING
    if kind == "alt":
        return alt(*(derivative(part, point) for part in x[1])) if x[1] else NOTHING
    if kind == "and":
        return both(*(derivative(part, point) for part in x[1]))
    if kind == "not":
        return inverse(derivative(x[1], point))
    _, inner, low, high = x
    if nullable(inner):
        low = 0
    return cat(derivative(inner, point), rep(inner, max(low - 1, 0), None if high is None else high - 1))


def matches(x: Regex, text: str) -> bool:
    for c in text:
        x = derivative(x, ord(c))
    return nullable(x)


def length_bounds(x: Regex) -> tuple[int, int | None]:
    """Least and most code points of a text, None for no bound; of `and` and `not` only what is certain."""
    kind = x[0]
    if kind == "set":
        return 1, 1
    if kind == "rep":
        low, high = length_bounds(x[1])
        return low * x[2], None if high is None or x[3] is None else high * x[3]
    if kind == "cat":
        bounds = [length_bounds(part) for part in x[1]]
        highs = [high for _, high in bounds if high is not None]
        return sum(low for low, _ in bounds), sum(highs) if len(highs) == len(bounds) else None
    if kind == "alt" and x[1]:
        bounds = [length_bounds(part) for part in x[1]]
        highs = [high for _, high in bounds if high is not None]
        return min(low for low, _ in bounds), max(highs) if len(highs) == len(bounds) else None
    return 0, None


def _sets(x: Regex, found: set[Ranges]) -> None:
    if x[0] == "set":
        found.add(x[1])
    elif x[0] in ("rep", "not"):
        _sets(x[1], found)
    else:
        for part in x[1]:
            _sets(part, found)


def _classes(x: Regex) -> list[Ranges]:
    """Code points that x cannot tell from each other, class by class."""
    found: set[Ranges] = set()
    _sets(x, found)
    cuts = {0}
    for ranges in found | {ANY_SET}:
        for low, high in ranges:
            cuts |= {low, high + 1}
    edges = sorted(c for c in cuts if c <= LAST)
    groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
    ordered = sorted(found)
    for low, after in zip(edges, [*edges[1:], LAST + 1], strict=True):
        if low == SURROGATES[0]:
            continue
        inside = tuple(any(a <= low <= b for a, b in ranges) for ranges in ordered)
        groups.setdefault(inside, []).append((low, after - 1))
    return [union(tuple(group)) for group in groups.values()]


class Automaton:
    """A deterministic automaton: `steps[state]` is a list of (ranges, state), `final` the accepting states.

    State 0 is the start; states from which no end can be reached are left out (`steps` is empty if all are).
    """

    def __init__(self, x: Regex) -> None:
        classes = _classes(x)
        numbers: dict[Regex, int] = {x: 0}
        todo = [x]
        steps: list[list[tuple[Ranges, int]]] = []
        for here in todo:
            row: dict[int, list[Ranges]] = {}
            for ranges in classes:
                there = derivative(here, ranges[0][0])
                if there == NOTHING:
                    continue
                if there not in numbers:
                    numbers[there] = len(todo)
                    todo.append(there)
                    if len(todo) > MAX_STATES:
                        raise TooLargeError
                row.setdefault(numbers[there], []).append(ranges)
            steps.append([(union(*group), to) for to, group in row.items()])
        self.final = {numbers[y] for y in todo if nullable(y)}
        self.all = {numbers[y] for y in todo if y == ALL}
        live = set(self.final)
        before: dict[int, list[int]] = {}
        for state, out in enumerate(steps):
            for _, to in out:
                before.setdefault(to, []).append(state)
        frontier = list(live)
        while frontier:
            for state in before.get(frontier.pop(), []):
                if state not in live:
                    live.add(state)
                    frontier.append(state)
        self.steps = {s: [(r, to) for r, to in steps[s] if to in live] for s in sorted(live)}


def is_nothing(x: Regex) -> bool:
    """Whether no text is in x. TooLargeError where that cannot be told."""
    if x[0] not in ("and", "not"):
        return x == NOTHING
    return 0 not in Automaton(x).steps
