"""``edgellm pull``: bring a model to this machine."""

import argparse
import json
import sys
from typing import Any

from edgellm import models
from edgellm.cli import UsageError

NAME = "pull"
HELP = "fetch a model into this user's cache, or list those that are known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm pull``."""
    parser.add_argument("model", nargs="?", help="a known name, or an https address of a GGUF file")
    parser.add_argument("--list", action="store_true", help="show the known models, sizes and licences")
    parser.add_argument(
        "--accept-licence",
        "--accept-license",
        action="store_true",
        help="accept the model's terms without being asked",
    )
    parser.add_argument("--sha256", metavar="HEX", help="what an address's file must have as its SHA-256")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm pull``; prints the path of the model."""
    if args.list:
        if args.model or args.sha256:
            raise UsageError("--list takes no model")
        _print_list(args.json)
        return 0
    if not args.model:
        raise UsageError("name a model, or use --list")
    if "://" in args.model:
        path = models.pull_url(args.model, sha256=args.sha256, shown=True)
    elif args.sha256:
        raise UsageError("--sha256 is for addresses; the known models are pinned already")
    else:
        ask = _ask if sys.stdin.isatty() else None
        path = models.pull(args.model, accept_licence=args.accept_licence, ask=ask, shown=True)
    print(json.dumps({"model": args.model, "path": str(path)}) if args.json else path)
    return 0


def _ask(model: models.KnownModel, terms: str) -> bool:
    """Show the terms on standard error and ask."""
    print(terms, file=sys.stderr)
    print(f"Type yes to accept these terms and fetch {model.name}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _print_list(as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for model in models.KNOWN.values():
        path = models.cached(model)
        rows.append(
            {
                "name": model.name,
                "title": model.title,
                "bytes": model.size_bytes,
                "sha256": model.sha256,
                "licence": model.licence,
                "terms": model.terms.address if model.terms else None,
                "use": model.use,
                "packages": [f"{part.package}=={part.version}" for part in model.parts],
                "path": str(path) if path else None,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'name':<14} {'MB':>5}  {'licence':<19} {'here':<5} what for")
    for row in rows:
        here = "yes" if row["path"] else "no"
        print(f"{row['name']:<14} {row['bytes'] / 1e6:>5.0f}  {row['licence']:<19} {here:<5} {row['use']}")
    print(
        f"\nKept in {models.cache_folder()}. Any other GGUF file: give its path, or pull its https address."
    )
