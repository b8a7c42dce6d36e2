"""Generation with the real model: speculation, batches and grammars keep the text; nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgellm

pytestmark = pytest.mark.weights

PROMPTS = {
    "copy": "One two three four five six seven. Again: One two three four five six seven. Again:",
    "json": '[{"name": "Anna", "age": 31}, {"name": "Ben", "age": 25}, {"name":',
    "story": "Once upon a time in a distant land,",
}


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(smollm2, threads=2) as model:
        yield model


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 3, "logprobs": 1}, {"repeat_penalty": 1.2}],
    ids=["greedy", "sampled", "penalty"],
)
def test_lookup_keeps_the_text(model: edgellm.Model, prompt: str, options: dict[str, Any]) -> None:
    plain = model.generate(PROMPTS[prompt], 40, **options)
    drafted = model.generate(PROMPTS[prompt], 40, draft="lookup", **options)
    assert (drafted.text, drafted.ids, drafted.logprobs) == (plain.text, plain.ids, plain.logprobs)
    assert drafted.speculation is not None
    # how many are drafted depends on the clock, but every token after the first is a step's own or accepted
    steps, accepted = drafted.speculation.steps, drafted.speculation.accepted
    assert steps + accepted == len(drafted.ids) - 1 + (drafted.finish_reason == "stop")


def test_completions_keep_the_text_of_each_stream(model: edgellm.Model) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "seed": 7}
    some = model.completions(PROMPTS["story"], 3, max_tokens=12, **options)
    assert some[0].ids == model.generate(PROMPTS["story"], 12, **options).ids
    assert [one.ids for one in model.completions(PROMPTS["story"], 2, max_tokens=12, **options)] == [
        one.ids for one in some[:2]
    ]


def test_text_of_a_grammar_is_complete_with_every_number_of_tokens(model: edgellm.Model) -> None:
    grammar = edgellm.grammar.from_gbnf(model.tokenizer, r'root ::= "[" ([0-9]+ ", ")* [0-9]+ "]"')
    least = grammar.matcher().shortest
    for max_tokens in (least, least + 1, least + 5, 24):
        for draft in (None, "lookup"):
            text = model.generate("Numbers: ", max_tokens, grammar=grammar, draft=draft, temperature=1.0).text
            assert text.startswith("[")
            assert text.endswith("]")
            assert all(part.isdigit() for part in text[1:-1].split(", "))


def test_text_of_a_schema_is_json_with_and_without_drafts(model: edgellm.Model) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    for options in ({}, {"temperature": 1.0, "seed": 5}, {"temperature": 1.0, "logprobs": 1}):
        plain = model.generate("A person:\n", 60, json_schema=schema, **options)
        drafted = model.generate("A person:\n", 60, json_schema=schema, draft="lookup", **options)
        assert (plain.text, plain.ids, plain.logprobs) == (drafted.text, drafted.ids, drafted.logprobs)
        person = json.loads(plain.text)
        assert (type(person["name"]), type(person["age"])) == (str, int)
    with pytest.raises(ValueError, match="max_tokens: the grammar may need"):
        model.generate("A person:\n", 3, json_schema=schema)


def test_vectors_of_like_texts_are_nearer(model: edgellm.Model) -> None:
    cat, same, other = model.embed(
        ["A cat sits on the mat.", "The cat sat on a mat.", "Shares fell on Monday after the bank's report."]
    )
    assert cat @ same > cat @ other
