#!/bin/bash
# Build one peer: setup.sh llama|torch FOLDER (an environment), setup.sh server FILE (llama.cpp's server)
set -euo pipefail
peer=$1 folder=$2
LLAMA=llama-cpp-python==0.3.36

# Built with gcc 12, its AMX path crashes; with OpenMP, two threads collapse on shared cores.
flags="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19"
need_clang() {
    if ! command -v clang-19 >/dev/null; then
        root=()
        [ "$(id -u)" = 0 ] || root=(sudo)
        "${root[@]}" apt-get update -qq
        "${root[@]}" apt-get install -y -qq clang-19 ||
            { echo "the llama.cpp peer needs clang-19: install it, then run make parity again" >&2; exit 1; }
    fi
}

# The sources of the server come with the Python package: the same commit as the other peer.
if [ "$peer" = server ]; then
    need_clang
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install -q cmake ninja
    "$work/venv/bin/python" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$work" "$LLAMA"
    tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
    export PATH="$work/venv/bin:$PATH"
    # shellcheck disable=SC2086  # flags are several words
    cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release $flags \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >"$work/log"
    cmake --build "$work/build" --target llama-server >>"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
    cp "$work/build/bin/llama-server" "$folder"
    exit 0
fi

python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip install -q)
case $peer in
llama)
    need_clang
    CMAKE_ARGS=$flags "${pip[@]}" "$LLAMA"
    ;;
torch)
    "${pip[@]}" torch==2.13.0
    "${pip[@]}" "transformers>=5.23,<6" gguf==0.19.0
    ;;
*)
    echo "usage: setup.sh llama|torch FOLDER, setup.sh server FILE" >&2
    exit 2
    ;;
esac
