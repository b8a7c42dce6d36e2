"""The kernels of AArch64 on emulated processors: each gives the bits of ref where dispatch allows it."""

import re
import subprocess
from pathlib import Path

import pytest

CROSS = "aarch64-linux-gnu-"
SYSROOT = "/usr/aarch64-linux-gnu"
# What qemu tells the program of each processor; Raspberry Pi 3, 4 and 5 have the first three.
PROCESSORS = {
    "cortex-a53": ["ref", "neon"],
    "cortex-a72": ["ref", "neon"],
    "cortex-a76": ["ref", "neon", "dotprod"],
    "neoverse-n1": ["ref", "neon", "dotprod"],
    "max": ["ref", "neon", "dotprod", "i8mm"],
}


@pytest.fixture(scope="module")
def program(root, build_env, tmp_path_factory) -> Path:
    """tests/c/kernels.c with the library for AArch64."""
    make = ["make", "-C", str(root / "csrc"), f"CROSS={CROSS}", "WERROR=1", "-j2"]
    done = subprocess.run(make, capture_output=True, text=True, check=False, env=build_env)
    assert done.returncode == 0, done.stdout + done.stderr
    library = root / "csrc" / "build" / "aarch64-linux-gnu" / "libedgellm.a"
    out = tmp_path_factory.mktemp("aarch64") / "kernels"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    flags += ["-I", str(root / "csrc"), "-I", str(root / "csrc" / "include")]
    source = root / "tests" / "c" / "kernels.c"
    command = [f"{CROSS}gcc", *flags, str(source), str(library), "-lm", "-pthread", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def listed(root: Path, isas: list[str]) -> int:
    text = (root / "csrc" / "kernels" / "kernels.def").read_text(encoding="utf-8")
    rows = re.findall(r"^EL_KERNEL\(\w+, (\w+),", text, re.MULTILINE)
    return sum(isa in isas[1:] for isa in rows)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_kernel_has_the_bits_of_ref_and_none_is_called_that_the_processor_lacks(
    root, program, processor
):
    command = ["qemu-aarch64", "-cpu", processor, "-L", SYSROOT, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # An instruction that the processor lacks ends the program by SIGILL.
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    line = re.fullmatch(r"isas=(\S+) kernels=(\d+) comparisons=(\d+) ok\n", done.stdout)
    assert line, done.stdout
    assert line[1].split(",") == PROCESSORS[processor]
    assert int(line[2]) == listed(root, PROCESSORS[processor])


def products(objects: list[Path]) -> set[str]:
    """Dot and matrix products among the instructions of object files."""
    command = [f"{CROSS}objdump", "-d", *map(str, objects)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\t([su]dot|usdot|[su]mmla|usmmla)\t", listing))


def test_only_their_folders_have_dot_and_matrix_products(root, program):
    objects = root / "csrc" / "build" / "aarch64-linux-gnu" / "obj"
    by_folder = {f: sorted((objects / "kernels" / f).glob("*.o")) for f in ("dotprod", "i8mm")}
    others = [p for p in sorted(objects.rglob("*.o")) if p.parent.name not in by_folder]
    assert len(others) > 20
    assert products(others) == set()
    assert products(by_folder["dotprod"]) == {"sdot"}
    assert products(by_folder["i8mm"]) == {"sdot", "smmla"}


def symbols(objects: list[Path], *flags: str) -> set[str]:
    """Names that object files define or need; weak ones, which no folder may have, end the test."""
    command = [f"{CROSS}nm", "-P", *flags, *map(str, objects)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines() if line and not line.endswith(":")]
    assert not [row for row in rows if row[1] in "wWvVu"]
    return {row[0] for row in rows}


@pytest.mark.parametrize("folder", ["neon", "dotprod", "i8mm"])
def test_folder_needs_only_exact_arithmetic_and_shows_only_its_kernels(root, program, folder):
    objects = root / "csrc" / "build" / "aarch64-linux-gnu" / "obj" / "kernels" / folder
    files = sorted(objects.glob("*.o"))
    assert files
    assert symbols(files, "--undefined-only") - symbols(files, "--defined-only") <= {
        "memcpy",
        "memset",
        "memmove",
        "sqrtf",
        "fmaf",
        "__stack_chk_fail",
    }
    shown = symbols(files, "--defined-only", "--extern-only")
    assert {name for name in shown if not name.endswith(f"__{folder}")} == set()
