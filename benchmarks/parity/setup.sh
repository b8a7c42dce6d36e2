#!/bin/bash
# Build the environment of one peer: setup.sh llama|torch FOLDER
set -euo pipefail
peer=$1 folder=$2
python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip install -q)
case $peer in
llama)
    # Built with gcc 12, its AMX path crashes; with OpenMP, two threads collapse on shared cores.
    if ! command -v clang-19 >/dev/null; then
        root=()
        [ "$(id -u)" = 0 ] || root=(sudo)
        "${root[@]}" apt-get update -qq
        "${root[@]}" apt-get install -y -qq clang-19 ||
            { echo "the llama.cpp peer needs clang-19: install it, then run make parity again" >&2; exit 1; }
    fi
    flags="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19"
    CMAKE_ARGS=$flags "${pip[@]}" llama-cpp-python==0.3.36
    ;;
torch)
    "${pip[@]}" torch==2.13.0
    "${pip[@]}" "transformers>=5.23,<6" gguf==0.19.0
    ;;
*)
    echo "usage: setup.sh llama|torch FOLDER" >&2
    exit 2
    ;;
esac
