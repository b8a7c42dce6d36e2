"""Every family beside transformers: committed logits of small float32 models of the true architectures."""

from pathlib import Path

import numpy as np
import pytest

import edgellm
from tests.helpers import families, family_gguf

MAX_DIFFERENCE = 1e-3


def cases() -> list[object]:
    """Every case; those longer than a window must fail until sessions go beyond it."""
    pending = pytest.mark.xfail(strict=True)
    return [
        pytest.param(name, marks=pending)
        if case.tokens > (case.get("sliding_window") or case.tokens)
        else name
        for name, case in families.CASES.items()
    ]


@pytest.mark.parametrize("name", cases())
def test_logits_of_a_family_are_those_of_transformers(name: str, root: Path, tmp_path: Path) -> None:
    case = families.CASES[name]
    positions, columns = families.kept(case)
    with np.load(root / "tests" / "data" / "family_goldens.npz") as goldens:
        want = goldens[name]
    path = family_gguf.write(tmp_path / "model.gguf", case)
    with edgellm.load(path, threads=2) as model:
        got = model.session(context=case.tokens).eval(families.ids(case).tolist(), logits="all")
    assert got.shape == (case.tokens, case.vocab)
    got = got[np.ix_(positions, columns)]
    assert got.shape == want.shape
    assert np.all(np.abs(got - want) <= MAX_DIFFERENCE)  # written so that NaN fails
