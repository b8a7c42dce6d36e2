"""Write tests/data/llama_cpp_logprobs.npz: llama.cpp's log-probabilities of some windows, for the tests.

Runs in our environment with the llama.cpp peer: python make_llama_goldens.py [MODEL ...]; entries of models
that are not named stay as they are. Of each model it holds the token ids and, for micro-batches of 512 and
of 1, the log-probability of every token after the first of a window.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from against_llama import Windows, theirs
from peers import ROOT, Llama

from edgellm import models

TARGET = ROOT / "tests" / "data" / "llama_cpp_logprobs.npz"
TEXT = ROOT / "benchmarks" / "data" / "shakespeare.txt"
WINDOWS = {
    "smollm2-135m": Windows(),
    "gemma-3-270m": Windows(context=1024, close=2, count=8),  # twice its sliding window
}


def main() -> None:
    """Score the first windows of the text twice."""
    with np.load(TARGET) as held:
        found = dict(held)
    for name in sys.argv[1:] or WINDOWS:
        model, cut = models.resolve(name), WINDOWS[name]
        with tempfile.TemporaryDirectory() as folder, Llama() as peer:
            peer.ask("open", model=str(model), context=64, ubatch=64, threads=1, flash=True)
            ids = peer.ask("tokenize", text=TEXT.read_text("utf-8"))["ids"]
            first = peer.ask("tokenize", text="", special=True)["ids"]
            windows = cut.cut(ids, first[0] if first else None)[: cut.close]
            wide, _ = theirs(peer, model, windows, Path(folder), 512, threads=1)
            single, _ = theirs(peer, model, windows, Path(folder), 1, threads=1)
        found |= {
            f"{name}: ids": windows,
            f"{name}: micro_batch_512": wide.astype(np.float32),
            f"{name}: micro_batch_1": single.astype(np.float32),
        }
        print(f"{name}: yardstick {np.abs(wide - single).mean():.4f}, perplexity {np.exp(-wide.mean()):.3f}")
    np.savez_compressed(TARGET, **found)


if __name__ == "__main__":
    main()
