"""Our log-probabilities beside llama.cpp's, and llama.cpp's beside its own.

int8 activations make any two correct engines differ, and llama.cpp differs from itself when its micro-batch
changes from 512 to 1. That difference is the yardstick (DESIGN.md, section 5).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Llama

import edgellm

CONTEXT = 512
CLOSE_WINDOWS = 4  # 4 * 511 = 2,044 tokens scored
LONG_WINDOWS = 40  # 20,480 tokens
MAX_RATIO = 1.25
MAX_PERPLEXITY_SHARE = 0.005


def ours(path: Path, ids: list[int], windows: int, threads: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(windows, CONTEXT - 1) log-probabilities and most likely tokens."""
    logprob, top = [], []
    with edgellm.load(path, threads=threads) as model:
        session = model.session(CONTEXT)
        for w in range(windows):
            session.truncate(0)
            row = session.score(ids[w * CONTEXT : (w + 1) * CONTEXT])
            logprob.append(row[0])
            top.append(row[1])
    return np.array(logprob), np.array(top)


def theirs(
    peer: Llama, path: Path, ids_path: Path, windows: int, ubatch: int, threads: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same from llama.cpp."""
    out = ids_path.with_suffix(".npz")
    peer.ask("open", model=str(path), context=CONTEXT, ubatch=ubatch, threads=threads, flash=True)
    peer.ask("score", ids=str(ids_path), windows=windows, out=str(out))
    with np.load(out) as held:
        return held["logprob"], held["top"]


def perplexity(logprob: NDArray[Any]) -> float:
    """exp of the mean negative log-probability."""
    return float(np.exp(-logprob.mean()))


def compare(peer: Llama, path: Path, text: str, folder: Path, threads: int) -> dict[str, Any]:
    """Compare one model file on one text; `folder` is for exchange files.

    Returns
    -------
    row : dict
        The figures, the bounds, and ``ok``. A NaN anywhere makes ``ok`` False.
    """
    with edgellm.load(path, threads=threads) as model:
        ids = model.tokenizer.encode(text)
    peer.ask("open", model=str(path), context=CONTEXT, ubatch=512, threads=threads, flash=True)
    same_ids = peer.ask("tokenize", text=text)["ids"] == ids
    if len(ids) < LONG_WINDOWS * CONTEXT:
        raise ValueError(f"the text has {len(ids)} tokens; {LONG_WINDOWS * CONTEXT} are needed")
    ids_path = folder / "ids.npy"
    np.save(ids_path, np.array(ids, np.int32))

    wide, wide_top = theirs(peer, path, ids_path, LONG_WINDOWS, 512, threads)
    single, single_top = theirs(peer, path, ids_path, CLOSE_WINDOWS, 1, threads)
    mine, mine_top = ours(path, ids, LONG_WINDOWS, threads)
    close = slice(0, CLOSE_WINDOWS)
    yardstick = float(np.abs(wide[close] - single).mean())
    distance = float(np.abs(mine[close] - wide[close]).mean())
    share = perplexity(mine) / perplexity(wide) - 1.0
    return {
        "tokens_scored": int(single.size),
        "same_token_ids": same_ids,
        "distance": distance,
        "distance_to_micro_batch_1": float(np.abs(mine[close] - single).mean()),
        "yardstick": yardstick,
        "ratio": distance / yardstick,
        "max_ratio": MAX_RATIO,
        "top_1_agreement": float((mine_top[close] == wide_top[close]).mean()),
        "top_1_agreement_of_llama_cpp_with_itself": float((single_top == wide_top[close]).mean()),
        "perplexity_tokens": int(mine.size),
        "perplexity": perplexity(mine),
        "perplexity_of_llama_cpp": perplexity(wide),
        "perplexity_share": share,
        "max_perplexity_share": MAX_PERPLEXITY_SHARE,
        "ok": same_ids and distance <= MAX_RATIO * yardstick and abs(share) <= MAX_PERPLEXITY_SHARE,
    }
