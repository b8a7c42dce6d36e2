"""The engine as plain C, without Python: under sanitizers, with refused memory, and on many threads."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import c_archives, tiny_model

import edgellm

WRAPPED = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "free", "pthread_create")
IDS = [5, 9, 41, 7, 77, 120, 3, 60, 61, 62, 63, 64, 65]


def quietly(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **kwargs)


@dataclass(frozen=True)
class Outcome:
    """The line that the program prints."""

    status: str
    hash: str
    requests: int
    live: int
    text: str


@dataclass(frozen=True)
class Engine:
    """tests/c/engine.c, built with one sanitizer."""

    program: Path
    file: Path
    under: tuple[str, ...] = ()

    def __call__(self, *, threads=1, isa="ref", fail_at=0, rounds=2) -> Outcome:
        arguments = [str(self.file), str(threads), isa, str(fail_at), str(rounds), *map(str, IDS)]
        done = self.run([*self.under, str(self.program), *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        line = re.fullmatch(r"status=(.*) hash=(\w+) requests=(\d+) live=(-?\d+) (.*)\n", done.stdout)
        assert line, done.stdout
        return Outcome(line[1], line[2], int(line[3]), int(line[4]), line[5])

    @staticmethod
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        options = {"LD_PRELOAD": "", "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
        done = quietly(command, env={**os.environ, **options})
        if "unexpected memory mapping" in done.stderr:  # more address randomness than this libtsan knows
            done = quietly(["setarch", "-R", *command], env={**os.environ, **options})
        return done


def build(root: Path, env: dict[str, str], sanitizer: str, out: Path) -> Path:
    """Link engine.c against the archives, all with a sanitizer."""
    archives = c_archives.build(root, env, sanitizer)
    program = out / "engine"
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-fsanitize={sanitizer}"] if sanitizer else []
    wrap = [f"-Wl,--wrap={name}" for name in WRAPPED]
    source = root / "tests" / "c" / "engine.c"
    link = ["-Wl,--start-group", *archives, "-Wl,--end-group", "-lm", *wrap, "-o", str(program)]
    include = ["-I", str(root / "csrc" / "include")]
    done = subprocess.run(
        ["gcc", *flags, *include, str(source), *link], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    tiny_model.write(path, quant="q4_0", types={"ffn_down.weight": "q8_0", "attn_v.weight": "q4_1"})
    return path


@pytest.fixture(scope="module")
def careful(root, build_env, tiny, tmp_path_factory) -> Engine:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer."""
    return Engine(build(root, build_env, "address,undefined", tmp_path_factory.mktemp("asan")), tiny)


@pytest.fixture(scope="module")
def racy(root, build_env, tiny, tmp_path_factory) -> Engine:
    """Under ThreadSanitizer."""
    return Engine(build(root, build_env, "thread", tmp_path_factory.mktemp("tsan")), tiny)


def test_c_program_gives_the_bits_of_every_isa_and_thread_count_and_without_a_pool(careful):
    seen = {careful(threads=n, isa=isa).hash for isa in edgellm.cpu.runnable_isas() for n in (0, 1, 2, 3)}
    assert len(seen) == 1


def test_everything_taken_is_given_back(careful):
    outcome = careful(threads=3)
    assert (outcome.status, outcome.live) == ("ok", 0)


def test_each_refused_allocation_and_thread_is_an_error_without_a_leak(careful):
    total = careful(threads=3).requests
    assert total > 3
    for nth in range(1, total + 1):
        outcome = careful(threads=3, fail_at=nth, rounds=1)
        assert outcome.status in {"out of memory", "system error"}, f"request {nth}: {outcome}"
        assert outcome.live == 0, f"request {nth} leaks"


def test_threads_share_nothing_unguarded(racy):
    outcomes = [racy(threads=n, rounds=6) for n in (1, 2, 4)]
    assert [o.status for o in outcomes] == ["ok"] * 3
    assert len({o.hash for o in outcomes}) == 1


@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="needs Debian's qemu-user, which .ci/run installs"
)
def test_cpu_without_avx_gives_the_same_bits(careful, root, build_env, tiny, tmp_path):
    """llama-cpp-python 839, LiteRT-LM 1847: SIGILL on older CPUs."""
    program = build(root, build_env, "", tmp_path)
    old = Engine(program, tiny, ("qemu-x86_64", "-cpu", "Nehalem"))
    assert old(threads=2).hash == careful().hash
    refused = old(isa="avx2")
    assert refused.status == "bad argument"
    assert "avx2" in refused.text
