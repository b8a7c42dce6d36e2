"""The ASGI application: routes, and one request on its way through them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from edgellm.server import chat, completions, embeddings
from edgellm.server.answering import Answer, Teller
from edgellm.server.asking import Asked, Desk, Grammars
from edgellm.server.errors import ApiError, as_api_error, dumps
from edgellm.server.fields import parse
from edgellm.server.gate import Gate, Record
from edgellm.server.page import page
from edgellm.server.post import Post
from edgellm.server.settings import Settings
from edgellm.server.telemetry import Telemetry
from edgellm.server.telling import ChatTeller, CompletionTeller

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.scheduler import Scheduler

Understand = Callable[[dict[str, Any], Desk], Asked]
MakeTeller = Callable[[Asked, str, Any], Teller]
MAX_PARALLEL_READS = 4  # bodies that are parsed and encoded at the same time


class _Stream(Response):
    """An answer as server-sent events, from its news to the socket."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._answer.stream(receive, send)


class Application:
    """The endpoints. One for each event loop."""

    def __init__(self, model: Model, scheduler: Scheduler, settings: Settings, telemetry: Telemetry) -> None:
        self._model = model
        self._scheduler = scheduler
        self._settings = settings
        self._telemetry = telemetry
        self._desk = Desk(model, settings, Grammars(model.tokenizer), scheduler.max_sessions)
        self._created = int(time.time())
        self._buffered_bytes = 0
        self._post: Post | None = None
        self._embedding = 0  # requests that wait for it or have it
        self._embedder = asyncio.Lock()
        self._reads = asyncio.Semaphore(MAX_PARALLEL_READS)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """While the server runs; at its end what is still being written ends too."""
        self._post = Post(self._scheduler, asyncio.get_running_loop())
        yield
        await asyncio.to_thread(self._scheduler.close, False)

    def routes(self) -> list[Route]:
        """Every path."""
        return [
            Route("/", self.page),
            Route("/health", self.health),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.one_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The page that shows tokens as they come."""
        text, policy = page()
        headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return HTMLResponse(text, headers={**headers, "x-content-type-options": "nosniff"})

    async def health(self, request: Request) -> Response:
        """Whether requests are taken."""
        if self._scheduler.closed or self._model.closed:
            raise ApiError(503, "the server is closing", code="closing")
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        return PlainTextResponse(self._telemetry.text(), media_type="text/plain; version=0.0.4")

    def _described(self) -> dict[str, Any]:
        config = self._model.config
        return {
            "id": self._settings.name,
            "object": "model",
            "created": self._created,
            "owned_by": "edgellm",
            "meta": {"context": config.context, "vocab": config.vocab, "width": config.width},
        }

    async def models(self, request: Request) -> Response:
        """The list of the one model."""
        return _json({"object": "list", "data": [self._described()]})

    async def one_model(self, request: Request) -> Response:
        """What there is to say of a model."""
        name = request.path_params["name"]
        if not self._settings.knows(name):
            raise ApiError(404, f"the model {name[:80]!r} does not exist", "model", "model_not_found")
        return _json(self._described())

    async def chat(self, request: Request) -> Response:
        """An answer to a conversation."""
        return await self._answer(request, chat.understand, ChatTeller)

    async def completions(self, request: Request) -> Response:
        """The continuation of a text."""
        return await self._answer(request, completions.understand, CompletionTeller)

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts. One request at a time, a part of a text after the other: others hardly wait."""
        record: Record = request.scope["edgellm.record"]
        asked: embeddings.Asked = await self.understood(
            request, lambda data: embeddings.understand(data, self._desk)
        )
        if self._embedding >= self._scheduler.max_waiting + 1:
            raise ApiError(429, "busy with embeddings", code="queue_full", headers={"Retry-After": "1"})
        self._embedding += 1
        try:
            vectors = await self._embedded(asked.texts, request)
        except Exception as error:
            raise as_api_error(error, "input") from error
        finally:
            self._embedding -= 1
        if vectors is None:
            record.outcome = "cancelled"
            return Response(status_code=499)
        record.prompt_tokens = asked.tokens
        return Response(embeddings.told(asked, vectors, self._settings.name), media_type="application/json")

    async def _embedded(self, texts: list[list[int]], request: Request) -> NDArray[np.float32] | None:
        """A vector for each text; None if the client has gone."""
        rows = []
        async with self._embedder, asyncio.timeout(self._settings.timeout_s):
            for ids in texts:
                if await request.is_disconnected() or self._scheduler.closed:
                    return None
                rows.append(await asyncio.to_thread(self._model.embed, [ids]))
        return np.concatenate(rows)

    async def _answer(self, request: Request, understand: Understand, teller: MakeTeller) -> Response:
        record: Record = request.scope["edgellm.record"]
        asked: Asked = await self.understood(request, lambda data: understand(data, self._desk))
        record.stream = asked.stream
        assert self._post is not None
        try:
            box = self._post.submit(asked)
        except Exception as error:
            raise as_api_error(error) from error
        words = teller(asked, self._settings.name, self._model.tokenizer)
        answer = Answer(box, words, len(asked.prompts), record, self._settings.timeout_s)
        if asked.stream:
            await answer.begin()
            return _Stream(answer)
        body = await answer.whole(request.receive)
        if body is None:
            return Response(status_code=499)  # nobody reads it; the log tells that the client has gone
        return Response(body, media_type="application/json")

    async def understood(self, request: Request, understand: Callable[[dict[str, Any]], Any]) -> Any:
        """Read the body and make sense of it, on a thread of its own: both may take a while.

        Raises
        ------
        ApiError
            If it is too large, too slow, no JSON, or makes no sense.
        """
        record: Record = request.scope["edgellm.record"]
        raw = await self._body(request)

        def work() -> Any:
            data = parse(raw)
            if self._settings.log_prompts:
                record.prompt = data.get("messages", data.get("prompt", data.get("input")))
            return understand(data)

        try:
            async with self._reads:
                return await asyncio.to_thread(work)
        except ApiError:
            raise
        except Exception as error:
            raise as_api_error(error) from error
        finally:
            self._buffered_bytes -= len(raw)

    async def _body(self, request: Request) -> bytes:
        """The body; its bytes count as buffered until `understood` gives them back."""
        settings = self._settings
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"Content-Type must be application/json, got {kind[:80]!r}")
        most = settings.max_body_bytes
        too_large = ApiError(413, f"the body must have at most {most} bytes", code="body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 15 or int(length) > most):
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                async for part in request.stream():
                    size += len(part)
                    self._buffered_bytes += len(part)
                    if size > most:
                        raise too_large
                    if self._buffered_bytes > settings.max_buffered_bytes:
                        raise ApiError(
                            503, "too many bodies at once", code="busy", headers={"Retry-After": "1"}
                        )
                    parts.append(part)
        except BaseException as error:
            self._buffered_bytes -= size
            if isinstance(error, TimeoutError):
                raise ApiError(408, "the body did not arrive in time") from None
            raise
        return b"".join(parts)


def _json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json")


def create_app(
    model: Model,
    settings: Settings,
    scheduler: Scheduler,
    cache: object | None = None,
    log: Callable[[str], None] | None = None,
) -> Any:
    """The ASGI application that serves a model.

    Parameters
    ----------
    model : Model
    settings : Settings
    scheduler : Scheduler
        Closed by the application at the end of its life.
    cache : PrefixCache, optional
        The scheduler's, for the metrics.
    log : callable, optional
        Takes each line of the log; standard error by default.

    Returns
    -------
    app : ASGI application
    """
    telemetry = Telemetry(scheduler, cache)
    application = Application(model, scheduler, settings, telemetry)
    router = Router(application.routes(), lifespan=application.lifespan, redirect_slashes=False)
    app: Any = Gate(router, settings, telemetry, log)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app
