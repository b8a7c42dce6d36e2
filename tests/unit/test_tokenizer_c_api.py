"""The C interface takes any bytes and any failed allocation: a program under the sanitizers shows it."""

import subprocess


def test_tokenizer_takes_any_bytes_and_any_failed_allocation(root, tmp_path, build_env):
    sources = [root / "tests" / "unit" / "tokenizer_any_bytes.c", root / "csrc" / "core" / "error.c"]
    sources += sorted((root / "csrc" / "text").glob("*.c"))
    program = tmp_path / "any_bytes"
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{root / 'csrc'}"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{root / 'csrc' / 'include'}"]
    flags += ["-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"]
    subprocess.run(["gcc", *flags, *map(str, sources), "-o", str(program)], check=True, env=build_env)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, env=build_env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
