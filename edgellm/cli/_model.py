"""Arguments that `run`, `chat` and `bench` share, and what they mean."""

import argparse
from typing import TYPE_CHECKING, Any

from edgellm._progress import patience

if TYPE_CHECKING:
    import edgellm


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and how it is run."""
    parser.add_argument(
        "model", help="a GGUF file or edge image, a known name such as smollm2-135m, or an https address"
    )
    parser.add_argument("--isa", help="use no kernel above this instruction set (see `edgellm doctor`)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="refuse to use more memory than this")
    parser.add_argument("--resident", action="store_true", help="copy an edge image into memory")
    parser.add_argument("--verify", metavar="KEY", help="public key (file) that must have signed the image")
    parser.add_argument("--min-version", type=int, metavar="N", help="refuse an older edge image")


def add_generation_arguments(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    """Add how text is generated."""
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--context", type=int, metavar="N", help="positions that the cache holds")
    parser.add_argument(
        "--max-tokens", type=int, default=max_tokens, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="0: off")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="1: off")
    parser.add_argument("--min-p", type=float, default=0.0, metavar="P", help="0: off")
    parser.add_argument("--repeat-penalty", type=float, default=1.0, metavar="R", help="1: off")
    for name in ("presence", "frequency"):
        parser.add_argument(f"--{name}-penalty", type=float, default=0.0, metavar="P", help="0: off")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same text (default: %(default)s)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of streaming")


def load(args: argparse.Namespace, threads: int | None) -> "edgellm.Model":
    """Load the model of the arguments, fetching a known one that is not here."""
    import edgellm
    from edgellm import models

    path = models.resolve(args.model)
    with patience("loading the model"):
        return edgellm.load(
            path,
            threads=threads,
            isa=args.isa,
            max_bytes=args.max_bytes,
            resident=args.resident,
            verify=args.verify,
            min_version=args.min_version,
        )


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments for `edgellm.Model.stream` and its kin."""
    names = (
        "max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty",
        "frequency_penalty", "seed", "stop", "context",
    )  # fmt: skip
    return {name: getattr(args, name) for name in names}
