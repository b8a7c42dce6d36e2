#!/usr/bin/env bash
# What `make` needs done to a machine, one step per argument; each step may be repeated.
#   system   compiler, Python headers and SimGrid, from Debian's packages where they are missing
#   venv     .venv with pip and the build tools
#   deps     what pyproject.toml names, into .venv
#   build    the extension, editable, into .venv
#   weights  the SmolLM2-135M file, into the user's cache
#   emulator qemu, with which CI plays a CPU without AVX; optional
#   cross    compilers for other architectures, and qemu to run what they make
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
EXTRAS=(sim sweep dask templates progress verify server test dev)
MIN_PYTHON="3.11"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() {
    printf 'edgellm set-up: %s\n' "$*" >&2
    exit 1
}

# A Python that can make a virtual environment and compile against its headers.
usable_python() {
    command -v "$1" >/dev/null 2>&1 && "$1" - "$MIN_PYTHON" >/dev/null 2>&1 <<'PY'
import ensurepip, os, sys, sysconfig, venv
want = tuple(int(part) for part in sys.argv[1].split("."))
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info[:2] >= want and os.path.exists(header)))
PY
}

find_python() {
    local name
    for name in ${PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11}; do
        if usable_python "$name"; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    return 1
}

# links COMPILER LANGUAGE [LIBRARY...]: whether the program on stdin links (never to /dev/null: root could lose it)
links() {
    local out rc=0
    out=$(mktemp)
    "$1" -x "$2" - -o "$out" "${@:3}" 2>/dev/null || rc=1
    rm -f "$out"
    return "$rc"
}

has_compiler() { printf '#include <stdio.h>\nint main(void) { return 0; }\n' | links "$1" "$2"; }
has_simgrid() {
    printf '#if !__has_include(<simgrid/s4u.hpp>)\n#error\n#endif\nint main(void) { return 0; }\n' | links g++ c++ -lsimgrid
}

missing_packages() {
    has_compiler gcc c || printf '%s\n' gcc libc6-dev
    has_compiler g++ c++ || printf '%s\n' g++
    command -v make >/dev/null 2>&1 || printf '%s\n' make
    find_python >/dev/null || printf '%s\n' python3 python3-venv python3-dev
    has_simgrid || printf '%s\n' libsimgrid-dev
}

step_system() {
    local missing as_root=()
    mapfile -t missing < <(missing_packages)
    if [ "${#missing[@]}" -gt 0 ]; then
        local ask="ask an administrator for: apt-get install -y --no-install-recommends ${missing[*]}"
        command -v apt-get >/dev/null 2>&1 ||
            die "missing here, under the names they have in Debian: ${missing[*]} (no apt-get to install them with)"
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null 2>&1 || die "needs packages and is neither root nor has sudo; $ask"
            if [ -t 0 ]; then sudo -v || die "sudo was refused; $ask"
            else sudo -n true 2>/dev/null || die "sudo would ask for a password and there is no terminal; $ask"; fi
            as_root=(sudo)
        fi
        say "Debian packages: ${missing[*]}"
        as_root+=(env DEBIAN_FRONTEND=noninteractive)
        mkdir -p build
        "${as_root[@]}" apt-get update </dev/null >build/apt.log 2>&1 ||
            say "apt-get update had errors; trying with what it knows"
        "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" </dev/null >>build/apt.log 2>&1 || {
            tail -n 20 build/apt.log >&2
            die "apt-get could not install: ${missing[*]} (is there a network?); all its words are in build/apt.log"
        }
        mapfile -t missing < <(missing_packages)
        [ "${#missing[@]}" -eq 0 ] ||
            die "still missing after apt-get: ${missing[*]} (Python must be $MIN_PYTHON or later: Debian 12, Ubuntu 24.04)"
    fi
}

# A network that fails for a moment should not fail the set-up.
pip_tries() {
    local try
    for try in 1 2 3; do
        if .venv/bin/python -m pip "$1" -qq --retries 3 --timeout 60 "${@:2}" </dev/null; then return 0; fi
        [ "$try" -eq 3 ] || { say "pip failed; trying again"; sleep $((5 * try)); }
    done
    die "pip could not $1 ${*:2}; is there a network, or a mirror or proxy to set in PIP_INDEX_URL or https_proxy?"
}
pip_install() { pip_tries install "$@"; }
pip_fetch() { pip_tries download --no-deps -d build/wheelhouse "$@"; }

step_venv() {
    local python
    python=$(find_python) || die "no Python $MIN_PYTHON or later with venv and headers (Debian: python3-venv python3-dev)"
    if ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
        say "virtual environment in .venv ($("$python" --version 2>&1))"
        "$python" -m venv --clear .venv || die "$python could not make .venv"
    fi
    pip_install "setuptools>=77" wheel numpy
}

step_deps() {
    say "Python packages"
    mkdir -p build
    .venv/bin/python tools/requirements.py "${EXTRAS[@]}" >build/requirements.txt
    pip_install -r build/requirements.txt
    # The packaging tests build in isolation; with these at hand they need no network.
    .venv/bin/python tools/requirements.py --build >build/build-requirements.txt
    pip_fetch -r build/build-requirements.txt
}

# setuptools compares timestamps only: a changed flag, or a file that went away, needs a clean build.
step_build() {
    say "the C core and its extension"
    mkdir -p build
    {
        cat setup.py pyproject.toml csrc/kernels/isas.txt
        find csrc -name '*.c' -o -name '*.cpp' | LC_ALL=C sort
        .venv/bin/python -VV
        gcc --version
        has_simgrid && printf 'simgrid\n' || true
    } | sha256sum >build/recipe.new
    if ! cmp -s build/recipe.new build/recipe; then
        rm -rf build/temp.* build/lib.* build/bdist.* edgellm/_core*.so edgellm/_sim*.so
    fi
    EDGELLM_WERROR=1 .venv/bin/python -m pip install -qq --no-build-isolation --no-deps -e . </dev/null ||
        die "the build failed; the compiler's words are above"
    mv build/recipe.new build/recipe
    .venv/bin/python -c 'import edgellm._core' || die "the extension was built but cannot be imported"
}

step_emulator() {
    command -v qemu-x86_64 >/dev/null 2>&1 && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Debian package: qemu-user"
        mkdir -p build
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update && apt-get install -y --no-install-recommends qemu-user; } </dev/null >build/apt.log 2>&1 &&
            return
    fi
    say "no qemu-x86_64 here: the test on a CPU without AVX will be skipped"
}

# A command of each package that `make cross` needs, and the package.
CROSS_TOOLS=(
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/lib/libc.so.6:libc6-dev-arm64-cross
    arm-linux-gnueabihf-gcc:gcc-arm-linux-gnueabihf /usr/arm-linux-gnueabihf/lib/libc.so.6:libc6-dev-armhf-cross
    riscv64-linux-gnu-gcc:gcc-riscv64-linux-gnu /usr/riscv64-linux-gnu/lib/libc.so.6:libc6-dev-riscv64-cross
    arm-none-eabi-gcc:gcc-arm-none-eabi /usr/lib/arm-none-eabi/newlib/libc.a:libnewlib-arm-none-eabi
    qemu-aarch64:qemu-user qemu-system-arm:qemu-system-arm
)

step_cross() {
    local tool missing=()
    for tool in "${CROSS_TOOLS[@]}"; do
        command -v "${tool%%:*}" >/dev/null 2>&1 || [ -e "${tool%%:*}" ] || missing+=("${tool##*:}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ] ||
        die "make cross needs Debian's packages ${missing[*]}: apt-get install them as root"
    say "Debian packages: ${missing[*]}"
    mkdir -p build
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } </dev/null >build/apt.log 2>&1 || {
        tail -n 20 build/apt.log >&2
        die "apt-get could not install: ${missing[*]} (is there a network?); all its words are in build/apt.log"
    }
}

step_weights() {
    .venv/bin/edgellm pull smollm2-135m </dev/null
}

for step in "$@"; do
    "step_$step"
done
