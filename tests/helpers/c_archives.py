"""The engine's static libraries, as C programs of the tests link them."""

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOMS = ("model", "text", "format", "core")  # link order


def build(root: Path, env: dict[str, str], sanitizer: str = "") -> list[str]:
    """Build the archives with a sanitizer (kept between runs); return them in link order."""
    name = (
        "sanitized" if sanitizer.startswith("address") else sanitizer or "plain"
    )  # tools/sanitize.sh: the first
    base = root / "build" / name / f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    command = [sys.executable, "setup.py", "-q", "build_clib", "-b", str(base), "-t", str(base)]
    done = subprocess.run(
        command,
        cwd=root,
        env={**env, "EDGELLM_SANITIZE": sanitizer},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    archives = [str(p) for room in ROOMS for p in base.glob(f"libedgellm_{room}.a")]
    return archives + sorted(str(p) for p in base.glob("libedgellm_kernels_*.a"))
