"""What this machine's processor can do, and which kernels are chosen for it.

A feature counts only if the processor has it and the operating system saves its registers. The same bits
come out of every instruction set; only the time differs.
"""

import math
import os

from edgellm import _core

__all__ = ["count", "features", "kernels", "quota", "runnable_isas"]


def features() -> list[str]:
    """List the processor features that kernels may use.

    Returns
    -------
    features : list of str
        Such as ``["avx2", "fma", "f16c", "avx512", "avx512_vnni"]``, or ``["neon", "dotprod"]`` on a
        Raspberry Pi 5; empty on a processor without any. ``"avx512"`` means AVX-512 F, BW, VL and DQ.

    Examples
    --------
    >>> isinstance(edgellm.cpu.features(), list)
    True
    """
    return _core.cpu_features()


def runnable_isas() -> list[str]:
    """List the instruction sets that this build has kernels for and this machine can run.

    Returns
    -------
    isas : list of str
        In increasing order of preference; the first is always ``"ref"``, portable C, the
        specification of all others. Each is accepted as ``isa=`` by `edgellm.load` and `edgellm.ops`.

    Examples
    --------
    >>> edgellm.cpu.runnable_isas()[0]
    'ref'
    """
    return _core.cpu_isas()


def kernels(isa: str | None = None, rows: int = 512, exact: bool = True) -> dict[str, str]:
    """Say which instruction set serves each operation.

    Parameters
    ----------
    isa : str, optional
        Cap: every operation takes its best kernel at or below it. Default: the best of this machine.
    rows : int
        Rows of activations (tokens) of a product. Below 9 the tile unit of "amx" is not used, since
        most of a tile would be empty; nothing else depends on it.
    exact : bool
        As in `edgellm.load`: False shows the kernels outside the arithmetic contract, "amxbf16", where
        this machine has them and `isa` is not below.

    Returns
    -------
    kernels : dict of str to str
        Operation, such as ``"gemm_q8_q4_0x16"``, to instruction set.

    Raises
    ------
    ValueError
        If `isa` is unknown or this machine cannot run it, or `rows` is not positive.

    Examples
    --------
    >>> set(edgellm.cpu.kernels("ref").values())
    {'ref'}
    """
    return _core.cpu_kernels(isa, rows, exact)


def quota(root: str = "/") -> float:
    """CPUs' worth of time that the control groups of this process allow, as containers set it.

    Parameters
    ----------
    root : str
        Where ``proc`` and ``sys`` are mounted.

    Returns
    -------
    quota : float
        Such as 1.5, or infinity where nothing limits it or the system has no control groups.

    Notes
    -----
    Source: Linux's Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and, for version 1,
    Documentation/scheduler/sched-bwc.rst ("cpu.cfs_quota_us"). Every group up to the top limits.

    Examples
    --------
    >>> edgellm.cpu.quota() > 0
    True
    """
    least = math.inf
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            continue
        top = os.path.join(root, "sys/fs/cgroup", controllers)
        while True:
            folder = os.path.join(top, path.strip("/"))
            if controllers == "":
                limit, _, period = _read(os.path.join(folder, "cpu.max")).partition(" ")
            else:
                limit = _read(os.path.join(folder, "cpu.cfs_quota_us"))
                period = _read(os.path.join(folder, "cpu.cfs_period_us"))
            if limit.strip().isdigit() and period.strip().isdigit() and int(period) > 0:
                least = min(least, int(limit) / int(period))
            if not path.strip("/"):
                break
            path = os.path.dirname(path.rstrip("/"))
    return least


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def count() -> int:
    """Count the CPUs that this process may use: its affinity mask, and no more than its quota.

    Returns
    -------
    count : int
        At least 1; the default number of threads. Not the machine's total: `taskset`, a cpuset and the
        CPU limit of a container (`quota`, rounded up) all count.

    Examples
    --------
    >>> edgellm.cpu.count() >= 1
    True
    """
    limit = quota()
    allowed = _core.cpu_count()
    return allowed if limit >= allowed else max(1, math.ceil(limit))
