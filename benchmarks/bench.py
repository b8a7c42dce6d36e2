"""`make bench`: tokens per second of SmolLM2-135M in three formats, beside llama.cpp where it is built.

Rounds are interleaved (ours, theirs, ours, ...), so that both see the same moods of the machine, and a ratio
is that of medians. Writes benchmarks/results/bench.json and bench.md. Formats other than the shipped Q4_1 are
requantized from it. Nothing here fails on a slow machine: figures are for people.
"""

import argparse
import contextlib
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgellm
from edgellm import models
from edgellm.cli._machine import machine
from edgellm.cli.bench import rates, thread_counts

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE / "parity"))

from peers import Llama, PeerMissing  # noqa: E402  # the folder is no package: its scripts run alone

PROMPT, TOKENS, START = 512, 128, 32


def file_of(quant: str, folder: Path) -> Path:
    """The shipped file for q4_1, else one made from it."""
    shipped = models.resolve("smollm2-135m")
    if quant == "q4_1":
        return shipped
    made = folder / f"{quant}.gguf"
    edgellm.convert(shipped, made, quant=quant)
    return made


class Ours:
    """One session of our engine, with the requests of peer_llama.py."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = edgellm.load(path, threads=threads)
        self.session = self.model.session(max(PROMPT, START + TOKENS))
        span = self.model.config.vocab // 2
        self.ids = [span // 2 + (i * 7919) % span for i in range(self.session.context)]

    def prefill(self) -> float:
        """Seconds for one evaluation of the prompt."""
        self.session.truncate(0)
        begin = time.perf_counter()
        self.session.eval(self.ids[:PROMPT])
        return time.perf_counter() - begin

    def decode(self) -> float:
        """Seconds for single steps behind the start of a prompt."""
        self.session.truncate(0)
        self.session.eval(self.ids[:START])
        begin = time.perf_counter()
        for i in range(START, START + TOKENS):
            self.session.eval(self.ids[i : i + 1])
        return time.perf_counter() - begin


def measure(path: Path, threads: int, repeat: int, peer: Llama | None) -> dict[str, Any]:
    """Interleaved rounds of both engines; the first round of each is a warm-up and not counted."""
    seconds: dict[str, list[float]] = {}
    ours = Ours(path, threads)
    if peer is not None:
        context = max(PROMPT, START + TOKENS)
        peer.ask("open", model=str(path), context=context, ubatch=512, threads=threads, flash=True)
    for turn in range(repeat + 1):
        now = {"prefill": ours.prefill(), "decode": ours.decode()}
        if peer is not None:
            now["llama_cpp_prefill"] = peer.ask("prefill", tokens=PROMPT, repeat=1)["seconds"][0]
            now["llama_cpp_decode"] = peer.ask("decode", tokens=TOKENS, repeat=1, start=START)["seconds"][0]
        if turn > 0:
            for name, value in now.items():
                seconds.setdefault(name, []).append(value)
    isa = ours.model.isa
    ours.model.close()
    row: dict[str, Any] = {"threads": threads, "isa": isa}
    row |= {name: rates(TOKENS if "decode" in name else PROMPT, values) for name, values in seconds.items()}
    if peer is not None:
        for kind in ("prefill", "decode"):
            row[f"{kind}_ratio"] = row[kind]["tokens_per_s"] / row[f"llama_cpp_{kind}"]["tokens_per_s"]
    return row


@contextlib.contextmanager
def llama() -> Iterator[Llama | None]:
    """The peer if its environment is there."""
    try:
        peer = Llama()
    except PeerMissing:
        print("the llama.cpp peer is not built (`make parity` does that): measuring ours only", flush=True)
        yield None
        return
    with peer:
        yield peer


def load() -> float | None:
    """Mean number of threads that wanted to run in the last minute, ours included."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def page(found: dict[str, Any]) -> str:
    """The results as markdown."""
    stamp = found["machine"]
    lines = [
        "# Speed",
        "",
        f"Made by `make bench` on {found['date']}: edgellm {found['edgellm']}, SmolLM2-135M, "
        f"{stamp['cores']} cores of {stamp['cpu']} ({' '.join(stamp['flags'])}).",
        "",
        f"Tokens per second, median of {found['repeat']} interleaved rounds (slowest-fastest): reading a",
        f"prompt of {PROMPT} tokens, and writing {TOKENS} tokens one by one. *Ratio*: ours by llama.cpp's.",
        "*Load*: threads that wanted to run, ours included; far above *threads*, others were at work too",
        "and an engine whose threads spin while they wait (llama.cpp) then loses most with two threads.",
        "",
        "| format | threads | isa | prefill | llama.cpp | ratio | decode | llama.cpp | ratio | load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["measured"]:
        cells = [row["quant"], str(row["threads"]), row["isa"]]
        for kind in ("prefill", "decode"):
            cells += [speed(row[kind]), speed(row.get(f"llama_cpp_{kind}"))]
            cells.append(f"{row[f'{kind}_ratio']:.2f}" if f"{kind}_ratio" in row else "-")
        lines.append(f"| {' | '.join([*cells, str(row.get('load', '-'))])} |")
    return "\n".join([*lines, ""])


def speed(rate: dict[str, float] | None) -> str:
    """One cell of the table."""
    if rate is None:
        return "-"
    return f"{rate['tokens_per_s']:.0f} ({rate['slowest']:.0f}-{rate['fastest']:.0f})"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="measure speed, beside llama.cpp where it is built")
    parser.add_argument("--quants", default="q4_1,q4_0,q8_0")
    parser.add_argument("--threads", metavar="N,N", help="default: 1 and all cores")
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as name, llama() as peer:
        for quant in args.quants.split(","):
            path = file_of(quant, Path(name))
            for threads in thread_counts(args.threads):
                row = {"quant": quant, **measure(path, threads, args.repeat, peer), "load": load()}
                measured.append(row)
                print(json.dumps(row), flush=True)
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "edgellm": edgellm.__version__,
        "numerics": edgellm.__numerics__,
        "repeat": args.repeat,
        "machine": machine(),
        "measured": measured,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    (RESULTS / "bench.md").write_text(page(found), "utf-8")
    print("\n" + page(found) + "\nwritten to benchmarks/results/bench.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
