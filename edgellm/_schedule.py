"""Which texts are written together, and how far each comes in a step: a scheduler without its thread."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgellm import _core
from edgellm.generation import Completion, Generation, Request, Timings, Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgellm.model import Model
    from edgellm.session import Session

LEAST_PREFILL = 16  # tokens of prompts that every step reads, however many texts are being written


class Cache(Protocol):
    """What a schedule asks of an `edgellm.PrefixCache`."""

    def load(self, session: Session, ids: Sequence[int]) -> int: ...
    def save(self, session: Session, ids: Sequence[int]) -> None: ...


@dataclass(eq=False, slots=True)
class Text:
    """One text: waiting, being written, or done."""

    request: Request
    prompt: Prompt
    submitted_s: float
    admitted_s: float | None = None
    first_s: float | None = None  # when the first token was there
    finished_s: float | None = None
    generated: int = 0
    cached: int = 0  # tokens of the prompt that came out of the prefix cache
    cancelled: bool = False  # set by any thread; heeded before the next step
    session: Session | None = None
    generation: Generation | None = None
    completion: Completion | None = None
    error: Exception | None = None
    owner: Any = None  # whoever wants the news

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.completion is not None or self.error is not None

    @property
    def reading(self) -> bool:
        """Whether a part of the prompt is still to be evaluated."""
        return self.generation is None or self.generation.prompt_left > 0


@dataclass(eq=False, slots=True)
class Prompt:
    """Token ids and the texts that continue them; they are read once for all."""

    ids: list[int]
    context: int
    need_bytes: int  # of each session
    priority: int
    number: int
    texts: list[Text] = field(default_factory=list)
    use_cache: bool = True
    siblings: list[Text] = field(default_factory=list)  # admitted, waiting for the first to read the prompt

    def __lt__(self, other: Prompt) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


News = list[tuple[Text, list[Token]]]


class Schedule:
    """Texts of one model, written a step at a time. No thread, no lock: one caller at a time.

    Parameters
    ----------
    model : Model
    max_sessions : int
        Texts that are written at the same time.
    max_bytes : int or None
        Memory for their sessions, by the plan.
    step_tokens : int
        Tokens that a step evaluates at most, as long as texts are being written: what bounds a step's time.
    cache : PrefixCache or None
    kv : str or None
        Cache type of the sessions.
    """

    def __init__(
        self,
        model: Model,
        max_sessions: int,
        max_bytes: int | None,
        step_tokens: int,
        cache: Cache | None = None,
        kv: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._step_tokens = step_tokens
        self._cache = cache
        self._kv = kv
        self._clock = clock
        self._waiting: list[Prompt] = []  # a heap
        self._members: list[Text] = []
        self.cancels = False  # set by any thread after it has set `cancelled` of a text
        self.held_bytes = 0
        self.sizes = [0] * (max_sessions + 1)  # sizes[n]: steps in which n texts took part
        self.prompt_tokens = 0  # evaluated
        self.generated_tokens = 0
        self.cached_tokens = 0  # not evaluated, because the cache had them

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._members or self._waiting)

    @property
    def running(self) -> int:
        """Texts that hold a place."""
        return len(self._members) + sum(len(text.prompt.siblings) for text in self._members)

    def need_bytes(self, context: int) -> int:
        """Memory of one session, by the plan."""
        plan = self._model.plan(context, self._kv)
        return plan.kv_bytes + plan.session_bytes

    def add(self, prompt: Prompt) -> None:
        """Let the texts of a prompt wait for their turn."""
        heapq.heappush(self._waiting, prompt)

    def texts(self) -> Iterable[Text]:
        """Everything that is not done."""
        for member in self._members:
            yield member
            yield from member.prompt.siblings
        for prompt in self._waiting:
            yield from prompt.texts

    def step(self) -> News:
        """Evaluate the model once; what became known of each text, its end included."""
        news: News = []
        self._sweep(news)
        self._admit(news)
        work = self._compose(news)
        if work:
            self.sizes[min(len(work), self._max_sessions)] += 1
            for text, logits in self._evaluate(work, news):
                self._take(text, logits, news)
            self._members = [text for text in self._members if not text.done]
        return news

    def fail(self, error: Exception) -> News:
        """End everything with an error."""
        news: News = []
        for text in list(self.texts()):
            self._end(text, news, error)
        self._members, self._waiting = [], []
        return news

    def _sweep(self, news: News) -> None:
        """Let go of what was cancelled."""
        if not self.cancels:
            return
        self.cancels = False
        for text in [text for text in self.texts() if text.cancelled]:
            siblings = text.prompt.siblings
            if text in siblings:
                siblings.remove(text)
            elif siblings and text.session is not None:
                self._succeed(text)
            self._end(text, news)
        for prompt in self._waiting:
            prompt.texts = [text for text in prompt.texts if not text.done]
        self._waiting = [prompt for prompt in self._waiting if prompt.texts]
        heapq.heapify(self._waiting)
        self._members = [text for text in self._members if not text.done]

    def _succeed(self, leader: Text) -> None:
        """The next text of a prompt goes on reading where the first one stops."""
        heir = leader.prompt.siblings.pop(0)
        heir.session, leader.session = leader.session, None
        self._members[self._members.index(leader)] = heir

    def _admit(self, news: News) -> None:
        """Give places to those who wait, in order: nobody is overtaken because it needs more."""
        while self._waiting:
            prompt = self._waiting[0]
            count = len(prompt.texts)
            running = self.running
            held = self.held_bytes + count * prompt.need_bytes
            if running + count > self._max_sessions:
                return
            if self._max_bytes is not None and held > self._max_bytes and running:
                return
            first = prompt.texts[0]
            try:
                first.session = self._model.session(prompt.context, self._kv)
            except MemoryError as error:
                if running:
                    return  # again when a session has been given back
                self._refuse(prompt, error, news)
                continue
            except Exception as error:
                self._refuse(prompt, error, news)
                continue
            heapq.heappop(self._waiting)
            self.held_bytes = held
            for text in prompt.texts:
                text.admitted_s = self._clock()
            prompt.siblings = prompt.texts[1:]
            self._members.append(first)

    def _refuse(self, prompt: Prompt, error: Exception, news: News) -> None:
        heapq.heappop(self._waiting)
        for text in prompt.texts:
            self._end(text, news, error)

    def _compose(self, news: News) -> list[tuple[Text, list[int], int]]:
        """Who takes part in the next step, with which tokens and how many rows of logits."""
        work: list[tuple[Text, list[int], int]] = []
        writing = [text for text in self._members if not text.reading]
        share = max(1, self._step_tokens // max(1, len(writing)))
        for text in writing:
            self._ask(text, share, work, news)
        left = self._step_tokens - sum(len(ids) for _, ids, _ in work)
        left = max(left, LEAST_PREFILL)
        reading = [text for text in self._members if text.reading]
        for text in sorted(reading, key=lambda text: (text.prompt.priority, text.prompt.number)):
            if left <= 0:
                break
            left -= self._read(text, left, work, news)
        return work

    def _ask(self, text: Text, limit: int, work: list[tuple[Text, list[int], int]], news: News) -> int:
        """Put what a text wants into the work; the number of its tokens."""
        assert text.generation is not None
        try:
            ids, rows = text.generation.wants(limit)
        except Exception as error:
            self._leave(text, news, error)
            return 0
        work.append((text, ids, rows))
        return len(ids)

    def _read(self, text: Text, limit: int, work: list[tuple[Text, list[int], int]], news: News) -> int:
        """As `_ask` inside a prompt; its other texts join before the last token."""
        prompt = text.prompt
        try:
            if text.generation is None:
                self._begin(text)
            generation = text.generation
            assert generation is not None
            if prompt.siblings and generation.prompt_left > 1:
                limit = min(limit, generation.prompt_left - 1)
            elif prompt.siblings:
                self._fork(text, news)
        except Exception as error:
            self._leave(text, news, error)
            return 0
        used = self._ask(text, limit, work, news)
        self.prompt_tokens += used
        return used

    def _begin(self, text: Text) -> None:
        """Make the generation, from what the prefix cache has: as late as this, it may have more."""
        assert text.session is not None
        prompt = text.prompt
        if self._cache is not None and prompt.use_cache and text.session.position == 0:
            text.cached = self._cache.load(text.session, prompt.ids)
            self.cached_tokens += text.cached
        text.generation = Generation(
            self._model, prompt.ids, text.request, text.session, text.submitted_s, self._clock
        )

    def _fork(self, first: Text, news: News) -> None:
        """Give the other texts of a prompt copies of the session; they take part from the next step on."""
        assert first.session is not None
        prompt = first.prompt
        siblings, prompt.siblings = prompt.siblings, []
        for text in siblings:
            try:
                text.session = first.session.fork(prompt.context)
                text.generation = Generation(
                    self._model, prompt.ids, text.request, text.session, text.submitted_s, self._clock
                )
            except Exception as error:
                self._end(text, news, error)
            else:
                self._members.append(text)

    def _leave(self, text: Text, news: News, error: Exception) -> None:
        if text.prompt.siblings:
            self._succeed(text)
        self._end(text, news, error)

    def _evaluate(
        self, work: list[tuple[Text, list[int], int]], news: News
    ) -> list[tuple[Text, NDArray[np.float32] | None]]:
        """Logits for everybody; if that fails, for each alone, so that one fails and the others go on."""
        try:
            return self._eval(work)
        except Exception as error:
            if len(work) == 1:
                self._leave(work[0][0], news, error)
                return []
        done = []
        for one in work:
            done += self._evaluate([one], news)
        return done

    def _eval(self, work: list[tuple[Text, list[int], int]]) -> list[tuple[Text, NDArray[np.float32] | None]]:
        core = self._model._core
        sessions = tuple(text.session._core for text, _, _ in work if text.session is not None)
        texts, ids, rows = zip(*work, strict=True)
        return list(zip(texts, _core.batch_eval(core, sessions, ids, rows), strict=True))

    def _take(self, text: Text, logits: NDArray[np.float32] | None, news: News) -> None:
        generation = text.generation
        assert generation is not None
        was_reading = text.generated == 0
        try:
            tokens = generation.take(logits)
            if was_reading and not generation.prompt_left:
                self._save(text)
        except Exception as error:
            self._leave(text, news, error)
            return
        self.generated_tokens += generation.generated - text.generated
        text.generated = generation.generated
        if text.first_s is None and (text.generated or generation.done):
            text.first_s = self._clock()
        if generation.done:
            self._end(text, news, tokens=tokens)
        elif tokens:
            news.append((text, tokens))

    def _save(self, text: Text) -> None:
        """Let later prompts begin with what this session holds."""
        if self._cache is None or not text.prompt.use_cache:
            return
        assert text.session is not None
        assert text.generation is not None
        with contextlib.suppress(MemoryError):  # a cache is no reason to fail
            self._cache.save(text.session, text.generation.held)

    def _end(
        self, text: Text, news: News, error: Exception | None = None, tokens: Sequence[Token] = ()
    ) -> None:
        """Give everything back; nothing of the text changes any more."""
        if text.done:
            return
        generation, completion = text.generation, None
        if error is None and generation is not None:
            generation.cancel()
            completion = generation.result()
            if completion.finish_reason != "cancelled":
                try:
                    self._save(text)
                except Exception as failure:
                    error = failure
        elif error is None:
            timings = Timings(len(text.prompt.ids), 0, 0.0, 0.0, 0.0)
            completion = Completion("", [], timings, "cancelled")
        text.finished_s = self._clock()
        if text.admitted_s is not None:
            self.held_bytes -= text.prompt.need_bytes
        text.generation = text.session = None
        text.error = error
        text.completion = completion if error is None else None  # last: from here on it is done
        news.append((text, list(tokens)))
