"""The rooms of the repository and the arrows between them, as DESIGN draws them."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"

_BELOW_MODEL = {"model", "text", "format", "core", "kernels", "include"}
MAY_INCLUDE = {
    "include": {"include"},
    "kernels": {"kernels"},
    "core": {"core", "kernels", "include"},
    "format": {"format", "core", "kernels", "include"},
    "text": {"text", "core", "kernels", "include"},
    "model": _BELOW_MODEL,
    "train": _BELOW_MODEL | {"train"},
    "sim": {"sim"},
    "simgrid": {"simgrid", "sim"},
    "python": {"python", "include"},
    "examples": {"examples", "include"},
}
EXTRA = {  # the files of the binding that see more
    "python/py_testing.c": {"kernels", "core"},
    "python/py_sim.h": {"sim"},
    "python/py_sim.c": {"simgrid"},
    "python/py_sim_engine.c": {"sim", "simgrid"},
}
ISA_MACRO = {
    "avx2": "__AVX2__",
    "avxvnni": "__AVXVNNI__",
    "avx512vnni": "__AVX512VNNI__",
    "amx": "__AMX_INT8__",
    "amxbf16": "__AMX_BF16__",
    "neon": "__ARM_NEON",
    "dotprod": "__ARM_FEATURE_DOTPROD",
    "i8mm": "__ARM_FEATURE_MATMUL_INT8",
}
_INCLUDE = re.compile(r'^\s*#\s*include\s*(?P<open>[<"])(?P<name>[^">]+)[">]', re.MULTILINE)


def c_files(*suffixes: str) -> list[Path]:
    """Every source of csrc with one of these suffixes, sorted."""
    return sorted(p for p in CSRC.rglob("*") if p.suffix in suffixes)


def room_of(path: Path) -> str:
    """The room (first folder under csrc) of a file."""
    return path.relative_to(CSRC).parts[0]


def includes(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (name, quoted) of every include directive of a file."""
    for match in _INCLUDE.finditer(path.read_text(encoding="utf-8")):
        yield match["name"], match["open"] == '"'


def resolve(name: str, source: Path) -> Path | None:
    """The file of ours that a quoted include names, as the compiler looks for it; None if there is none."""
    for folder in (source.parent, CSRC / "include", CSRC):
        found = (folder / name).resolve()
        if found.is_file() and found.is_relative_to(CSRC):
            return found
    return None


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that git tracks or would add."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(sorted(p for p in paths if p.is_file() and not p.is_symlink()))


def text_of(path: Path) -> str | None:
    """The text of a file, or None where it is binary."""
    raw = path.read_bytes()
    return None if b"\0" in raw else raw.decode("utf-8", errors="replace")
