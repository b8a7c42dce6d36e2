"""Random numbers by hashing, and the losses that are drawn from them."""

import numpy as np
from engine_world import fleet, request, simulated, wire

from edgellm import sim
from edgellm.sim.engine.losses import mixed


def test_mixed_is_splitmix64():
    # the first outputs of SplitMix64 from state 0, as its authors print them
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [mixed(0, i) for i in range(3)] == first
    assert mixed(0, 1, 0) == mixed(first[1], 0)


def test_mixed_numbers_of_different_keys_are_uniform_and_apart():
    a = np.array([mixed(12345, i) for i in range(20_000)]) / 2.0**64
    b = np.array([mixed(2**64 - 1, 7, i) for i in range(20_000)]) / 2.0**64
    for values in (a, b):
        counts = np.histogram(values, bins=20, range=(0, 1))[0]
        assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 44.0  # chi square with 19 degrees, p = 0.001
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03


class Sender(sim.Strategy):
    def handle(self, req, here):
        yield here.send("home/gateway", "box", "x", req.prompt_bytes)
        req.finish()


def test_lost_units_follow_the_negative_binomial_distribution():
    lossy = fleet(wifi=wire("wifi", up_bit_per_s=8e9, loss=0.2))
    specs = [request(i, 0.01 * i, prompt_bytes=6000) for i in range(4000)]  # 4 units each
    sent = simulated(Sender(), *specs, fleet=lossy).requests["bytes_up"]
    lost = np.rint((sent / 6000.0 - 1.0) * 4.0)
    mean, variance = 4 * 0.2 / 0.8, 4 * 0.2 / 0.8**2
    assert abs(lost.mean() - mean) < 4.0 * (variance / 4000) ** 0.5
    assert abs(lost.var() / variance - 1.0) < 0.15
    assert abs((lost == 0).mean() - 0.8**4) < 0.03


def test_huge_messages_lose_their_share():
    lossy = fleet(wifi=wire("wifi", up_bit_per_s=8e12, loss=0.2))
    sent = simulated(Sender(), request(0, prompt_bytes=1_500_000_000), fleet=lossy).requests["bytes_up"][0]
    assert abs(sent / 1.5e9 - 1.25) < 0.002  # a million units
