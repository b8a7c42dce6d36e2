"""Drivers of generations that have the machine to themselves: one at a time, or several of one prompt."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from edgellm import _core
from edgellm.generation.request import Place, Request
from edgellm.generation.results import Completion, Token
from edgellm.generation.state import Generation
from edgellm.session import append_together

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.prefix_cache import PrefixCache

Done = TypeVar("Done", bound=Completion)
ALL = 1 << 30  # as many tokens as there are: the evaluation cuts them into micro-batches


class Run:
    """A generation in a session of its own, which ends with it."""

    __slots__ = ("cache", "core", "generation")

    def __init__(self, model: Model, generation: Generation, cache: PrefixCache | None) -> None:
        self.core = model._core
        self.generation = generation
        self.cache = cache

    def step(self, limit: int = ALL) -> list[Token]:
        """Evaluate what is wanted next, at most so many tokens, and go on."""
        generation = self.generation
        session = generation.session
        reading = self.cache is not None and generation.prompt_left > 0
        ids, rows = generation.wants(limit)
        if session.overflow == "shift":
            got = append_together(self.core, (session,), (ids,), (rows,))
        else:  # the same, at less cost per token
            got = _core.batch_eval(self.core, (session._core,), (ids,), (rows,))
        tokens = generation.take(got[0])
        if reading and self.cache is not None and not generation.prompt_left:
            self._save(self.cache)  # now, because sliding windows move on
        return tokens

    def end(self) -> None:
        """Give the memory back; what was evaluated stays in the cache, if there is one."""
        session = self.generation.session
        self.generation.cancel()
        if session.closed:
            return
        if self.cache is not None:
            self._save(self.cache)
        session.close()

    def _save(self, cache: PrefixCache) -> None:
        held = self.generation.held
        if not self.generation.session.dropped and len(held) == self.generation.session.position:
            cache.save(self.generation.session, held)


def start(model: Model, ids: Sequence[int], request: Request, place: Place) -> Run:
    """Begin a text."""
    started_s = time.perf_counter()
    room = place.room(model, ids, request.max_tokens)
    session = model.session(room, place.kv, place.overflow)
    try:
        if place.cache is not None:
            place.cache.load(session, ids)
        return Run(model, Generation(model, ids, request, session, started_s), place.cache)
    except BaseException:
        session.close()
        raise


def tokens(
    model: Model, ids: list[int], request: Request, place: Place
) -> Generator[Token, None, Completion]:
    """Yield tokens; return the `Completion`. Arguments are checked at the call."""
    place.room(model, ids, request.max_tokens)
    return _tokens(model, ids, request, place)


def _tokens(
    model: Model, ids: list[int], request: Request, place: Place
) -> Generator[Token, None, Completion]:
    run = start(model, ids, request, place)
    try:
        while not run.generation.done:
            yield from run.step()
    finally:
        run.end()
    return run.generation.result()


def complete(model: Model, ids: list[int], requests: Sequence[Request], place: Place) -> list[Completion]:
    """Texts of one prompt, which is evaluated once; then all are generated together."""
    started_s = time.perf_counter()
    room = place.room(model, ids, max(request.max_tokens for request in requests))
    with ExitStack() as stack:
        first = stack.enter_context(model.session(room, place.kv, place.overflow))
        at = 0 if place.cache is None else place.cache.load(first, ids)
        if ids[at:-1]:
            append_together(model._core, (first,), (ids[at:-1],), (0,))
        if place.cache is not None:
            place.cache.save(first, ids[:-1])
        sessions = [first, *(stack.enter_context(first.fork()) for _ in requests[1:])]
        generations = [
            Generation(model, ids, request, session, started_s)
            for request, session in zip(requests, sessions, strict=True)
        ]
        while running := [generation for generation in generations if not generation.done]:
            step_together(model, running)
    return [generation.result() for generation in generations]


def step_together(model: Model, generations: Sequence[Generation], limit: int = ALL) -> None:
    """Evaluate in one go what several generations want next, and let them go on."""
    wanted = [generation.wants(limit) for generation in generations]
    ids, rows = [ids for ids, _ in wanted], [rows for _, rows in wanted]
    got = append_together(model._core, [generation.session for generation in generations], ids, rows)
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
