"""One request from its submission to the last byte of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgellm.generation import Token
from edgellm.server.errors import ApiError, as_api_error

if TYPE_CHECKING:
    from edgellm.scheduler import Handle
    from edgellm.server.gate import Record
    from edgellm.server.post import Mailbox

FIRST_NEWS_S = 5.0  # so long an error still gets a status of its own; then the headers go out
HEARTBEAT_S = 15.0  # a comment in the stream, so that nobody takes a long queue for a dead line


class Teller(Protocol):
    """How an endpoint words an answer."""

    def events(self, index: int, tokens: list[Token]) -> bytes:
        """Events of a stream for more tokens of a choice."""

    def end(self, index: int, handle: Handle) -> bytes:
        """Events that end a choice."""

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The event that tells the usage, if the request wants it."""

    def whole(self, handles: Sequence[Handle], tokens: Sequence[list[Token]], usage: dict[str, Any]) -> bytes:
        """The answer in one piece."""


def usage(handles: Sequence[Handle], prompts: int) -> dict[str, Any]:
    """Tokens of a request, in OpenAI's words: each prompt counts once, whatever the number of its answers."""
    each = len(handles) // prompts
    asked = sum(handle.prompt_tokens for handle in handles[::each])
    cached = sum(handle.cached_tokens for handle in handles[::each])
    written = sum(len(handle.result().ids) for handle in handles if handle.done and handle.error is None)
    return {
        "prompt_tokens": asked,
        "completion_tokens": written,
        "total_tokens": asked + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


@contextlib.asynccontextmanager
async def watched(box: Mailbox, receive: Any) -> AsyncIterator[None]:
    """While this lasts, a client that hangs up ends its texts; at the end what is left of them ends."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        box.hang_up()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        box.close()


class Answer:
    """The answer to one request.

    Parameters
    ----------
    box : Mailbox
    teller : Teller
    prompts : int
        How many the request has.
    record : Record
        What the log and the metrics are told.
    timeout_s : float
        For the whole of it.
    """

    def __init__(self, box: Mailbox, teller: Teller, prompts: int, record: Record, timeout_s: float) -> None:
        self._box = box
        self._teller = teller
        self._prompts = prompts
        self._record = record
        self._deadline_s = time.monotonic() + timeout_s

    def _left_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())

    async def whole(self, receive: Any) -> bytes | None:
        """The answer in one piece; None if the client has gone.

        Raises
        ------
        ApiError
            If a text failed, or time is up.
        """
        box = self._box
        tokens: list[list[Token]] = [[] for _ in box.handles]
        async with watched(box, receive):
            try:
                async with asyncio.timeout(self._left_s()):
                    while box.open:
                        await box.wait()
                        for index, new, _ in box.take():
                            tokens[index] += new
            except TimeoutError:
                self._record.outcome = "timeout"
                raise ApiError(504, "the answer took too long", code="timeout") from None
            if box.hung_up:
                self._record.outcome = "cancelled"
                return None
        self._note()
        self._raise_error(box.handles)
        return self._teller.whole(box.handles, tokens, usage(box.handles, self._prompts))

    def _raise_error(self, handles: Sequence[Handle]) -> None:
        for handle in handles:
            if handle.done and handle.error is not None:
                raise as_api_error(handle.error) from handle.error

    def _note(self) -> None:
        self._record.note(self._box.handles, self._prompts)

    async def begin(self) -> None:
        """Wait a moment for the first news, so that what fails at once fails with a status.

        Raises
        ------
        ApiError
            If a text failed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(FIRST_NEWS_S, self._left_s())):
                await self._box.wait()
        try:
            self._raise_error(self._box.handles)
        except ApiError:
            self._box.close()
            raise

    async def stream(self, receive: Any, send: Any) -> None:
        """Send the events of the answer; headers have been sent."""
        box, record = self._box, self._record
        async with watched(box, receive):
            try:
                async with asyncio.timeout(self._left_s()):
                    while box.open:
                        await self._send_news(send)
                    if not box.hung_up:
                        await self._send_news(send)
            except TimeoutError:
                record.outcome = "timeout"
                error = ApiError(504, "the answer took too long", code="timeout")
                await _send(send, b"data: " + error.body + b"\n\n", False)
                return
            if box.hung_up:
                record.outcome = "cancelled"
                self._note()
                return
            last = b"data: [DONE]\n\n"
            if not record.error:
                last = self._teller.usage(usage(box.handles, self._prompts)) + last
            self._note()
            await _send(send, last, False)

    async def _send_news(self, send: Any) -> None:
        """Wait for news and send it: all there is at once, however slowly the client reads."""
        box, teller = self._box, self._teller
        if box.open:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await box.wait()
            except TimeoutError:
                if not box.hung_up:
                    await _send(send, b": waiting\n\n", True)
                return
        out = []
        for index, tokens, ended in box.take():
            if tokens:
                out.append(teller.events(index, tokens))
            if ended:
                handle = box.handles[index]
                if handle.error is None:
                    out.append(teller.end(index, handle))
                else:
                    error = as_api_error(handle.error)
                    self._record.error = error.message
                    out.append(b"data: " + error.body + b"\n\n")
        if out and not box.hung_up:
            await _send(send, b"".join(out), True)


async def _send(send: Any, body: bytes, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
