"""The event core from plain C, on random worlds under sanitizers."""

import re
import subprocess


def test_random_worlds_wake_or_drop_every_tag_once(root, tmp_path):
    program = tmp_path / "worlds"
    sources = [root / "tests" / "c" / "sim_worlds.c", *sorted((root / "csrc" / "sim").glob("*.c"))]
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
    flags += ["-fsanitize=address,undefined", "-I", str(root / "csrc")]
    command = ["gcc", *flags, *map(str, sources), "-lm", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    line = re.fullmatch(r"woken=(\d+) ok\n", done.stdout)
    assert line, done.stdout
    assert int(line[1]) > 50_000
