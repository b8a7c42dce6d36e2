"""Build recipe. The only logic here is which flags each folder of kernels needs."""

import os
import platform
from pathlib import Path

import numpy as np
from setuptools import Extension, setup

WARN = ["-Wall", "-Wextra"] + (["-Werror"] if os.environ.get("EDGELLM_WERROR") == "1" else [])
COMMON = ["-std=c11", "-O2", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", *WARN]
ISA_FLAGS = {  # folder under csrc/kernels -> (machines, extra flags)
    "avx512vnni": (
        {"x86_64"},
        ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx2", "-mfma", "-mf16c"],
    ),
    "avx2": ({"x86_64"}, ["-mavx2", "-mfma", "-mf16c"]),
    "ref": (None, []),
}
INCLUDE = ["csrc/include"]


def sources(folder: str) -> list[str]:
    return sorted(str(p) for p in Path("csrc", folder).glob("*.c"))


def library(folder: str, flags: list[str], macros: list[tuple[str, str]]) -> tuple[str, dict]:
    # build_clib passes no Python include path, so the core cannot include Python.h.
    return "edgellm_" + folder.replace("/", "_"), {
        "sources": sources(folder),
        "include_dirs": [*INCLUDE, "csrc"],
        "macros": macros,
        "cflags": COMMON + flags,
        # build_clib compares timestamps only; name every header (and the table).
        "obj_deps": {"": sorted(str(p) for p in Path("csrc").rglob("*") if p.suffix in {".h", ".def"})},
    }


machine = platform.machine().lower()
built = [isa for isa, (machines, _) in ISA_FLAGS.items() if machines is None or machine in machines]
macros = [(f"EL_BUILD_{isa.upper()}", "1") for isa in built]
headers = sorted(str(p) for p in Path("csrc").rglob("*.h"))

# Order is link order: each library may use only those after it.
libraries = [library(room, [], macros) for room in ("model", "text", "format", "core")]
libraries += [library(f"kernels/{isa}", ISA_FLAGS[isa][1], macros) for isa in built]
libraries = [(name, recipe) for name, recipe in libraries if recipe["sources"]]

ABI = [("Py_LIMITED_API", "0x030B0000"), ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
       ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
PY_SIM = "csrc/python/py_sim.c"  # only where SimGrid is installed

extensions = [
    Extension(
        "edgellm._core",
        [s for s in sources("python") if s != PY_SIM],
        include_dirs=[*INCLUDE, np.get_include()],
        depends=headers,
        define_macros=macros + ABI,
        extra_compile_args=COMMON,
        extra_link_args=["-pthread"],
        py_limited_api=True,
    )
]

setup(
    libraries=libraries,
    ext_modules=extensions,
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
