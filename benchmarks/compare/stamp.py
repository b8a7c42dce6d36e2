"""What a comparison was measured on: machine, versions, and the load of others."""

import datetime
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import edgellm
from edgellm.cli._machine import machine

ROOT = Path(__file__).resolve().parents[2]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii", "replace").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def load_average() -> float | None:
    """Mean number of threads that wanted to run in the last minute, ours included."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def one_per_core(cpus: Iterable[int], topology: str = "/sys/devices/system/cpu") -> list[int]:
    """Order CPUs so that hyperthreads of one core come only after every core has been used."""
    order: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    for cpu in sorted(cpus):
        core = _first_line(f"{topology}/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        seen[core] = seen.get(core, 0) + 1
        order.append((seen[core], cpu))
    return [cpu for _, cpu in sorted(order)]


def core_sha256() -> str:
    """SHA-256 of the extension that is measured: a row of another build is not a row of this one."""
    from edgellm import _core

    assert _core.__file__ is not None
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()


def stamp() -> dict[str, Any]:
    """Describe machine and build; no name of a host, user or folder is in it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "edgellm": edgellm.__version__,
        "numerics": edgellm.__numerics__,
        "commit": commit,
        "changed_since_commit": bool(_git("status", "--porcelain", "--untracked-files=no"))
        if commit
        else None,
        "core_sha256": core_sha256(),
        "machine": machine(),
        "isas": edgellm.cpu.runnable_isas(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "huge_pages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": load_average(),
    }


def name_of(found: dict[str, Any]) -> str:
    """A file name's part for the machine: its processor, best instruction set and cores.

    Examples
    --------
    >>> name_of({"machine": {"cpu": "Intel(R) Xeon(R) CPU @ 2.10GHz", "cores": 2}, "isas": ["ref", "amx"]})
    'intel-xeon-2-cores-amx'
    """
    cpu = re.sub(r"\((R|TM|r|tm)\)|@.*|\b(CPU|Processor|Core)\b", " ", found["machine"]["cpu"])
    words = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return f"{words or 'cpu'}-{found['machine']['cores']}-cores-{found['isas'][-1]}"
