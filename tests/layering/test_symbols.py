"""What the compiled rooms need from the C library, and what they show to the linker."""

import subprocess
import sys
from pathlib import Path

import pytest
from rooms import ISA_MACRO, ROOT

CORE_ROOMS = [
    room for room in ("core", "format", "text", "model", "train", "sim") if (ROOT / "csrc" / room).is_dir()
]
# Exact, or without effect outside their arguments.
KERNEL_MAY_USE = {"memcpy", "memset", "memmove", "fmaf", "sqrtf", "floorf", "rintf", "nearbyintf", "ldexpf"}
KERNEL_MAY_USE |= {"fma", "sqrt", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
NEVER = {
    *("printf", "fprintf", "vprintf", "vfprintf", "dprintf", "puts", "fputs", "putchar", "putc", "fputc"),
    *(
        "__printf_chk",
        "__fprintf_chk",
        "__vfprintf_chk",
        "fwrite",
        "perror",
        "stdout",
        "stderr",
        "stdin",
        "write",
    ),
    *("exit", "_exit", "_Exit", "quick_exit", "atexit", "abort", "raise", "kill", "__assert_fail", "longjmp"),
    *("getenv", "secure_getenv", "setenv", "putenv", "environ"),
    *("fopen", "fopen64", "freopen", "fdopen", "open", "open64", "openat", "openat64", "creat", "opendir"),
    *("tmpfile", "mkstemp", "unlink", "rename", "remove", "system", "popen", "fork", "execve", "dlopen"),
    *("socket", "connect", "rand", "srand", "random", "time", "setlocale", "signal", "sigaction", "alloca"),
    *("gets", "strcpy", "strcat", "sprintf", "vsprintf", "strtok", "gmtime", "localtime"),
}


@pytest.fixture(scope="module")
def archives(build_env) -> dict[str, Path]:
    """The static library of each room, made by the same recipe as the extension."""
    out = ROOT / "build" / "layering"
    command = [sys.executable, "setup.py", "-q", "build_clib", "-b", str(out), "-t", str(out / "objects")]
    done = subprocess.run(command, cwd=ROOT, env=build_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {p.name.removeprefix("libedgellm_").removesuffix(".a"): p for p in out.glob("libedgellm_*.a")}


def symbols(archive: Path, *flags: str) -> dict[str, str]:
    """Name to type letter of an archive's symbols."""
    done = subprocess.run(["nm", "-P", *flags, str(archive)], capture_output=True, text=True, check=True)
    rows = (line.split() for line in done.stdout.splitlines() if line and not line.endswith(":"))
    return {row[0]: row[1] for row in rows if len(row) >= 2}


def kernel_archives(archives):
    return {name: path for name, path in archives.items() if name.startswith("kernels_")}


def test_archives_are_there(archives):
    assert "core" in archives


def test_kernels_need_nothing_but_exact_arithmetic(archives):
    for name, path in kernel_archives(archives).items():
        needed = set(symbols(path, "--undefined-only"))
        own = set(symbols(path, "--defined-only"))
        shared = {s for s in needed if s.startswith("el_")}
        assert needed - own - shared <= KERNEL_MAY_USE, name


def test_kernels_call_only_kernels(archives):
    kernels = kernel_archives(archives)
    defined = {s for path in kernels.values() for s in symbols(path, "--defined-only")}
    for name, path in kernels.items():
        ours = {s for s in symbols(path, "--undefined-only") if s.startswith("el_")}
        assert ours <= defined, name


def writable(archive: Path) -> list[str]:
    """Symbols in sections that stay writable; constants that only need relocation are not among them."""
    done = subprocess.run(["nm", "-f", "sysv", str(archive)], capture_output=True, text=True, check=True)
    rows = ([cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines())
    sections = {row[0]: row[6] for row in rows if len(row) == 7}
    held = (".data", ".bss", ".tdata", ".tbss", "*COM*")
    return [s for s, at in sections.items() if at.startswith(held) and not at.startswith(".data.rel.ro")]


def test_kernels_hold_no_state(archives):
    for name, path in kernel_archives(archives).items():
        assert writable(path) == [], f"{name} holds data that can change"


def test_state_check_sees_state(tmp_path):
    """The check itself."""
    source = tmp_path / "state.c"
    source.write_text(
        "static int n = 1; static const int *const p = &n; const int *f(void) { n++; return p; }\n"
    )
    subprocess.run(["gcc", "-c", "-O0", str(source), "-o", str(source.with_suffix(".o"))], check=True)
    assert writable(source.with_suffix(".o")) == ["n"]


def test_isa_flags_cannot_leak_through_the_linker(archives):
    for name, path in kernel_archives(archives).items():
        isa = name.removeprefix("kernels_")
        shown = symbols(path, "--defined-only", "--extern-only")
        assert not [s for s, kind in shown.items() if kind in "wWvVu"], f"{name}: weak symbols"
        if isa in ISA_MACRO:
            assert [s for s in shown if not s.endswith(f"__{isa}")] == [], name


@pytest.mark.parametrize("room", CORE_ROOMS)
def test_room_prints_nothing_opens_nothing_never_exits(archives, room):
    assert set(symbols(archives[room], "--undefined-only")) & NEVER == set()


def test_every_shown_symbol_is_ours(archives):
    for name, path in archives.items():
        if name == "simgrid":  # C++: its own names are mangled
            continue
        shown = symbols(path, "--defined-only", "--extern-only")
        assert [s for s in shown if not s.startswith("el_")] == [], name


def test_extension_shows_one_symbol():
    import edgellm._core

    command = ["nm", "-D", "-P", "--defined-only", edgellm._core.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PyInit__core"]
