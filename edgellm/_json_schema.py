"""JSON schema (draft 2020-12) to GBNF whose every text is valid JSON that fits the schema.

Where the schema allows more than a grammar should offer, the grammar offers less: members in the order of
the schema, one notation of each name, numbers of 15 digits. Where no grammar can hold an assertion exactly
the schema is refused, with the place. docs/grammar.md has the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from edgellm._json_schema_numbers import NumberError, Numbers
from edgellm._json_schema_regex import NOTHING, TooLargeError
from edgellm._json_schema_resolve import Place, Resolver
from edgellm._json_schema_shape import Shape, fail, same
from edgellm._json_schema_strings import Strings, literal

MAX_RULES = 20_000
MAX_UNIQUE = 8
MAX_PREFIX = 100
MAX_COUNTED = 4_000
MAX_TIMES = 1 << 20
CHAIN = 12  # optional members up to which every first one is written out


def _times(low: int, high: int | None) -> str:
    low = min(low, MAX_TIMES)
    high = None if high is None or high > MAX_TIMES else high
    return {(0, None): "*", (1, 1): "", (0, 1): "?"}.get(
        (low, high), f"{{{low},{'' if high is None else high}}}"
    )


class Compiler:
    """One schema on its way to rules."""

    def __init__(self, schema: Any, *, spaces: bool) -> None:
        self.resolver = Resolver(schema)
        self.rules: dict[str, str] = {}
        self._bodies: dict[str, str] = {}
        self._names: dict[Place, str] = {}
        self._todo: list[Place] = []
        self.comma = '"," " "?' if spaces else '","'
        self.gap = ' " "?' if spaces else ""
        self.strings = Strings(self._add, self.rules)
        self.numbers = Numbers(self._add)

    def compile(self) -> str:
        """All rules, `root` first."""
        self.rules["root"] = ""
        self._names[("#",)] = "root"
        self._todo.append(("#",))
        while self._todo:
            place = self._todo.pop()
            body = self._body(place)
            if body is None:
                fail(place[0] if place else "#", "no value fits this schema")
            self.rules[self._names[place]] = body
        return "\n".join(f"{name} ::= {body}" for name, body in self.rules.items()) + "\n"

    def _add(self, name: str, body: str | None) -> str:
        """The rule of this body, or a new one whose name starts with `name`; None: the body comes later."""
        if body is not None and body in self._bodies:
            return self._bodies[body]
        if len(self.rules) > MAX_RULES:
            fail("#", f"the schema explodes: more than {MAX_RULES} rules")
        unique = name if name not in self.rules else f"{name}-{len(self.rules)}"
        while unique in self.rules:
            unique += "x"
        self.rules[unique] = body or ""
        if body is not None:
            self._bodies[body] = unique
        return unique

    def _rule(self, place: Place) -> str:
        """The name of the rule for a place, which is written later."""
        if place not in self._names:
            word = (
                "".join(c if c.isascii() and c.isalnum() else "-" for c in place[0].rpartition("/")[2])
                if place
                else "any"
            )
            self._names[place] = self._add(f"v-{word[:40]}", None)
            self._todo.append(place)
        return self._names[place]

    def _fits(self, place: Place) -> bool:
        return self.resolver.satisfiable(place)

    def _body(self, place: Place) -> str | None:
        ways: dict[str, None] = {}
        for shape in self.resolver.alternatives(place):
            for way in self._shape(shape):
                ways[way] = None
        return " | ".join(ways) if ways else None

    def _shape(self, shape: Shape) -> list[str]:
        if shape.values is not None:
            return [self._value(v, shape) for v in shape.values if self.resolver.fits(v, shape)]
        kinds = [
            k
            for k in ("object", "array", "string", "number", "integer", "boolean", "null")
            if k in shape.types
        ]
        if "number" in kinds and "integer" in kinds:
            kinds.remove("integer")  # is one
        write: dict[str, Callable[[Shape], str | None]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
            "boolean": lambda _: '"true" | "false"',
            "null": lambda _: '"null"',
        }
        return [way for kind in kinds if (way := write[kind](shape)) is not None]

    def _value(self, value: Any, shape: Shape) -> str:
        """One given value."""
        if isinstance(value, str):
            if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
                fail(shape.pointer, "a text with half a surrogate pair has no UTF-8")
            return literal(json.dumps(value, ensure_ascii=False))
        if isinstance(value, list):
            items = f" {self.comma} ".join(self._value(v, shape) for v in value)
            return f'"[" {items} "]"'
        if isinstance(value, dict):
            pairs = (
                f'{self._value(k, shape)} ":"{self.gap} {self._value(v, shape)}' for k, v in value.items()
            )
            return '"{" ' + f" {self.comma} ".join(pairs) + ' "}"'
        if isinstance(value, float) and not math.isfinite(value):
            fail(shape.pointer, f"{value} is no number of JSON")
        return literal(json.dumps(value))

    def _number(self, shape: Shape) -> str | None:
        try:
            if "number" in shape.types:
                return self.numbers.number(shape.bounds)
            return self.numbers.integer(shape.bounds)
        except NumberError as error:
            fail(shape.pointer, f"not supported: {error}")

    def _string(self, shape: Shape) -> str | None:
        low, high = shape.min_length, shape.max_length
        if high is not None and high < low:
            return None
        if low > MAX_TIMES:
            fail(f"{shape.pointer}/minLength", f"not supported over {MAX_TIMES}")
        try:
            return self.strings.of(shape.language, low, None if high is None or high > MAX_TIMES else high)
        except (TooLargeError, RecursionError):
            fail(shape.pointer, "pattern, format and lengths together need too many states")

    def _array(self, shape: Shape) -> str | None:
        low, high = shape.min_items, shape.max_items
        if low > MAX_TIMES:
            fail(f"{shape.pointer}/minItems", f"not supported over {MAX_TIMES}")
        size = self.resolver.prefix(shape)
        for i in range(size + 1):
            if not self._fits(self.resolver.item(shape, i)):
                high = i if high is None else min(high, i)
                break
        if high is not None and high < low:
            return None
        size = size if high is None else min(size, high)
        if shape.unique and (high is None or high > 1):
            return self._unique(shape, low, high)
        if size > MAX_PREFIX:
            fail(f"{shape.pointer}/prefixItems", f"more than {MAX_PREFIX} are not supported")
        after = ""
        if high is None or high > size:
            item = self._rule(self.resolver.item(shape, size))
            least, most = max(0, low - size), None if high is None else high - size
            if size == 0:
                more = f"({self.comma} {item}){_times(max(0, least - 1), None if most is None else most - 1)}"
                return f'"[" ({item} {more}){"" if low else "?"} "]"'
            after = f"({self.comma} {item}){_times(least, most)}"
        for i in reversed(range(size)):
            one = self._rule(self.resolver.item(shape, i))
            after = f"{self.comma + ' ' if i else ''}{one} {after}"
            if i >= low:
                after = f"({after})?"
        return f'"[" {after} "]"'

    def _unique(self, shape: Shape, low: int, high: int | None) -> str | None:
        """Items that differ, where there are few values: each rule says which are left to choose from."""
        place = self.resolver.item(shape, 0)
        values: list[Any] = []
        for i in range(self.resolver.prefix(shape) + 1):
            if self.resolver.item(shape, i) != place:
                fail(f"{shape.pointer}/uniqueItems", "not supported with prefixItems")
        for one in self.resolver.alternatives(place):
            if one.values is None and one.types <= {"boolean", "null"}:
                found = ([True, False] if "boolean" in one.types else []) + (
                    [None] if "null" in one.types else []
                )
            elif one.values is not None:
                found = list(one.values)
            else:
                fail(
                    f"{shape.pointer}/uniqueItems",
                    "a grammar cannot compare items, unless an enum lists them",
                )
            values += [
                v for v in found if self.resolver.validates(v, place) and not any(same(v, w) for w in values)
            ]
        if len(values) > MAX_UNIQUE:
            fail(f"{shape.pointer}/uniqueItems", f"not supported over more than {MAX_UNIQUE} values")
        if low > len(values):
            return None
        most = len(values) if high is None else min(high, len(values))
        texts = [self._value(v, shape) for v in values]
        names: dict[int, str] = {}

        def rest(left: int) -> str:
            """What may follow when the values of the bits `left` have not been used."""
            if left in names:
                return names[left]
            used = len(values) - left.bit_count()
            comma = f"{self.comma} " if used else ""
            ways = [
                f"{comma}{text} {rest(left & ~(1 << i))}"
                for i, text in enumerate(texts)
                if left >> i & 1 and used < most
            ]
            names[left] = self._add("unique", " | ".join((['""'] if used >= low else []) + ways))
            return names[left]

        return f'"[" {rest((1 << len(values)) - 1)} "]"'

    def _object(self, shape: Shape) -> str | None:
        resolver = self.resolver
        listed = list(dict.fromkeys(n for group in shape.members for n in group.properties))
        known = listed + sorted(shape.required - set(listed))
        members: list[tuple[str, bool]] = []  # name and value, whether it must be there
        for name in known:
            place = resolver.member(shape, name)
            must = name in shape.required
            if not resolver.name_fits(shape, name) or not self._fits(place):
                if must:
                    return None
                continue
            members.append(
                (
                    literal(f"{json.dumps(name, ensure_ascii=False)}:") + f"{self.gap} {self._rule(place)}",
                    must,
                )
            )
        needed = sum(must for _, must in members)
        low, high = max(shape.min_members, needed), shape.max_members
        if high is not None and high < low:
            return None
        asked = any(group.patterns or group.additional is not None for group in shape.members)
        other = self._other(shape, known) if asked or not shape.members or low > len(members) else None
        most = len(members) if other is None else None
        if (low > needed) or (high is not None and (most is None or high < most)):
            return self._counted(shape, members, other, low, high)
        return '"{" ' + self._members(members, other) + ' "}"'

    def _other(self, shape: Shape, known: list[str]) -> str | None:
        """A member whose name the schema does not list."""
        ways = []
        try:
            for language, place in self.resolver.other_names(shape, known):
                if language == NOTHING or not self._fits(place):
                    continue
                name = self.strings.of(language, 0, None)
                if name is not None:
                    ways.append(f'{name} ":"{self.gap} {self._rule(place)}')
        except TooLargeError:
            fail(shape.pointer, "the names of members need too many states")
        return self._add("member", " | ".join(ways)) if ways else None

    def _members(self, members: list[tuple[str, bool]], other: str | None) -> str:
        """Members in their order, with commas between those that are there."""
        more = f" ({self.comma} {other})*" if other else ""
        first = next((i for i, (_, must) in enumerate(members) if must), None)

        def tail(start: int) -> str:
            parts = (
                f"{self.comma} {text}" if must else f"({self.comma} {text})?"
                for text, must in members[start:]
            )
            return " ".join(parts) + more

        if first is not None:
            before = " ".join(f"({text} {self.comma})?" for text, _ in members[:first])
            return f"{before} {members[first][0]} {tail(first + 1)}"
        ways = []
        if len(members) <= CHAIN:
            ways = [f"{text} {tail(i + 1)}" for i, (text, _) in enumerate(members)]
        else:
            names = self._add("members", more or '""')
            for text, _ in reversed(members):
                ways.append(f"{text} {names}")
                names = self._add("members", f"({self.comma} {text})? {names}")
        if other:
            ways.append(other + more)
        return f"({' | '.join(ways)})?" if ways else '""'

    def _counted(
        self, shape: Shape, members: list[tuple[str, bool]], other: str | None, low: int, high: int | None
    ) -> str | None:
        """Members whose number is bounded: a rule for each place in the order and each number so far."""
        if len(members) * (len(members) + 1) > MAX_COUNTED:
            fail(shape.pointer, "minProperties and maxProperties are not supported over so many members")
        names: dict[tuple[int, int], str | None] = {}
        reach = [0] * (len(members) + 1)  # members that must still come
        for i in reversed(range(len(members))):
            reach[i] = reach[i + 1] + members[i][1]

        def rest(i: int, done: int) -> str | None:
            comma = f"{self.comma} " if done else ""
            if high is not None and done + reach[i] > high:
                return None
            if i == len(members):
                least, most = max(0, low - done), None if high is None else high - done
                if other is None or most == 0:
                    return '""' if least == 0 else None
                if least > 1:  # names that are not listed might be the same
                    return None
                if done:
                    return f"({comma}{other}){_times(least, most)}"
                more = f"{other} ({self.comma} {other}){_times(0, None if most is None else most - 1)}"
                return f"({more})" + ("" if least else "?")
            if (i, done) not in names:
                text, must = members[i]
                with_it = rest(i + 1, done + 1)
                ways = [] if with_it is None else [f"{comma}{text} {with_it}"]
                without = None if must else rest(i + 1, done)
                ways += [] if without is None else [without]
                names[i, done] = self._add("members", " | ".join(ways)) if ways else None
            return names[i, done]

        body = rest(0, 0)
        if body is None and other is not None:
            fail(
                f"{shape.pointer}/minProperties",
                "not supported over names that are not listed: they might repeat",
            )
        return None if body is None else '"{" ' + body + ' "}"'


def compile_schema(schema: Any, *, spaces: bool = True) -> str:
    """GBNF of a schema; see edgellm.grammar.schema_to_gbnf."""
    if not isinstance(schema, bool | dict):
        fail("#", "not JSON schema: a schema is an object, true or false")
    try:
        return Compiler(schema, spaces=spaces).compile()
    except RecursionError:
        fail("#", "the schema nests too deeply")
