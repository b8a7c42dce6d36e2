"""Which folder of csrc may include what, and how its files are written."""

import re
import subprocess
from collections import Counter

import pytest
from rooms import CSRC, EXTRA, ISA_MACRO, MAY_INCLUDE, c_files, includes, resolve, room_of

SOURCES = c_files(".c", ".h", ".cpp", ".def")
IDS = [p.relative_to(CSRC).as_posix() for p in SOURCES]
PUBLIC = sorted((CSRC / "include" / "edgellm").glob("*.h"))
# What a leaf room may take from the C library: nothing that allocates, prints, locks or reads the world.
KERNEL_HEADERS = {
    "assert.h",
    "float.h",
    "limits.h",
    "math.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "string.h",
}
INTRINSICS = {"immintrin.h", "arm_neon.h", "xmmintrin.h", "emmintrin.h"}


def test_rooms_are_found():
    assert len(SOURCES) >= 5
    assert {room_of(p) for p in SOURCES} <= set(MAY_INCLUDE)


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_file_includes_only_rooms_below(path):
    allowed = MAY_INCLUDE[room_of(path)] | EXTRA.get(path.relative_to(CSRC).as_posix(), set())
    for name, quoted in includes(path):
        if not quoted:
            continue
        target = resolve(name, path)
        assert target is not None, f'"{name}" is not a header of ours: write <{name}>'
        assert room_of(target) in allowed, f"{room_of(path)} may not include {name}"


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_file_includes_only_its_outside_headers(path):
    room = room_of(path)
    for name, quoted in includes(path):
        if quoted:
            continue
        if name == "Python.h" or name.startswith("numpy/"):
            assert room == "python", f"only csrc/python includes <{name}>"
        if name.startswith(("simgrid/", "xbt/")):
            assert room == "simgrid", f"only csrc/simgrid includes <{name}>"
        if room == "kernels":
            assert name in KERNEL_HEADERS | INTRINSICS, f"a kernel needs no <{name}>"


def test_binding_sees_the_shim_only_through_c_headers():
    for path in c_files(".c", ".h"):
        if room_of(path) == "python":
            assert not [name for name, _ in includes(path) if name.endswith(".hpp")], path.name


@pytest.mark.parametrize("header", PUBLIC, ids=lambda p: p.name)
@pytest.mark.parametrize("language", ["c", "c++"])
def test_public_header_compiles_alone(header, language):
    standard = "-std=c11" if language == "c" else "-std=c++17"
    flags = [
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        standard,
        "-I",
        str(CSRC / "include"),
        "-x",
        language,
    ]
    done = subprocess.run(["gcc", *flags, str(header)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_headers_exist():
    assert PUBLIC


def test_file_names_are_unique():
    counts = Counter(p.name for p in c_files(".c", ".cpp"))
    assert [name for name, n in counts.items() if n > 1] == []


def isa_files():
    return [p for p in c_files(".c") if room_of(p) == "kernels" and p.parent != CSRC / "kernels"]


@pytest.mark.parametrize("path", isa_files(), ids=lambda p: p.name)
def test_kernel_file_is_named_after_its_isa(path):
    assert path.stem.endswith("_" + path.parent.name)


@pytest.mark.parametrize("path", [p for p in isa_files() if p.parent.name != "ref"], ids=lambda p: p.name)
def test_isa_file_asserts_its_macro(path):
    macro = ISA_MACRO[path.parent.name]
    guard = rf"#\s*(?:ifndef {macro}\b|if !defined\({macro}\))[^\n]*\n\s*#\s*error\b"
    assert re.search(guard, path.read_text(encoding="utf-8")), f"needs #ifndef {macro} / #error"


@pytest.mark.parametrize("path", isa_files(), ids=lambda p: p.name)
def test_isa_file_includes_only_shared_kernel_headers(path):
    ours = [name for name, quoted in includes(path) if quoted]
    for name in ours:
        base = name.rsplit("/", 1)[-1]
        assert base.startswith("el_") or base == "kernel_types.h", f"{name} is not a shared kernel header"


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p) == "kernels"], ids=lambda p: p.name)
def test_no_isa_condition_inside_a_function(path):
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("{"):
            inside = True
        elif line.startswith("}"):
            inside = False
        elif inside:
            assert not re.match(r"\s*#\s*(?:if|ifdef|ifndef|elif)\b.*__\w+", line), f"line {number}: {line}"


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_no_macro_hides_a_jump(path):
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if re.match(r"\s*#\s*define\b", line):
            assert not re.search(r"\b(?:return|goto)\b", line.split("//")[0]), line.strip()


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_shared_helpers_are_static_inline(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        bare = re.match(r"(?:extern\s+)?inline\b", line)
        assert path.suffix == ".cpp" or not bare, f"plain inline may be picked by the linker: {line.strip()}"


def test_simd_headers_are_included_only_by_isa_files():
    for path in SOURCES:
        used = INTRINSICS & {name for name, _ in includes(path)}
        in_isa = room_of(path) == "kernels" and path.parent.name in ISA_MACRO
        shared = room_of(path) == "kernels" and path.suffix == ".h" and any(i in path.stem for i in ISA_MACRO)
        assert not used or in_isa or shared, f"{path.name} includes {used}"
