"""Write tests/data/llama_cpp_logprobs.npz: llama.cpp's log-probabilities of 2,044 tokens, for the tests.

Runs in our environment with the llama.cpp peer (`make -C benchmarks/parity goldens`). Holds the token ids
and, for micro-batches of 512 and of 1, the log-probability of every token after the first of a window.
"""

import tempfile
from pathlib import Path

import numpy as np
from against_llama import CLOSE_WINDOWS, CONTEXT, theirs
from peers import ROOT, Llama

from edgellm import models

TARGET = ROOT / "tests" / "data" / "llama_cpp_logprobs.npz"
TEXT = ROOT / "benchmarks" / "data" / "shakespeare.txt"


def main() -> None:
    """Score the first windows of the text twice."""
    model = models.resolve("smollm2-135m")
    with tempfile.TemporaryDirectory() as name, Llama() as peer:
        peer.ask("open", model=str(model), context=CONTEXT, ubatch=512, threads=1, flash=True)
        ids = np.array(peer.ask("tokenize", text=TEXT.read_text("utf-8"))["ids"], np.int32)
        ids = ids[: CLOSE_WINDOWS * CONTEXT].reshape(CLOSE_WINDOWS, CONTEXT)
        path = Path(name) / "ids.npy"
        np.save(path, ids.ravel())
        wide, _ = theirs(peer, model, path, CLOSE_WINDOWS, 512, threads=1)
        single, _ = theirs(peer, model, path, CLOSE_WINDOWS, 1, threads=1)
    np.savez_compressed(
        TARGET, ids=ids, micro_batch_512=wide.astype(np.float32), micro_batch_1=single.astype(np.float32)
    )
    print(f"yardstick {np.abs(wide - single).mean():.4f}")


if __name__ == "__main__":
    main()
