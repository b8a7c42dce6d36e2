"""Queues written as strategies against the formulas of queueing theory, within the confidence interval."""

import math
from functools import cache

import numpy as np
import pytest
from engine_world import in_child

from edgellm import sim
from edgellm.sim.engine.run import RunTask

REPLICATIONS = 12
#: Student's t for a two-sided interval of 99 % with 11 degrees of freedom.
T_99 = 3.106
MEAN_S = 0.5


class Queueing(sim.Strategy):
    """Requests of random size at `servers` nodes: first come first served, or sharing one processor."""

    def __init__(self, draw, servers=1, fifo=True):
        self.draw, self.servers, self.fifo = draw, servers, fifo

    def setup(self, fleet):
        self.line = sim.Queue()
        for here in list(fleet)[: self.servers] if self.fifo else ():
            here.spawn(self.serve(here), daemon=True)

    def handle(self, req, here):
        size_s = MEAN_S * self.draw(here.rng)
        if self.fifo:
            served = sim.Event()
            self.line.put((size_s, served))
            yield served
        else:
            yield here.run(sim.Compute(size_s * here.node.device.ops_per_s.value))
        req.finish()

    def serve(self, here):
        while True:
            size_s, served = yield self.line
            yield here.run(sim.Compute(size_s * here.node.device.ops_per_s.value))
            served.set()


def scenario(load, servers=1):
    rate = load * servers / MEAN_S
    kind = {"model": "m", "prompt_tokens": 1, "output_tokens": 1}
    stream = {"at": "lab/door", "arrivals": {"process": "poisson", "rate": f"{rate!r} /s"}}
    boxes = {f"box{i}": {"device": "n100-mini-pc"} | uplink() for i in range(servers)}
    return sim.load_scenario(
        {
            "schema": 1,
            "name": "queue",
            "duration": f"{6000 / rate!r} s",
            "models": {"m": {"profile": "smollm2-135m", "quant": "q4_0"}},
            "fleet": {"lab": {**boxes, "door": {"device": "n100-mini-pc"}} | {"door": door()}},
            "workload": {"w": stream | {"kinds": {"k": kind}}},
        }
    )


def uplink():
    return {"uplink": {"to": "door", "link": "ethernet-1g"}}


def door():
    return {"device": "n100-mini-pc"}


@cache
def sojourns(draw, load, servers=1, fifo=True):
    """Times in the system of each replication, the first tenth left out, and the size of each request."""
    world = scenario(load, servers)
    runs = []
    for seed in range(REPLICATIONS):
        result = in_child(RunTask(world, Queueing(draw, servers, fifo), seed, {}))
        assert all(status == "ok" for status in result.requests["status"])
        times = np.asarray(result.requests["e2e_s"])
        runs.append(times[len(times) // 10 :])
    return runs


def covers(samples, expected, within=0.2):
    """Whether the 99 % interval over replications holds `expected`, and is narrow enough to say so."""
    values = np.array(samples)
    half = T_99 * values.std(ddof=1) / math.sqrt(len(values))
    assert half < within * expected, f"{values.mean():.4f} +- {half:.4f} says nothing about {expected:.4f}"
    return abs(values.mean() - expected) <= half


def exponential(rng):
    return rng.exponential()


def two_sizes(rng):
    """Mean 1, squared coefficient of variation 4.5: few are ten times as long as most."""
    return 0.5 if rng.random() < 9.0 / 9.5 else 10.0


def fixed(rng):
    return 1.0


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_in_turn_is_mm1(load):
    runs = sojourns(exponential, load)
    rate = (1.0 - load) / MEAN_S  # the time in the system is exponential with this rate
    assert covers([run.mean() for run in runs], 1.0 / rate)
    assert covers([np.quantile(run, 0.95) for run in runs], -math.log(0.05) / rate)


def test_three_servers_in_turn_are_mmc():
    load, c = 0.8, 3
    offered = load * c
    tail = offered**c / math.factorial(c) / (1.0 - load)
    wait = tail / (sum(offered**k / math.factorial(k) for k in range(c)) + tail)  # Erlang's C
    runs = sojourns(exponential, load, c)
    assert covers([run.mean() for run in runs], MEAN_S + wait * MEAN_S / (c * (1.0 - load)))


@pytest.mark.parametrize(("draw", "cv2"), [(fixed, 0.0), (two_sizes, 4.5)])
def test_one_server_in_turn_is_mg1(draw, cv2):
    load = 0.5
    wait_s = load * MEAN_S * (1.0 + cv2) / (2.0 * (1.0 - load))  # Pollaczek and Khinchine
    assert covers([run.mean() for run in sojourns(draw, load)], MEAN_S + wait_s)


@pytest.mark.parametrize("draw", [exponential, fixed, two_sizes])
def test_shared_processor_is_mg1_ps_whatever_the_sizes(draw):
    load = 0.6
    runs = sojourns(draw, load, 1, False)
    assert covers([run.mean() for run in runs], MEAN_S / (1.0 - load))
