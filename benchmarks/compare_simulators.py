"""The testbed beside SimPy: the same day of the same homes, in turns, each in a process of its own.

    .venv/bin/python benchmarks/compare_simulators.py            # minutes
    .venv/bin/python benchmarks/compare_simulators.py --quick    # a test of this script, in seconds

Two comparisons: with a SimPy model in which nothing contends (every home has work now and then), and with one
that shares links and processors fairly (homes under load). Both sides start from the same scenario and the
same arrivals and end with the same table of figures; time is processor time, without the import.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compare.figures import ratio, spread
from compare.peers import RESULTS
from compare.stamp import load_average, name_of, stamp
from testbed.worlds import homes

SCHEMA = 1
#: Name, scenario, model in SimPy, least ratio of its time to ours.
LIGHT, LOADED = "nothing contends", "links shared fairly"
TARGETS = {LIGHT: 1.0, LOADED: 3.0}
MODEL = {LIGHT: "delays", LOADED: "fair"}
FIGURES = ("requests", "served_share", "ttft_p50_s", "ttft_p99_s", "e2e_p50_s", "e2e_p99_s",
           "bytes_up_per_request")  # fmt: skip
#: Figures agree within this, relatively: losses are drawn from other random numbers. (Energy is added up on
#: both sides, by the testbed with more states than one.)
AGREE = 0.02


def world(case: str, requests: int) -> dict[str, Any]:
    """The scenario of a case; SimPy knows no headers and handshakes, so neither side counts them."""
    if case == LIGHT:
        found = homes(1000, requests)
    else:
        found = homes(50, requests, duration_s=requests / 8.0, fair_link="ble-1m")
    return {**found, "network": {"factors": False}}


def ours(case: str, requests: int) -> tuple[float, dict[str, float]]:
    """Simulate with the testbed in this process."""
    from edgellm import sim
    from edgellm.sim.engine.results import collect
    from edgellm.sim.engine.simulation import Simulation
    from edgellm.sim.metrics import SloLimits, request_metrics

    scenario = sim.load_scenario(world(case, requests))
    begun = time.process_time()
    simulation = Simulation(scenario, sim.Gateway(), 1, {})
    simulation.run()
    columns = collect(simulation).requests
    figures = request_metrics(columns, SloLimits(), scenario.duration_s)
    return time.process_time() - begun, figures


def simpy(case: str, requests: int) -> tuple[float, dict[str, float]]:
    """Simulate with SimPy in this process."""
    from testbed.simpy_models import MODELS

    from edgellm import sim
    from edgellm.sim.metrics import SloLimits, request_metrics

    scenario = sim.load_scenario(world(case, requests))
    begun = time.process_time()
    columns = MODELS[MODEL[case]](scenario, 1).run()
    figures = request_metrics(columns, SloLimits(), scenario.duration_s)
    return time.process_time() - begun, figures


def one(side: str, case: str, requests: int) -> dict[str, Any]:
    """Run one side in a fresh process."""
    words = [sys.executable, __file__, "--inside", side, "--case", case, "--requests", str(requests)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"compare_simulators: {side} failed on {case!r}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: str, requests: int, rounds: int) -> dict[str, Any]:
    """Time both sides in turns, and check that they say the same."""
    times: dict[str, list[float]] = {"ours": [], "simpy": []}
    figures: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for side, values in times.items():
            found = one(side, case, requests)
            values.append(found["cpu_s"])
            figures[side] = {name: found["figures"][name] for name in FIGURES}
    differences = {name: _difference(figures["ours"][name], figures["simpy"][name]) for name in FIGURES}
    faster = ratio(times["ours"], times["simpy"])
    count = figures["ours"]["requests"]
    return {
        "case": case,
        "requests": count,
        "ours_us": spread([1e6 * t / count for t in times["ours"]]).as_dict(),
        "simpy_us": spread([1e6 * t / count for t in times["simpy"]]).as_dict(),
        "ratio": faster.as_dict(),
        "least": TARGETS[case],
        "holds": faster.median >= TARGETS[case],
        "figures": figures,
        "largest_difference": max(differences.values()),
        "agree": max(differences.values()) <= AGREE,
    }


def _difference(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(abs(a), abs(b))


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine = found["stamp"]["machine"]
    lines = [
        "# The testbed beside SimPy",
        "",
        "`benchmarks/compare_simulators.py`: the same day of the same homes with the same accounts for every",
        "request, processor time, in turns; the ratio is SimPy's time to ours.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit "
        f"{found['stamp']['commit']}, {found['stamp']['date']}, load before {found['stamp']['load_before']}.",
        "",
        "| case | requests | ours, us each | SimPy, us each | ratio | wanted | largest difference |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for row in found["rows"]:
        held = "holds" if row["holds"] else "does not hold"
        lines.append(
            f"| {row['case']} | {row['requests']:,.0f} | {row['ours_us']['median']:.1f} "
            f"| {row['simpy_us']['median']:.1f} | {row['ratio']['median']:.2f} ({row['ratio']['low']:.2f} to "
            f"{row['ratio']['high']:.2f}) | {row['least']:g}: {held} "
            f"| {100 * row['largest_difference']:.2f} % |"
        )
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a test of this script, in seconds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--inside", choices=("ours", "simpy"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=tuple(TARGETS), help="one of them only")
    args = parser.parse_args(words)
    if args.inside is not None:
        cpu_s, figures = (ours if args.inside == "ours" else simpy)(args.case, args.requests)
        print(json.dumps({"cpu_s": cpu_s, "figures": figures}))
        return 0
    if args.quick:
        args.requests, args.rounds = 2000, 1
    found: dict[str, Any] = {"schema": SCHEMA, "stamp": stamp(), "rows": []}
    for case in TARGETS if args.case is None else [args.case]:
        found["rows"].append(compare(case, args.requests, args.rounds))
        print(json.dumps(found["rows"][-1]), file=sys.stderr)
    found["load_after"] = load_average()
    text = page(found)
    if not args.quick:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"simulators-{name_of(found['stamp'])}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(text, "utf-8")
    print(text)
    return 0 if all(row["agree"] for row in found["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
