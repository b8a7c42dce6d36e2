"""The engine beside llama.cpp on the real model: committed log-probabilities of 2,044 tokens."""

from pathlib import Path

import numpy as np
import pytest

import edgellm

MAX_RATIO = 1.25
MAX_PERPLEXITY_SHARE = 0.005


@pytest.mark.weights
def test_log_probabilities_are_as_near_to_llama_cpp_as_it_is_to_itself(root: Path, smollm2: Path) -> None:
    with np.load(root / "tests" / "data" / "llama_cpp_logprobs.npz") as goldens:
        ids, wide, single = goldens["ids"], goldens["micro_batch_512"], goldens["micro_batch_1"]
    assert wide.size == single.size == 4 * 511
    rows = []
    with edgellm.load(smollm2) as model:
        session = model.session(context=512)
        for window in ids.tolist():
            session.truncate(0)
            rows.append(session.score(window)[0])
    ours = np.array(rows)
    yardstick = np.abs(wide - single).mean()
    assert yardstick > 0.01  # two different runs, not one run twice
    assert np.abs(ours - wide).mean() <= MAX_RATIO * yardstick
    assert abs(np.exp(wide.mean() - ours.mean()) - 1.0) <= MAX_PERPLEXITY_SHARE
