"""``edgellm run``: continue a text."""

import argparse
import json
import sys
from typing import Any

from edgellm.cli import UsageError
from edgellm.cli._answers import (
    add_answer_arguments,
    answer_options,
    completion_facts,
    finish,
    show,
    tame,
    timings_line,
)
from edgellm.cli._model import add_generation_arguments, add_model_arguments, generation, load

NAME = "run"
HELP = "continue a text, streaming (for an answer to a question, see chat)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm run``."""
    add_model_arguments(parser)
    parser.add_argument("prompt", help="the text to continue; - reads it from standard input")
    parser.add_argument("--n", type=int, default=1, metavar="N", help="how many continuations (default: 1)")
    add_generation_arguments(parser, max_tokens=128)
    add_answer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm run``; the text goes to standard output, timings to standard error."""
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt:
        raise UsageError("the prompt is empty")
    if args.n < 1:
        raise UsageError(f"--n must be at least 1, got {args.n}")
    with answer_options(args) as more, load(args, args.threads) as model:
        options = {**generation(args), **more}
        if args.n > 1:
            return _several(model, prompt, options, args)
        tokens = model.stream_tokens(prompt, **options)
        if args.json:
            print(json.dumps({"model": args.model, "prompt": prompt, **completion_facts(finish(tokens))}))
            return 0
        done = show(tokens, args.logprobs is not None)
        print()
        print(timings_line(done), file=sys.stderr)
    return 0


def _several(model: Any, prompt: str, options: dict[str, Any], args: argparse.Namespace) -> int:
    """Several continuations, which are there all at once."""
    all_done = model.completions(prompt, args.n, **options)
    if args.json:
        facts = [completion_facts(done) for done in all_done]
        print(json.dumps({"model": args.model, "prompt": prompt, "completions": facts}))
        return 0
    for i, done in enumerate(all_done):
        print(f"--- {i + 1} of {args.n}", file=sys.stderr)
        print(tame(done.text) if sys.stdout.isatty() else done.text)
        print(timings_line(done), file=sys.stderr)
    return 0
