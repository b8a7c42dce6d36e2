"""Drivers of one generation with a session of its own."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from edgellm import _core
from edgellm.generation.request import Place, Request
from edgellm.generation.results import Completion, Token
from edgellm.generation.state import Generation

if TYPE_CHECKING:
    from edgellm.model import Model

_ALL = 1 << 30  # as many tokens as there are: the evaluation cuts them into micro-batches


def step(generation: Generation, limit: int = _ALL) -> list[Token]:
    """Evaluate what a generation wants next, and let it go on."""
    ids, rows = generation.wants(limit)
    session = generation.session._core
    return generation.take(_core.batch_eval(session.model, (session,), (ids,), (rows,))[0])


def tokens(
    model: Model, ids: list[int], request: Request, place: Place
) -> Generator[Token, None, Completion]:
    """Yield tokens; return the `Completion`. Arguments are checked at the call."""
    return _tokens(model, ids, request, place, place.room(model, ids, request.max_tokens))


def _tokens(
    model: Model, ids: list[int], request: Request, place: Place, room: int
) -> Generator[Token, None, Completion]:
    started_s = time.perf_counter()
    generation = Generation(model, ids, request, model.session(room, place.kv), started_s)
    try:
        while not generation.done:
            yield from step(generation)
    finally:
        generation.cancel()
    return generation.result()


def pieces(steps: Generator[Token, None, Completion]) -> Generator[str, None, Completion]:
    """The text of tokens, where there is any."""
    while True:
        try:
            token = next(steps)
        except StopIteration as end:
            done: Completion = end.value
            return done
        if token.text:
            yield token.text


def drain(steps: Generator[Token, None, Completion]) -> Completion:
    """Run to the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            done: Completion = end.value
            return done
