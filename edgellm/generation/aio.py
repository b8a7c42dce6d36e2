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
from edgellm.generation.drivers import Run
from edgellm.generation.request import Place, Request
from edgellm.generation.results import Completion, Token

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


async def start(model: Model, ids: Sequence[int], request: Request, place: Place) -> Run:
    """Begin a text."""
    starting = submit(model, drivers.start, model, ids, request, place)
    try:
        return await asyncio.wrap_future(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end_started)
        raise


def _end_started(starting: Future[Run]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().end()


async def steps(model: Model, run: Run) -> AsyncGenerator[Token, None]:
    """Drive a text and yield its tokens. Use it in ``aclosing``, so that it ends when its user does."""
    from edgellm.model import MICRO_BATCH

    stepping: Future[list[Token]] | None = None
    try:
        while not run.generation.done:
            stepping = submit(model, run.step, MICRO_BATCH)
            for token in await asyncio.wrap_future(stepping):
                yield token
    finally:
        if stepping is None or stepping.done():
            run.end()
        else:  # it is the other thread's until its step is over
            stepping.add_done_callback(lambda _: run.end())


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
    run = await start(model, ids, request, place)
    async with aclosing(steps(model, run)) as tokens:
        async for _ in tokens:
            pass
    return run.generation.result()
