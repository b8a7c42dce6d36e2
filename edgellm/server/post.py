"""Between the scheduler's thread and the event loop: submissions one way, tokens the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgellm.generation import Token

if TYPE_CHECKING:
    from edgellm.scheduler import Handle, Scheduler
    from edgellm.server.asking import Asked


class Mailbox:
    """The texts of one HTTP request. Used on the event loop only.

    Attributes
    ----------
    handles : list of Handle
        In the order of the answer's choices.
    hung_up : bool
        Whether the client has gone.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self.handles: list[Handle] = []
        self._pending: dict[int, list[Token]] = {}
        self._ended: set[int] = set()
        self._news = asyncio.Event()
        self.hung_up = False

    @property
    def open(self) -> bool:
        """Whether anything is still to come."""
        return not self.hung_up and len(self._ended) < len(self.handles)

    async def wait(self) -> None:
        """Until there is news, or the client has gone."""
        await self._news.wait()

    def take(self) -> list[tuple[int, list[Token], bool]]:
        """What came since the last call: (choice, tokens, whether it has ended)."""
        self._news.clear()
        pending, self._pending = self._pending, {}
        return [(index, tokens, index in self._ended) for index, tokens in pending.items()]

    def put(self, index: int, tokens: list[Token], ended: bool) -> None:
        """More tokens; they wait here at most for as many as the request asked for."""
        self._pending.setdefault(index, []).extend(tokens)
        if ended:
            self._ended.add(index)
        self._news.set()

    def hang_up(self) -> None:
        """The client has gone: wake whoever waits, end the texts."""
        self.hung_up = True
        self._news.set()
        self.close()

    def close(self) -> None:
        """End what has not ended, and forget it."""
        for handle in self.handles:
            self._post.forget(handle)
            if not handle.done:
                handle.cancel()


class Post:
    """Submits to a scheduler and sorts its news into mailboxes, once for each of its steps."""

    def __init__(self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._boxes: dict[Handle, tuple[Mailbox, int]] = {}
        self._deliver = self._from_thread  # one object, so that a step brings one call

    def submit(self, asked: Asked) -> Mailbox:
        """Ask for every choice of a request: for all or, with an exception, for none."""
        box = Mailbox(self)
        try:
            for ids in asked.prompts:
                for handle in self._scheduler.submit_many(
                    ids, asked.requests, cache_prompt=asked.cache_prompt, deliver=self._deliver
                ):
                    self._boxes[handle] = (box, len(box.handles))
                    box.handles.append(handle)
        except BaseException:
            box.close()
            raise
        return box

    def forget(self, handle: Handle) -> None:
        """Its news are for nobody any more."""
        self._boxes.pop(handle, None)

    def _from_thread(self, news: list[tuple[Handle, list[Token]]]) -> None:
        sorted_out = [(handle, tokens, handle.done) for handle, tokens in news]
        self._loop.call_soon_threadsafe(self._sort, sorted_out)

    def _sort(self, news: list[tuple[Handle, list[Token], bool]]) -> None:
        for handle, tokens, ended in news:
            if (place := self._boxes.get(handle)) is not None:
                box, index = place
                box.put(index, tokens, ended)
                if ended:
                    del self._boxes[handle]
