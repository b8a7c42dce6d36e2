"""Our logits beside those of transformers, with float32 weights."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from peers import HERE, python_of

import edgellm

MAX_DIFFERENCE = 1e-3


def compare(
    path: Path, text: str, folder: Path, threads: int, tokens: int = 512, first: int = 0
) -> dict[str, Any]:
    """Compare one float32 model file on the first `tokens` of a text, at the positions from `first` on.

    Returns
    -------
    row : dict
        The largest and the mean difference of logits, the bound, and ``ok`` (False for NaN).
    """
    mine = {}
    with edgellm.load(path, threads=threads) as model:
        ids = model.tokenizer.encode(text, add_special=True)[:tokens]
        for kv in ("f32", "f16"):
            session = model.session(tokens, kv=kv)
            if first:
                session.eval(ids[:first])
            mine[kv] = session.eval(ids[first:], logits="all")
    ids_path, out = folder / "ids32.npy", folder / "logits.npy"
    np.save(ids_path, np.array(ids, np.int64))
    peer = [str(python_of("torch")), str(HERE / "peer_torch.py")]
    subprocess.run([*peer, str(path), str(ids_path), str(out), str(first)], check=True)
    theirs = np.load(out)
    row: dict[str, Any] = {
        "tokens": len(theirs),
        "largest_logit": float(np.abs(theirs).max()),
        "max_difference": MAX_DIFFERENCE,
    }
    for kv, logits in mine.items():
        difference = np.abs(logits.astype(np.float64) - theirs)
        row[f"largest_difference_kv_{kv}"] = float(difference.max())
        row[f"mean_difference_kv_{kv}"] = float(difference.mean())
        row[f"top_1_agreement_kv_{kv}"] = float((logits.argmax(1) == theirs.argmax(1)).mean())
    row["ok"] = bool(row["largest_difference_kv_f32"] <= MAX_DIFFERENCE)
    return row
