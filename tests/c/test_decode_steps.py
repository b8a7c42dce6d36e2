"""A decode step allocates nothing and calls the system for nothing but the waits of its threads."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers import c_archives, tiny_model

WRAPPED = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "free")
NO_FILTER = 77


@pytest.fixture(scope="module")
def program(root, build_env, tmp_path_factory) -> Path:
    """tests/c/steps.c with the archives of this machine."""
    out = tmp_path_factory.mktemp("steps") / "steps"
    flags = ["-std=c11", "-O2", "-fno-builtin", "-Wall", "-Wextra", "-Werror"]
    flags += ["-I", str(root / "csrc" / "include")]
    link = ["-Wl,--start-group", *c_archives.build(root, build_env), "-Wl,--end-group", "-lm", "-pthread"]
    link += [f"-Wl,--wrap={name}" for name in WRAPPED]
    command = ["gcc", *flags, str(root / "tests" / "c" / "steps.c"), *link, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return tiny_model.write(path, quant="q4_0", types={"ffn_down": "q8_0", "attn_v": "f16"})


def run(program: Path, tiny: Path, env: dict[str, str], threads: int, slip: str = "none") -> tuple[int, ...]:
    """Steps done, requests to the allocator, and the forbidden system call or -1."""
    command = [str(program), str(tiny), str(threads), slip]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=120)
    if done.returncode == NO_FILTER:
        pytest.skip("this system refuses a seccomp filter")
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    line = re.fullmatch(r"steps=(\d+) requests=(\d+) call=(-?\d+)\n", done.stdout)
    assert line, done.stdout
    return tuple(int(x) for x in line.groups())


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_hundred_decode_steps_allocate_and_call_nothing(program, tiny, build_env, threads):
    assert run(program, tiny, build_env, threads) == (100, 0, -1)


@pytest.mark.parametrize("threads", [1, 2])
def test_slips_are_seen(program, tiny, build_env, threads):
    assert run(program, tiny, build_env, threads, "memory") == (100, 2, -1)
    steps, requests, call = run(program, tiny, build_env, threads, "call")
    assert (steps, requests) == (71, 0)
    assert call > 0
