"""Errors in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgellm._core import ContextError
from edgellm.scheduler import BusyError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "server_error",
    504: "server_error",
    500: "server_error",
}


class ApiError(Exception):
    """A request that gets an error.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        For the client.
    param, code : str, optional
        Which field, and a name for programs.
    headers : mapping of str to str
        To be sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """JSON, as OpenAI writes it."""
        return dumps(
            {
                "error": {
                    "message": self.message,
                    "type": _TYPES.get(self.status, "invalid_request_error"),
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


def dumps(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that is wrong in itself."""
    return ApiError(400, message, param, code)


def as_api_error(error: Exception, param: str | None = None) -> ApiError:
    """What a client hears of an exception of the engine.

    Examples
    --------
    >>> as_api_error(ValueError("top_p must be in (0, 1]")).status
    400
    >>> as_api_error(ZeroDivisionError("secret")).message
    'the server failed at this request'
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        seconds = max(1, round(error.retry_after_s))
        return ApiError(429, str(error), code="queue_full", headers={"Retry-After": str(seconds)})
    if isinstance(error, ContextError):
        return ApiError(400, str(error), param, "context_length_exceeded")
    if isinstance(error, TimeoutError):
        return ApiError(504, "the answer took too long", code="timeout")
    if isinstance(error, MemoryError):
        return ApiError(400, str(error) or "the request needs more memory than there is", param, "memory")
    if isinstance(error, ValueError | TypeError | OverflowError | RecursionError | ImportError):
        if str(error).endswith("closed"):
            return ApiError(503, "the server is closing", code="closing")
        return ApiError(400, str(error)[:1000], param)
    return ApiError(500, "the server failed at this request")
