"""Files and functions stay small enough to read; a decision record raises a limit, nothing else does."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {".c": 500, ".cpp": 500, ".h": 300, ".py": 500, ".pyi": 500}
FUNCTION_LINES = 60
SIMD_FUNCTION_LINES = 120
NOTEBOOK_CELLS = 40
IMAGE_BYTES = 200_000
RAISED: dict[str, int] = {}  # path -> limit; each with a record in docs/decisions


def tracked() -> list[Path]:
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


FILES = tracked()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def c_functions(text: str) -> list[tuple[int, int]]:
    """(first line, lines from brace to brace) of every function whose braces stand in column 0."""
    found, start = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            found.append((start, number - start + 1))
            start = 0
    return found


def test_files_are_found():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in LIMITS], ids=name)
def test_file_is_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= RAISED.get(name(path), LIMITS[path.suffix])


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in {".c", ".cpp"}], ids=name)
def test_functions_are_short(path):
    simd = path.parent.parent.name == "kernels" and path.parent.name != "ref"
    limit = SIMD_FUNCTION_LINES if simd else FUNCTION_LINES
    long = [
        f"line {at}: {lines}" for at, lines in c_functions(path.read_text(encoding="utf-8")) if lines > limit
    ]
    assert long == []


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".ipynb"], ids=name)
def test_notebook_is_short(path):
    assert len(json.loads(path.read_text(encoding="utf-8"))["cells"]) <= NOTEBOOK_CELLS


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in {".png", ".svg", ".jpg", ".gif"}], ids=name)
def test_image_is_small(path):
    assert path.stat().st_size <= IMAGE_BYTES


def test_raised_limits_have_a_record():
    records = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [path for path in RAISED if path not in records] == []


def test_long_function_is_seen():
    """The measure itself: a function of 61 lines is counted as 61."""
    body = "int f(void)\n{\n" + "    g();\n" * 59 + "}\n"
    assert c_functions(body) == [(2, 61)]
