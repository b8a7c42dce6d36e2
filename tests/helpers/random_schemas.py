"""Random JSON schemas, and texts that come out when tokens are drawn at random under the mask.

No model is needed for that: a model chooses among the allowed tokens, and chance chooses worse than any.
"""

import json
import random
from functools import cache

import numpy as np
from jsonschema import Draft202012Validator

from edgellm import GrammarError, Tokenizer
from edgellm.grammar import from_json_schema

CHECKER = Draft202012Validator.FORMAT_CHECKER  # the formats for which no further package is needed
PATTERNS = [
    "^[a-z]+$",
    "^a|b$",
    "[0-9]{3}",
    "^(foo|bar)(-[a-z]{2})*$",
    "^\\w+@\\w+\\.com$",
    "x",
    "^[^\\d\\s]{2,6}$",
]
FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration"]
NAMES = ["a", "b", "name", "é", 'say "hi"', "a b", "id", "list", "a/b~c", "0"]
WORDS = '{ } [ ] {" "} ": ", "," :" true false null true, , : -1 12 0. .5 e+ "a" "name" foo bar é 😀'
WORDS += ' ab abc @a .com \\n \\u \\"'


@cache
def small_tokenizer() -> Tokenizer:
    """Every byte, words of JSON, and tokens that hold pieces of characters; two tokens end a text."""
    tokens = [bytes([b]) for b in range(256)] + [w.encode() for w in WORDS.split()]
    tokens += [b" ", b'", "', b'": ', b"\xc3", b"\x9f\x98", b"a\xf0", b"\xa9,", b"    ", b"00", b"null}"]
    tokens = list(dict.fromkeys(tokens))
    types = [4] * len(tokens) + [3, 3, 5]
    return Tokenizer([*tokens, b"<end>", b"<|im_end|>", b"<unused>"], types, [], "gpt-2", eos=len(tokens))


def random_schema(rng: random.Random, depth: int = 3):
    """A schema of any of the supported kinds; some allow nothing or are refused, which is an answer too."""
    kinds = ["string", "string", "integer", "number", "enum", "boolean", "any", "types"]
    if depth > 0:
        kinds += [
            "object",
            "object",
            "object",
            "array",
            "array",
            "tuple",
            "anyOf",
            "oneOf",
            "allOf",
            "map",
            "ref",
        ]
    kind = rng.choice(kinds)
    return globals()[f"_{kind.lower()}"](rng, depth)


def _maybe(rng: random.Random, schema: dict, **more) -> dict:
    for word, value in more.items():
        if value is not None and rng.random() < 0.4:
            schema[word] = value
    return schema


def _string(rng, depth):
    low = rng.randint(0, 5)
    schema = _maybe(rng, {"type": "string"}, minLength=low, maxLength=low + rng.randint(0, 20))
    if rng.random() < 0.25:
        schema["pattern"] = rng.choice(PATTERNS)
    elif rng.random() < 0.25:
        schema = {"type": "string", "format": rng.choice(FORMATS)}
    return schema


def _integer(rng, depth):
    low = rng.choice([-100, -7, 0, 1, 3, 1000, 10**9])
    high = low + rng.choice([0, 1, 9, 95, 12345, 10**12])
    schema = _maybe(rng, {"type": "integer"}, minimum=low, maximum=high, multipleOf=rng.choice([2, 5, 7, 10]))
    return _maybe(rng, schema, exclusiveMinimum=low - 1) if rng.random() < 0.3 else schema


def _number(rng, depth):
    low = rng.choice([-1.5, -0.001, 0, 0.25, 3, 99.99, 1e6])
    high = low + rng.choice([0.5, 1, 0.01, 1234.5])
    schema = _maybe(rng, {"type": "number"}, minimum=low, maximum=high)
    return _maybe(rng, schema, exclusiveMaximum=high, exclusiveMinimum=low) if rng.random() < 0.3 else schema


def _enum(rng, depth):
    pool = ["red", "", 'a"b\\', "é😀", 1, -2.5, True, None, [1, "x"], {"k": [None]}, 0, 1e10, "a\nb"]
    if rng.random() < 0.3:
        return {"const": rng.choice(pool)}
    return {"enum": rng.sample(pool, rng.randint(1, 5))}


def _boolean(rng, depth):
    return {"type": rng.choice(["boolean", "null"])}


def _any(rng, depth):
    return rng.choice([True, {}])


def _types(rng, depth):
    return {
        "type": rng.sample(
            ["null", "boolean", "integer", "number", "string", "array", "object"], rng.randint(1, 3)
        )
    }


def _object(rng, depth):
    names = rng.sample(NAMES, rng.randint(0, 5))
    schema = {"type": "object", "properties": {n: random_schema(rng, depth - 1) for n in names}}
    if names and rng.random() < 0.7:
        schema["required"] = rng.sample(names, rng.randint(0, len(names)))
    if rng.random() < 0.5:
        schema["additionalProperties"] = rng.choice([False, False, True, random_schema(rng, 0)])
    if rng.random() < 0.15:
        schema["patternProperties"] = {rng.choice(PATTERNS): random_schema(rng, 0)}
    if rng.random() < 0.15:
        schema["propertyNames"] = {"maxLength": rng.randint(1, 6)}
    if names and rng.random() < 0.1:
        schema["dependentRequired"] = {names[0]: [names[-1]]}
    return (
        _maybe(rng, schema, minProperties=rng.randint(0, 2), maxProperties=rng.randint(1, 6))
        if rng.random() < 0.3
        else schema
    )


def _map(rng, depth):
    return {"type": "object", "additionalProperties": random_schema(rng, depth - 1)}


def _array(rng, depth):
    low = rng.randint(0, 3)
    if rng.random() < 0.1:
        return {
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": ["x", "y", 1, None][: rng.randint(1, 4)]},
        }
    schema = {"type": "array", "items": random_schema(rng, depth - 1)}
    return _maybe(rng, schema, minItems=low, maxItems=low + rng.randint(0, 5))


def _tuple(rng, depth):
    schema = {
        "type": "array",
        "prefixItems": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))],
    }
    return _maybe(
        rng, schema, items=random_schema(rng, 0), minItems=rng.randint(0, 4), maxItems=rng.randint(1, 5)
    )


def _anyof(rng, depth):
    return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]}


def _oneof(rng, depth):
    kinds = rng.sample(["string", "integer", "boolean", "null", "array"], rng.randint(1, 3))
    if rng.random() < 0.5:
        return {"oneOf": [{"type": kind} for kind in kinds]}
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "v": random_schema(rng, 0)},
                "required": ["kind"],
            }
            for kind in kinds
        ]
    }


def _allof(rng, depth):
    return {"allOf": [random_schema(rng, depth - 1), random_schema(rng, depth - 1)]}


def _ref(rng, depth):
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}},
        "required": ["v"],
    }
    return {"$ref": "#/$defs/node", "$defs": {"node": node}} if depth == 3 else {"type": "integer"}


def walk(tokenizer: Tokenizer, matcher, rng: np.random.Generator, left: int) -> bytes:
    """A text of tokens drawn at random, at most `left` of them."""
    left = max(left, matcher.shortest)
    logits = np.empty(tokenizer.vocab_size, np.float32)
    ends = set(tokenizer.end_ids)
    text = b""
    while True:
        logits.fill(0)
        matcher.mask(logits, left)
        allowed = np.flatnonzero(logits == 0)
        token = int(allowed[rng.integers(len(allowed))])
        if token in ends or (matcher.complete and rng.random() < 0.2):
            assert matcher.complete
            return text
        matcher.accept(token)
        text += tokenizer.token_bytes(token)
        left -= 1


def fault(schema, raw: bytes) -> str | None:
    """What is wrong with a text, or None: not UTF-8, not JSON, not the schema."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=lambda name: 1 / 0)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair
    except (ValueError, ZeroDivisionError) as error:
        return f"{raw!r}: {error!r}"
    errors = list(Draft202012Validator(schema, format_checker=CHECKER).iter_errors(value))
    return f"{raw!r}: {errors[0].message}" if errors else None


def texts(tokenizer: Tokenizer, seed: int, count: int):
    """(schema, texts) of a random schema; None and the reason where it is refused."""
    rng = random.Random(seed)
    schema = random_schema(rng)
    try:
        grammar = from_json_schema(tokenizer, schema)
    except GrammarError as error:
        return schema, str(error)
    draw = np.random.default_rng(seed)
    return schema, [
        walk(tokenizer, grammar.matcher(), draw, int(draw.integers(1, 120))) for _ in range(count)
    ]
