#!/usr/bin/env bash
# Build the package under AddressSanitizer and UndefinedBehaviorSanitizer, with assertions on, into the
# folder $1, and run there the tests that drive C. Any report ends the run with an error. Warnings are
# errors in the plain build only: instrumented code makes gcc warn about paths that cannot be.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$1
python=$PWD/.venv/bin/python

# Timestamps do not see a changed flag or a source that went away.
recipe=$({ cat setup.py; find csrc -name '*.c' -o -name '*.cpp' | LC_ALL=C sort; gcc --version; } | sha256sum)
if [ "$recipe" != "$(cat "$base.recipe" 2>/dev/null || true)" ]; then rm -rf "$base"; fi

EDGELLM_SANITIZE=address,undefined "$python" setup.py -q build -b "$base" --build-lib "$base/lib" >"$base.log" 2>&1 || {
    cat "$base.log" >&2
    exit 1
}
printf '%s\n' "$recipe" >"$base.recipe"
targets=()
for folder in tests/unit tests/fuzz; do [ -d "$folder" ] && targets+=("$folder"); done

LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
    PYTHONPATH="$PWD/$base/lib" PYTHONDONTWRITEBYTECODE=1 EDGELLM_SANITIZED=1 \
    "$PWD/.venv/bin/pytest" -q -p no:cacheprovider --ignore-glob='*/test_models_*' --ignore-glob='*/test_cost_*' \
    --ignore-glob='*/test_cli_*' "${targets[@]}"  # those three start processes, or are pure Python
