"""Build recipe. The only logic here is which flags each folder of kernels needs, and what this compiler has.

Environment: EDGELLM_WERROR=1 makes warnings errors; EDGELLM_SANITIZE=address,undefined builds with those
sanitizers and with assertions on. Both are used by `make test`.
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from setuptools import Extension, setup

SANITIZE = os.environ.get("EDGELLM_SANITIZE", "")
WARN = ["-Wall", "-Wextra"] + (["-Werror"] if os.environ.get("EDGELLM_WERROR") == "1" else [])
COMMON = ["-O2", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", *WARN]
LINK = ["-pthread"] + (["-Wl,-s"] if sys.platform == "linux" and not SANITIZE else [])
if SANITIZE:
    COMMON += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    # gcc's register allocator takes minutes over instrumented kernels, region by region
    COMMON += [f"-fsanitize={SANITIZE}", "-fira-region=one"]
    LINK += [f"-fsanitize={SANITIZE}"]
C11 = ["-std=c11", *COMMON]
CXX17 = ["-std=c++17", *COMMON]

# Order is link order: each library may use only those after it.
ROOMS = ["train", "model", "text", "format", "core"]


def isa_flags() -> dict[str, tuple[set[str] | None, list[str]]]:
    """Folder under csrc/kernels -> (machines or None for any, extra flags); csrc/Makefile reads it too."""
    lines = Path("csrc/kernels/isas.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {row[0]: (None if row[1] == "any" else set(row[1].split(",")), row[2:]) for row in rows}


def compiles(program: str, flags: list[str]) -> bool:
    """Whether the compiler that setuptools will use makes a program of this with these flags."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        command = [*compiler, str(source), "-o", str(source.with_suffix("")), *flags]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sources(folder: str, suffix: str = ".c") -> list[str]:
    return sorted(p.as_posix() for p in Path("csrc", folder).glob("*" + suffix))


def library(folder: str, flags: list[str], found: list[str]) -> tuple[str, dict]:
    # build_clib passes no Python include path, so the core cannot include Python.h.
    return "edgellm_" + folder.replace("/", "_"), {
        "sources": found,
        "include_dirs": ["csrc/include", "csrc"],
        "macros": macros,
        "cflags": flags,
        # build_clib compares timestamps only; name every header (and the table).
        "obj_deps": {"": headers},
    }


def buildable(isa: str) -> bool:
    machines, flags = ISA_FLAGS[isa]
    if not sources(f"kernels/{isa}") or (machines is not None and machine not in machines):
        return False
    if compiles("int main(void) { return 0; }\n", flags):
        return True
    print(f"edgellm: this compiler does not know {' '.join(flags)}: built without {isa}", file=sys.stderr)
    return False


def has_simgrid() -> bool:
    probe = "#if !__has_include(<simgrid/s4u.hpp>)\n#error\n#endif\nint main(void) { return 0; }\n"
    if compiles(probe, ["-lsimgrid"]):
        return True
    print("edgellm: no SimGrid here (Debian: libsimgrid-dev): built without edgellm._sim", file=sys.stderr)
    return False


machine = platform.machine().lower()
ISA_FLAGS = isa_flags()
built = [isa for isa in ISA_FLAGS if buildable(isa)]
macros = [(f"EL_BUILD_{isa.upper()}", "1") for isa in built]
headers = sorted(p.as_posix() for p in Path("csrc").rglob("*") if p.suffix in {".h", ".def"})
everything = sorted(p.as_posix() for p in Path("csrc").rglob("*") if p.suffix in {".c", ".cpp", ".h", ".def"})

libraries = [library(room, C11, sources(room)) for room in ROOMS if sources(room)]
libraries += [library(f"kernels/{isa}", C11 + ISA_FLAGS[isa][1], sources(f"kernels/{isa}")) for isa in built]

PY_SIM = sorted(p.as_posix() for p in Path("csrc/python").glob("py_sim*.c"))
BINDING = {
    "define_macros": [
        *macros,
        ("Py_LIMITED_API", "0x030B0000"),
        ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    ],
    "depends": everything,  # an archive that changed does not relink an extension by itself
    "extra_compile_args": C11,
    "py_limited_api": True,
}
extensions = [
    Extension(
        "edgellm._core",
        [s for s in sources("python") if s not in PY_SIM],
        include_dirs=["csrc/include", "csrc", np.get_include()],  # csrc: only py_testing.c looks there
        extra_link_args=LINK,
        **BINDING,
    )
]
if PY_SIM and has_simgrid():
    libraries[:0] = [
        library("simgrid", CXX17, sources("simgrid", ".cpp")),
        library("sim", C11, sources("sim")),
    ]
    extensions.append(
        Extension(
            "edgellm._sim",
            PY_SIM,
            include_dirs=["csrc/include", "csrc", np.get_include()],
            extra_link_args=[*LINK, "-lsimgrid"],  # after the archive that needs it
            language="c++",
            **BINDING,
        )
    )

setup(libraries=libraries, ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}})
