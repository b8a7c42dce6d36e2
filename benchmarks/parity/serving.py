"""What every engine behind a pipe shares: the loop that answers, the clocks, the memory of its process.

Imported by the scripts `peer_*.py`, each in its own environment: the standard library only. One JSON
request per line comes in, one JSON answer per line goes out; a request's "do" names a method.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock, and seconds of processor time of all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def pin(cpus: Iterable[int] | None) -> None:
    """Keep this process, and the threads that it starts from now on, on some CPUs."""
    if cpus is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def memory() -> dict[str, int]:
    """Resident bytes of this process: now, at most so far, and what of it is backed by files.

    Raises
    ------
    OSError
        Where the system has no /proc.
    """
    found = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmHWM", "RssFile", "RssAnon"):
                found[key] = int(value.split()[0]) * 1024
    return {
        "now_bytes": found["VmRSS"],
        "peak_bytes": found["VmHWM"],
        "file_bytes": found["RssFile"],
        "anonymous_bytes": found["RssAnon"],
    }


def serve(engine: Any) -> None:
    """Answer requests until standard input ends. An error ends the process, its reason on standard error."""
    engine.memory = memory
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(engine, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)
