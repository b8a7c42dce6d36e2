"""How much memory there is for sessions."""

from __future__ import annotations

import contextlib
from pathlib import Path


def free_bytes(root: str = "/") -> int:
    """Bytes that this process could still take: of the machine, or of its control group if that is less.

    Where the system tells nothing, 2 GB.
    """
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(root, "proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path(root, "sys/fs/cgroup")
        limit = int(Path(group, "memory.max").read_text("ascii"))
        found.append(limit - int(Path(group, "memory.current").read_text("ascii")))
    return max(0, min(found, default=2_000_000_000))
