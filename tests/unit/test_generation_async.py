"""Generations under asyncio: the loop goes on, and what is cancelled ends within a step."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import edgellm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgellm.Model]:
    from tests.helpers.tiny_model import write

    with edgellm.load(write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", quant="q8_0"), threads=2) as model:
        yield model


def sessions() -> int:
    gc.collect()
    return sum(isinstance(o, edgellm.Session) for o in gc.get_objects())


async def until_freed(before: int) -> None:
    async with asyncio.timeout(20):
        while sessions() != before:
            await asyncio.sleep(0.005)


def test_agenerate_and_astream_give_the_text_of_generate(model: edgellm.Model) -> None:
    want = model.generate([1, 2, 3], 40, temperature=1.0, seed=2)

    async def main() -> None:
        done, pieces = await asyncio.gather(
            model.agenerate([1, 2, 3], 40, temperature=1.0, seed=2, draft="lookup"),
            collect(),
        )
        assert (done.text, done.ids, done.finish_reason) == (want.text, want.ids, want.finish_reason)
        assert "".join(pieces) == want.text

    async def collect() -> list[str]:
        return [piece async for piece in model.astream([1, 2, 3], 40, temperature=1.0, seed=2)]

    asyncio.run(main())


def test_the_loop_goes_on_while_text_is_generated(model: edgellm.Model) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(tick())
        await model.agenerate([1, 2, 3], 60, temperature=1.0)
        task.cancel()

    asyncio.run(main())
    assert ticks > 60  # between all steps at least


def test_cancelled_task_frees_its_session(model: edgellm.Model) -> None:
    before = sessions()

    async def start_and_cancel() -> None:
        tasks = [
            asyncio.create_task(model.agenerate([1, 2, 3], 400, temperature=1.5, seed=i)) for i in range(5)
        ]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(result, asyncio.CancelledError) for result in results)

    async def main() -> None:
        await start_and_cancel()
        await until_freed(before)
        assert (await model.agenerate([1, 2, 3], 3)).ids == model.generate([1, 2, 3], 3).ids

    asyncio.run(main())


def test_closed_iterator_frees_its_session(model: edgellm.Model) -> None:
    before = sessions()

    async def main() -> None:
        async with aclosing(model.astream([1, 2, 3], 400, temperature=1.5)) as pieces:
            async for _ in pieces:
                break
        await until_freed(before)

    asyncio.run(main())


def test_bad_arguments_of_async_calls_are_refused(model: edgellm.Model) -> None:
    with pytest.raises(ValueError, match="temperature"):
        model.astream([1], temperature=-1.0)
    with pytest.raises(edgellm.ContextError):
        model.astream([1] * 20, context=10)

    async def main() -> None:
        with pytest.raises(ValueError, match="ids"):
            await model.agenerate([10**6])

    asyncio.run(main())


@pytest.mark.weights
def test_achat_and_astream_chat_give_the_answer_of_chat(smollm2: Path) -> None:
    asked = [{"role": "user", "content": "Name a colour."}]
    with edgellm.load(smollm2, threads=2) as model:
        want = model.chat(asked, max_tokens=12)

        async def main() -> None:
            done = await model.achat(asked, max_tokens=12)
            assert (done.message, done.finish_reason) == (want.message, want.finish_reason)
            pieces = [piece async for piece in model.astream_chat(asked, max_tokens=12)]
            assert "".join(pieces) == want.text
            with pytest.raises(ValueError, match="tool_choice"):
                model.astream_chat(asked, tool_choice="required")

        asyncio.run(main())
