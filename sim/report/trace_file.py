"""A study's traced requests in the trace event format that Perfetto and chrome://tracing read.

A process is a node or a link of one run, a thread is a request, a bar is a span. Where spans of a request
overlap in one place (two attempts that race), the later ones get a thread of their own: bars of one thread
nest in this format. Format: "Trace Event Format", https://ui.perfetto.dev reads it.
"""

import json
from typing import TYPE_CHECKING, Any

from edgellm.sim.report.text import Names

if TYPE_CHECKING:
    from edgellm.sim.study import Study

#: Threads that one request may have in one place.
_LANES = 16


def trace_events(study: "Study") -> dict[str, Any]:
    """Return the trace of every run that has one, as the object that the JSON file holds.

    Times are in microseconds of simulated time, as the format wants.
    """
    names = Names(study)
    events: list[dict[str, Any]] = []
    processes: dict[tuple[int, str], int] = {}
    threads: dict[tuple[int, int], list[float]] = {}  # (process, request) -> end of what each lane holds
    for index, run in enumerate(study.runs):
        title = f"{names.row(*run.key)}, seed {run.seed}"
        for i, kind, where, start_s, end_s, text in sorted(run.trace, key=lambda s: (s[0], s[3], -s[4])):
            pid = processes.get((index, where))
            if pid is None:
                pid = processes[index, where] = len(processes) + 1
                events.append(_named("process_name", pid, 0, f"{where} ({title})"))
            lanes = threads.setdefault((pid, i), [])
            lane = next((n for n, busy_until_s in enumerate(lanes) if busy_until_s <= start_s), len(lanes))
            lane = min(lane, _LANES - 1)
            tid = int(i) * _LANES + lane + 1
            if lane == len(lanes):
                lanes.append(0.0)
                again = f", beside {lane}" if lane else ""
                events.append(_named("thread_name", pid, tid, f"request {i}{again}"))
            lanes[lane] = end_s
            events.append(
                {"name": kind, "cat": kind, "ph": "X", "pid": pid, "tid": tid, "ts": 1e6 * start_s,
                 "dur": max(0.0, 1e6 * (end_s - start_s)), "args": {"request": int(i), "what": text}}
            )  # fmt: skip
    scenario = study.meta["scenario"]
    other = {"scenario": scenario["name"], "digest": scenario["digest"], "edgellm": study.meta["edgellm"]}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def write(study: "Study") -> str:
    """Return the text of the trace file; the same study gives the same text."""
    return json.dumps(trace_events(study), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
