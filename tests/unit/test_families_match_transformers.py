"""Every family beside transformers: committed logits of small float32 models of the true architectures."""

from pathlib import Path

import numpy as np
import pytest

import edgellm
from tests.helpers import families, family_gguf

MAX_DIFFERENCE = 1e-3


@pytest.mark.parametrize("name", families.CASES)
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


@pytest.mark.parametrize("name", families.CASES)
def test_hidden_rows_of_a_family_are_those_of_transformers(name: str, root: Path, tmp_path: Path) -> None:
    case = families.CASES[name]
    with np.load(root / "tests" / "data" / "family_goldens.npz") as goldens:
        want = goldens[f"{name}: hidden"]
    path = family_gguf.write(tmp_path / "model.gguf", case)
    with edgellm.load(path, threads=2) as model:
        got = model.session(context=case.tokens)._core.hidden(families.ids(case).tolist())
    assert got.shape == (case.tokens, case.width)
    assert np.all(np.abs(got[-1] - want) <= MAX_DIFFERENCE)


# The same model, as older or newer converters write it.
WORDS: dict[str, tuple[str, dict[str, object]]] = {
    "a pattern that is the usual one": (
        "gemma3, window",
        {"gemma3.attention.sliding_window_pattern": 6},
    ),
    "a local base that is the usual one": (
        "gemma3, window",
        {"gemma3.rope.freq_base_swa": 10000.0},
    ),
    "a list of the layers that have a window": (
        "gemma3, window",
        {"gemma3.attention.sliding_window_pattern": [True] * 5 + [False, True]},
    ),
    "a window of zero": ("qwen3, heads of 128", {"qwen3.attention.sliding_window": 0}),
    "no scaling": ("qwen2, grouped, tied", {"qwen2.rope.scaling.type": "none"}),
    "all of a head rotated": ("qwen3, heads of 128", {"qwen3.rope.dimension_count": 128}),
    "as many key-value heads": ("gpt2, tied", {"gpt2.attention.head_count_kv": 4}),
    "sizes of a head": ("gpt2, tied", {"gpt2.attention.key_length": 16, "gpt2.attention.value_length": 16}),
}


@pytest.mark.parametrize("words", WORDS)
def test_a_file_may_say_the_same_in_other_words(words: str, tmp_path: Path) -> None:
    name, metadata = WORDS[words]
    case = families.CASES[name]
    plain = family_gguf.write(tmp_path / "plain.gguf", case)
    other = family_gguf.write(tmp_path / "other.gguf", case, metadata)
    ids = families.ids(case).tolist()
    with edgellm.load(plain) as a, edgellm.load(other) as b:
        assert np.array_equal(
            a.session(case.tokens).eval(ids, "all"), b.session(case.tokens).eval(ids, "all")
        )


def test_a_tied_gpt2_may_carry_its_head_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = families.CASES["gpt2, tied"]
    whole = family_gguf.tensors(case)
    plain = family_gguf.write(tmp_path / "plain.gguf", case)
    twice = {**whole, "output.weight": whole["token_embd.weight"]}
    monkeypatch.setattr(family_gguf, "tensors", lambda case: twice)
    other = family_gguf.write(tmp_path / "other.gguf", case)
    ids = families.ids(case).tolist()
    with edgellm.load(plain) as a, edgellm.load(other) as b:
        assert not b.config.tied
        assert np.array_equal(
            a.session(case.tokens).eval(ids, "all"), b.session(case.tokens).eval(ids, "all")
        )
