"""``edgellm bench``: how fast a model reads and writes on this machine."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.cli import UsageError
from edgellm.cli._machine import machine
from edgellm.cli._model import add_model_arguments, load
from edgellm.cli._text import size_text, table
from edgellm.cpu import count

if TYPE_CHECKING:
    import edgellm

NAME = "bench"
HELP = "measure tokens per second: reading a prompt (prefill) and writing (decode)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm bench``."""
    add_model_arguments(parser)
    parser.add_argument("--threads", metavar="N,N", help="thread counts (default: 1 and all cores)")
    parser.add_argument(
        "--prompt", type=int, default=512, metavar="N", help="tokens read (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=int, default=64, metavar="N", help="tokens written (default: %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="repetitions (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm bench``."""
    import edgellm
    from edgellm._progress import Progress

    counts = thread_counts(args.threads)
    if min(args.prompt, args.tokens, args.repeat) < 1:
        raise UsageError("--prompt, --tokens and --repeat must be at least 1")
    measured: list[dict[str, Any]] = []
    with Progress("measuring", len(counts) * args.repeat, unit="rounds", shown=not args.json) as bar:
        for threads in counts:
            begin = time.perf_counter()
            with load(args, threads) as model:
                load_s = time.perf_counter() - begin
                row = measure(model, args.prompt, args.tokens, args.repeat, lambda: bar.advance(1))
                plan = model.plan(context_of(args.prompt, args.tokens))
                measured.append(
                    {"threads": threads, "isa": model.isa, "load_s": load_s, **row, "bytes": plan.total_bytes}
                )
    result = {
        "model": os.path.basename(args.model),
        "prompt_tokens": args.prompt,
        "decode_tokens": args.tokens,
        "repeat": args.repeat,
        "edgellm": edgellm.__version__,
        "numerics": edgellm.__numerics__,
        "machine": machine(),
        "measured": measured,
    }
    print(json.dumps(result, indent=2) if args.json else _page(result))
    return 0


def thread_counts(text: str | None) -> list[int]:
    """Thread counts out of ``"1,2"``; None gives 1 and all cores.

    Examples
    --------
    >>> thread_counts("1,4")
    [1, 4]
    """
    if text is None:
        return sorted({1, count()})
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UsageError(f"--threads: expected counts such as 1,2; got {text!r}")
    return counts


def context_of(prompt: int, tokens: int) -> int:
    """Positions that a session of `measure` has: the prompt, and what is written behind 32 of it."""
    return max(prompt, min(prompt, 32) + tokens)


def measure(
    model: "edgellm.Model", prompt: int, tokens: int, repeat: int, tick: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Time reading `prompt` tokens at once, and writing `tokens` one by one behind the first 32.

    Returns
    -------
    row : dict
        ``prefill`` and ``decode``, each with ``tokens_per_s`` (the median), ``slowest``, ``fastest``.
    """
    span = model.config.vocab // 2  # ordinary tokens; which they are does not change the work
    ids = [span // 2 + (i * 7919) % span for i in range(context_of(prompt, tokens))]
    start = min(prompt, 32)
    session = model.session(len(ids))
    reading, writing = [], []
    session.eval(ids[:start])  # wakes threads and touches the memory once
    for _ in range(repeat):
        session.truncate(0)
        begin = time.perf_counter()
        session.eval(ids[:prompt])
        reading.append(time.perf_counter() - begin)
        session.truncate(0)
        session.eval(ids[:start])
        begin = time.perf_counter()
        for i in range(start, start + tokens):
            session.eval(ids[i : i + 1])
        writing.append(time.perf_counter() - begin)
        tick()
    return {"prefill": rates(prompt, reading), "decode": rates(tokens, writing)}


def rates(tokens: int, seconds: Sequence[float]) -> dict[str, float]:
    """Tokens per second: of the median time, and of the slowest and the fastest.

    Examples
    --------
    >>> rates(10, [1.0, 2.0, 5.0])
    {'tokens_per_s': 5.0, 'slowest': 2.0, 'fastest': 10.0}
    """
    return {
        "tokens_per_s": tokens / statistics.median(seconds),
        "slowest": tokens / max(seconds),
        "fastest": tokens / min(seconds),
    }


def _page(result: dict[str, Any]) -> str:
    stamp = result["machine"]
    rows = [["threads", "isa", "prefill tok/s", "decode tok/s", "load s", "memory"]]
    for row in result["measured"]:
        speeds = [
            f"{row[kind]['tokens_per_s']:.1f} ({row[kind]['slowest']:.1f}-{row[kind]['fastest']:.1f})"
            for kind in ("prefill", "decode")
        ]
        rows.append([row["threads"], row["isa"], *speeds, f"{row['load_s']:.2f}", size_text(row["bytes"])])
    return "\n".join(
        [
            f"{result['model']} on {stamp['cpu']}, {stamp['cores']} cores ({' '.join(stamp['flags'])})",
            f"median of {result['repeat']} (slowest-fastest), prompt of {result['prompt_tokens']} tokens, "
            f"{result['decode_tokens']} tokens written one by one",
            "",
            table(rows, right=[0, 4]),
        ]
    )
