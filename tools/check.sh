#!/usr/bin/env bash
# Format, lint, types and layering: all are run, then the exit status says whether all were clean.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()
PYTHON_DIRS=(edgellm sim tests tools setup.py)
[ -n "$(find benchmarks -name '*.py' 2>/dev/null)" ] && PYTHON_DIRS+=(benchmarks)

step() {
    printf '%-14s' "$1"
    shift
    local output
    if output=$("$@" 2>&1); then printf 'ok\n'; else
        printf 'FAILED\n%s\n' "$output"
        failed+=("$1")
    fi
}

c_format() {
    find csrc tests/c \( -name '*.c' -o -name '*.h' -o -name '*.cpp' \) -print0 |
        xargs -0 .venv/bin/clang-format --dry-run --Werror
}

# mypy cannot see that sim/ is installed as edgellm.sim; a tree of links shows it.
types() {
    rm -rf build/typing
    mkdir -p build/typing/edgellm
    ln -s "$PWD"/edgellm/* build/typing/edgellm/
    ln -s "$PWD/sim" build/typing/edgellm/sim
    (cd build/typing && ../../.venv/bin/mypy --config-file ../../pyproject.toml -p edgellm) &&
        .venv/bin/mypy tools/*.py
}

step "C format" c_format
step "Python format" .venv/bin/ruff format --check "${PYTHON_DIRS[@]}"
step "lint" .venv/bin/ruff check "${PYTHON_DIRS[@]}"
step "types" types
step "layering" .venv/bin/python -m pytest -q tests/layering tests/test_sizes.py

[ "${#failed[@]}" -eq 0 ] || exit 1
