"""Drivers of generations that have the machine to themselves: one at a time, or several of one prompt."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

from edgellm import _core
from edgellm.generation.request import Place, Request
from edgellm.generation.results import Completion, Token
from edgellm.generation.state import Generation

if TYPE_CHECKING:
    from edgellm.model import Model

Done = TypeVar("Done", bound=Completion)
ALL = 1 << 30  # as many tokens as there are: the evaluation cuts them into micro-batches


def start(model: Model, ids: Sequence[int], request: Request, place: Place) -> Generation:
    """A generation in a session of its own."""
    started_s = time.perf_counter()
    room = place.room(model, ids, request.max_tokens)
    return Generation(model, ids, request, model.session(room, place.kv), started_s)


def step(generation: Generation, limit: int = ALL) -> list[Token]:
    """Evaluate what a generation wants next, and let it go on."""
    ids, rows = generation.wants(limit)
    session = generation.session._core
    return generation.take(_core.batch_eval(session.model, (session,), (ids,), (rows,))[0])


def tokens(
    model: Model, ids: list[int], request: Request, place: Place
) -> Generator[Token, None, Completion]:
    """Yield tokens; return the `Completion`. Arguments are checked at the call."""
    place.room(model, ids, request.max_tokens)
    return _tokens(model, ids, request, place)


def _tokens(
    model: Model, ids: list[int], request: Request, place: Place
) -> Generator[Token, None, Completion]:
    generation = start(model, ids, request, place)
    try:
        while not generation.done:
            yield from step(generation)
    finally:
        generation.cancel()
    return generation.result()


def complete(model: Model, ids: list[int], requests: Sequence[Request], place: Place) -> list[Completion]:
    """Texts of one prompt, which is evaluated once; then all are generated together."""
    started_s = time.perf_counter()
    room = place.room(model, ids, max(request.max_tokens for request in requests))
    first = model.session(room, place.kv)
    if len(ids) > 1:
        _core.batch_eval(model._core, (first._core,), (ids[:-1],), (0,))
    state = first.to_bytes() if len(requests) > 1 else b""
    others = [model.session_from_bytes(state, room, place.kv) for _ in requests[1:]]
    generations = [
        Generation(model, ids, request, session, started_s)
        for request, session in zip(requests, [first, *others], strict=True)
    ]
    while running := [generation for generation in generations if not generation.done]:
        step_together(model, running)
    return [generation.result() for generation in generations]


def step_together(model: Model, generations: Sequence[Generation], limit: int = ALL) -> None:
    """Evaluate in one go what several generations want next, and let them go on."""
    wanted = [generation.wants(limit) for generation in generations]
    members = tuple(generation.session._core for generation in generations)
    got = _core.batch_eval(
        model._core, members, tuple(ids for ids, _ in wanted), tuple(rows for _, rows in wanted)
    )
    for generation, logits in zip(generations, got, strict=True):
        generation.take(logits)


def pieces(steps: Generator[Token, None, Completion]) -> Generator[str, None, Completion]:
    """The text of tokens, where there is any."""
    try:
        while True:
            try:
                token = next(steps)
            except StopIteration as end:
                done: Completion = end.value
                return done
            if token.text:
                yield token.text
    finally:
        steps.close()  # at once, whoever else refers to it


def drain(steps: Generator[object, None, Done]) -> Done:
    """Run to the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            done: Done = end.value
            return done
