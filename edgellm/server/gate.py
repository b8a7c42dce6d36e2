"""What every request passes: who may come in, and what the log and the metrics are told."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from edgellm.server.access import own_host
from edgellm.server.errors import ApiError
from edgellm.server.settings import Settings

if TYPE_CHECKING:
    from edgellm.scheduler import Handle
    from edgellm.server.telemetry import Telemetry

OPEN_PATHS = ("/", "/health", "/healthz")  # need no key: they tell nothing
QUIET_PATHS = (*OPEN_PATHS, "/metrics")  # asked for all the time: logged only if they fail
LINGER_S = 2.0  # how long a body that is too large is read and dropped, so that its sender sees the answer


@dataclass(slots=True)
class Record:
    """One request, as the log tells it. No text of prompts or answers is in it, unless asked for."""

    id: str
    method: str
    path: str
    client: str
    started_s: float = field(default_factory=time.monotonic)
    status: int = 0
    outcome: str = ""  # "cancelled" and "timeout"; else the status tells
    error: str = ""
    stream: bool | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    queue_s: float | None = None
    ttft_s: float | None = None
    tpot_s: list[float] = field(default_factory=list)
    prompt: Any = None

    def note(self, handles: Sequence[Handle], prompts: int) -> None:
        """Take over what the texts of the request say of themselves."""
        each = max(1, len(handles) // prompts)
        self.prompt_tokens = sum(handle.prompt_tokens for handle in handles[::each])
        self.cached_tokens = sum(handle.cached_tokens for handle in handles[::each])
        self.queue_s = max((h.queue_s for h in handles if h.queue_s is not None), default=None)
        self.ttft_s = min((h.ttft_s for h in handles if h.ttft_s is not None), default=None)
        for handle in handles:
            if handle.done and handle.error is None:
                done = handle.result()
                self.completion_tokens += len(done.ids)
                self.finish_reasons.append(done.finish_reason)
                if len(done.ids) > 1:
                    self.tpot_s.append(done.timings.tpot_s)

    def line(self) -> str:
        """JSON, without what is not known."""
        shown: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": self.id,
            "client": self.client,
            "method": self.method,
            "path": self.path[:200],
            "status": self.status,
            "outcome": self.outcome,
            "total_s": round(time.monotonic() - self.started_s, 4),
        }
        if self.stream is not None:
            shown |= {
                "stream": self.stream,
                "prompt_tokens": self.prompt_tokens,
                "cached_tokens": self.cached_tokens,
                "completion_tokens": self.completion_tokens,
                "finish_reasons": self.finish_reasons,
                "queue_s": None if self.queue_s is None else round(self.queue_s, 4),
                "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 4),
            }
        if self.error:
            shown["error"] = self.error
        if self.prompt is not None:
            shown["prompt"] = self.prompt
        return json.dumps(shown, ensure_ascii=True)


class Gate:
    """ASGI middleware: keys, names, origins, the number of requests of a client; then the log.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    telemetry : Telemetry
    log : callable, optional
        Takes each line; standard error by default.
    """

    def __init__(
        self,
        app: Any,
        settings: Settings,
        telemetry: Telemetry,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._telemetry = telemetry
        self._log = _to_stderr if log is None else log
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        client = scope["client"][0] if scope.get("client") else "local"
        record = Record(f"req-{secrets.token_hex(8)}", scope["method"], scope["path"], client)
        scope["edgellm.record"] = record
        scope["app"] = self  # so starlette's router raises 404 and 405 instead of wording them itself

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        self._running[client] += 1
        try:
            self._check(scope["method"], scope["path"], headers, self._running[client])
            await self._app(scope, receive, telling)
        except asyncio.CancelledError:
            record.outcome = record.outcome or "cancelled"
            raise
        except ClientDisconnect:
            record.outcome = "cancelled"
        except Exception as error:
            told = self._worded(error, record)
            record.error = told.message
            if record.status:
                raise  # in the middle of an answer: the connection ends
            await _refuse(told, headers, receive, telling)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            record.outcome = record.outcome or ("ok" if 200 <= record.status < 400 else "refused")
            if record.status >= 500 and record.outcome == "refused":
                record.outcome = "failed"
            self._telemetry.count(record)
            if record.path not in QUIET_PATHS or record.status >= 400:
                self._log(record.line())

    def _worded(self, error: Exception, record: Record) -> ApiError:
        """What the client hears of an exception."""
        if isinstance(error, ApiError):
            return error
        if isinstance(error, HTTPException):  # of the router
            path = record.path[:80]
            words = {404: f"there is nothing at {path!r}", 405: f"{record.method} is not for {path!r}"}
            message = words.get(error.status_code, str(error.detail))
            return ApiError(error.status_code, message, headers=error.headers)
        self._log(json.dumps({"request": record.id, "traceback": traceback.format_exc()}))
        return ApiError(500, "the server failed at this request")

    def _check(self, method: str, path: str, headers: dict[bytes, str], running: int) -> None:
        """Raise ApiError for who may not come in."""
        settings = self._settings
        if settings.hosts is not None:
            host = own_host(headers.get(b"host", ""))
            if host not in settings.hosts:
                raise ApiError(403, f"this server is not called {host[:80]!r}", code="wrong_host")
        origin = headers.get(b"origin")
        if origin is not None and not self._same_origin(origin, headers):
            raise ApiError(403, f"no requests from pages of {origin[:80]!r}", code="wrong_origin")
        if settings.api_keys and path not in OPEN_PATHS and method != "OPTIONS":
            kind, _, key = headers.get(b"authorization", "").partition(" ")
            if kind.lower() != "bearer" or not settings.admits(key.strip()):
                raise ApiError(
                    401,
                    "a valid API key is needed: Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if settings.max_per_client is not None and running > settings.max_per_client:
            raise ApiError(
                429,
                f"at most {settings.max_per_client} requests of a client at the same time",
                code="too_many_requests",
                headers={"Retry-After": "1"},
            )

    def _same_origin(self, origin: str, headers: dict[bytes, str]) -> bool:
        allowed = self._settings.cors_origins
        if "*" in allowed or origin in allowed:
            return True
        return urlsplit(origin).netloc.lower() == headers.get(b"host", "").lower()


_stderr = threading.Lock()


def _to_stderr(line: str) -> None:
    with _stderr:
        print(line, file=sys.stderr, flush=True)


async def _refuse(error: ApiError, headers: dict[bytes, str], receive: Any, send: Any) -> None:
    """Answer with an error; a body that is still to come is dropped, and for a while only."""
    body = error.body
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    told += [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    length = headers.get(b"content-length", "0")
    large = b"transfer-encoding" in headers or not length.isdecimal() or len(length) > 6
    if large:
        told.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": told})
    await send({"type": "http.response.body", "body": body, "more_body": large})
    if large:
        try:
            async with asyncio.timeout(LINGER_S):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
