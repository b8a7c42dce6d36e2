"""Schemas and tools over HTTP: answers are always valid, calls always known, whatever the model would say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

import edgellm
from edgellm.server import Settings
from tests.helpers import tiny_model
from tests.helpers.server import Running, running

MESSAGES: list[Any] = [{"role": "user", "content": "It is dark in the kitchen."}]


class Lamp(pydantic.BaseModel):
    """What a schema asks for."""

    model_config = pydantic.ConfigDict(extra="forbid")
    room: Literal["kitchen", "hall"]
    is_on: bool
    level: int = pydantic.Field(ge=0, le=100)


def tool(name: str, **properties: Any) -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = [
    tool("lamp", room={"enum": ["kitchen", "hall"]}, on={"type": "boolean"}),
    tool("heat", degrees={"type": "integer", "minimum": 5, "maximum": 30}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", context=4096)
    with edgellm.load(path, threads=1) as model, running(model) as server:
        yield server


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_is_always_followed(client: openai.OpenAI, seed: int) -> None:
    got = client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Lamp, temperature=4, seed=seed
    )
    assert isinstance(got.choices[0].message.parsed, Lamp)
    assert got.choices[0].finish_reason == "stop"


def test_a_schema_is_followed_in_a_stream_and_in_every_choice(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "lamp", "schema": Lamp.model_json_schema()}}
    options = {
        "model": "tiny",
        "messages": MESSAGES,
        "response_format": form,
        "n": 3,
        "seed": 1,
        "temperature": 4,
    }
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert [bool(Lamp.model_validate_json(text)) for text in texts] == [True] * 3
    whole = client.chat.completions.create(**options)
    assert [choice.message.content for choice in whole.choices] == texts


def test_json_mode_gives_an_object(client: openai.OpenAI) -> None:
    for seed in range(3):
        got = client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            response_format={"type": "json_object"},
            max_tokens=60,
            temperature=3,
            seed=seed,
        )
        assert isinstance(json.loads(got.choices[0].message.content), dict)


def test_a_grammar_is_an_extension_of_both_endpoints(client: openai.OpenAI) -> None:
    extra = {"grammar": 'root ::= ("on" | "off") " "? [0-9]{2}'}
    for seed in range(4):
        chat = client.chat.completions.create(
            model="tiny", messages=MESSAGES, extra_body=extra, seed=seed, temperature=5
        )
        text = client.completions.create(
            model="tiny", prompt="the", extra_body=extra, seed=seed, temperature=5
        )
        for said in (chat.choices[0].message.content, text.choices[0].text):
            assert said.replace(" ", "")[:-2] in ("on", "off")
            assert said[-2:].isdecimal()


@pytest.mark.parametrize(
    ("changes", "param", "told"),
    [
        ({"extra_body": {"grammar": "root ::= root"}}, "response_format", "never end"),
        ({"extra_body": {"grammar": "root ::= x"}}, "response_format", "x"),
        (
            {"response_format": {"type": "json_object"}, "extra_body": {"grammar": 'root ::= "a"'}},
            "grammar",
            "exclude",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": False}}},
            None,
            "",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "king"}},
                }
            },
            "response_format",
            "not JSON schema",
        ),
        ({"extra_body": {"grammar": "root ::= [a-z]{40}"}, "max_tokens": 5}, None, "40"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "door"}}},
            "tools",
            "no tool 'door'",
        ),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools", "'lamp'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "tools[0].function.name"),
        ({"tools": [tool("a", x={"type": "king"})]}, "tools", "tools[0].function.parameters"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    client: openai.OpenAI, changes: dict[str, Any], param: str | None, told: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "tiny", "messages": MESSAGES, **changes})
    assert refused.value.param == param or param is None
    assert told in str(refused.value)


def check_call(call: Any) -> None:
    arguments = json.loads(call.function.arguments)
    if call.function.name == "lamp":
        assert set(arguments) == {"room", "on"}
        assert arguments["room"] in ("kitchen", "hall")
        assert isinstance(arguments["on"], bool)
    else:
        assert call.function.name == "heat"
        assert 5 <= arguments["degrees"] <= 30
    assert call.id
    assert call.type == "function"


@pytest.mark.parametrize("seed", range(4))
def test_a_call_names_a_known_tool_with_arguments_that_fit(client: openai.OpenAI, seed: int) -> None:
    got = client.chat.completions.create(
        model="tiny", messages=MESSAGES, tools=TOOLS, tool_choice="required", seed=seed, temperature=4
    )
    choice = got.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        check_call(call)


def test_a_named_tool_is_called_once(client: openai.OpenAI) -> None:
    chosen = {"type": "function", "function": {"name": "heat"}}
    for seed in range(3):
        got = client.chat.completions.create(
            model="tiny", messages=MESSAGES, tools=TOOLS, tool_choice=chosen, seed=seed, temperature=4
        )
        (call,) = got.choices[0].message.tool_calls
        assert call.function.name == "heat"
        check_call(call)


def test_no_tool_is_called_where_none_may_be(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(
        model="tiny", messages=MESSAGES, tools=TOOLS, tool_choice="none", max_tokens=30, temperature=0
    )
    assert got.choices[0].message.tool_calls is None


def test_calls_in_a_stream_are_those_of_the_whole(client: openai.OpenAI) -> None:
    options = {
        "model": "tiny",
        "messages": MESSAGES,
        "tools": TOOLS,
        "tool_choice": "required",
        "seed": 11,
        "temperature": 4,
        "parallel_tool_calls": False,
    }
    whole = client.chat.completions.create(**options).choices[0]
    name, arguments, reasons, identity = "", "", [], set()
    for chunk in client.chat.completions.create(**options, stream=True):
        choice = chunk.choices[0]
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            name += call.function.name or ""
            arguments += call.function.arguments or ""
            identity |= {call.id} - {None}
        reasons.append(choice.finish_reason)
    (call,) = whole.message.tool_calls
    assert (name, arguments, identity) == (call.function.name, call.function.arguments, {call.id})
    assert [reason for reason in reasons if reason] == ["tool_calls"]


def test_a_conversation_with_calls_and_results_goes_on(client: openai.OpenAI) -> None:
    first = (
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            tools=TOOLS,
            tool_choice="required",
            seed=2,
            parallel_tool_calls=False,
        )
        .choices[0]
        .message
    )
    history = [*MESSAGES, first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "done"}]
    got = client.chat.completions.create(model="tiny", messages=history, tools=TOOLS, max_tokens=20)
    assert got.usage.completion_tokens > 0


@pytest.mark.weights
def test_a_real_model_calls_the_tool_that_fits(smollm2: Path) -> None:
    with edgellm.load(smollm2) as model, running(model, Settings(name="m")) as server:
        got = server.client().chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Please set the heating to 21 degrees."}],
            tools=TOOLS,
            tool_choice="required",
            temperature=0,
            parallel_tool_calls=False,
        )
        (call,) = got.choices[0].message.tool_calls
        check_call(call)
        want = model.chat(
            [{"role": "user", "content": "Name a colour."}],
            json_schema={
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 12}},
                "required": ["name"],
            },
        )
        form = {
            "type": "json_schema",
            "json_schema": {
                "name": "colour",
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string", "maxLength": 12}},
                    "required": ["name"],
                },
            },
        }
        told = server.client().chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Name a colour."}],
            response_format=form,
            temperature=0,
        )
        assert told.choices[0].message.content == want.text
        assert set(json.loads(want.text)) == {"name"}
