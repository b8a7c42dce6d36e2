"""What schemas ask of one value, put together: a `Shape` is a conjunction without references and choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NoReturn

from edgellm._core import GrammarError
from edgellm._json_schema_numbers import Bounds, exact
from edgellm._json_schema_pattern import PatternError, search
from edgellm._json_schema_regex import ALL, Regex, both
from edgellm._json_schema_strings import format_language

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
ALL_TYPES = frozenset(TYPES)

# Assertions that no grammar here can hold. What is unknown is an annotation, as the specification says.
_REFUSED = {
    "contains": "a grammar cannot count which items match",
    "unevaluatedItems": "what other keywords have looked at is not tracked",
    "unevaluatedProperties": "what other keywords have looked at is not tracked",
    "if": "a condition has no grammar; anyOf with its two cases does",
    "$dynamicRef": "only references that stay the same are followed",
    "$recursiveRef": "only references that stay the same are followed",
    "dependencies": "use dependentRequired or dependentSchemas",
}


def fail(pointer: str, why: str) -> NoReturn:
    """GrammarError with the place in the schema in front."""
    raise GrammarError(f"{pointer}: {why}")


def escape(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def same(a: Any, b: Any) -> bool:
    """Equality of JSON: 1 is 1.0, and neither is true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and (type(a) is type(b) or (_is_number(a) and _is_number(b)))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def type_of(value: Any) -> frozenset[str]:
    """The types that a value has: an integer is also a number."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if _is_number(value):
        whole = isinstance(value, int) or (math.isfinite(value) and value.is_integer())
        return frozenset({"integer", "number"} if whole else {"number"})
    return frozenset(
        {"string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"}
    )


@dataclass(frozen=True, slots=True)
class Members:
    """What one schema says of the members of an object; places of schemas."""

    properties: dict[str, str]
    patterns: tuple[tuple[Regex, str], ...]
    additional: str | None


@dataclass(frozen=True, slots=True)
class Items:
    """What one schema says of the items of an array."""

    prefix: tuple[str, ...]
    rest: str | None


@dataclass(frozen=True)
class Shape:
    """Conditions on one value, all of which hold."""

    pointer: str = "#"
    types: frozenset[str] = ALL_TYPES
    values: tuple[Any, ...] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    min_length: int = 0
    max_length: int | None = None
    language: Regex = ALL
    items: tuple[Items, ...] = ()
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False
    members: tuple[Members, ...] = ()
    required: frozenset[str] = frozenset()
    min_members: int = 0
    max_members: int | None = None
    names: tuple[str, ...] = ()  # schemas of the names of members

    def meet(self, schema: dict[str, Any], pointer: str) -> Shape:
        """With the assertions of one schema object; references and choices are for the caller."""
        for word, why in _REFUSED.items():
            if word in schema and not _harmless(word, schema):
                fail(f"{pointer}/{escape(word)}", f"not supported: {why}")
        read = _Reader(schema, pointer)
        changes: dict[str, Any] = {}
        changes |= read.of_type(self)
        changes |= read.of_numbers(self)
        changes |= read.of_strings(self)
        changes |= read.of_arrays(self)
        changes |= read.of_objects(self)
        return replace(self, **changes) if changes else self


def _harmless(word: str, schema: dict[str, Any]) -> bool:
    value = schema[word]
    if word == "if":
        return "then" not in schema and "else" not in schema
    if word == "contains":
        return schema.get("minContains", 1) == 0 and "maxContains" not in schema
    return word.startswith("unevaluated") and (value is True or value == {})


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


class _Reader:
    """One schema object, keyword by keyword."""

    def __init__(self, schema: dict[str, Any], pointer: str) -> None:
        self.schema = schema
        self.pointer = pointer

    def fail(self, word: str, why: str) -> NoReturn:
        fail(f"{self.pointer}/{escape(word)}", why)

    def get(self, word: str, good: Callable[[Any], bool], what: str) -> Any:
        """The value of a keyword, or None where it is absent."""
        if word not in self.schema:
            return None
        value = self.schema[word]
        if not good(value):
            self.fail(word, f"not JSON schema: must be {what}")
        return value

    def count(self, word: str) -> int | None:
        value = self.get(word, lambda v: "integer" in type_of(v) and v >= 0, "a count")
        return None if value is None else int(value)

    def of_type(self, shape: Shape) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if "type" in self.schema:
            given = self.schema["type"]
            listed = given if isinstance(given, list) else [given]
            if not listed or not all(isinstance(t, str) and t in ALL_TYPES for t in listed):
                self.fail("type", f"not JSON schema: must name one or more of {', '.join(TYPES)}")
            types = frozenset(listed) | ({"integer"} if "number" in listed else frozenset())
            changes["types"] = shape.types & types
        values = shape.values
        listed = self.get("enum", lambda v: isinstance(v, list), "an array")
        for more in ([listed] if listed is not None else []) + (
            [[self.schema["const"]]] if "const" in self.schema else []
        ):
            pool = more if values is None else [v for v in values if any(same(v, w) for w in more)]
            distinct: list[Any] = []
            if len(pool) <= 500:
                for value in pool:
                    if not any(same(value, known) for known in distinct):
                        distinct.append(value)
            values = tuple(distinct if len(pool) <= 500 else pool)
        if values is not shape.values:
            changes["values"] = values
        return changes

    def of_numbers(self, shape: Shape) -> dict[str, Any]:
        bounds = shape.bounds
        finite = "a number"
        for word in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"):
            value = self.schema.get(word)
            if isinstance(value, bool) and word.startswith("exclusive"):  # as draft 4 wrote it
                continue
            number = self.get(word, lambda v: _is_number(v) and math.isfinite(v), finite)
            if number is None:
                continue
            x: Fraction = exact(number)
            opened = word.startswith("exclusive") or self.schema.get(f"exclusive{word.capitalize()}") is True
            if word == "multipleOf":
                if x <= 0:
                    self.fail(word, "not JSON schema: must be more than 0")
                bounds = bounds.meet(Bounds(step=x))
            elif word.lower().endswith("minimum"):
                bounds = bounds.meet(Bounds(low=x, low_open=opened))
            else:
                bounds = bounds.meet(Bounds(high=x, high_open=opened))
        return {} if bounds is shape.bounds else {"bounds": bounds}

    def of_strings(self, shape: Shape) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        low, high = self.count("minLength"), self.count("maxLength")
        if low is not None:
            changes["min_length"] = max(low, shape.min_length)
        if high is not None:
            changes["max_length"] = _least(high, shape.max_length)
        language = shape.language
        pattern = self.get("pattern", lambda v: isinstance(v, str), "a string")
        if pattern is not None:
            try:
                language = both(language, search(pattern))
            except PatternError as error:
                self.fail("pattern", str(error))
        name = self.get("format", lambda v: isinstance(v, str), "a string")
        known = format_language(name) if name is not None else None
        if known is not None:
            language = both(language, known)
        if language is not shape.language:
            changes["language"] = language
        return changes

    def of_arrays(self, shape: Shape) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        low, high = self.count("minItems"), self.count("maxItems")
        if low is not None:
            changes["min_items"] = max(low, shape.min_items)
        if high is not None:
            changes["max_items"] = _least(high, shape.max_items)
        if self.get("uniqueItems", lambda v: isinstance(v, bool), "true or false"):
            changes["unique"] = True
        prefix_word, rest_word = "prefixItems", "items"
        if isinstance(self.schema.get("items"), list):  # as it was before 2020-12
            prefix_word, rest_word = "items", "additionalItems"
        listed = self.get(prefix_word, lambda v: isinstance(v, list), "an array of schemas")
        prefix = tuple(f"{self.pointer}/{prefix_word}/{i}" for i in range(len(listed or [])))
        rest = f"{self.pointer}/{rest_word}" if rest_word in self.schema else None
        if prefix or rest:
            changes["items"] = (*shape.items, Items(prefix, rest))
        return changes

    def of_objects(self, shape: Shape) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        low, high = self.count("minProperties"), self.count("maxProperties")
        if low is not None:
            changes["min_members"] = max(low, shape.min_members)
        if high is not None:
            changes["max_members"] = _least(high, shape.max_members)
        names = self.get("required", _is_names, "an array of strings")
        if names is not None:
            changes["required"] = shape.required | frozenset(names)
        if "propertyNames" in self.schema:
            changes["names"] = (*shape.names, f"{self.pointer}/propertyNames")
        properties = self.get("properties", lambda v: isinstance(v, dict), "an object of schemas") or {}
        patterned = self.get("patternProperties", lambda v: isinstance(v, dict), "an object of schemas") or {}
        here = {name: f"{self.pointer}/properties/{escape(name)}" for name in properties}
        patterns = []
        for pattern in patterned:
            try:
                patterns.append((search(pattern), f"{self.pointer}/patternProperties/{escape(pattern)}"))
            except PatternError as error:
                self.fail("patternProperties", str(error))
        more = f"{self.pointer}/additionalProperties" if "additionalProperties" in self.schema else None
        if here or patterns or more:
            changes["members"] = (*shape.members, Members(here, tuple(patterns), more))
        return changes


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
