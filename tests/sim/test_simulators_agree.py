"""The testbed and an independent model in SimPy say the same of homes that share air and processors."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgellm import sim
from edgellm.sim.engine.results import collect
from edgellm.sim.engine.simulation import Simulation
from edgellm.sim.fleet import Fleet

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def worlds(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from testbed import simpy_models, worlds

    yield worlds, simpy_models
    for name in [n for n in sys.modules if n == "testbed" or n.startswith("testbed.")]:
        del sys.modules[name]


def without_loss(scenario):
    """Losses are drawn from other random numbers on each side."""
    profiles = {
        id(x.profile): replace(x.profile, loss=replace(x.profile.loss, value=0.0))
        for x in scenario.fleet.links
    }
    links = tuple(replace(link, profile=profiles[id(link.profile)]) for link in scenario.fleet.links)
    return replace(scenario, fleet=Fleet(scenario.fleet.nodes, links))


@pytest.mark.parametrize("rate_per_s", [2.0, 12.0])
def test_shared_links_and_processors_agree_with_simpy(worlds, rate_per_s):
    rooms, models = worlds
    world = rooms.homes(20, 600, duration_s=600 / rate_per_s, fair_link="ble-1m")
    scenario = without_loss(sim.load_scenario({**world, "network": {"factors": False}}))
    simulation = Simulation(scenario, sim.Gateway(), 3, {})
    simulation.run()
    ours = collect(simulation).requests
    theirs = models.Fair(scenario, 3).run()
    order = np.argsort(theirs["id"])
    for name in ("arrival_s", "first_token_s", "e2e_s", "bytes_up", "bytes_down"):
        np.testing.assert_allclose(ours[name], theirs[name][order], rtol=1e-9, atol=2e-9, err_msg=name)
    assert np.ptp(ours["e2e_s"]) > 0.1  # they did get in each other's way
