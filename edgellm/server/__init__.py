"""An OpenAI-compatible HTTP server over `edgellm.Scheduler`: the extra ``server``.

`edgellm serve` is its front door; docs/server.md has every endpoint, option and limit. `create_app` gives the
ASGI application alone, for those who run it in a server of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgellm.server.app import create_app as create_app
    from edgellm.server.running import serve as serve

from edgellm.server.settings import Settings

__all__ = ["Settings", "create_app", "serve"]

_ROOMS = {"create_app": "app", "serve": "running"}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'edgellm.server' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(f"edgellm.server.{_ROOMS[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("starlette", "uvicorn"):
            raise ImportError(
                f"the server needs {error.name}: pip install 'edgellm[server]'", name=error.name
            ) from error
        raise
