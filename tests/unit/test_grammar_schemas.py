"""JSON schemas as grammars: `jsonschema` checks what comes out, and what is refused says why and where."""

import json

import numpy as np
import pytest
from helpers.random_schemas import fault, small_tokenizer, texts, walk

from edgellm import GrammarError
from edgellm.grammar import JSON, from_json_schema, schema_to_gbnf

TOKENIZER = small_tokenizer()


def accepts(schema, text: str, **options) -> bool:
    """Whether the whole text is in the grammar of a schema."""
    matcher = from_json_schema(TOKENIZER, schema, **options).matcher()
    try:
        for byte in text.encode():
            matcher.accept(byte)
    except GrammarError:
        return False
    return matcher.complete


@pytest.mark.parametrize("block", range(8))
def test_texts_of_random_schemas_are_valid(block):
    """The whole of it is `python benchmarks/constrained_outputs.py`: 100,000 texts."""
    written = 0
    for seed in range(block * 100, block * 100 + 100):
        schema, found = texts(TOKENIZER, seed, 4)
        if isinstance(found, str):
            assert "no value fits" in found or "not supported" in found, (schema, found)
            continue
        written += len(found)
        for raw in found:
            assert fault(schema, raw) is None, schema
    assert written > 300


ACCEPTED = [
    (JSON, '{"a":[1,-2.5e+3,"\\ud83d\\ude00",null],"b":{}}'),
    ({"type": "string"}, '"\\u00e9 \\n😀"'),
    ({"type": "string", "maxLength": 1}, '"\\ud83d\\ude00"'),
    ({"enum": ["a", 1, None]}, "null"),
    ({"const": {"k": [1, "é"]}}, '{"k": [1, "é"]}'),
    ({"type": "integer", "minimum": -3, "maximum": 12}, "-3"),
    ({"type": "integer", "multipleOf": 7, "minimum": 1000}, "1001"),
    ({"type": "number", "exclusiveMinimum": 0.5, "maximum": 1.25}, "0.51"),
    ({"type": "number", "multipleOf": 0.5}, "-3.5"),
    ({"properties": {"a": True, "b": {"type": "null"}}, "required": ["b"], "type": "object"}, '{"b": null}'),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, '{"x1": 3, "x2": 4}'),
    ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}}, "[1, 2, 2]"),
    ({"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}}, '["b", "a"]'),
    ({"allOf": [{"minimum": 3}, {"maximum": 4}], "type": "integer"}, "4"),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}, '{"a": 1}'),
    ({"$ref": "#x", "$defs": {"y": {"$anchor": "x", "type": "null"}}}, "null"),
    ({"not": {"type": ["object", "array"]}}, "true"),
    (
        {"dependentRequired": {"a": ["b"]}, "properties": {"a": True, "b": True}, "type": "object"},
        '{"a":1,"b":2}',
    ),
    ({"type": "string", "format": "date-time"}, '"2024-02-28T23:59:59.5+01:00"'),
    ({"type": "string", "pattern": "^\\d{3}-[a-c]+$", "maxLength": 6}, '"123-ab"'),
]


@pytest.mark.parametrize(("schema", "text"), ACCEPTED)
def test_schema_accepts_what_fits(schema, text):
    assert fault(schema, text.encode()) is None
    assert accepts(schema, text)


REJECTED = [
    (JSON, '"\\ud83d"'),
    (JSON, "01"),
    (JSON, '{"a":1,}'),
    (JSON, "NaN"),
    ({"type": "string", "maxLength": 1}, '"ab"'),
    ({"type": "string", "minLength": 2}, '"\\ud83d\\ude00"'),
    ({"type": "integer", "minimum": -3, "maximum": 12}, "13"),
    ({"type": "integer", "multipleOf": 7}, "20"),
    ({"type": "number", "exclusiveMinimum": 0.5, "maximum": 1.25}, "0.5"),
    ({"type": "number", "exclusiveMinimum": 0.5, "maximum": 1.25}, "1.2501"),
    ({"properties": {"a": {"type": "null"}}, "additionalProperties": False, "type": "object"}, '{"b":null}'),
    ({"properties": {"a": {"type": "null"}}, "additionalProperties": True, "type": "object"}, '{"a":1}'),
    (
        {"properties": {"a": {"type": "null"}}, "additionalProperties": True, "type": "object"},
        '{"\\u0061":1}',
    ),
    ({"type": "object", "propertyNames": {"maxLength": 1}}, '{"ab":1}'),
    ({"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}}, '["a","a"]'),
    ({"type": "array", "maxItems": 2}, "[1,2,3]"),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}, '{"a":1,"b":1}'),
    ({"type": "string", "format": "date"}, '"2024-02-30"'),
    ({"type": "string", "pattern": "^\\d{3}-[a-c]+$", "maxLength": 6}, '"123-abc"'),
]


@pytest.mark.parametrize(("schema", "text"), REJECTED)
def test_schema_rejects_what_does_not_fit(schema, text):
    assert not accepts(schema, text)


REFUSED = [
    (3, "#: not JSON schema"),
    ({"type": "text"}, "#/type: not JSON schema"),
    (
        {"properties": {"a": {"minLength": -1}}, "required": ["a"]},
        "#/properties/a/minLength: not JSON schema",
    ),
    ({"properties": {"a/b": {"contains": {}}}}, "#/properties/a~1b/contains: not supported"),
    ({"if": {}, "then": False}, "#/if: not supported"),
    ({"not": {"minimum": 3}}, "#/not: not supported"),
    ({"$ref": "other.json"}, "#/$ref: 'other.json' is not in this document"),
    ({"$ref": "#/$defs/none"}, "#/$defs/none: the schema has no such place"),
    ({"$ref": "#"}, "#: a schema that refers to itself"),
    ({"allOf": [{"type": "null"}, {"type": "string"}]}, "#: no value fits this schema"),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 3}, "#: no value fits"),
    ({"type": "object", "required": ["a"], "properties": {"a": False}}, "#: no value fits"),
    ({"oneOf": [{"type": "number"}, {"minimum": 3}]}, "#/oneOf: #/oneOf/0 and #/oneOf/1 may both hold"),
    ({"type": "array", "uniqueItems": True}, "#/uniqueItems: a grammar cannot compare items"),
    ({"type": "string", "pattern": "(?=x)"}, "lookaround has no grammar"),
    ({"type": "string", "pattern": "(a)\\1"}, "a back reference has no grammar"),
    ({"type": "string", "pattern": "a.{20}b", "minLength": 3, "maxLength": 4000}, "too many states"),
    ({"type": "number", "multipleOf": 0.01}, "multipleOf 0.01 is not exact"),
    ('{"type": ', "#: the schema is not JSON"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED)
def test_schema_is_refused_with_the_place(schema, reason):
    with pytest.raises(GrammarError) as refused:
        schema_to_gbnf(schema)
    assert reason in str(refused.value)


def test_schema_that_always_needs_itself_is_refused():
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(GrammarError, match="never end"):
        from_json_schema(TOKENIZER, schema)


def test_spaces_may_be_left_out():
    schema = {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "null"}}}
    assert accepts(schema, '[{"a": null}, {}]')
    assert not accepts(schema, '[{"a": null}]', spaces=False)
    assert accepts(schema, '[{"a":null},{}]', spaces=False)


def test_text_is_complete_however_few_tokens_are_left():
    grammar = from_json_schema(TOKENIZER, JSON)
    rng = np.random.default_rng(1)
    for left in list(range(1, 40)) * 5:
        assert fault(True, walk(TOKENIZER, grammar.matcher(), rng, left)) is None


def test_schema_of_json_text_is_that_of_the_object():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert schema_to_gbnf(json.dumps(schema)) == schema_to_gbnf(schema)
