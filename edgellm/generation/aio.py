"""Drivers for asyncio: steps run in a thread of the model, the event loop goes on meanwhile.

Every step is at most a micro-batch, so that a cancelled task, or an iterator that is closed, ends the
generation within one. Generations of one model take turns; `edgellm.Scheduler` runs them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from edgellm.generation import drivers
from edgellm.generation.request import Place, Request
from edgellm.generation.results import Completion, Token
from edgellm.generation.state import Generation

if TYPE_CHECKING:
    from edgellm.model import Model

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WORKERS: WeakKeyDictionary[Model, ThreadPoolExecutor] = WeakKeyDictionary()  # one thread each


def submit(model: Model, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
    """Do some work in the thread of a model, after what was given to it before."""
    worker = _WORKERS.get(model)
    if worker is None:
        worker = _WORKERS.setdefault(model, ThreadPoolExecutor(1, "edgellm"))
    return worker.submit(work, *args, **kwargs)


async def start(model: Model, ids: Sequence[int], request: Request, place: Place) -> Generation:
    """A generation in a session of its own."""
    return await asyncio.wrap_future(submit(model, drivers.start, model, ids, request, place))


async def steps(model: Model, generation: Generation) -> AsyncGenerator[Token, None]:
    """Drive a generation and yield its tokens. Use it in ``aclosing``, so that it ends when its user does."""
    from edgellm.model import MICRO_BATCH

    running: Future[list[Token]] | None = None
    try:
        while not generation.done:
            running = submit(model, drivers.step, generation, MICRO_BATCH)
            for token in await asyncio.wrap_future(running):
                yield token
    finally:
        if running is None or running.done():
            generation.cancel()
        else:  # it is the other thread's until its step is over
            running.add_done_callback(lambda _: generation.cancel())


async def pieces(
    model: Model, ids: Sequence[int], request: Request, place: Place
) -> AsyncGenerator[str, None]:
    """Yield text as it becomes sure."""
    async with aclosing(steps(model, await start(model, ids, request, place))) as tokens:
        async for token in tokens:
            if token.text:
                yield token.text


async def complete(model: Model, ids: Sequence[int], request: Request, place: Place) -> Completion:
    """Run to the end."""
    generation = await start(model, ids, request, place)
    async with aclosing(steps(model, generation)) as tokens:
        async for _ in tokens:
            pass
    return generation.result()
