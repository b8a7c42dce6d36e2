"""``edgellm run``: continue a text."""

import argparse
import sys

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

NAME = "run"
HELP = "continue a text, streaming (for an answer to a question, see chat)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm run``."""
    add_model_arguments(parser)
    parser.add_argument("prompt", help="the text to continue; - reads it from standard input")
    add_generation_arguments(parser, max_tokens=128)


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm run``; the text goes to standard output, timings to standard error."""
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt:
        raise UsageError("the prompt is empty")
    with load(args, args.threads) as model:
        pieces = model.stream(prompt, **generation(args))
        if args.json:
            print(completion_json(finish(pieces), model=args.model, prompt=prompt))
            return 0
        done = show(pieces)
        print()
        print(timings_line(done), file=sys.stderr)
    return 0
