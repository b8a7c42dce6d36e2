"""Run the tile kernels (AMX) on any machine that has AVX-512 VNNI.

Where the processor has tiles, they run on it. Elsewhere `tile_shim.c` carries out their instructions in a
handler of SIGILL, and the feature is pretended; so this is done in processes of their own. As a script:
``python tests/helpers/tiles.py FOLDER PART`` does one part with the libraries that `build` has put in FOLDER
and prints what it found as JSON.
"""

import ctypes
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgellm
from edgellm import _core, _testing, cpu

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))  # for what functions below import from tests

PRODUCTS = ("tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud", "tdpbf16ps")  # numbers of tile_ops.c
Report = dict[str, Any]


def build(folder: Path) -> None:
    """Compile the shim and the single instructions."""
    for name in ("tile_shim", "tile_ops"):
        command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, str(HERE / f"{name}.c"), "-o", str(folder / f"{name}.so")], check=True)


def can_run() -> bool:
    """Whether the rest of what the kernels of this folder use is here."""
    built = {isa for _, isa in _core.testing_kernel_list()}
    return {"avx512", "avx512_vnni"} <= set(cpu.features()) and "amx" in built


class Tiles:
    """Tiles of the processor, or the shim's."""

    def __init__(self, folder: Path) -> None:
        self.shim = ctypes.CDLL(str(folder / "tile_shim.so"))
        self.ops = ctypes.CDLL(str(folder / "tile_ops.so"))
        self.shim.tile_shim_executed.restype = ctypes.c_ulonglong
        self.native = "amx_int8" in cpu.features()
        if not self.native:
            assert self.shim.tile_shim_install() == 0
            _core.testing_cpu_pretend("amx_int8")
            if "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
                _core.testing_cpu_pretend("amx_bf16")

    def executed(self, name: str) -> int:
        """Instructions of this name that the shim has executed."""
        return int(self.shim.tile_shim_executed(name.encode()))

    def dot(self, name: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """c (m, n) + a (m, 4 k bytes) b (k, 4 n bytes), by one instruction."""
        out = c.copy()
        (m, row), k = a.shape, b.shape[0]
        pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, out)]
        strides = [ctypes.c_long(x.strides[0]) for x in (a, b, out)]
        operands = [v for pair in zip(pointers, strides, strict=True) for v in pair]
        self.ops.tile_dot(PRODUCTS.index(name), m, c.shape[1], row // 4, *operands)
        assert row // 4 == k
        return out


def _single_instructions(tiles: Tiles) -> Report:
    """Products of random tiles of many shapes, against NumPy."""
    rng = np.random.default_rng(1)
    wrong = []
    for name in PRODUCTS[:4]:
        for m, n, k in [(16, 16, 16), (16, 16, 8), (1, 1, 1), (7, 5, 3), (16, 16, 4)]:
            signs = [np.int8 if letter == "s" else np.uint8 for letter in name[4:6]]
            a = rng.integers(0, 256, (m, 4 * k), np.uint8)
            b = rng.integers(0, 256, (k, 4 * n), np.uint8)
            c = rng.integers(-(2**31), 2**31, (m, n), np.int64).astype(np.int32)
            wide_a = a.view(signs[0]).astype(np.int64)
            wide_b = b.view(signs[1]).astype(np.int64).reshape(k, n, 4).transpose(0, 2, 1).reshape(4 * k, n)
            want = (c + wide_a @ wide_b).astype(np.int32)
            if not np.array_equal(tiles.dot(name, a, b, c), want):
                wrong.append([name, m, n, k])
    one = np.array([[0x3F80, 0x3F80]], np.uint16)  # 1, 1
    tiny = np.array([[0x0001, 0x4000]], np.uint16)  # a subnormal, which counts as zero, and 2
    c = np.array([[np.float32(1e-40)]], np.float32)  # likewise
    got = tiles.dot("tdpbf16ps", one.view(np.uint8), tiny.view(np.uint8), c)
    if got[0, 0] != 2:
        wrong.append(["tdpbf16ps flushes", float(got[0, 0])])
    config = np.zeros(64, np.uint8)
    config[0], config[16:18], config[48] = 1, (64, 0), 16
    back = np.zeros_like(config)
    tiles.ops.tile_config(*(x.ctypes.data_as(ctypes.c_void_p) for x in (config, back)))
    if not np.array_equal(config, back):
        wrong.append(["sttilecfg", back.tolist()])
    return {"wrong": wrong}


def _gemm_case(type_name: str, m: int, n: int, k: int, x: np.ndarray, raw: np.ndarray, spare: int) -> bool:
    from tests.unit.kernel_cases import same_bits

    packed = _testing.pack(type_name, k, raw)
    got = _testing.gemm(type_name, "amx", n, k, packed, x, spare)
    return same_bits(got, _testing.gemm(type_name, "ref", n, k, packed, x, spare))


def _kernels(tiles: Tiles) -> Report:
    """Every product of every layout over shapes and fills, against ref."""
    from tests.unit.kernel_cases import FILLS, TYPE_NAMES, fill, random_rows

    wrong, done = [], 0
    rng = np.random.default_rng(5)
    for type_name in [t for t in TYPE_NAMES if _testing.layout(t) in _testing.QUANTIZED]:
        block = edgellm.quant.TYPES[type_name].block_values
        cases: list[tuple[int, int, int, str, int]] = [(0, 16, 256, "random", 0), (3, 16, 0, "random", 0)]
        cases += [(m, 17, 256, "random", 3) for m in (1, 15, 16, 17, 31, 33)]
        cases += [(13, 19, 256, kind, 0) for kind in FILLS]
        cases += [(20, 16, 1024, "wide", 0), (17, 33, 1536, "random", 1)]  # k in parts
        cases += [(137, 16, 768, "random", 0)]  # X in parts
        draws = rng.integers([1, 1, 1], [40, 50, 900 // block + 2], (6, 3))
        cases += [(int(m), int(n), int(b) * block, "random", 2) for m, n, b in draws]
        for m, n, k, kind, spare in cases:
            raw = random_rows(type_name, n, k, seed=m)
            done += 1
            if not _gemm_case(type_name, m, n, k, fill(kind, (m, k), seed=n), raw, spare):
                wrong.append([type_name, m, n, k, kind])
    return {"wrong": wrong, "cases": done}


def _extremes(tiles: Tiles) -> Report:
    """Weights whose bytes are all at one end, times activations at theirs."""
    from tests.unit.kernel_cases import TYPE_NAMES, fill, random_rows

    wrong, done = [], 0
    for type_name in [t for t in TYPE_NAMES if _testing.layout(t) in _testing.QUANTIZED]:
        rows = random_rows(type_name, 17, 256)
        free = random_rows(type_name, 17, 256, seed=1) != rows  # bytes that no scale lies in
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            raw = np.where(free, byte, rows).astype(np.uint8)
            packed = _testing.pack(type_name, 256, raw)
            if not all(np.isfinite(_testing.unpack(type_name, 256, packed, row)).all() for row in range(17)):
                continue
            for kind in ("all_max", "all_min", "alternating"):
                done += 1
                if not _gemm_case(type_name, 9, 17, 256, fill(kind, (9, 256)), raw, 0):
                    wrong.append([type_name, byte, kind])
    return {"wrong": wrong, "cases": done}


def _logits(path: Path, isa: str, threads: int, parts: list[list[int]]) -> bytes:
    with edgellm.load(path, threads=threads, isa=isa) as model:
        session = model.session(context=128)
        return np.concatenate([session.eval(part, logits="all") for part in parts]).tobytes()


def _ragged(ids: list[int]) -> list[list[int]]:
    cuts = [0, 1, 10, 26, 34, len(ids)]
    return [ids[a:b] for a, b in itertools.pairwise(cuts)]


def _models(tiles: Tiles) -> Report:
    """Logits of small models, whatever the threads and the chunks, against ref."""
    import tempfile

    from edgellm.conversion import sample

    wrong = []
    ids = np.random.default_rng(3).integers(0, 64, 44).tolist()
    with tempfile.TemporaryDirectory() as folder:
        for type_name in ("q4_0", "q4_1", "q5_0", "q8_0", "iq4_nl", "q4_k", "q6_k"):
            path = Path(folder) / type_name
            width = 256 if edgellm.quant.TYPES[type_name].block_values == 256 else 64
            sample.write(path, quant=type_name, width=width, ffn=2 * width)
            want = _logits(path, "ref", 1, [ids])
            for threads, parts in [(1, [ids]), (2, _ragged(ids)), (3, [ids[:33], ids[33:]])]:
                if _logits(path, "amx", threads, parts) != want:
                    wrong.append([type_name, threads])
        path = Path(folder) / "q8_0"
        before = tiles.executed("tdpbssd")
        _logits(path, "amx", 2, [[i] for i in ids[:20]] + [ids[20:28]])
        decoded = tiles.executed("tdpbssd") - before
    return {"wrong": wrong, "tiles_used_for_few_rows": decoded}


def _inexact(tiles: Tiles) -> Report:
    """Products in bf16: two factors rounded to 8 bits and a sum in f32; and what `load` makes of it."""
    import tempfile

    from edgellm.conversion import sample
    from tests.unit.kernel_cases import TYPE_NAMES, fill, random_rows

    if "amx_bf16" not in cpu.features():
        return {"skipped": True, "wrong": []}
    wrong, same = [], 0
    for type_name in [t for t in TYPE_NAMES if _testing.layout(t) in _testing.QUANTIZED]:
        for m, n, k, kind in [(1, 1, 256, "random"), (9, 16, 0, "random"), (33, 31, 512, "random"),
                              (64, 33, 1280, "random"), (290, 32, 256, "wide")]:  # fmt: skip
            packed = _testing.pack(type_name, k, random_rows(type_name, n, k, seed=m))
            x = fill(kind, (m, k), seed=n)
            got = _testing.gemm(type_name, "amxbf16", n, k, packed, x, spare=2)
            held = _testing.quantize_act_q8("ref", x)
            rounded = (held["q"] * held["scale"].astype(np.float64)[..., None]).reshape(m, k)
            w = np.array([_testing.unpack(type_name, k, packed, row) for row in range(n)], np.float64)
            bound = (2.0**-7 + 2.0**-16 + (k + 4) * 2.0**-24) * (np.abs(rounded) @ np.abs(w).T) + 1e-30
            if not np.all(np.abs(got - rounded @ w.T) <= bound):
                wrong.append([type_name, m, n, k])
            same += bool(k) and np.array_equal(got, _testing.gemm(type_name, "ref", n, k, packed, x))
    ids = np.random.default_rng(3).integers(0, 64, 30).tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = sample.write(Path(folder) / "tiny.gguf", quant="q4_0")
        logits = {}
        for exact, threads in [(True, 1), (False, 1), (False, 3)]:
            with edgellm.load(path, threads=threads, exact=exact) as model:
                if model.exact != exact:
                    wrong.append(["exact", exact])
                logits[exact, threads] = model.session(context=64).eval(ids)
        with edgellm.load(path, threads=1, exact=False, isa="avx512vnni") as model:
            below = model.session(context=64).eval(ids).tobytes() == logits[True, 1].tobytes() and model.exact
    error = float(np.std(logits[False, 1] - logits[True, 1]) / np.std(logits[True, 1]))
    if not 0 < error < 0.1 or not below or logits[False, 1].tobytes() != logits[False, 3].tobytes():
        wrong.append(["logits", error, below])
    return {"wrong": wrong, "same": same, "error": error}


def _doctor(tiles: Tiles) -> Report:
    """What the user's own check says."""
    from edgellm import diagnosis

    diagnosis.TYPES = ("q8_0",)  # the others are tested above
    report = diagnosis.doctor()
    kernels = {rows: cpu.kernels(rows=rows)["gemm_q8_q4_0x16"] for rows in (1, 8, 9, 512)}
    wrong = [check.detail for check in report.checks if not check.ok]
    return {"wrong": wrong, "isas": report.isas, "kernels": kernels, "text": str(report)}


def _mistake(number: int) -> Callable[[Tiles], Report]:
    def make(tiles: Tiles) -> Report:
        tiles.shim.tile_shim_install()  # also where the processor has tiles: it may not go unseen
        tiles.ops.tile_mistake(number)
        return {}

    return make


PARTS: dict[str, Callable[[Tiles], Report]] = {
    "instructions": _single_instructions,
    "kernels": _kernels,
    "extremes": _extremes,
    "models": _models,
    "inexact": _inexact,
    "doctor": _doctor,
    **{f"mistake-{i}": _mistake(i) for i in range(5)},
}


def main(folder: str, part: str) -> None:
    """Do one part and print its report, with what the shim has seen."""
    tiles = Tiles(Path(folder))
    report = PARTS[part](tiles)
    report["native"] = tiles.native
    report["executed"] = {name: tiles.executed(name) for name in ("ldtilecfg", "tilerelease", *PRODUCTS)}
    report["released"] = bool(tiles.shim.tile_shim_is_released())
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
