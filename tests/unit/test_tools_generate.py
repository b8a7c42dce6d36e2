"""What random models write with tools: always text, or calls of known tools with arguments that fit."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from helpers import tiny_model

import edgellm
from edgellm.tools import ToolCalling

ASKED = [{"role": "user", "content": "the cat"}]
TOOL_SETS = 200


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[edgellm.Model]:
    """Random models, so that whatever a grammar allows comes out sooner or later."""
    folder: Path = tmp_path_factory.mktemp("models")
    made = []
    for seed in range(3):
        path = tiny_model.write(folder / f"{seed}.gguf", seed=seed, context=4096, layers=1)
        made.append(edgellm.load(str(path), threads=1))
    return made


def some_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "union"]
    kind = rng.choice(kinds if depth > 2 else [*kinds, "array", "object", "object"])
    if kind == "enum":
        return {"enum": rng.sample(["on", "off", 1, 2.5, None, True, 'say "hi"', "<tool_call>"], 3)}
    if kind == "const":
        return {"const": rng.choice(["x", 7, None, {"a": [1]}])}
    if kind == "union":
        return {"anyOf": [some_schema(rng, depth + 1), some_schema(rng, depth + 1)]}
    if kind == "array":
        most = rng.randint(0, 3)
        return {"type": "array", "items": some_schema(rng, depth + 1), "maxItems": most}
    if kind == "object":
        return some_object(rng, depth + 1)
    if kind == "string" and rng.random() < 0.5:
        return {"type": "string", "maxLength": rng.randint(0, 8)}
    if kind == "integer" and rng.random() < 0.5:
        return {"type": "integer", "minimum": rng.randint(-20, 0), "maximum": rng.randint(0, 300)}
    return {"type": kind}


def some_object(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    names = rng.sample(["room", "on", "brightness", "when", "a b", "é"], rng.randint(0, 3))
    out: dict[str, Any] = {"type": "object", "properties": {name: some_schema(rng, depth) for name in names}}
    out["required"] = [name for name in names if rng.random() < 0.7]
    out["additionalProperties"] = False
    return out


def some_tools(rng: random.Random) -> list[dict[str, Any]]:
    tools = []
    for name in rng.sample(["lamp", "get_weather", "set-2", "a", "lamp2"], rng.randint(1, 4)):
        function: dict[str, Any] = {"name": name}
        if rng.random() < 0.9:
            function["parameters"] = some_object(rng)
        tools.append({"type": "function", "function": function})
    return tools


def check(done: Any, tools: list[dict[str, Any]], calls: bool) -> None:
    """Every call is of a known tool and fits; the message can go on in a conversation."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    assert bool(done.tool_calls) == calls
    assert done.finish_reason == ("tool_calls" if calls else done.finish_reason)
    for i, call in enumerate(done.tool_calls):
        assert set(call) == {"id", "type", "function"}
        assert (call["id"], call["type"]) == (f"call{i:05d}", "function")
        arguments = json.loads(call["function"]["arguments"])
        schema = schemas[call["function"]["name"]]
        if schema is None:
            assert arguments == {}
        else:
            jsonschema.validate(arguments, schema)
    assert "<tool_call>" not in done.text
    if calls:
        assert done.message["tool_calls"] == done.tool_calls


@pytest.mark.parametrize("number", range(TOOL_SETS))
def test_calls_of_a_random_tool_set_always_fit(models, number):
    rng = random.Random(f"tools/{number}")
    tools, model = some_tools(rng), rng.choice(models)
    chosen = rng.choice(tools)["function"]["name"]
    choice: Any = rng.choice(["required", {"type": "function", "function": {"name": chosen}}])
    many = rng.random() < 0.5
    options = {"temperature": rng.choice([0.0, 1.0, 2.0]), "seed": number}
    done = model.chat(
        ASKED, rng.choice([500, 700]), tools=tools, tool_choice=choice, parallel_tool_calls=many, **options
    )
    check(done, tools, calls=True)
    if isinstance(choice, dict):
        assert [call["function"]["name"] for call in done.tool_calls] == [chosen]
    if not many:
        assert len(done.tool_calls) == 1


LAMP = {
    "type": "function",
    "function": {
        "name": "lamp",
        "parameters": {"properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}


def test_auto_gives_text_or_calls(models):
    for seed in range(10):
        done = models[0].chat(ASKED, 40, tools=[LAMP], temperature=1.5, seed=seed)
        check(done, [LAMP], calls=bool(done.tool_calls))


def test_auto_calls_where_the_model_begins_a_call(models):
    """The marker is made likely, one token after the other."""
    model = models[0]
    calling = ToolCalling(model.tokenizer, model.chat_template, [LAMP])
    matcher = calling.grammar().matcher()
    for token in model.tokenizer.encode("so <b> <tool_call>"):
        matcher.accept(token)
    assert not matcher.complete
    assert model.tokenizer.decode(matcher.forced(200)).startswith('\n{"name": "')


def test_no_choice_means_no_call(models):
    for seed in range(10):
        done = models[1].chat(ASKED, 30, tools=[LAMP], tool_choice="none", temperature=2.0, seed=seed)
        check(done, [LAMP], calls=False)


def test_schema_is_for_answers_without_calls(models):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    for seed in range(10):
        done = models[seed % 3].chat(ASKED, 200, tools=[LAMP], json_schema=schema, temperature=1.0, seed=seed)
        check(done, [LAMP], calls=bool(done.tool_calls))
        if not done.tool_calls:
            jsonschema.validate(json.loads(done.text), schema)


def test_streamed_text_and_end_are_those_of_chat(models):
    options: dict[str, Any] = {"tools": [LAMP], "tool_choice": "required", "temperature": 1.0}
    want = models[0].chat(ASKED, 300, **options)
    stream = models[0].stream_chat(ASKED, 300, **options)
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            done = end.value
            break
    assert ("".join(pieces), done.tool_calls, done.ids) == (want.text, want.tool_calls, want.ids)


def test_ids_go_on_through_a_conversation(models):
    first = models[0].chat(ASKED, 300, tools=[LAMP], tool_choice="required", parallel_tool_calls=False)
    result = {"role": "tool", "tool_call_id": first.tool_calls[0]["id"], "content": "done"}
    second = models[0].chat(
        [*ASKED, first.message, result], 300, tools=[LAMP], tool_choice="required", parallel_tool_calls=False
    )
    assert [done.tool_calls[0]["id"] for done in (first, second)] == ["call00000", "call00001"]


def test_call_that_cannot_fit_is_refused_with_the_number_needed(models):
    with pytest.raises(ValueError, match="max_tokens"):
        models[0].chat(ASKED, 5, tools=[LAMP], tool_choice="required")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [LAMP], "tool_choice": {"type": "function", "function": {"name": "oven"}}}, "'oven'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, r"tools\[0\].function.name"),
        (
            {"tools": [LAMP, {"type": "function", "function": {
                "name": "x", "parameters": {"properties": {"a": {"type": "lamp"}}}}}]},
            r"tools\[1\].function.parameters",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_named(models, options, text):
    with pytest.raises(ValueError, match=text):
        models[0].chat(ASKED, 100, **options)


def test_grammar_of_many_tools_is_no_explosion(tmp_path):
    rng = random.Random(1)
    tools = [
        {"type": "function", "function": {"name": f"tool_{i}", "parameters": some_object(rng)}}
        for i in range(128)
    ]
    path = tiny_model.write(tmp_path / "long.gguf", context=1 << 16, layers=1, width=32, ffn=32)
    with edgellm.load(str(path)) as model:
        done = model.chat(ASKED, 900, tools=tools, tool_choice="required")
    check(done, tools, calls=True)
