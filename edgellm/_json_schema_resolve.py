"""References, choices and conjunctions of a JSON schema.

A place is a tuple of JSON pointers: the schemas that all hold there. `alternatives(place)` says what that
amounts to, as shapes of which one must fit; the empty tuple is a place where anything may stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from edgellm._json_schema_numbers import NumberError, Numbers, exact
from edgellm._json_schema_regex import (
    ANY_SET,
    TooLargeError,
    both,
    inverse,
    is_nothing,
    matches,
    rep,
    text_of,
)
from edgellm._json_schema_shape import ALL_TYPES, Shape, escape, fail, same, type_of

Place = tuple[str, ...]

MAX_ALTERNATIVES = 256
MAX_NESTING = 64


class Resolver:
    """One schema document."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._made: dict[str, Any] = {}  # schemas that keywords were rewritten to
        self._anchors: dict[str, str] | None = None
        self._alternatives: dict[Place, list[Shape]] = {}
        self._satisfiable: dict[Place, bool] = {}
        self._depth = 0

    def at(self, pointer: str) -> Any:
        """The schema at a pointer."""
        if pointer in self._made:
            return self._made[pointer]
        here = self.schema
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(here, list) and name.isascii() and name.isdigit() and int(name) < len(here):
                here = here[int(name)]
            elif isinstance(here, dict) and name in here:
                here = here[name]
            else:
                fail(pointer, "the schema has no such place")
        if not isinstance(here, bool | dict):
            fail(pointer, "not JSON schema: a schema is an object, true or false")
        return here

    def _make(self, pointer: str, schema: Any) -> str:
        """A schema that stands for a keyword at `pointer`."""
        name = f"{pointer}~"
        while name in self._made and self._made[name] != schema:
            name += "~"
        self._made[name] = schema
        return name

    def target(self, pointer: str, ref: Any) -> str:
        """Where a reference leads."""
        if not isinstance(ref, str):
            fail(f"{pointer}/$ref", "not JSON schema: must be a string")
        base, _, fragment = ref.partition("#")
        own = self.schema.get("$id") if isinstance(self.schema, dict) else None
        if base and base != own:
            fail(f"{pointer}/$ref", f"{ref!r} is not in this document: only local references are followed")
        fragment = unquote(fragment)
        if fragment == "":
            return "#"
        if fragment.startswith("/"):
            found = f"#{fragment}"
            self.at(found)
            return found
        if self._anchors is None:
            self._anchors = dict(self._find_anchors())
        if fragment not in self._anchors:
            fail(f"{pointer}/$ref", f"no schema has the anchor {fragment!r}")
        return self._anchors[fragment]

    def _find_anchors(self) -> Iterator[tuple[str, str]]:
        todo: list[tuple[str, Any]] = [("#", self.schema)]
        while todo:
            pointer, here = todo.pop()
            if isinstance(here, dict):
                if isinstance(here.get("$anchor"), str):
                    yield here["$anchor"], pointer
                todo += [(f"{pointer}/{escape(k)}", v) for k, v in here.items() if k not in ("enum", "const")]
            elif isinstance(here, list):
                todo += [(f"{pointer}/{i}", v) for i, v in enumerate(here)]

    def alternatives(self, place: Place) -> list[Shape]:
        """Shapes of which one must fit, without those that nothing fits."""
        if place not in self._alternatives:
            found = []
            for shape in self._expand(
                [(p, frozenset()) for p in place], frozenset(), Shape(place[0] if place else "#")
            ):
                found.append(shape)
                if len(found) > MAX_ALTERNATIVES:
                    fail(
                        shape.pointer, f"more than {MAX_ALTERNATIVES} combinations of anyOf, oneOf and allOf"
                    )
            self._alternatives[place] = [shape for shape in found if self.fits_something(shape)]
        return self._alternatives[place]

    def _expand(
        self, todo: list[tuple[str, frozenset[str]]], seen: frozenset[str], shape: Shape
    ) -> Iterator[Shape]:
        """`todo`: schemas still to be added, each with the references that led to it."""
        todo = list(todo)
        choices: list[tuple[str, list[str], frozenset[str]]] = []
        while todo:
            pointer, trail = todo.pop(0)
            if pointer in trail:
                fail(pointer, "a schema that refers to itself, and says nothing else")
            schema = self.at(pointer)
            if schema is False:
                return
            if schema is True or pointer in seen:
                continue
            seen |= {pointer}
            trail |= {pointer}
            if "$id" in schema and pointer != "#":
                fail(f"{pointer}/$id", "not supported: a schema within a schema with an address of its own")
            shape = shape.meet(schema, pointer)
            if "$ref" in schema:
                todo.append((self.target(pointer, schema["$ref"]), trail))
            todo += [(p, trail) for p in self._branches(schema, pointer, "allOf")]
            todo += [(p, trail) for p in self._rewritten(schema, pointer)]
            for branches in self._choices(schema, pointer, shape):
                choices.append((pointer, branches, trail))
        yield from self._combine(choices, seen, shape)

    def _combine(
        self, choices: list[tuple[str, list[str], frozenset[str]]], seen: frozenset[str], shape: Shape
    ) -> Iterator[Shape]:
        if not choices:
            yield shape
            return
        (_, branches, trail), rest = choices[0], choices[1:]
        for branch in branches:
            for one in self._expand([(branch, trail)], seen, shape):
                yield from self._combine(rest, seen, one)

    def _branches(self, schema: dict[str, Any], pointer: str, word: str) -> list[str]:
        if word not in schema:
            return []
        if not isinstance(schema[word], list) or not schema[word]:
            fail(f"{pointer}/{word}", "not JSON schema: must be an array of schemas")
        return [f"{pointer}/{word}/{i}" for i in range(len(schema[word]))]

    def _rewritten(self, schema: dict[str, Any], pointer: str) -> list[str]:
        """`not`, where it can be said without it."""
        if "not" not in schema:
            return []
        inner, here = schema["not"], f"{pointer}/not"
        words = set(inner) if isinstance(inner, dict) else set()
        if inner is True or inner == {}:
            return [self._make(here, False)]
        if inner is False:
            return []
        if words == {"type"}:
            listed = inner["type"] if isinstance(inner["type"], list) else [inner["type"]]
            if "integer" in listed and "number" not in listed:
                fail(here, "not supported: numbers that are no integers")
            out = set(listed) | ({"integer"} if "number" in listed else set())
            return [self._make(here, {"type": sorted(ALL_TYPES - out)} if ALL_TYPES - out else False)]
        if words == {"required"} and isinstance(inner["required"], list) and len(inner["required"]) == 1:
            return [self._make(here, {"properties": {inner["required"][0]: False}})]
        fail(here, "not supported: only of a type, or of one required member")

    def _choices(self, schema: dict[str, Any], pointer: str, shape: Shape) -> list[list[str]]:
        """Lists of schemas of which one must hold."""
        found = []
        if "anyOf" in schema:
            found.append(self._branches(schema, pointer, "anyOf"))
        if "oneOf" in schema:
            found.append(self._one_of(schema, pointer, shape))
        for word in ("dependentRequired", "dependentSchemas"):
            given = schema.get(word, {})
            if not isinstance(given, dict):
                fail(f"{pointer}/{word}", "not JSON schema: must be an object")
            for name, needs in given.items():
                there: dict[str, Any] = {"type": "object", "required": [name]}
                if word == "dependentRequired":
                    if not isinstance(needs, list) or not all(isinstance(n, str) for n in needs):
                        fail(
                            f"{pointer}/{word}/{escape(name)}", "not JSON schema: must be an array of strings"
                        )
                    there["required"] = [name, *needs]
                else:
                    there["allOf"] = [{"$ref": f"{pointer}/{word}/{escape(name)}"}]
                here = f"{pointer}/{word}/{escape(name)}"
                others = sorted(ALL_TYPES - {"object"})
                without = {"anyOf": [{"type": others}, {"type": "object", "properties": {name: False}}]}
                found.append([self._keep(f"{here}/without", without), self._keep(f"{here}/with", there)])
        return found

    def _keep(self, pointer: str, schema: Any) -> str:
        """A rewritten schema with all that is in it."""
        name = self._make(pointer, schema)
        todo: list[tuple[str, Any]] = [(name, schema)]
        while todo:
            where, here = todo.pop()
            pairs = (
                here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
            )
            for key, value in pairs:
                inner = f"{where}/{escape(str(key))}"
                self._made[inner] = value
                todo.append((inner, value))
        return name

    def _one_of(self, schema: dict[str, Any], pointer: str, shape: Shape) -> list[str]:
        branches = self._branches(schema, pointer, "oneOf")
        schemas = [self.at(b) for b in branches]
        names = [
            s["required"][0]
            for s in schemas
            if isinstance(s, dict) and set(s) == {"required"} and s["required"]
        ]
        if (
            len(names) == len(schemas)
            and all(len(s["required"]) == 1 for s in schemas)
            and len(set(names)) > 1
        ):
            return [
                self._keep(f"{b}/only", {"required": [n], "properties": {m: False for m in names if m != n}})
                for b, n in zip(branches, names, strict=True)
            ]
        clash = self._clash(branches, shape)
        if clash is None:
            return branches
        values: list[Any] = []
        for branch in branches:
            for one in self.alternatives((branch,)):
                if one.values is None:
                    fail(
                        f"{pointer}/oneOf",
                        f"{clash[0]} and {clash[1]} may both hold: use anyOf, or tell them apart",
                    )
                values += [v for v in one.values if not any(same(v, w) for w in values)]
        once = [v for v in values if sum(self.validates(v, (b,)) for b in branches) == 1]
        return [self._make(f"{pointer}/oneOf", {"enum": once})]

    def _clash(self, branches: list[str], shape: Shape) -> tuple[str, str] | None:
        """Two branches that some value might satisfy at once."""
        if len(branches) > 64:
            fail(branches[0], "more than 64 branches of oneOf")
        for i, a in enumerate(branches):
            for b in branches[:i]:
                together = self._expand([(a, frozenset()), (b, frozenset())], frozenset(), shape)
                if any(self.fits_something(s) for s in together):
                    return b, a
        return None

    def satisfiable(self, place: Place) -> bool:
        """False only where certainly nothing fits."""
        if place in self._satisfiable or self._depth > MAX_NESTING:
            return self._satisfiable.get(place, True)
        self._satisfiable[place] = True  # meanwhile: a loop is not a reason
        self._depth += 1
        try:
            self._satisfiable[place] = bool(self.alternatives(place))
        finally:
            self._depth -= 1
        return self._satisfiable[place]

    def fits_something(self, shape: Shape) -> bool:
        """False only where certainly no value fits the shape."""
        if shape.values is not None:
            return any(self.fits(v, shape) for v in shape.values)
        return any(self.type_fits(shape, kind) for kind in shape.types)

    def type_fits(self, shape: Shape, kind: str) -> bool:
        """The same for values of one type."""
        if kind in ("integer", "number"):
            try:
                numbers = Numbers(lambda name, body: name)
                return (numbers.integer if kind == "integer" else numbers.number)(shape.bounds) is not None
            except NumberError:
                return True
        if kind == "string":
            return self._string_fits(shape)
        if kind == "array":
            least = shape.min_items
            if shape.max_items is not None and shape.max_items < least:
                return False
            return all(
                self.satisfiable(self.item(shape, i)) for i in range(min(least, 1 + self.prefix(shape)))
            )
        if kind == "object":
            if shape.max_members is not None and shape.max_members < max(
                shape.min_members, len(shape.required)
            ):
                return False
            return all(
                self.name_fits(shape, n) and self.satisfiable(self.member(shape, n))
                for n in sorted(shape.required)
            )
        return True

    @staticmethod
    def _string_fits(shape: Shape) -> bool:
        if shape.max_length is not None and shape.max_length < shape.min_length:
            return False
        try:
            lengths = rep(("set", ANY_SET), shape.min_length, shape.max_length)
            if shape.language[0] in ("and", "not"):
                return not is_nothing(
                    shape.language
                    if lengths[1:] == (("set", ANY_SET), 0, None)
                    else both(shape.language, lengths)
                )
            return not is_nothing(shape.language)
        except TooLargeError:
            return True

    @staticmethod
    def prefix(shape: Shape) -> int:
        """Items that stand before all others."""
        return max((len(items.prefix) for items in shape.items), default=0)

    @staticmethod
    def item(shape: Shape, index: int) -> Place:
        """What holds for one item."""
        places = (i.prefix[index] if index < len(i.prefix) else i.rest for i in shape.items)
        return tuple(sorted({p for p in places if p is not None}))

    @staticmethod
    def member(shape: Shape, name: str) -> Place:
        """What holds for the member of this name."""
        found: set[str] = set()
        for group in shape.members:
            own = {group.properties[name]} if name in group.properties else set()
            own |= {pointer for language, pointer in group.patterns if matches(language, name)}
            if not own and group.additional is not None:
                own = {group.additional}
            found |= own
        return tuple(sorted(found))

    def name_fits(self, shape: Shape, name: str) -> bool:
        """Whether a member may have this name."""
        return all(self.validates(name, (pointer,)) for pointer in shape.names)

    def validates(self, value: Any, place: Place) -> bool:
        """Whether a value fits."""
        return any(self.fits(value, shape) for shape in self.alternatives(place))

    def fits(self, value: Any, shape: Shape) -> bool:
        """Whether a value fits one shape."""
        if not type_of(value) & shape.types:
            return False
        if shape.values is not None and not any(same(value, v) for v in shape.values):
            return False
        if isinstance(value, str):
            size = len(value)
            fits = size >= shape.min_length and (shape.max_length is None or size <= shape.max_length)
            return fits and matches(shape.language, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return shape.bounds.has(exact(value))
        if isinstance(value, list):
            size = len(value)
            fits = size >= shape.min_items and (shape.max_items is None or size <= shape.max_items)
            if shape.unique:
                fits = fits and not any(same(v, w) for i, v in enumerate(value) for w in value[:i])
            return fits and all(self.validates(v, self.item(shape, i)) for i, v in enumerate(value))
        if isinstance(value, dict):
            size = len(value)
            fits = size >= shape.min_members and (shape.max_members is None or size <= shape.max_members)
            fits = fits and shape.required <= value.keys() and all(self.name_fits(shape, n) for n in value)
            return fits and all(self.validates(v, self.member(shape, n)) for n, v in value.items())
        return True

    def other_names(self, shape: Shape, known: list[str]) -> Iterator[tuple[Any, Place]]:
        """Names that are not `known`, class by class: their language, and what holds for the members."""
        patterns: dict[Any, None] = {
            language: None for group in shape.members for language, _ in group.patterns
        }
        if len(patterns) > 4:
            fail(shape.pointer, "more than 4 patterns of names in one object")
        rest = inverse(("alt", tuple(sorted((text_of(n) for n in known), key=repr))))
        for pointer in shape.names:
            ways = [s for s in self.alternatives((pointer,)) if "string" in s.types]
            languages = []
            for way in ways:
                lengths = rep(("set", ANY_SET), way.min_length, way.max_length)
                of_values = (
                    []
                    if way.values is None
                    else [("alt", tuple(text_of(v) for v in way.values if isinstance(v, str)))]
                )
                languages.append(both(way.language, lengths, *of_values))
            rest = both(rest, ("alt", tuple(languages)))
        for mask in range(1 << len(patterns)):
            chosen = {p for i, p in enumerate(patterns) if mask >> i & 1}
            language = both(rest, *(p if p in chosen else inverse(p) for p in patterns))
            place: set[str] = set()
            for group in shape.members:
                own = {pointer for p, pointer in group.patterns if p in chosen}
                place |= own or ({group.additional} if group.additional is not None else set())
            yield language, tuple(sorted(place))
