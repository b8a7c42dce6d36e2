"""How much faster, or slower, drafts make a text: plain and speculative runs take turns.

Usage: python benchmarks/speculation.py [--model NAME] [--repeat N] [--json FILE] [--markdown FILE]. For each
text the plain run and the one with drafts alternate; a figure is the median of the ratios of neighbours, so
that a machine that slows down for a while slows both. The texts must be equal or the run ends. The first
pair of a process is reported too: then nothing is known yet of what steps cost. Texts that repeat themselves
come first (copies, edits, JSON, lists), then some that do not, then one on which guesses look good and are
wrong. Drafting by the model itself cannot gain anything: it shows what the worst draft model costs.
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from compare.stamp import stamp

import edgellm
from edgellm import models

PROSE = (
    "The river Aare rises in the Bernese Alps and flows through Thun, Bern, Solothurn and Aarau before it "
    "joins the Rhine. It is the longest river that both rises and ends within Switzerland. Its basin covers "
    "about 17,800 square kilometres."
)
CODE = """def area(width, height):
    return width * height

def volume(width, height, depth):
    return width * height * depth

def perimeter(width, height):
    return 2 * (width + height)
"""
JSON = '[{"name": "Anna", "age": 31, "city": "Bern"}, {"name": "Ben", "age": 25, "city": "Rome"}, {"name":'
LIST = "Countries and capitals:\n1. France - Paris\n2. Spain - Madrid\n3. Italy - Rome\n4."

Case = tuple[str, str, str | list[int], dict[str, Any]]  # kind, name, prompt, options


def cases(vocab: int) -> list[Case]:
    """What is generated."""
    few = np.random.default_rng(0).integers(300, min(vocab, 5000), 8).tolist()
    noise = {"temperature": 50.0, "logit_bias": dict.fromkeys(few, math.inf)}  # every pair was there before
    return [
        ("repetitive", "edit a paragraph", f"Text: {PROSE}\nThe same text with the name in capitals:\n", {}),
        ("repetitive", "copy code", f"Repeat this code.\n```python\n{CODE}```\nAgain:\n```python\n", {}),
        ("repetitive", "continue JSON", JSON, {}),
        ("repetitive", "continue a list", LIST, {}),
        ("repetitive", "prose, greedy", "The history of the Roman empire begins", {}),
        (
            "other",
            "story, temperature 1",
            "Once upon a time in a distant land,",
            {"temperature": 1.0, "seed": 3},
        ),
        ("other", "story, penalty 1.3", "Once upon a time in a distant land,", {"repeat_penalty": 1.3}),
        ("adversarial", "noise of eight tokens", few * 8, noise),
    ]


def measure(
    model: edgellm.Model, case: Case, draft: str | edgellm.Model, tokens: int, repeat: int
) -> dict[str, Any]:
    """One row: the ratio of plain to speculative time, and what the drafts did."""
    kind, name, prompt, options = case
    ratios, plain_s, drafted_s = [], [], []
    for i in range(repeat + 1):
        times: dict[bool, float] = {}
        done: dict[bool, edgellm.Completion] = {}
        for drafts in (False, True) if i % 2 else (True, False):
            started_s = time.perf_counter()
            way = draft if drafts else None
            done[drafts] = model.generate(prompt, max_tokens=tokens, draft=way, **options)
            times[drafts] = time.perf_counter() - started_s - done[drafts].timings.prefill_s
        if done[False].ids != done[True].ids or done[False].text != done[True].text:
            raise SystemExit(f"speculation: {name}: the texts differ")
        ratios.append(times[False] / times[True])
        plain_s.append(times[False] / len(done[False].ids))
        drafted_s.append(times[True] / len(done[True].ids))
    speculation = done[True].speculation
    assert speculation is not None
    return {
        "kind": kind,
        "text": name,
        "draft": draft if isinstance(draft, str) else "the model itself",
        "tokens": len(done[True].ids),
        "speedup": statistics.median(ratios[1:]),
        "speedup_least": min(ratios[1:]),
        "speedup_most": max(ratios[1:]),
        "speedup_first": ratios[0],
        "plain_s_per_token": statistics.median(plain_s[1:]),
        "drafted_s_per_token": statistics.median(drafted_s[1:]),
        "drafted": speculation.drafted,
        "accepted": speculation.accepted,
        "steps": speculation.steps,
    }


HEADER = (
    "| text | kind | draft | plain, ms per token | faster by | least to most | first run | drafts right |"
)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    return (
        f"| {row['text']} | {row['kind']} | {row['draft']} | {row['plain_s_per_token'] * 1e3:.1f} "
        f"| {row['speedup']:.2f} | {row['speedup_least']:.2f} to {row['speedup_most']:.2f} "
        f"| {row['speedup_first']:.2f} | {row['accepted']} of {row['drafted']} |"
    )


def main() -> None:
    """Print a table; with --json and --markdown also write files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    stamped = stamp()
    lines = [HEADER, "|---" * HEADER.count(" | ") + "|---|"]
    print("\n".join(lines))
    rows = []
    with edgellm.load(models.resolve(args.model), threads=args.threads) as model:
        listed = cases(model.config.vocab)
        for draft, some in (("lookup", listed), (model, [listed[0], listed[5]])):
            for case in some:
                rows.append(measure(model, case, draft, args.tokens, args.repeat))
                lines.append(line(rows[-1]))
                print(lines[-1])
                sys.stdout.flush()
    if args.json is not None:
        report = {"stamp": stamped, "model": args.model, "threads": args.threads, "rows": rows}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown is not None:
        where = f"{args.model}, {stamped['date']}, commit {stamped['commit']}, {stamped['machine']['cpu']}"
        args.markdown.write_text(f"# Speculation\n\n{where}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
