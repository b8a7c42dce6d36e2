"""The sampler against probabilities computed in NumPy and random numbers computed in Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm._core import sample, uniform

MASK = 2**32 - 1


def philox(counter, key):
    """Philox4x32-10 as its paper states it: four 32-bit words out of four and two."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & MASK, a >> 32 ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def reference(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, recent=()):
    """Probability of every token, float64; the steps in the documented order."""
    x = logits.astype(np.float64)
    for i in set(recent):
        x[i] = np.float32(x[i] / repeat_penalty if x[i] > 0 else x[i] * repeat_penalty)
    order = np.lexsort((np.arange(len(x)), -x))
    if top_k:
        order = order[:top_k]
    p = np.exp(x[order] - x.max())
    if top_p < 1:
        order = order[: np.searchsorted(np.cumsum(p) / p.sum(), top_p - 1e-12) + 1]
    order = order[np.exp(x[order] - x.max()) >= min_p]
    out = np.zeros(len(x))
    out[order] = np.exp((x[order] - x.max()) / temperature)
    return out / out.sum()


def test_philox_of_these_tests_gives_the_published_words():
    """Known answers of the Random123 distribution, so that the next test compares with the right thing."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox(pi, [0xA4093822, 0x299F31D0]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_uniform_is_53_bits_of_philox(seed, stream, position):
    halves = [w for v in (position, stream) for w in (v & MASK, v >> 32)]
    words = philox(halves, [seed & MASK, seed >> 32])
    assert uniform(seed, stream, position) == ((words[1] << 32 | words[0]) >> 11) / 2**53


CASES = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.05, "temperature": 0.8},
    {"repeat_penalty": 1.8, "recent": [0, 3, 3, 7]},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frequencies_follow_the_probabilities(case):
    """Chi-square over 20,000 draws; the limit is 6 standard deviations above its mean."""
    logits = np.random.default_rng(1).normal(0, 1.5, 30).astype(np.float32)
    want = reference(logits, **case)
    draws = [sample(logits, seed=5, position=i, **case) for i in range(20_000)]
    got = np.bincount(draws, minlength=30)
    assert got[want == 0].sum() == 0
    kept = want > 0
    expected = 20_000 * want[kept]
    chi2 = ((got[kept] - expected) ** 2 / expected).sum()
    freedom = kept.sum() - 1
    assert chi2 <= freedom + 6 * np.sqrt(2 * freedom)


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 2, 3, 63, 64, 65, 513, 2000]),
    spread=st.sampled_from([0.01, 1.0, 6.0, 40.0]),
    top_k=st.integers(0, 70),
    top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.95, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.5]),
    temperature=st.sampled_from([0.01, 0.7, 1.0, 50.0]),
)
def test_token_is_the_inverse_of_the_cumulative_distribution(
    seed, size, spread, top_k, top_p, min_p, temperature
):
    """One draw decides: walk the kept tokens in the documented order up to the random number."""
    logits = np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)
    case = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    p = reference(logits, **case)
    ordered = top_p < 1 or 0 < top_k < size
    order = np.lexsort((np.arange(size), -logits)) if ordered else np.arange(size)
    ends = np.cumsum(p[order])
    u = uniform(seed, 2, 3)
    near = [order[min(np.searchsorted(ends, v, side="right"), size - 1)] for v in (u - 1e-5, u, u + 1e-5)]
    assert sample(logits, seed=seed, stream=2, position=3, **case) in near


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=80),
    st.integers(0, 100),
    st.sampled_from([0.2, 0.9, 1.0]),
)
def test_filters_keep_what_numpy_keeps(values, top_k, top_p):
    logits = np.array(values, np.float32)
    kept = {sample(logits, temperature=1e6, top_k=top_k, top_p=top_p, position=i) for i in range(60)}
    assert kept <= set(np.flatnonzero(reference(logits, 1e6, top_k, top_p + 1e-9 * (top_p < 1))))
