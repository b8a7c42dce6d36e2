"""What `run` and `chat` ask of a text beyond how it is sampled, and how they show it."""

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

from edgellm._progress import patience
from edgellm.cli import UsageError
from edgellm.cli._text import json_number

MOST_BYTES = 1 << 20  # of a grammar or schema
_BACKGROUNDS = (None, 230, 229, 222, 221, 215, 209, 203)  # of 256 colours, near those of edgellm._token_view


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the text must be like and how it is shown."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json-schema", metavar="JSON", help="the text follows this schema; or a file with one"
    )
    form.add_argument("--grammar", metavar="FILE", help="the text follows the GBNF grammar in this file")
    parser.add_argument("--draft", metavar="MODEL", help="guess ahead with this model, or by `lookup`")
    parser.add_argument("--kv", metavar="TYPE", help="what the cache holds: f16, f32 or q8_0")
    parser.add_argument(
        "--overflow",
        choices=("error", "shift"),
        default="error",
        help="full context: end, or forget the oldest half and go on (default: %(default)s)",
    )
    parser.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="show how likely each token was, beside the N likeliest: colours on a terminal, else lines",
    )


def _read(path: str) -> str:
    with open(path, "rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES} bytes")
    return raw.decode("utf-8")


def _schema(text: str) -> Any:
    """The schema that an argument holds, or the file that it names."""
    where = "--json-schema"
    if text.lstrip()[:1] not in ("{", "") and text.strip() not in ("true", "false"):
        where, text = text, _read(text)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where}: no JSON: {error}") from None


@contextlib.contextmanager
def answer_options(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Keyword arguments for `edgellm.Model.generate` and its kin; a draft model is closed at the end."""
    out: dict[str, Any] = {"kv": args.kv}
    if args.overflow != "error":
        out["overflow"] = args.overflow
    if args.json_schema is not None:
        out["json_schema"] = _schema(args.json_schema)
    if args.grammar is not None:
        out["grammar"] = _read(args.grammar)
    if args.logprobs is not None:
        if not 0 <= args.logprobs <= 20:
            raise UsageError("--logprobs takes 0 to 20")
        out["logprobs"] = args.logprobs
    with contextlib.ExitStack() as stack:
        if args.draft == "lookup":
            out["draft"] = "lookup"
        elif args.draft is not None:
            import edgellm
            from edgellm import models

            with patience("loading the draft model"):
                draft = edgellm.load(models.resolve(args.draft), threads=args.threads, isa=args.isa)
            out["draft"] = stack.enter_context(draft)
        yield out


def tame(text: str) -> str:
    """Text without the characters that steer a terminal: a model's text is not to be trusted.

    Examples
    --------
    >>> tame("a\\x1b[31m\\n")
    'a?[31m\\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def show(tokens: Iterator[Any], logprobs: bool = False) -> Any:
    """Write text as it comes and return what the generation gives at its end.

    Parameters
    ----------
    tokens : iterator of Token
        Whose `StopIteration.value` is the result.
    logprobs : bool
        Colour tokens on a terminal that has colours, else write a line for each.
    """
    terminal = sys.stdout.isatty()
    colours = terminal and "NO_COLOR" not in os.environ
    first = True
    while True:
        try:
            with patience("reading the prompt") if first else contextlib.nullcontext():
                token = next(tokens)
        except StopIteration as end:
            return end.value
        first = False
        if logprobs and not colours:
            if token.id is not None:
                print(_line(token))
            continue
        text = tame(token.text) if terminal else token.text
        if logprobs and token.logprob is not None:
            text = _coloured(text, token.logprob)
        sys.stdout.write(text)
        sys.stdout.flush()


def _coloured(text: str, logprob: float) -> str:
    from edgellm._token_view import shade

    background = _BACKGROUNDS[shade(math.exp(logprob))]
    if background is None or not text:
        return text
    paint = f"\x1b[30;48;5;{background}m"
    return "\n".join(f"{paint}{line}\x1b[0m" if line else line for line in text.split("\n"))


def _line(token: Any) -> str:
    """A token, its probability and the likeliest instead, as JSON strings so that nothing is hidden."""
    others = "  ".join(f"{json.dumps(other.text)} {math.exp(other.logprob):.4f}" for other in token.top)
    return f"{math.exp(token.logprob):.4f}  {json.dumps(token.text):<18}  {others}".rstrip()


def finish(tokens: Iterator[Any]) -> Any:
    """Run a generation to its end without showing it."""
    while True:
        try:
            next(tokens)
        except StopIteration as end:
            return end.value


def completion_facts(done: Any) -> dict[str, Any]:
    """A completion as data for JSON."""
    timings = done.timings
    facts = {
        "text": done.text,
        "ids": done.ids,
        "finish_reason": done.finish_reason,
        "timings": {
            "prompt_tokens": timings.prompt_tokens,
            "generated_tokens": timings.generated_tokens,
            "prefill_s": timings.prefill_s,
            "decode_s": timings.decode_s,
            "ttft_s": timings.ttft_s,
            "tpot_s": json_number(timings.tpot_s),
        },
    }
    if done.logprobs is not None:
        facts["logprobs"] = [
            {"id": t.id, "text": t.text, "logprob": json_number(t.logprob), "top": _top(t)}
            for t in done.logprobs
        ]
    if done.speculation is not None:
        facts["speculation"] = {
            name: getattr(done.speculation, name) for name in ("drafted", "accepted", "steps")
        }
    return facts


def _top(token: Any) -> list[dict[str, Any]]:
    return [{"id": t.id, "text": t.text, "logprob": json_number(t.logprob)} for t in token.top]


def timings_line(done: Any) -> str:
    """One line about where the time went."""
    timings = done.timings
    parts = [f"{timings.prompt_tokens} tokens read in {timings.prefill_s:.2f} s"]
    if timings.generated_tokens > 1 and timings.decode_s > 0:
        rate = (timings.generated_tokens - 1) / timings.decode_s
        parts.append(f"{timings.generated_tokens} written at {rate:.1f} per second")
    else:
        parts.append(f"{timings.generated_tokens} written")
    if done.speculation is not None:
        parts.append(f"{done.speculation.accepted} of {done.speculation.drafted} guesses right")
    return f"[{', '.join(parts)}, ended by {done.finish_reason}]"
