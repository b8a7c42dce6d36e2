"""The C library without Python: what it shows, how it installs, and that C and C++ programs can use it."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers import c_library
from helpers.c_library import CSRC, HERE, run

import edgellm

HEADERS = sorted((CSRC / "include" / "edgellm").glob("*.h"))
USER = """
#include <stdio.h>
{includes}
int main(void)
{{
    el_error err;
    el_edge edge;
    __attribute__((aligned(64))) static const unsigned char nothing[64] = {{0}};
    const el_status st = el_edge_parse(&edge, nothing, sizeof nothing, &err);
    printf("%s %s\\n", EL_VERSION, el_status_name(st));
    return el_cpu_count() > 0 ? 0 : 1;
}}
"""


@pytest.fixture(scope="module")
def library() -> Path:
    c_library.make()
    return HERE.out()


@pytest.fixture(scope="module")
def installed(library, tmp_path_factory) -> Path:
    """What `make install` puts into a root of its own."""
    root = tmp_path_factory.mktemp("root")
    c_library.make("install", f"DESTDIR={root}", "PREFIX=/opt/edgellm")
    return root / "opt" / "edgellm"


def declared() -> set[str]:
    """Functions that the public headers declare."""
    found: set[str] = set()
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
        # typedefs of functions and fields that point to some have a '(' before the name, or stand in braces
        text = re.sub(r"\{[^{}]*\}", "", text)
        found |= {
            m[1] for m in re.finditer(r"^(?!typedef\b)\w[\w \*]*?\b(el_\w+)\(", text, flags=re.MULTILINE)
        }
    return found


def test_headers_declare_what_is_looked_for():
    assert {"el_edge_parse", "el_status_name", "el_pool_new", "el_sample", "el_batch_eval"} <= declared()


def test_shared_library_shows_exactly_what_the_headers_declare(library):
    done = run(["nm", "-D", "--defined-only", str(library / "libedgellm.so")])
    assert {line.split()[2] for line in done.stdout.splitlines()} == declared()


def test_shared_library_is_named_by_its_major_version(library):
    done = run(["readelf", "-d", str(library / "libedgellm.so")])
    assert f"soname: [libedgellm.so.{edgellm.__version__.split('.')[0]}]" in done.stdout


def test_version_is_that_of_the_package():
    api = (CSRC / "include" / "edgellm" / "api.h").read_text(encoding="utf-8")
    assert f'#define EL_VERSION "{edgellm.__version__}"' in api


def test_both_builds_have_the_same_kernels(library):
    shown = c_library.make("show")
    built = set(re.search(r"kernels ([^;]*);", shown)[1].split())
    assert built == {row[1] for row in edgellm._core.testing_kernel_list()}


@pytest.mark.parametrize("language", ["c", "c++"])
def test_installed_library_serves_a_program(installed, tmp_path, language):
    assert sorted(p.name for p in (installed / "include" / "edgellm").iterdir()) == [h.name for h in HEADERS]
    source = tmp_path / f"user.{'c' if language == 'c' else 'cpp'}"
    source.write_text(USER.format(includes="\n".join(f'#include "edgellm/{h.name}"' for h in HEADERS)))
    compiler = ["gcc", "-std=c11"] if language == "c" else ["g++", "-std=c++17"]
    pc = (installed / "lib" / "pkgconfig" / "edgellm.pc").read_text(encoding="utf-8")
    assert f"Version: {edgellm.__version__}\n" in pc
    assert "prefix=/opt/edgellm\n" in pc
    assert "Libs: -L${libdir} -ledgellm\n" in pc
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{installed}/include", f"-L{installed}/lib"]
    for link in (["-ledgellm"], [str(installed / "lib" / "libedgellm.a"), "-lm", "-pthread"]):
        program = tmp_path / "user"
        done = run([*compiler, *flags, str(source), *link, "-o", str(program)])
        assert done.returncode == 0, done.stderr
        done = run([str(program)], env={"LD_LIBRARY_PATH": str(installed / "lib")})
        assert (done.returncode, done.stdout) == (0, f"{edgellm.__version__} format error\n")


def test_every_type_isa_thread_count_and_chunking_gives_the_golden_hash(library, tmp_path):
    """The program compares the modes; the other machines are in tests/cross."""
    models = c_library.write_models(tmp_path)
    found = c_library.hashes(HERE, tmp_path, models)
    assert len(found) == len(models) + 1
    assert {name: value for name, (value, _) in found.items()} == c_library.golden(found)
    assert {isas for _, isas in found.values()} == {",".join(edgellm.cpu.runnable_isas())}


def test_missing_compiler_is_named():
    command = ["make", "-C", str(CSRC), "CROSS=nowhere-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=c_library.clean_env())
    assert done.returncode != 0
    assert "nowhere-gcc does not run here" in done.stderr
