"""Our log-probabilities beside llama.cpp's, and llama.cpp's beside its own.

int8 activations make any two correct engines differ, and llama.cpp differs from itself when its micro-batch
changes from 512 to 1. That difference is the yardstick (DESIGN.md, section 5).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Llama

import edgellm

MAX_RATIO = 1.25
MAX_PERPLEXITY_SHARE = 0.005


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a text is cut: windows of `context` tokens, `close` of them compared token by token."""

    context: int = 512
    close: int = 4  # 4 * 511 = 2,044 tokens scored
    count: int = 40  # 20,480 tokens

    def cut(self, ids: list[int], bos: int | None) -> NDArray[np.int32]:
        """(count, context) tokens; each window begins with `bos` where the model expects one.

        Raises
        ------
        ValueError
            If the text is too short.
        """
        first = [] if bos is None else [bos]
        step = self.context - len(first)
        if len(ids) < self.count * step:
            raise ValueError(f"the text has {len(ids)} tokens; {self.count * step} are needed")
        rows = [first + ids[w * step : (w + 1) * step] for w in range(self.count)]
        return np.array(rows, np.int32)


def ours(path: Path, windows: NDArray[np.int32], threads: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(windows, context - 1) log-probabilities and most likely tokens."""
    logprob, top = [], []
    with edgellm.load(path, threads=threads) as model:
        session = model.session(windows.shape[1])
        for window in windows.tolist():
            session.truncate(0)
            row = session.score(window)
            logprob.append(row[0])
            top.append(row[1])
    return np.array(logprob), np.array(top)


def theirs(
    peer: Llama, path: Path, windows: NDArray[np.int32], folder: Path, ubatch: int, threads: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same from llama.cpp."""
    ids, out = folder / "ids.npy", folder / "scores.npz"
    np.save(ids, windows.ravel())
    context = windows.shape[1]
    peer.ask("open", model=str(path), context=context, ubatch=ubatch, threads=threads, flash=True)
    peer.ask("score", ids=str(ids), windows=len(windows), out=str(out))
    with np.load(out) as held:
        return held["logprob"], held["top"]


def perplexity(logprob: NDArray[Any]) -> float:
    """exp of the mean negative log-probability."""
    return float(np.exp(-logprob.mean()))


def compare(
    peer: Llama, path: Path, text: str, folder: Path, threads: int, cut: Windows | None = None
) -> dict[str, Any]:
    """Compare one model file on one text; `folder` is for exchange files.

    Returns
    -------
    row : dict
        The figures, the bounds, and ``ok``. A NaN anywhere makes ``ok`` False.
    """
    cut = cut or Windows()
    with edgellm.load(path, threads=threads) as model:
        ids = model.tokenizer.encode(text)
        first = model.tokenizer.encode("", add_special=True)
    peer.ask("open", model=str(path), context=cut.context, ubatch=512, threads=threads, flash=True)
    same_ids = peer.ask("tokenize", text=text)["ids"] == ids
    windows = cut.cut(ids, first[0] if first else None)

    wide, wide_top = theirs(peer, path, windows, folder, 512, threads)
    single, single_top = theirs(peer, path, windows[: cut.close], folder, 1, threads)
    mine, mine_top = ours(path, windows, threads)
    close = slice(0, cut.close)
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
