"""What this machine can do at most, behind the pipe of `serving.py`: bytes read, 8-bit products, per second.

limits.c is built with the system's compiler into a temporary folder. Requests:

- ``open``: bytes, threads, cpus -> a buffer of that many bytes in huge pages where the system grants them
- ``read``: -> bytes per second over the buffer, of all threads together, at the best prefetch distance
- ``peak``: -> operations (two per product) per second in registers, and the instruction set that did them
"""

import contextlib
import ctypes
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import pin, serve

SOURCE = Path(__file__).resolve().parent / "limits.c"
AHEADS = (0, 2048, 8192, 16384)
ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA, SYS_ARCH_PRCTL = 0x1023, 18, 158
# Best last; the flag is the name in /proc/cpuinfo.
PEAKS = {"avx2": "avx2", "avxvnni": "avx_vnni", "avx512vnni": "avx512_vnni", "amx": "amx_int8"}


def flags() -> set[str]:
    """What the processor says it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {
        flag
        for line in lines
        if line.partition(":")[0].strip() in ("flags", "Features")
        for flag in line.partition(":")[2].split()
    }


def together(threads: int, work: Callable[[int], object]) -> float:
    """Seconds until all of `threads` threads have done `work(index)`; ctypes gives up the GIL in it."""
    gate = threading.Barrier(threads + 1)

    def run(index: int) -> None:
        gate.wait()
        work(index)

    crew = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for one in crew:
        one.start()
    gate.wait()
    begin = time.perf_counter()
    for one in crew:
        one.join()
    return time.perf_counter() - begin


class Limits:
    """A buffer to read, and the functions of limits.c."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name) / "limits.so"
        compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
        if compiler is None:
            raise SystemExit("no C compiler: the limits of this machine cannot be measured")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
        self._c = ctypes.CDLL(str(library))
        self._c.limit_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
        self._c.limit_read.restype = ctypes.c_uint64
        self._map: mmap.mmap | None = None

    def open(self, bytes: int, threads: int, cpus: list[int] | None = None) -> dict[str, Any]:
        """Make the buffer; every page of it is there afterwards."""
        pin(cpus)
        self.threads = threads
        self.slice = -(-bytes // threads // 4096) * 4096
        size = self.slice * threads + AHEADS[-1] + 4096
        # Private: the system gives huge pages to shared memory only where it is told to.
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(AttributeError, OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        ctypes.memset(self._at, 1, size)
        return {}

    def read(self, passes: int = 3) -> dict[str, float]:
        """Read the buffer a few times at each prefetch distance and keep the fastest."""
        best = min(self._read_s(passes, ahead) for ahead in AHEADS)
        return {"bytes_per_s": self.slice * self.threads * passes / best}

    def _read_s(self, passes: int, ahead: int) -> float:
        if self.threads == 1:
            begin = time.thread_time()
            self._c.limit_read(self._at, self.slice, passes, ahead)
            return time.thread_time() - begin
        return together(
            self.threads, lambda i: self._c.limit_read(self._at + i * self.slice, self.slice, passes, ahead)
        )

    def peak(self, rounds: int = 2_000_000) -> dict[str, Any]:
        """Multiply and add in registers with the best instructions that there are."""
        machine = platform.machine()
        have = flags()
        if machine == "x86_64":
            isas = [isa for isa, flag in PEAKS.items() if flag in have]
        else:
            isas = ["dotprod"] if machine == "aarch64" and "asimddp" in have else []
        if not isas:
            return {"isa": None, "ops_per_s": None}
        isa = isas[-1]
        work = getattr(self._c, f"limit_{isa}")
        work.argtypes = [ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint64)]
        work.restype = ctypes.c_uint64
        if isa == "amx":
            rounds //= 16
            ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
        per_round = [0] * self.threads

        def run(index: int) -> None:
            per_round[index] = work(rounds, ctypes.byref(ctypes.c_uint64()))

        if self.threads == 1:
            best = min(self._cpu_s(run) for _ in range(3))
        else:
            best = min(together(self.threads, run) for _ in range(3))
        return {"isa": isa, "ops_per_s": sum(per_round) * rounds / best}

    @staticmethod
    def _cpu_s(run: Callable[[int], object]) -> float:
        begin = time.thread_time()
        run(0)
        return time.thread_time() - begin


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    serve(Limits())
