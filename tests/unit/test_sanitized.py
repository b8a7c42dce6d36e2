"""The sanitizers' run really runs the sanitized build, and a report really ends it."""

import os
import subprocess

import pytest

import edgellm._core

SANITIZED = pytest.mark.skipif("EDGELLM_SANITIZED" not in os.environ, reason="only under tools/sanitize.sh")


@SANITIZED
def test_sanitized_run_imports_the_sanitized_extension():
    command = ["nm", "-D", edgellm._core.__file__]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "__asan_init" in needed
    assert "__ubsan_handle" in needed


@SANITIZED
def test_overflow_ends_a_program_of_the_same_flags(tmp_path):
    source = tmp_path / "overflow.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int main(int argc, char **argv) { (void)argv; char *p = malloc(4); return p[argc + 3]; }\n"
    )
    program = tmp_path / "overflow"
    plain = {**os.environ, "LD_PRELOAD": ""}  # the compiler itself leaks
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", str(source), "-o", str(program), *flags], check=True, env=plain)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
