"""Fleets of 10,000, 100,000 and a million devices with a million requests: time and memory, on one core.

    .venv/bin/python benchmarks/scale.py                       # all three; minutes
    .venv/bin/python benchmarks/scale.py --cases 10000         # one of them
    .venv/bin/python benchmarks/scale.py --quick               # a test of this script, in seconds

Everything counts: importing, building the fleet, drawing the requests, simulating a day, the figures of the
table, and writing Parquet. Memory is the largest sum of resident memory over all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compare.peers import RESULTS
from compare.stamp import load_average, name_of, one_per_core, stamp
from testbed.memory import measure
from testbed.worlds import homes

SCHEMA = 1
GIB = float(1 << 30)
#: Devices, requests, most seconds, most bytes; None: no limit, figures only.
CASES: tuple[tuple[int, int, float | None, float | None], ...] = (
    (10_000, 1_000_000, 90.0, GIB),
    (100_000, 1_000_000, 180.0, 2 * GIB),
    (1_000_000, 1_000_000, None, None),
)


def simulate(devices: int, requests: int, strategy: str, folder: Path) -> dict[str, Any]:
    """Do the whole work of one case in this process and its children."""
    begun = time.monotonic()
    from edgellm import sim

    scenario = sim.load_scenario(homes(devices, requests))
    built_s = time.monotonic() - begun
    study = sim.evaluate(scenario, [strategy], [1], workers=1, quality="off", progress=False)
    simulated_s = time.monotonic() - begun - built_s
    row = study.table().iloc[0]
    figures = {name: float(row[name]) for name in ("requests", "served_share", "ttft_p50_s", "e2e_p99_s")}
    file = study.save(folder / "study.parquet")
    return {
        "built_s": built_s,
        "simulated_s": simulated_s,
        "table_and_parquet_s": time.monotonic() - begun - built_s - simulated_s,
        "parquet_bytes": file.stat().st_size,
        **figures,
    }


def run(case: tuple[int, int, float | None, float | None], strategy: str, cpu: int | None) -> dict[str, Any]:
    """Measure one case from outside."""
    devices, requests, most_s, most_bytes = case
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--inside", folder, "--cases", str(devices)]
        words += ["--requests", str(requests), "--strategy", strategy]
        usage = measure(words, cpu)
    found: dict[str, Any] = {"devices": devices, "requests_expected": requests, "strategy": strategy}
    found |= {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s, "peak_bytes": usage.peak_bytes}
    found |= {"most_s": most_s, "most_bytes": most_bytes, "processes": usage.processes}
    if usage.code != 0:
        raise SystemExit(f"scale: the case of {devices} devices ended with exit code {usage.code}")
    found |= json.loads(usage.output.splitlines()[-1])
    found["holds"] = (most_s is None or usage.wall_s <= most_s) and (
        most_bytes is None or usage.peak_bytes <= most_bytes
    )
    return found


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine = found["stamp"]["machine"]
    lines = [
        "# A million requests on one core",
        "",
        "`benchmarks/scale.py`: homes of five devices that ask their gateway for a day; everything counts,",
        "from the import to the Parquet file. Memory is the largest sum over all processes.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit "
        f"{found['stamp']['commit']}, {found['stamp']['date']}, load before {found['stamp']['load_before']}.",
        "",
        "| devices | requests | wall s | CPU s | fleet s | simulation s | table s | memory GiB | limit |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in found["rows"]:
        limit = "none"
        if row["most_s"] is not None:
            held = "holds" if row["holds"] else "does not hold"
            limit = f"{row['most_s']:g} s, {row['most_bytes'] / GIB:g} GiB: {held}"
        lines.append(
            f"| {row['devices']:,} | {row['requests']:,.0f} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} "
            f"| {row['built_s']:.1f} | {row['simulated_s']:.1f} | {row['table_and_parquet_s']:.1f} "
            f"| {row['peak_bytes'] / GIB:.2f} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=lambda text: [int(x) for x in text.split(",")], help="devices")
    parser.add_argument("--requests", type=int, help="instead of a million")
    parser.add_argument("--strategy", default="gateway")
    parser.add_argument("--all-cores", action="store_true", help="do not pin to one core")
    parser.add_argument("--quick", action="store_true", help="a test of this script, in seconds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.inside is not None:
        print(json.dumps(simulate(args.cases[0], args.requests, args.strategy, args.inside)))
        return 0
    cases = [c for c in CASES if args.cases is None or c[0] in args.cases]
    if args.quick:
        cases = [(100, 1000, 60.0, GIB), (1000, 1000, 60.0, GIB)]
    if args.requests is not None:
        cases = [(c[0], args.requests, None, None) for c in cases]
    cpu = None if args.all_cores else one_per_core(os.sched_getaffinity(0))[-1]
    found: dict[str, Any] = {"schema": SCHEMA, "stamp": stamp(), "rows": []}
    for case in cases:
        found["rows"].append(run(case, args.strategy, cpu))
        print(json.dumps(found["rows"][-1]), file=sys.stderr)
    found["load_after"] = load_average()
    text = page(found)
    if not args.quick and args.requests is None:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"scale-{name_of(found['stamp'])}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(text, "utf-8")
    print(text)
    return 0 if all(row["holds"] for row in found["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
