"""What figures were measured on, for results that are shown to others."""

import platform
from pathlib import Path
from typing import Any

from edgellm.cpu import count

INTEREST = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "sve",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Describe this machine; no name of a host, user or folder is in it.

    Examples
    --------
    >>> sorted(machine())
    ['architecture', 'cores', 'cpu', 'flags', 'memory_bytes', 'python', 'system']
    """
    cpu, flags = platform.processor() or platform.machine(), set()
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            cpu = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags |= set(value.split())
    memory_kb = next(
        (line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), None
    )
    return {
        "cpu": cpu,
        "flags": [flag for flag in INTEREST if flag in flags],
        "cores": count(),
        "memory_bytes": int(memory_kb) * 1024 if memory_kb else None,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
