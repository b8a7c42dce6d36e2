"""The C library as `make -C csrc` builds it, for this machine or another, and programs that use it."""

import json
import math
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgellm
from edgellm.conversion.gguf_writer import GgufWriter
from edgellm.quant import TYPES
from helpers import tiny_model

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
GOLDEN = ROOT / "tests" / "data" / "logit_hashes.json"
TINY_HOME = CSRC / "examples" / "model" / "tiny-home.gguf"
TOKENS = 5  # of each tiny model
LONG = 70  # of the larger one: more than one block of keys


@dataclass(frozen=True)
class Machine:
    """A compiler's prefix, and what runs its programs here."""

    name: str
    cross: str = ""
    emulator: tuple[str, ...] = ()

    def out(self) -> Path:
        """Where make puts what it builds for this machine."""
        target = run([self.cross + "gcc", "-dumpmachine"]).stdout.strip()
        return CSRC / "build" / target

    def run(self, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([*self.emulator, str(program), *arguments])


HERE = Machine("this machine")
MACHINES = [
    Machine("aarch64", "aarch64-linux-gnu-", ("qemu-aarch64", "-cpu", "max")),
    Machine("armv7", "arm-linux-gnueabihf-", ("qemu-arm",)),
    Machine("riscv64", "riscv64-linux-gnu-", ("qemu-riscv64",)),
    Machine("x86-64 without AVX", "x86_64-linux-gnu-", ("qemu-x86_64", "-cpu", "Nehalem")),
]


def run(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def clean_env() -> dict[str, str]:
    """An environment in which make obeys only its arguments."""
    drop = ("MAKE", "MFLAGS", "EDGELLM_", "LD_PRELOAD", "CFLAGS", "CROSS")
    return {key: value for key, value in os.environ.items() if not key.startswith(drop)} | {"LC_ALL": "C"}


def make(*arguments: str, folder: Path = CSRC) -> str:
    """Run make in a folder of csrc, with warnings as errors; what it printed."""
    done = run(["make", "-C", str(folder), "WERROR=1", *arguments], env=clean_env())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def program(machine: Machine, name: str, out: Path, extra: Sequence[str] = ()) -> Path:
    """Build the library for a machine and link tests/c/NAME.c with it, statically."""
    make(f"CROSS={machine.cross}")
    target = out / f"{name}-{machine.name.replace(' ', '-')}"
    command = [machine.cross + "gcc", "-static", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command += ["-I", str(CSRC / "include"), "-I", str(CSRC), *extra, str(ROOT / "tests" / "c" / f"{name}.c")]
    command += [str(machine.out() / "libedgellm.a"), "-lm", "-pthread", "-o", str(target)]
    done = run(command, env=clean_env())
    assert done.returncode == 0, done.stderr
    return target


def write_models(folder: Path) -> list[Path]:
    """A tiny GGUF of every tensor type, and an edge image of each."""
    paths = []
    for type in TYPES:
        path = folder / f"{type}.gguf"
        tiny_model.write(path, quant=type, width=256, ffn=256, layers=1)
        edgellm.convert(path, path.with_suffix(".edge"), machine="portable")
        paths += [path, path.with_suffix(".edge")]
    return paths


def hashes(machine: Machine, out: Path, models: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """File name to (hash, instruction sets) on a machine: of these models and of the one of the examples."""
    built = program(machine, "logits", out)
    found: dict[str, tuple[str, str]] = {}
    for tokens, files in ((TOKENS, models), (LONG, [TINY_HOME])):
        done = machine.run(built, str(tokens), *map(str, files))
        assert done.returncode == 0, done.stdout + done.stderr
        found |= read_hashes(done.stdout)
    return found


def golden(names: Iterable[str]) -> dict[str, str]:
    """The hash that each file must have: the same for a GGUF and for an image of it."""
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {name: kept[Path(name).stem] for name in names}


def write_large_header(path: Path) -> int:
    """The header of a model whose embedding alone has 4.25 GiB; the bytes its file would have."""
    shape = tiny_model.Tiny(quant="q8_0", width=4096, heads=32, kv_heads=1, ffn=32, layers=1)
    writer = GgufWriter()
    for key, (value, kind) in tiny_model.entries(shape).items():
        writer.add(key, value, kind)
    shapes = {"token_embd": (1 << 20, 4096), "blk.0.attn_q": (4096, 4096), "blk.0.attn_k": (128, 4096)}
    shapes |= {"blk.0.attn_v": (128, 4096), "blk.0.attn_output": (4096, 4096), "blk.0.ffn_gate": (32, 4096)}
    shapes |= {"blk.0.ffn_up": (32, 4096), "blk.0.ffn_down": (4096, 32)}
    nbytes = 0
    for name, extents in shapes.items():
        writer.add_tensor(f"{name}.weight", "q8_0", extents)
        nbytes += math.prod(extents) // 32 * 34
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", "f32", (4096,))
        nbytes += 4 * 4096
    head = writer.header()
    path.write_bytes(head)
    return len(head) + nbytes


def read_hashes(output: str) -> dict[str, tuple[str, str]]:
    """File name to (hash, instruction sets) of what tests/c/logits.c printed."""
    found = {}
    for line in output.splitlines():
        value, isas, path = line.split(" ", 2)
        found[Path(path).name] = (value, isas.removeprefix("isas="))
    return found
