"""The engine beside llama.cpp on real models: committed log-probabilities of about 2,000 tokens of each.

SmolLM2 must be there. Gemma 3 comes under terms that each user accepts (`edgellm pull gemma-3-270m`), so it
is compared on the machines that have it; `make parity` says where it was left out.
"""

from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm import models

MAX_RATIO = 1.25
MAX_PERPLEXITY_SHARE = 0.005
NAMES = ["smollm2-135m", *(["gemma-3-270m"] if models.cached(models.KNOWN["gemma-3-270m"]) else [])]


@pytest.mark.weights
@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_are_as_near_to_llama_cpp_as_it_is_to_itself(root: Path, name: str) -> None:
    with np.load(root / "tests" / "data" / "llama_cpp_logprobs.npz") as goldens:
        parts = ("ids", "micro_batch_512", "micro_batch_1")
        ids, wide, single = (goldens[f"{name}: {part}"] for part in parts)
    text = (root / "benchmarks" / "data" / "shakespeare.txt").read_text("utf-8")
    assert wide.size == single.size == ids.size - len(ids) > 2000
    path = models.cached(models.KNOWN[name])
    assert path is not None, "run `make weights` first"
    rows = []
    with edgellm.load(path) as model:
        start = model.tokenizer.encode("", add_special=True)
        tokens = model.tokenizer.encode(text[:20_000])
        assert ids[0].tolist() == (start + tokens)[: ids.shape[1]]
        session = model.session(context=ids.shape[1])
        for window in ids.tolist():
            session.truncate(0)
            rows.append(session.score(window)[0])
    ours = np.array(rows)
    yardstick = np.abs(wide - single).mean()
    assert yardstick > 0.01  # two different runs, not one run twice
    assert np.abs(ours - wide).mean() <= MAX_RATIO * yardstick
    assert abs(np.exp(wide.mean() - ours.mean()) - 1.0) <= MAX_PERPLEXITY_SHARE
