"""Time the matrix kernels on one thread, as shares of what this machine was measured to read and to multiply.

Usage: python benchmarks/kernels.py [--json FILE] [--types q5_0 ...] [--isas avx2 ...]. Times are CPU time of
the calling thread, so that other work on the machine costs caches but not the clock; each is the best and
the median of its repetitions. Kernels on tiles are timed on many rows only, since they serve no others; those
of "amxbf16" are outside the arithmetic contract and their share is that of the peak of 8-bit products, too.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgellm import _core, _testing, cpu
from edgellm.quant import TYPES

SHAPES = [
    (1, 1536, 576),
    (1, 576, 1536),
    (1, 49152, 576),
    (4, 49152, 576),
    (8, 49152, 576),
    (128, 1536, 576),
    (512, 1536, 576),
]
QUANTIZED = [t for t in TYPES if _testing.layout(t) in _testing.QUANTIZED and t != "tq1_0"]  # packed as tq2_0
MANY = 9  # EL_MANY_ROWS: where a processor has tiles, products of so many rows take them
RING_BYTES = 24 << 20  # more than a second-level cache: weights come from where a decode step finds them


def machine() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def times_s(work: Any, repeats: int) -> tuple[float, float]:
    """Best and median CPU seconds of `work()`."""
    taken = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return min(taken), statistics.median(taken)


def read_bytes_per_s() -> float:
    """Speed of NumPy's sum over a ring, which does little but read."""
    ring = np.ones(RING_BYTES // 8, np.int64)
    return RING_BYTES / times_s(ring.sum, 30)[0]


def peak_ops_per_s() -> float | None:
    """Speed of 8-bit products in registers, with the best instructions of this machine."""
    sys.path.append(str(Path(__file__).resolve().parent / "parity"))
    from peer_limits import Limits

    limits = Limits()
    limits.open(1 << 20, 1)
    peak: float | None = limits.peak()["ops_per_s"]
    return peak


def isas() -> list[str]:
    """What to time: all but the reference, and the kernels outside the contract where there are any."""
    exact = [isa for isa in cpu.runnable_isas() if isa != "ref"]
    return exact + sorted(set(cpu.kernels(exact=False).values()) - set(cpu.runnable_isas()))


def measure(type_name: str, isa: str, m: int, n: int, k: int) -> dict[str, Any]:
    """Time one kernel on random weights of one shape."""
    block = TYPES[type_name].block_values
    k = -(-k // block) * block
    op = f"gemm_q8_{_testing.layout(type_name)}"
    tiles = -(-n // _testing.LANES)
    size = tiles * _testing.tile_bytes(type_name, k)
    copies = max(1, RING_BYTES // size) if m < 32 else 1
    w = _testing.guarded((copies, size), np.uint8)
    w[...] = 0  # any bits take the same time, as long as no scale is subnormal or infinite
    x = _testing.quantize_act_q8("ref", np.random.default_rng(0).standard_normal((m, k)).astype(np.float32))
    y = _testing.guarded((m, n))
    views = [(one.data, x.reshape(-1).view(np.uint8).data, y.reshape(-1).view(np.uint8).data) for one in w]
    sizes = (m, n, k, k // 32, n)

    def work() -> None:
        for view in views:
            _core.testing_call_kernel(op, isa, sizes, 0.0, view)

    work()
    best, median = (t / copies for t in times_s(work, 9 if m >= 32 else 25))
    return {
        "op": op,
        "isa": isa,
        "shape": [m, n, k],
        "best_s": best,
        "median_s": median,
        "bytes_per_s": size / best,
        "ops_per_s": 2 * m * n * k / best,
    }


def main() -> None:
    """Print a table; with --json also write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--types", nargs="*", choices=QUANTIZED, help="these only")
    parser.add_argument("--isas", nargs="*", choices=[*isas(), "ref"], help="these only")
    args = parser.parse_args()
    read, peak = read_bytes_per_s(), peak_ops_per_s()
    multiplies = f", multiplies {peak / 1e12:.2f} TOPS" if peak else ""
    print(f"{machine()}: reads {read / 1e9:.1f} GB/s{multiplies} on one thread")
    print(
        f"{'op':<18}{'isa':<12}{'m x n x k':<18}{'us':>9}{'median':>9}{'GB/s':>8}{'of read':>9}{'TOPS':>7}"
        f"{'of peak':>9}"
    )
    rows = []
    for isa in args.isas or isas():
        for type_name in sorted(args.types or QUANTIZED):
            for shape in [shape for shape in SHAPES if shape[0] >= MANY or not isa.startswith("amx")]:
                row = measure(type_name, isa, *shape)
                row["share_of_read"] = row["bytes_per_s"] / read
                row["share_of_peak"] = row["ops_per_s"] / peak if peak else None
                rows.append(row)
                print(
                    f"{row['op']:<18}{isa:<12}{' x '.join(map(str, row['shape'])):<18}"
                    f"{row['best_s'] * 1e6:9.1f}{row['median_s'] * 1e6:9.1f}{row['bytes_per_s'] / 1e9:8.1f}"
                    f"{row['share_of_read']:9.0%}{row['ops_per_s'] / 1e12:7.3f}"
                    + (f"{row['share_of_peak']:9.0%}" if peak else "")
                )
    if args.json is not None:
        report = {
            "machine": machine(),
            "read_bytes_per_s": read,
            "peak_ops_per_s": peak,
            "threads": 1,
            "rows": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
