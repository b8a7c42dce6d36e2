"""The main job, as `make demo` runs it: a model answers, this machine is measured, a study is made.

Each step is one `edgellm` command, shown before it runs, so that it can be typed again by hand.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EDGELLM = ROOT / ".venv" / "bin" / "edgellm"
OUT = Path("out")
MODEL = "smollm2-135m"
SCENARIO = "scenarios/smart_home.toml"
SYSTEM = "You are the assistant of a smart home. Answer in two or three short sentences."
QUESTION = "Nobody is home until six and it is cold outside. What should the heating do?"


def steps() -> list[tuple[str, list[str]]]:
    """Return (title, arguments of `edgellm`) of each step, in order."""
    workers = str(len(os.sched_getaffinity(0)))
    report, rows = str(OUT / "report.html"), str(OUT / "study.parquet")
    return [
        (
            "A real language model answers on the C engine",
            ["chat", MODEL, "--system", SYSTEM, "--message", QUESTION],
        ),
        ("How fast is this machine?", ["calibrate", MODEL, "--budget-s", "30"]),
        (
            "Where in a thousand homes should the model run?",
            ["simulate", SCENARIO, "--workers", workers, "--out", rows, "--report", report],
        ),
    ]


def main() -> int:
    """Run the steps; return the exit status of the first that fails, or 0."""
    os.chdir(ROOT)
    OUT.mkdir(exist_ok=True)
    started = time.monotonic()
    for number, (title, arguments) in enumerate(steps(), 1):
        print(f"\n== {number}. {title}\n$ edgellm {shlex.join(arguments)}", flush=True)
        begun = time.monotonic()
        try:
            status = subprocess.run(
                [str(EDGELLM), *arguments], stdin=subprocess.DEVNULL, check=False
            ).returncode
        except KeyboardInterrupt:
            return 130
        if status != 0:
            print(f"\nedgellm demo: step {number} ended with status {status}; see README.md", file=sys.stderr)
            return status
        print(f"({time.monotonic() - begun:.0f} s)", flush=True)
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Open {OUT / 'report.html'}: one file, works offline."
    )
    print("Next: change scenarios/smart_home.toml, or write a strategy: notebooks/01-first-study.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
