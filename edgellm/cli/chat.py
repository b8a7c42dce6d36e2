"""``edgellm chat``: talk with an instruction-tuned model."""

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from edgellm.cli import UsageError
from edgellm.cli._model import (
    add_generation_arguments,
    add_model_arguments,
    completion_json,
    finish,
    generation,
    load,
    show,
    timings_line,
)

if TYPE_CHECKING:
    import edgellm

NAME = "chat"
HELP = "talk with a model: interactively, or one question with --message"

COMMANDS = "/new starts over, /exit or Ctrl-D leaves, Ctrl-C stops an answer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm chat``."""
    add_model_arguments(parser)
    parser.add_argument("--message", metavar="TEXT", help="ask this, print the answer and leave; - reads it")
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")
    add_generation_arguments(parser, max_tokens=512)


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm chat``; answers go to standard output, all else to standard error."""
    if args.json and args.message is None:
        raise UsageError("--json needs --message")
    message = sys.stdin.read() if args.message == "-" else args.message
    if message is not None and not message.strip():
        raise UsageError("the message is empty")
    start = [{"role": "system", "content": args.system}] if args.system else []
    with load(args, args.threads) as model:
        if message is None:
            return _converse(model, start, generation(args))
        messages = [*start, {"role": "user", "content": message}]
        pieces = model.stream_chat(messages, **generation(args))
        if args.json:
            print(completion_json(finish(pieces), model=args.model, messages=messages))
            return 0
        done = show(pieces)
        print()
        print(timings_line(done), file=sys.stderr)
    return 0


def _converse(model: "edgellm.Model", start: list[dict[str, str]], options: dict[str, Any]) -> int:
    """Read questions and answer them until the end of input."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # importing it gives input() a history and line editing
        print(COMMANDS, file=sys.stderr)
    messages = list(start)
    while True:
        try:
            question = input("> " if terminal else "").strip()
        except EOFError:
            return 0
        if question == "/exit":
            return 0
        if question == "/new":
            messages = list(start)
            continue
        if not question:
            continue
        messages = _answer(model, [*messages, {"role": "user", "content": question}], len(start), options)


def _answer(
    model: "edgellm.Model", messages: list[dict[str, str]], keep: int, options: dict[str, Any]
) -> list[dict[str, str]]:
    """Answer the last message; forgets the oldest turns if the conversation no longer fits.

    `keep` messages at the front (the system's) are never forgotten. Returns the conversation with the answer.
    """
    from edgellm import ContextError

    dropped = 0
    while True:
        try:
            pieces = model.stream_chat(messages, **options)
            break
        except ContextError:
            if len(messages) - keep < 3:
                raise
            del messages[keep : keep + 2]
            dropped += 2
    if dropped:
        print(f"[forgot the {dropped} oldest messages: the context is full]", file=sys.stderr)
    said: list[str] = []

    def noting() -> Any:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            said.append(piece)
            yield piece

    try:
        done = show(noting())
        print()
        print(timings_line(done), file=sys.stderr)
    except KeyboardInterrupt:
        print("\n[stopped]", file=sys.stderr)
    return [*messages, {"role": "assistant", "content": "".join(said)}]
