"""The official client of OpenAI against the server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import numpy as np
import openai
import pytest

import edgellm
from edgellm.server import Settings
from tests.helpers.server import Running, running

MESSAGES = [{"role": "user", "content": "the cat"}]


@pytest.fixture(scope="module")
def server(model: edgellm.Model) -> Iterator[Running]:
    with running(model) as server:
        yield server


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "edgellm"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat_says_what_chat_says(client: openai.OpenAI, model: edgellm.Model) -> None:
    want = model.chat(MESSAGES, max_tokens=20)
    got = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=20, temperature=0)
    assert got.choices[0].message.content == want.text
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].finish_reason == want.finish_reason
    assert got.usage.prompt_tokens == want.timings.prompt_tokens
    assert got.usage.completion_tokens == len(want.ids)
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens


def test_chat_streams_the_same(client: openai.OpenAI, model: edgellm.Model) -> None:
    want = model.chat(MESSAGES, max_tokens=20, temperature=1.3, seed=5)
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=20,
            temperature=1.3,
            seed=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == want.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == want.finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(want.ids)
    assert len({c.id for c in chunks}) == 1


def test_choices_are_the_streams_of_a_seed(client: openai.OpenAI, model: edgellm.Model) -> None:
    options = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "temperature": 3.0, "seed": 7, "n": 4}
    whole = client.chat.completions.create(**options)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert len(set(texts)) > 1
    assert texts[0] == model.chat(MESSAGES, max_tokens=12, temperature=3.0, seed=7).text
    assert whole.usage.prompt_tokens == model.chat(MESSAGES, max_tokens=1).timings.prompt_tokens
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_no_seed_is_a_new_text_each_time(client: openai.OpenAI) -> None:
    texts = {
        client.completions.create(model="tiny", prompt="the", max_tokens=16, temperature=3).choices[0].text
        for _ in range(4)
    }
    assert len(texts) > 1


def test_completions_take_texts_and_ids(client: openai.OpenAI, model: edgellm.Model) -> None:
    ids = model.tokenizer.encode("a cat")
    for prompt, alone in (
        ("the", ["the"]),
        (["the", "a cat"], ["the", "a cat"]),
        (ids, [ids]),
        ([ids, ids], [ids, ids]),
    ):
        got = client.completions.create(model="tiny", prompt=prompt, max_tokens=9, temperature=0)
        assert [c.text for c in got.choices] == [model.generate(own, max_tokens=9).text for own in alone]
    got = client.completions.create(model="tiny", prompt=["the", "a"], n=2, max_tokens=3, echo=True)
    assert [c.index for c in got.choices] == [0, 1, 2, 3]
    assert [c.text.startswith(p) for c, p in zip(got.choices, ["the", "the", "a", "a"], strict=True)] == [
        True
    ] * 4
    assert client.completions.create(model="tiny", prompt="the").usage.completion_tokens <= 16


def test_completions_stream(client: openai.OpenAI, model: edgellm.Model) -> None:
    chunks = client.completions.create(model="tiny", prompt="the", max_tokens=9, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in chunks) == model.generate("the", max_tokens=9).text


def test_stop_strings_end_the_text(client: openai.OpenAI, model: edgellm.Model) -> None:
    whole = model.generate("the", max_tokens=30).text
    stop = whole[10:13]
    want = model.generate("the", max_tokens=30, stop=stop)
    got = client.completions.create(model="tiny", prompt="the", max_tokens=30, temperature=0, stop=stop)
    assert (got.choices[0].text, got.choices[0].finish_reason) == (want.text, "stop")


def test_extensions_go_through_extra_body(client: openai.OpenAI, model: edgellm.Model) -> None:
    extra = {"top_k": 5, "min_p": 0.05, "repeat_penalty": 1.3, "cache_prompt": False}
    got = client.completions.create(
        model="default", prompt="the", max_tokens=20, temperature=1.1, seed=3, extra_body=extra
    )
    want = model.generate(
        "the", max_tokens=20, temperature=1.1, seed=3, top_k=5, min_p=0.05, repeat_penalty=1.3
    )
    assert got.choices[0].text == want.text


def test_parts_of_text_are_joined(client: openai.OpenAI, model: edgellm.Model) -> None:
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]
    got = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": parts}], max_tokens=8, temperature=0
    )
    assert got.choices[0].message.content == model.chat(MESSAGES, max_tokens=8).text


def test_errors_are_the_clients_exceptions(model: edgellm.Model) -> None:
    settings = Settings(name="tiny", api_keys=("correct horse", "battery staple"))
    with running(model, settings, max_sessions=1, max_waiting=0) as server:
        with pytest.raises(openai.AuthenticationError) as wrong:
            server.client().models.list()
        assert wrong.value.code == "invalid_api_key"
        client = server.client(api_key="battery staple")
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="tiny", messages=[], max_tokens=1)
        assert bad.value.param == "messages"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-4", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as long:
            client.completions.create(model="tiny", prompt="the cat " * 400)
        assert long.value.code == "context_length_exceeded"
        with server.slowed():
            stream = client.completions.create(model="tiny", prompt="the", max_tokens=250, stream=True)
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as busy:
                client.completions.create(model="tiny", prompt="the")
            assert int(busy.value.response.headers["retry-after"]) >= 1
            stream.close()


def test_sixty_four_clients_get_the_texts_of_generate(model: edgellm.Model) -> None:
    prompts = [f"the {'cat ' * (i % 7)}{i}" for i in range(64)]

    async def work(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:

            async def one(i: int) -> str:
                options = {"model": "tiny", "prompt": prompts[i], "max_tokens": 10 + i % 9, "seed": i}
                options["temperature"] = 0.0 if i % 2 else 1.0
                if i % 3:
                    return (await client.completions.create(**options)).choices[0].text
                return "".join(
                    [c.choices[0].text async for c in await client.completions.create(**options, stream=True)]
                )

            return await asyncio.gather(*(one(i) for i in range(64)))

    with running(model, max_sessions=16) as server:
        got = asyncio.run(work(f"{server.url}/v1"))
    for i, text in enumerate(got):
        temperature = 0.0 if i % 2 else 1.0
        assert text == model.generate(prompts[i], max_tokens=10 + i % 9, seed=i, temperature=temperature).text


def test_the_log_tells_no_text(model: edgellm.Model) -> None:
    for log_prompts in (False, True):
        with running(model, Settings(name="tiny", log_prompts=log_prompts)) as server:
            server.client().chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "my secret"}], max_tokens=4
            )
        lines = [json.loads(line) for line in server.log]
        assert [line["status"] for line in lines] == [200]
        assert lines[0]["completion_tokens"] > 0
        assert ("my secret" in server.log[0]) == log_prompts


def test_embeddings_are_those_of_embed(client: openai.OpenAI, model: edgellm.Model) -> None:
    want = model.embed(["the cat", "a"])
    for extra in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        got = client.embeddings.create(model="tiny", input=["the cat", "a"], **extra)
        rows = [row.embedding for row in got.data]
        if extra.get("encoding_format") == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.array_equal(np.array(rows, np.float32), want)
        assert got.usage.prompt_tokens == got.usage.total_tokens > 0
    ids = model.tokenizer.encode("the cat")
    assert np.array_equal(client.embeddings.create(model="tiny", input=ids).data[0].embedding, want[0])
    for wrong in ({"dimensions": 3}, {"input": ""}, {"input": []}, {"input": "the " * 500}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": "tiny", "input": "a", **wrong})


def test_beginnings_of_prompts_are_shared(model: edgellm.Model) -> None:
    prompt = "the cat in the water " * 12
    want = model.generate(prompt, max_tokens=12).text
    cache = edgellm.PrefixCache(model, 5_000_000)
    with running(model, cache=cache, step_tokens=64) as server:
        client = server.client()
        options = {"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0}
        cached = []
        for extra in ({}, {}, {"cache_prompt": False}):
            got = client.completions.create(**options, extra_body=extra)
            assert got.choices[0].text == want
            cached.append(got.usage.prompt_tokens_details.cached_tokens)
        prompts = [f"{prompt}{i}" for i in range(8)]  # all at once: what the first reads, the others find
        got = client.completions.create(**{**options, "prompt": prompts})
        assert [c.text for c in got.choices] == [model.generate(p, max_tokens=12).text for p in prompts]
        stats = server.scheduler.stats()
    assert cached[0] == cached[2] == 0 < cached[1]
    assert stats.cached_tokens >= cached[1] * 9
    assert cache.hits >= 9
