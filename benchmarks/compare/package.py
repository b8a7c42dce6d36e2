"""What the package itself costs: time to import it, size of the extension, time to build it from source."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .figures import OURS, spread

ROOT = Path(__file__).resolve().parents[2]
CODE = "import time, numpy; begin = time.process_time(); import {0}; print(time.process_time() - begin)"


def import_s(python: Path, module: str, rounds: int) -> list[float]:
    """Processor seconds that importing a module takes beyond NumPy, each in a new interpreter."""
    command = [str(python), "-c", CODE.format(module)]
    with tempfile.TemporaryDirectory() as away:  # where no source folder is found first
        runs = [
            subprocess.run(command, cwd=away, capture_output=True, text=True, check=True)
            for _ in range(rounds + 1)
        ]
    return [float(run.stdout) for run in runs[1:]]  # the first may have compiled to bytecode


def build_s() -> float:
    """Seconds on the clock from the sources that git knows to a wheel, through an sdist, in isolation."""
    house = ROOT / "build" / "wheelhouse"  # fetched by the set-up, so that isolation needs no network
    environment = dict(os.environ)
    if house.is_dir():
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "tree"
        tree.mkdir()
        packed = subprocess.run(
            ["git", "-c", "safe.directory=*", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "x"], cwd=tree, input=packed.stdout, check=True)
        hook = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
        subprocess.run([sys.executable, "-c", hook, name], cwd=tree, capture_output=True, check=True)
        sdist = next(folder.glob("*.tar.gz"))
        begin = time.perf_counter()
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", name, str(sdist)]
        subprocess.run(command, env=environment, capture_output=True, check=True)
        return time.perf_counter() - begin


def package(llama: Path | None, rounds: int, build: bool) -> dict[str, Any]:
    """One row with all of it."""
    from edgellm import _core

    assert _core.__file__ is not None
    imports = {OURS: spread(import_s(Path(sys.executable), "edgellm", rounds)).as_dict()}
    if llama is not None:
        imports["llama.cpp"] = spread(import_s(llama, "llama_cpp", rounds)).as_dict()
    return {
        "model": "",
        "quant": "",
        "kind": "package",
        "import_s": imports,
        "extension_bytes": Path(_core.__file__).stat().st_size,
        "build_s": build_s() if build else None,
    }
