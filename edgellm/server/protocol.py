"""HTTP/1.1 as uvicorn speaks it, without patience for those who connect and say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 30.0  # for the whole head of a request; h11 itself limits it to 64 KB


class Protocol(H11Protocol):
    """A connection that is closed if the head of a request does not arrive in time."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEADER_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Part of a request has come."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._patience is None:
                self._patience = self.loop.call_later(HEADER_S, self._give_up)
        elif self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
