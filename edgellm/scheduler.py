"""Many texts of one model at once: continuous batching."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from edgellm import _core
from edgellm._schedule import News, Prompt, Schedule, Text
from edgellm.generation import Completion, Request, Token

if TYPE_CHECKING:
    from edgellm._schedule import Cache
    from edgellm.model import Model

STEP_TOKENS = 128  # what the core evaluates together; more would only make a step longer

Deliver = Callable[[list[tuple["Handle", list[Token]]]], None]


class BusyError(_core.EdgellmError):
    """The queue is full.

    Attributes
    ----------
    retry_after_s : float
        When trying again may help: a guess from how long texts took so far.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Handle:
    """One text that a `Scheduler` writes. Made by `Scheduler.submit`.

    Iterating gives each `Token` as soon as it is there, once. Any thread may use it.
    """

    __slots__ = ("_cancel", "_deliver", "_ended", "_text", "_tokens")

    def __init__(self, text: Text, cancel: Callable[[Text], None], deliver: Deliver | None) -> None:
        self._text = text
        self._cancel = cancel
        self._deliver = deliver
        self._ended = threading.Event()
        self._tokens: queue.SimpleQueue[list[Token] | None] = queue.SimpleQueue()

    def cancel(self) -> None:
        """End the text within a step; what there is becomes the result, with finish_reason "cancelled"."""
        self._cancel(self._text)

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._text.done

    @property
    def error(self) -> Exception | None:
        """What ended it, if it did not end well."""
        return self._text.error

    def result(self, timeout_s: float | None = None) -> Completion:
        """Wait for the end.

        Raises
        ------
        TimeoutError
            If it has not ended in that time; it goes on.
        Exception
            What ended the text: MemoryError, GrammarError, ValueError if the model was closed...
        """
        if not self._text.done and not self._ended.wait(timeout_s):
            raise TimeoutError(f"the text has not ended within {timeout_s} s")
        if self._text.error is not None:
            raise self._text.error
        assert self._text.completion is not None
        return self._text.completion

    def __iter__(self) -> Iterator[Token]:
        while (tokens := self._tokens.get()) is not None:
            yield from tokens
        self._tokens.put(None)  # a second iteration ends too
        if self._text.error is not None:
            raise self._text.error

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self._text.prompt.ids)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were taken out of the prefix cache."""
        return self._text.cached

    @property
    def queue_s(self) -> float | None:
        """Seconds from `submit` to a place in the batch; None before."""
        text = self._text
        return None if text.admitted_s is None else text.admitted_s - text.submitted_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds from `submit` to the first token; None before."""
        text = self._text
        return None if text.first_s is None else text.first_s - text.submitted_s

    @property
    def total_s(self) -> float | None:
        """Seconds from `submit` to the end; None before."""
        text = self._text
        return None if text.finished_s is None else text.finished_s - text.submitted_s

    def _put(self, tokens: list[Token]) -> None:
        if tokens:
            self._tokens.put(tokens)
        if self._text.done:
            self._tokens.put(None)


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What a `Scheduler` has done, and what it is doing."""

    waiting: int
    running: int
    steps: int
    step_sizes: tuple[int, ...]  # [n]: steps that evaluated n texts together
    prompt_tokens: int  # evaluated
    cached_tokens: int  # of prompts, not evaluated because the cache had them
    generated_tokens: int
    session_bytes: int  # planned for the sessions in use


class Scheduler:
    """Writes many texts of one model together, in a thread of its own.

    Each step evaluates the model once for every text that is being written and for a part of the prompts
    that are being read, so that reading a long prompt never stops the others; texts join and leave between
    steps. What a text says does not depend on the company: it is `Model.generate`'s, to the bit.

    Parameters
    ----------
    model : Model
        Not closed before the scheduler.
    max_sessions : int
        Texts that are written at the same time.
    max_waiting : int
        Texts that may wait for a place; more are refused with `BusyError`.
    cache : PrefixCache, optional
        Remembers beginnings of prompts between texts.
    max_bytes : int, optional
        Memory for the sessions at the same time, by the plan (`Model.plan`). Without it only the `max_bytes`
        of the model limits them.
    step_tokens : int
        Tokens that a step evaluates at most, which bounds how long a text waits for its next token.
    kv : str, optional
        Cache type of the sessions; `Model.default_kv` by default.

    Examples
    --------
    >>> from edgellm.generation import Request
    >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m, edgellm.Scheduler(m) as scheduler:
    ...     prompts = ["The capital of France is", "The capital of Spain is"]
    ...     handles = [scheduler.submit(m.tokenizer.encode(p), Request(max_tokens=2)) for p in prompts]
    ...     [handle.result().text for handle in handles]
    [' Paris.', ' Madrid.']
    """

    def __init__(
        self,
        model: Model,
        max_sessions: int = 64,
        max_waiting: int = 256,
        cache: Cache | None = None,
        *,
        max_bytes: int | None = None,
        step_tokens: int = STEP_TOKENS,
        kv: str | None = None,
    ) -> None:
        for name, value, least in (
            ("max_sessions", max_sessions, 1),
            ("max_waiting", max_waiting, 0),
            ("step_tokens", step_tokens, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.model = model
        self.max_sessions = max_sessions
        self.max_waiting = max_waiting
        self.max_bytes = max_bytes
        self._schedule = Schedule(model, max_sessions, max_bytes, step_tokens, cache, kv)
        self._wake = threading.Condition()
        self._inbox: list[Prompt] = []
        self._live = 0  # texts that are not done
        self._number = 0
        self._mean_s = 1.0  # how long texts took, the last ones most
        self._closing = False
        self._abandoned = False  # closing without writing to the end
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="edgellm-scheduler", daemon=True)
        self._thread.start()
        _LIVE.add(self)

    def submit(
        self,
        ids: Sequence[int],
        request: Request | None = None,
        *,
        priority: int = 0,
        cache_prompt: bool = True,
        deliver: Deliver | None = None,
    ) -> Handle:
        """Ask for a text.

        Parameters
        ----------
        ids : sequence of int
            The prompt's tokens.
        request : Request, optional
            Everything else.
        priority : int
            Lower goes first; equals in the order of their calls.
        cache_prompt : bool
            Whether the prefix cache may be used and may keep this text.
        deliver : callable, optional
            Called in the scheduler's thread, once after each step, with (handle, new tokens) of every text
            that was submitted with this same object; a handle that is `done` comes for the last time. It must
            not block: ``lambda news: loop.call_soon_threadsafe(...)``. Without it the handle keeps the
            tokens for whoever iterates over it.

        Returns
        -------
        handle : Handle

        Raises
        ------
        BusyError
            If the queue is full.
        ContextError
            If the prompt does not fit in what the model was trained for.
        MemoryError
            If its session alone passes `max_bytes`.
        ValueError
            If `ids` is empty or holds what is no token, the request is out of range, or the scheduler was
            closed.
        RuntimeError
            In a child of the process that made the scheduler: threads are not inherited.
        """
        requests = [Request() if request is None else request]
        return self.submit_many(ids, requests, priority, cache_prompt, deliver)[0]

    def submit_many(
        self,
        ids: Sequence[int],
        requests: Sequence[Request],
        priority: int = 0,
        cache_prompt: bool = True,
        deliver: Deliver | None = None,
    ) -> list[Handle]:
        """As `submit`, several texts of one prompt, which is read once.

        They get their places together.

        Raises
        ------
        ValueError
            Also if there are more than `max_sessions`.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("scheduler: it belongs to the parent process; make one after the fork")
        prompt = self._prompt(ids, requests, priority, cache_prompt)
        now = time.perf_counter()
        handles = []
        for request in requests:
            text = Text(request, prompt, now)
            text.owner = handle = Handle(text, self._cancel, deliver)
            prompt.texts.append(text)
            handles.append(handle)
        with self._wake:
            if self._closing:
                raise ValueError("scheduler: closed")
            most = self.max_sessions + self.max_waiting
            if self._live + len(handles) > most:
                raise BusyError(f"busy: {self._live} texts are being written or wait", self._retry_after_s())
            prompt.number = self._number
            self._number += 1
            self._live += len(handles)
            self._inbox.append(prompt)
            self._wake.notify()
        return handles

    def _prompt(
        self, ids: Sequence[int], requests: Sequence[Request], priority: int, cache_prompt: bool
    ) -> Prompt:
        """The prompt, checked as far as it can be without a session."""
        if not 1 <= len(requests) <= self.max_sessions:
            raise ValueError(f"{len(requests)} texts of one prompt: 1 to {self.max_sessions} can be written")
        for request in requests:
            request.check(self.model)
        own = [int(i) for i in ids]
        if not own:
            raise ValueError("prompt: no tokens; give at least one")
        config = self.model.config
        if min(own) < 0 or max(own) >= config.vocab:
            raise ValueError(f"prompt: token ids must be in 0..{config.vocab - 1}")
        if len(own) > config.context:
            raise _core.ContextError(f"prompt: {len(own)} tokens do not fit in a context of {config.context}")
        most = max(request.max_tokens for request in requests)
        context = min(len(own) + most, config.context)
        need = self._schedule.need_bytes(context)
        if self.max_bytes is not None and len(requests) * need > self.max_bytes:
            raise MemoryError(
                f"{len(requests)} sessions of {context} positions need {len(requests) * need} bytes, "
                f"max_bytes is {self.max_bytes}"
            )
        return Prompt(own, context, need, priority, 0, use_cache=cache_prompt)

    def stats(self) -> SchedulerStats:
        """Counts since the start, and the state now."""
        schedule = self._schedule
        sizes = tuple(schedule.sizes)
        running = schedule.running
        return SchedulerStats(
            waiting=max(0, self._live - running),
            running=running,
            steps=sum(sizes),
            step_sizes=sizes,
            prompt_tokens=schedule.prompt_tokens,
            cached_tokens=schedule.cached_tokens,
            generated_tokens=schedule.generated_tokens,
            session_bytes=schedule.held_bytes,
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def close(self, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take nothing more, end what there is, and wait for the thread.

        Parameters
        ----------
        drain : bool
            Write to the end what was submitted; otherwise it is cancelled.
        timeout_s : float, optional
            After this, cancel what is left.
        """
        with self._wake:
            self._closing = True
            self._abandoned = self._abandoned or not drain
            self._wake.notify()
        if os.getpid() != self._pid or threading.current_thread() is self._thread:
            return
        self._thread.join(timeout_s if drain else None)
        with self._wake:
            self._abandoned = True
        self._thread.join()
        _LIVE.discard(self)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    def _retry_after_s(self) -> float:
        rounds = math.ceil(self._live / self.max_sessions)
        return min(max(1.0, self._mean_s * rounds), 60.0)

    def _cancel(self, text: Text) -> None:
        text.cancelled = True
        self._schedule.cancels = True
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        """The thread: a step after the other, asleep when there is nothing to do."""
        schedule = self._schedule
        while True:
            with self._wake:
                while not (self._inbox or schedule.busy or self._closing):
                    self._wake.wait()
                inbox, self._inbox = self._inbox, []
                abandoned = self._abandoned
            for prompt in inbox:
                schedule.add(prompt)
            if abandoned:
                for text in schedule.texts():
                    text.cancelled = True
                schedule.cancels = True
            try:
                news = schedule.step()
            except Exception as error:  # a defect of ours: everybody hears of it, nobody waits for ever
                news = schedule.fail(error)
            self._tell(news)
            if self._closing and not schedule.busy:
                with self._wake:
                    if not self._inbox:
                        return

    def _tell(self, news: News) -> None:
        """Hand the news of a step to whoever asked for them."""
        ended = [text for text, _ in news if text.done]
        with self._wake:
            self._live -= len(ended)
        for text in ended:
            if text.admitted_s is not None and text.finished_s is not None:
                self._mean_s += 0.1 * (text.finished_s - text.admitted_s - self._mean_s)
        shared: dict[Deliver, list[tuple[Handle, list[Token]]]] = {}
        for text, tokens in news:
            handle: Handle = text.owner
            if text.done:
                handle._ended.set()
            if handle._deliver is None:
                handle._put(tokens)
            else:
                shared.setdefault(handle._deliver, []).append((handle, tokens))
        for deliver, batch in shared.items():
            with contextlib.suppress(Exception):  # whose fault that is, the others must not feel it
                deliver(batch)


_LIVE: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A daemon thread must not be inside the core while the interpreter goes away."""
    for scheduler in list(_LIVE):
        scheduler.close(drain=False)
