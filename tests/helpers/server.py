"""A server in this process, on a port that is free."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import edgellm
from edgellm.scheduler import Scheduler
from edgellm.server import Settings, serve
from edgellm.server.running import listen


@dataclass
class Running:
    """What a test needs to know of a server."""

    model: edgellm.Model
    scheduler: Scheduler
    port: int
    log: list[str] = field(default_factory=list)
    stop: Any = None
    thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> Any:
        """An `openai.OpenAI` for it that tries once."""
        import openai

        options = {"api_key": "none", "max_retries": 0, "timeout": 60.0, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    @contextlib.contextmanager
    def slowed(self, step_s: float = 0.01) -> Iterator[None]:
        """Every step takes at least so long: the tiny model would be done before a test can interfere."""
        schedule = self.scheduler._schedule
        step = schedule.step

        def slow() -> Any:
            time.sleep(step_s)
            return step()

        schedule.step = slow  # type: ignore[method-assign]  # the point of it
        try:
            yield
        finally:
            schedule.step = step  # type: ignore[method-assign]  # as it was


@contextlib.contextmanager
def running(
    model: edgellm.Model, settings: Settings | None = None, cache: Any = None, **options: Any
) -> Iterator[Running]:
    """Serve a model while the context lasts; `options` are the scheduler's."""
    settings = settings or Settings(name="tiny", aliases=("default",))
    scheduler = Scheduler(model, cache=cache, **options)
    own = listen("127.0.0.1", 0)
    found = Running(model, scheduler, own.getsockname()[1])
    is_ready = threading.Event()

    def ready(stop: Any) -> None:
        found.stop = stop
        is_ready.set()

    def work() -> None:
        serve(model, settings, scheduler, own, cache=cache, drain_s=10.0, ready=ready, log=found.log.append)

    found.thread = threading.Thread(target=work)
    found.thread.start()
    assert is_ready.wait(30)
    try:
        yield found
    finally:
        found.stop()
        found.thread.join(30)
        scheduler.close(drain=False)
        own.close()
        assert not found.thread.is_alive()
