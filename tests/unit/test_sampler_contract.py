"""Reproducible, ties to the lowest id, and an error that names what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm._core import sample, uniform

LOGITS = np.random.default_rng(0).normal(0, 2, 1000).astype(np.float32)


def test_sample_of_known_logits_gives_known_tokens():
    """The same on every machine: these were drawn once, with integers as logits."""
    logits = (np.arange(4096) * 2654435761 % 4096 % 11).astype(np.float32)
    drawn = [sample(logits, seed=7, stream=1, position=i, temperature=0.9) for i in range(6)]
    nucleus = [sample(logits, seed=7, stream=1, position=i, top_p=0.6, top_k=200) for i in range(6)]
    assert drawn == [703, 3471, 2702, 1940, 2717, 1035]
    assert nucleus == [230, 1097, 863, 617, 863, 340]


def test_greedy_takes_the_largest_and_the_lowest_of_equals():
    logits = np.array([1, 5, -2, 5, 5], np.float32)
    assert sample(logits, temperature=0) == 1
    assert sample(logits[::-1].copy(), temperature=0) == 0


def test_greedy_heeds_the_penalty():
    logits = np.array([5.0, 4.0, -1.0], np.float32)
    assert sample(logits, temperature=0, repeat_penalty=1.5, recent=[0]) == 1
    assert sample(logits, temperature=0, repeat_penalty=1.5) == 0
    low = np.array([-1.0, -1.2], np.float32)
    assert sample(low, temperature=0, repeat_penalty=1.5, recent=[0, 0]) == 1


def test_top_k_of_equals_keeps_the_lowest_ids():
    logits = np.zeros(300, np.float32)
    assert {sample(logits, top_k=3, position=i) for i in range(200)} == {0, 1, 2}


def test_top_k_of_one_and_tiny_top_p_are_greedy():
    best = int(LOGITS.argmax())
    assert {sample(LOGITS, top_k=1, position=i) for i in range(20)} == {best}
    assert {sample(LOGITS, top_p=1e-300, position=i) for i in range(20)} == {best}
    assert {sample(LOGITS, min_p=1.0, position=i) for i in range(20)} == {best}
    assert {sample(LOGITS, temperature=1e-300, position=i) for i in range(20)} == {best}


def test_forbidden_token_is_never_drawn():
    logits = np.full(50, -np.inf, np.float32)
    logits[[7, 9]] = -1e30, -1e30
    drawn = {sample(logits, position=i, repeat_penalty=2.0, recent=[0]) for i in range(100)}
    assert drawn == {7, 9}
    logits[9] = -np.inf
    assert {sample(logits, top_k=10, position=i) for i in range(20)} == {7}


def test_extreme_logits_do_not_overflow():
    huge = np.finfo(np.float32).max
    logits = np.array([huge, -huge, huge / 2], np.float32)
    assert sample(logits) == 0
    assert sample(logits, repeat_penalty=1e-300, recent=[2, 1]) in (0, 2)
    assert sample(logits, temperature=1e308) in (0, 1, 2)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_same_triple_gives_the_same_token(seed, stream, position):
    draw = {"seed": seed, "stream": stream, "position": position}
    assert sample(LOGITS, **draw) == sample(LOGITS.copy(), **draw)


def test_other_triples_give_other_numbers():
    triples = [(s, t, p) for s in (0, 1, 2**63) for t in (0, 1, 2**40) for p in (0, 1, 2, 2**33)]
    assert len({uniform(*triple) for triple in triples}) == len(triples)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", float("nan")),
        ("repeat_penalty", 0.0),
        ("repeat_penalty", -1.0),
        ("repeat_penalty", float("inf")),
        ("repeat_penalty", float("nan")),
        ("seed", -1),
        ("position", 2**64),
        ("recent", [1000]),
        ("recent", [0, -5]),
    ],
)
def test_parameter_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        sample(LOGITS, **{name: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.nan])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logit_that_is_no_number_is_named(bad, temperature):
    logits = LOGITS.copy()
    logits[17] = bad
    with pytest.raises(ValueError, match=r"logits\[17\]"):
        sample(logits, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_allowed_is_an_error(temperature):
    with pytest.raises(ValueError, match="no token is allowed"):
        sample(np.full(4, -np.inf, np.float32), temperature=temperature)


@pytest.mark.parametrize(
    ("logits", "error"),
    [
        (LOGITS.astype(np.float64), TypeError),
        (LOGITS.astype(">f4"), TypeError),
        ([1.0, 2.0], TypeError),
        (LOGITS.reshape(10, 100), ValueError),
        (LOGITS[::2], ValueError),
        (LOGITS[:0], ValueError),
    ],
)
def test_logits_of_another_kind_are_refused(logits, error):
    with pytest.raises(error, match=r"logits|vocabulary"):
        sample(logits)
