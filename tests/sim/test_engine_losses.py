"""Losses: the distribution, and that the luck of a message is its own, whatever else is sent."""

import numpy as np
import pytest
import scipy.stats
from engine_world import Script, fleet, request, simulated, wire
from hypothesis import given
from hypothesis import strategies as st

from edgellm.sim.engine.losses import key, lost, mixed


@pytest.mark.parametrize(("units", "loss"), [(1, 0.5), (4, 0.1), (30, 0.02), (700, 0.05), (40_000, 0.01)])
def test_losses_are_negative_binomial(units, loss):
    base = key(1, "a link", "loss")
    drawn = np.array([lost(units, loss, mixed(base, i)) for i in range(8000)])
    law = scipy.stats.nbinom(units, 1.0 - loss)
    assert drawn.mean() == pytest.approx(law.mean(), abs=4.0 * law.std() / np.sqrt(8000))
    within = np.random.default_rng(1).random(8000)  # spread over each whole number, to compare with a line
    share = law.cdf(drawn - 1) + within * law.pmf(drawn)
    assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.floats(0.0, 0.6))
def test_a_longer_message_of_the_same_key_never_loses_less(word, units, loss):
    assert lost(units, loss, word) <= lost(units + 1, loss, word)


def test_keys_and_indices_make_different_streams():
    words = {
        mixed(key(seed, name), i, j)
        for seed in range(5)
        for name in "ab"
        for i in range(50)
        for j in range(3)
    }
    assert len(words) == 5 * 2 * 50 * 3
    bits = np.array([[w >> b & 1 for b in range(64)] for w in (mixed(7, i) for i in range(4000))])
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) <= 5 * 0.5 / np.sqrt(4000))


def sends(extra):
    def handle(req, here, log):
        if extra and req.id % 2 == 0:
            yield here.send("cloud", "noise", None, 4000)
        yield here.send("gateway", "port", None, 9000)
        log([req.id, here.now - req.arrival_s])

    return Script(handle)


def test_messages_of_one_request_do_not_change_the_luck_of_another():
    world = {"fleet": fleet(wifi=wire("lossy", loss=0.3)), "duration_s": 5000.0}
    specs = [request(i, 200.0 * i) for i in range(20)]
    plain, busy = (simulated(sends(extra), *specs, **world).requests for extra in (False, True))
    odd = np.arange(20) % 2 == 1
    assert np.array_equal(np.asarray(plain["bytes_up"])[odd], np.asarray(busy["bytes_up"])[odd])
    assert len(set(np.asarray(plain["bytes_up"]).tolist())) > 5
    again = simulated(sends(False), *specs, seed=2, **world).requests
    assert not np.array_equal(plain["bytes_up"], again["bytes_up"])
