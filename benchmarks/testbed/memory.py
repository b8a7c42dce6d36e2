"""Time and memory of a command with everything that it starts, from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Memory is looked at so often.
EVERY_S = 0.05


@dataclass(frozen=True)
class Usage:
    """What a command took. Memory is the largest sum over its processes: what they share counts in each."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    processes: int
    code: int
    output: str


def family(root: int) -> list[int]:
    """The processes below one, itself included."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo.extend(parents.get(found[-1], []))
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def measure(command: Sequence[str], cpu: int | None = None) -> Usage:
    """Run a command, on one CPU if one is given, and look at it until it ends."""

    def pin() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    before = os.times()
    begun = time.monotonic()
    peak = most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin) as process:
        while process.poll() is None:
            pids = family(process.pid)
            peak = max(peak, sum(map(resident_bytes, pids)))
            most = max(most, len(pids))
            time.sleep(EVERY_S)
        assert process.stdout is not None
        output = process.stdout.read()
    after = os.times()
    cpu_s = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Usage(time.monotonic() - begun, cpu_s, peak, most, process.returncode, output)
