"""Every kernel against ref from plain C: on this machine under sanitizers, and as the emulators run it."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers import c_archives

import edgellm

SANITIZER = "address,undefined"


@pytest.fixture(scope="module")
def program(root, build_env, tmp_path_factory) -> Path:
    """tests/c/kernels.c with the archives of this machine."""
    out = tmp_path_factory.mktemp("kernels") / "kernels"
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-fsanitize={SANITIZER}"]
    flags += ["-I", str(root / "csrc"), "-I", str(root / "csrc" / "include")]
    archives = c_archives.build(root, build_env, SANITIZER)
    link = ["-Wl,--start-group", *archives, "-Wl,--end-group", "-lm", "-pthread", "-o", str(out)]
    command = ["gcc", *flags, str(root / "tests" / "c" / "kernels.c"), *link]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_kernel_of_every_isa_has_the_bits_of_ref(program, build_env):
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, env=build_env)
    assert done.returncode == 0, done.stdout + done.stderr
    line = re.fullmatch(r"isas=(\S+) kernels=(\d+) comparisons=(\d+) ok\n", done.stdout)
    assert line, done.stdout
    assert line[1].split(",") == edgellm.cpu.runnable_isas()
    rows = [row for row in edgellm._core.testing_kernel_list() if row[1] in line[1].split(",")[1:]]
    assert int(line[2]) == len(rows)
    assert int(line[3]) > 50 * len(rows)
