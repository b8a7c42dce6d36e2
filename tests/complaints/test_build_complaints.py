"""Complaints about installing: crashes on older CPUs and machine-dependent builds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# Registers and prefixes that a CPU without AVX does not have.
AVX = re.compile(r"%[yz]mm\d|\tv[a-z0-9]+\s.*%xmm")


@pytest.fixture(scope="module")
def archives(root, build_env) -> list[Path]:
    out = root / "build" / "layering"
    command = [sys.executable, "setup.py", "-q", "build_clib", "-b", str(out), "-t", str(out / "objects")]
    subprocess.run(command, cwd=root, env=build_env, check=True, capture_output=True)
    return sorted(out.glob("libedgellm_*.a"))


def disassembly(path: Path) -> str:
    return subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout


def test_no_avx_outside_its_folder(archives):
    """llama-cpp-python 839, LiteRT-LM 1847: SIGILL on older CPUs."""
    assert archives
    for path in archives:
        isa = path.stem.removeprefix("libedgellm_kernels_")
        if isa not in {"avx2", "avxvnni", "avx512vnni", "amx", "amxbf16"}:
            assert AVX.search(disassembly(path)) is None, path.name


def test_the_disassembly_check_sees_avx(archives):
    """The check itself: the AVX2 folder must trip it."""
    avx2 = [path for path in archives if path.stem.endswith("kernels_avx2")]
    if not avx2:
        pytest.skip("this machine builds no AVX2 kernels")
    assert AVX.search(disassembly(avx2[0]))


def test_binding_is_built_without_avx():
    import edgellm._core

    listing = disassembly(Path(edgellm._core.__file__))
    entry = (
        listing[listing.index("<PyInit__core>:") :].split("\n\n")[0] if "<PyInit__core>:" in listing else ""
    )
    assert AVX.search(entry) is None


def test_one_small_build_serves_every_python(root):
    """llama-cpp-python 741; executorch: no wheels, and builds of 20 to 40 minutes on a Pi."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert [re.split(r"[<>=~! ]", need)[0] for need in project["project"]["dependencies"]] == ["numpy"]
    assert '"py_limited_api": True' in (root / "setup.py").read_text(encoding="utf-8")
    lines = sum(path.read_bytes().count(b"\n") for path in (root / "csrc").rglob("*.c"))
    assert lines < 60_000  # about a minute on one core of a Pi 4, at a thousand lines a second
