"""Run the application: sockets, signals, and an end that lets requests finish."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from edgellm.server.app import create_app
from edgellm.server.protocol import Protocol
from edgellm.server.settings import Settings

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.scheduler import Scheduler

BACKLOG = 2048  # connections that the system holds until they are accepted


class _Server(uvicorn.Server):
    """uvicorn's, ending by our signals: the first lets requests finish, the second does not."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.leave)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def leave(self) -> None:
        """Take no more requests; at the second call, wait for none."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    OSError
        If the address is not ours or taken; the message names it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        own = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error}") from error
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen(BACKLOG)
    except OSError as error:
        own.close()
        raise OSError(f"{host}:{port}: {error.strerror or error}") from error
    own.setblocking(False)
    return own


def more_files() -> None:
    """Let this process hold as many connections as the system allows it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


def serve(
    model: Model,
    settings: Settings,
    scheduler: Scheduler,
    own: socket.socket,
    *,
    cache: object | None = None,
    drain_s: float = 30.0,
    ready: Callable[[Callable[[], None]], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal; then finish what is being written, for `drain_s` at most, and return.

    Parameters
    ----------
    model, settings, scheduler, cache, log
        As `create_app`.
    own : socket
        From `listen`.
    drain_s : float
        Time for running requests after the first signal.
    ready : callable, optional
        Called when requests are taken, with a function that any thread may call to end as a signal does.
    """
    app: Any = create_app(model, settings, scheduler, cache, log)
    config = uvicorn.Config(
        app,
        http=Protocol,
        log_config=None,
        log_level="error",
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        lifespan="on",
        ws="none",
        proxy_headers=False,
    )
    server = _Server(config)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(server.leave)

        task = asyncio.create_task(server.serve(sockets=[own]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started and ready is not None:
            ready(stop)
        await task

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
