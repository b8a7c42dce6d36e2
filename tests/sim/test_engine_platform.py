"""Nodes and links are made when they are used, and are all there in the results."""

import numpy as np
from engine_world import fleet, request, simulated

from edgellm import sim


def test_unused_nodes_and_links_are_in_the_results():
    result = simulated(sim.Local(), request(0, node="home/device0"))
    assert result.nodes["node"] == [n.name for n in fleet().nodes]
    assert result.nodes["busy_s"].tolist()[:2] == [0.0, 0.0]
    idle = dict(zip(result.nodes["node"], result.nodes["idle_energy_j"], strict=True))
    assert idle["home/device0"] == idle["home/device1"] == 2.0 * result.simulated_s
    assert result.links["link"] == [link.name for link in fleet().links]
    assert not np.any(result.links["energy_j"])


def test_setup_sees_nodes_that_nobody_has_used():
    class Counting(sim.Local):
        def setup(self, fleet):
            print(len(fleet), [here.name for here in fleet])

    names = [n.name for n in fleet().nodes]
    assert simulated(Counting()).output == f"{len(names)} {names}\n"


def test_links_of_a_group_share_one_medium_whichever_is_used_first():
    class Both(sim.Strategy):
        def handle(self, req, here):
            yield here.send("home/gateway", "box", "x", 1000)
            req.finish()

    specs = [request(i, 0.0, node=f"home/device{i}") for i in range(2)]
    apart = simulated(Both(), *specs).requests["e2e_s"]
    shared = simulated(Both(), *specs, fleet=fleet(group="air")).requests["e2e_s"]
    np.testing.assert_allclose(apart, [1.01, 1.01], atol=1e-8)  # 8000 bits at 8000 bit/s
    np.testing.assert_allclose(shared, [2.01, 2.01], atol=1e-8)
