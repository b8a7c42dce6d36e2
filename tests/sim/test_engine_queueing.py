"""The engine against formulas of queueing theory: the mean of a long run lies in the interval about it.

Kleinrock, Queueing Systems, volume 1 (1975), sections 3.2 and 3.5, and volume 2 (1976), section 4.4.
Seeds are fixed, so a test either always passes or never does.
"""

import math
from collections import deque
from functools import partial

import numpy as np
import pytest

from edgellm import _sim

CUSTOMERS = 120_000
BATCHES = 30
T_999 = 3.659  # Student's t with 29 degrees of freedom, 99.9 % two-sided


def arrivals(rng, rate):
    return np.cumsum(rng.exponential(1.0 / rate, CUSTOMERS)).tolist()


def interval(times):
    """Mean and half width from batch means, the first tenth left out."""
    kept = np.asarray(times[len(times) // 10 :])
    means = kept[: len(kept) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)
    return means.mean(), T_999 * means.std(ddof=1) / math.sqrt(BATCHES)


def stays(dates, sizes, start):
    """Time in the system of each customer; `start(engine, i, ended)` is called when it arrives."""
    engine = _sim.Engine()
    begin = start(engine)
    engine.seal()
    seen = [0.0] * len(dates)

    def arrive(i):
        if i + 1 < len(dates):
            engine.timer(dates[i + 1], partial(arrive, i + 1))
        begin(sizes[i], partial(leave, i))

    def leave(i):
        seen[i] = engine.now - dates[i]

    engine.timer(dates[0], partial(arrive, 0))
    engine.run()
    return seen


def sharing(engine):
    """Everybody at once on one host."""
    host = engine.host()
    return lambda size, ended: engine.exec(host, size, 1.0, ended)


def link(engine):
    """Everybody at once on one direction of a link."""
    medium = engine.link(0.0, True)
    return lambda size, ended: engine.transfer(medium, True, size, ended)


def streams(engine):
    """Everybody at once on a link that others may cross together with a second one."""
    medium = engine.link(0.0, True, 1e6, 1e6)
    return lambda size, ended: engine.stream([(medium, True, size)], 0.0, ended)


def queue(servers, engine):
    """First come, first served by so many hosts."""
    free, waiting = [engine.host() for _ in range(servers)], deque()

    def begin(size, ended):
        waiting.append((size, ended))
        serve()

    def serve():
        while free and waiting:
            host, (size, ended) = free.pop(), waiting.popleft()
            engine.exec(host, size, 1.0, partial(served, host, ended))

    def served(host, ended):
        free.append(host)
        ended()
        serve()

    return begin


def erlang_c(servers, load):
    """Probability that somebody has to wait in M/M/c."""
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.5), (1, 0.8), (2, 1.4), (5, 4.0)])
def test_queue_waits_as_long_as_mm1_and_mmc_say(servers, rate):
    rng = np.random.default_rng([11, servers])
    theory = 1.0 + erlang_c(servers, rate) / (servers - rate)
    dates, sizes = arrivals(rng, rate), rng.exponential(1.0, CUSTOMERS).tolist()
    mean, half = interval(stays(dates, sizes, partial(queue, servers)))
    assert abs(mean - theory) <= half, (mean, theory, half)
    assert half < 0.15 * theory


SIZES = {
    "constant": lambda rng: np.ones(CUSTOMERS),
    "exponential": lambda rng: rng.exponential(1.0, CUSTOMERS),
    "two kinds": lambda rng: np.where(rng.random(CUSTOMERS) < 0.9, 1 / 3, 7.0),
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("where", [sharing, link, streams])
def test_sharing_takes_as_long_as_mg1_ps_says_whatever_the_sizes(where, sizes):
    """Processor sharing depends on the mean of the sizes only: E[T] = E[S] / (1 - load)."""
    rng = np.random.default_rng([12, len(sizes)])
    load = 0.7
    dates = arrivals(rng, load)
    mean, half = interval(stays(dates, SIZES[sizes](rng).tolist(), where))
    assert abs(mean - 1.0 / (1.0 - load)) <= half
    assert half < 0.15 / (1.0 - load)


def test_time_in_shared_system_grows_with_the_size():
    """M/G/1-PS: a customer of size x stays x / (1 - load) on average."""
    rng = np.random.default_rng(13)
    sizes = rng.choice([0.25, 1.0, 1.75], CUSTOMERS)
    dates = arrivals(rng, 0.6)
    seen = np.asarray(stays(dates, sizes.tolist(), sharing))
    for size in (0.25, 1.0, 1.75):
        mean, half = interval(seen[sizes == size])
        assert abs(mean - size / 0.4) <= half
