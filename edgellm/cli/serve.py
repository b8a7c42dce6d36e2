"""``edgellm serve``: an OpenAI-compatible HTTP server."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.cli import UsageError
from edgellm.cli._model import add_model_arguments, load

if TYPE_CHECKING:
    import edgellm
    from edgellm.server import Settings

NAME = "serve"
HELP = "serve a model over HTTP, as OpenAI's API"

KEY_VARIABLE = "EDGELLM_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm serve``."""
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--name", help="what requests call the model (default: its file's name)")
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="another name of it; '*' takes any"
    )

    access = parser.add_argument_group("who may come in")
    access.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help=f"keys, one a line (also from ${KEY_VARIABLE})"
    )
    access.add_argument("--insecure", action="store_true", help="allow other machines in without a key")
    access.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name of this server"
    )
    access.add_argument(
        "--cors-origin", action="append", default=[], metavar="URL", help="pages that may ask"
    )

    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-sessions", type=int, default=64, metavar="N", help="texts at once (%(default)s)"
    )
    limits.add_argument("--max-waiting", type=int, default=256, metavar="N", help="then wait (%(default)s)")
    limits.add_argument("--max-per-client", type=int, metavar="N", help="requests of one address at once")
    limits.add_argument("--max-tokens", type=int, metavar="N", help="most that a request may ask for")
    limits.add_argument(
        "--default-max-tokens", type=int, default=512, metavar="N", help="of chat (%(default)s)"
    )
    limits.add_argument("--max-body", type=int, default=2 << 20, metavar="BYTES", help="(%(default)s)")
    limits.add_argument(
        "--session-bytes", type=int, metavar="N", help="memory for sessions (half of what is free)"
    )
    limits.add_argument("--cache-bytes", type=int, metavar="N", help="for beginnings of prompts (0: none)")
    limits.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="of a request (%(default)g)"
    )
    limits.add_argument(
        "--drain", type=float, default=30.0, metavar="S", help="to finish at the end (%(default)g)"
    )

    parser.add_argument("--kv", choices=("f16", "f32", "q8_0"), help="what keys and values are rounded to")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="if a request has none (1)"
    )
    parser.add_argument("--draft", choices=("lookup",), help="speculate: pays with few clients at once")
    parser.add_argument("--log-prompts", action="store_true", help="put prompts into the log")
    parser.add_argument("--json", action="store_true", help="when ready, print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm serve`` until a signal; requests are logged on standard error."""
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port must be in 0..65535, got {args.port}")
    from edgellm import server

    settings = _settings(args)
    serve = server.serve  # says what to install, if something is missing, before the model is read
    from edgellm.server.running import listen, more_files

    own = listen(args.host, args.port)
    more_files()
    with own, load(args, args.threads) as model:
        port = own.getsockname()[1]
        _serve(args, settings, serve, model, own, port)
    return 0


def _serve(
    args: argparse.Namespace, settings: "Settings", serve: Any, model: "edgellm.Model", own: Any, port: int
) -> None:
    from edgellm.scheduler import Scheduler

    cache = _cache(args, model)
    scheduler = Scheduler(
        model,
        args.max_sessions,
        args.max_waiting,
        cache,
        max_bytes=args.session_bytes or _free_bytes(model),
        kv=args.kv,
    )
    shown = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{shown}:{port}"

    def ready(_stop: Any) -> None:
        if args.json:
            print(json.dumps({"url": url, "model": settings.name, "pid": os.getpid()}), flush=True)
        else:
            keys = "with a key" if settings.api_keys else "without a key"
            print(f"{settings.name} at {url}/v1, {keys}; Ctrl-C ends", file=sys.stderr, flush=True)

    with scheduler:
        serve(model, settings, scheduler, own, cache=cache, drain_s=args.drain, ready=ready)


def _settings(args: argparse.Namespace) -> "Settings":
    from edgellm.server import Settings
    from edgellm.server.access import is_loopback, local_names

    keys = _keys(args.api_key_file)
    loopback = is_loopback(args.host)
    if not loopback and not keys and not args.insecure:
        raise UsageError(
            f"{args.host} lets other machines in: give --api-key-file or ${KEY_VARIABLE}, or --insecure"
        )
    hosts = (*local_names(args.host), *(name.lower() for name in args.allow_host))
    path = Path(args.model)
    return Settings(
        name=args.name or (path.stem if path.suffix in (".gguf", ".edge") else path.name),
        aliases=tuple({args.model, path.name, path.stem, "default", *args.alias}),
        api_keys=keys,
        hosts=hosts if loopback or args.allow_host else None,
        cors_origins=tuple(args.cors_origin),
        max_body_bytes=args.max_body,
        max_tokens=args.max_tokens,
        default_max_tokens=args.default_max_tokens,
        default_temperature=args.temperature,
        draft=args.draft,
        max_per_client=args.max_per_client,
        timeout_s=args.timeout,
        log_prompts=args.log_prompts,
    )


def _keys(path: Path | None) -> tuple[str, ...]:
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    keys = [line.strip() for line in [*lines, os.environ.get(KEY_VARIABLE, "")]]
    found = tuple(key for key in keys if key and not key.startswith("#"))
    if path is not None and not found:
        raise UsageError(f"{path}: no key in it")
    return found


def _cache(args: argparse.Namespace, model: "edgellm.Model") -> Any:
    """The prefix cache; by default half as large as the memory for sessions, 1 GB at most."""
    import edgellm

    size = args.cache_bytes
    if size is None:
        size = min(_free_bytes(model) // 4, 1_000_000_000)
    return edgellm.PrefixCache(model, size, args.kv) if size > 0 else None


def _free_bytes(model: "edgellm.Model") -> int:
    """Half of the memory that is free, and of what `--max-bytes` leaves."""
    from edgellm.server.memory import free_bytes

    left = free_bytes()
    if model.max_bytes is not None:
        left = min(left, model.max_bytes - model.plan().model_bytes)
    return max(left // 2, 1)
