"""Messages of a simulation take what `edgellm.cost.network` says of the link's class and their size."""

from dataclasses import replace
from typing import Any

import pytest
from engine_world import fleet, log, request, simulated, wire

from edgellm import sim
from edgellm.cost import network
from edgellm.sim.fleet import Fleet, NetworkSettings

WIFI = replace(wire("wifi", up_bit_per_s=8e6, down_bit_per_s=8e6), link_class="wifi")


def _world(settings: NetworkSettings) -> Fleet:
    made = fleet(wifi=WIFI)
    links = tuple(replace(link, network=settings) if link.profile is WIFI else link for link in made.links)
    return Fleet(made.nodes, links)


def _sends(req, here, note):
    for nbytes, pause_s in ((1000, 5), (1000, 5), (60_000, 20), (0, 0), (1000, 0)):
        start_s = here.now
        yield here.send("gateway", "box", "x", nbytes, data_class="text")
        note(here.now - start_s)
        yield sim.sleep(pause_s)


@pytest.mark.parametrize("tls", [False, True])
def test_messages_take_what_their_size_and_the_connection_say(tls: bool) -> None:
    settings = NetworkSettings(tls=tls, keep_alive_s=10.0)
    times = [took for _, took in log(_sends, fleet=_world(settings))]
    new_s = network.connection(WIFI, tls).wait_s
    small_s, large_s = (network.message_time_s(WIFI, n, tls=tls) for n in (1000, 60_000))
    assert times == pytest.approx([new_s + small_s, small_s, large_s, 0.01, new_s + small_s], rel=1e-9)


def test_bytes_and_energy_are_those_of_the_wire_and_privacy_that_of_the_payload() -> None:
    settings = NetworkSettings(tls=True, keep_alive_s=1e9)

    class One(sim.Strategy):
        def handle(self, req, here):
            yield here.send("gateway", "box", "x", 5000, data_class="text")
            req.finish()

    result = simulated(One(), request(), fleet=_world(settings))
    message, start = network.message(WIFI, 5000, tls=True), network.connection(WIFI, tls=True)
    columns = result.requests
    assert columns["bytes_up"][0] == pytest.approx(message.wire_bytes + start.up.wire_bytes)
    assert columns["bytes_down"][0] == pytest.approx(start.down.wire_bytes)
    paid = message.payload_bytes + start.up.payload_bytes + start.down.payload_bytes
    names = list(result.links["link"])
    energy_j = result.links["energy_j"][names.index("home/device0>gateway")]
    assert energy_j == pytest.approx(8e-6 * paid)


def test_factors_that_are_off_leave_latency_plus_bytes_over_rate() -> None:
    settings = NetworkSettings(factors=False, tls=True, keep_alive_s=0.0)
    times = [took for _, took in log(_sends, fleet=_world(settings))]
    assert times == pytest.approx([0.011, 0.011, 0.07, 0.01, 0.011])


def test_scenario_encrypts_what_runs_over_tcp_unless_it_says_otherwise() -> None:
    uplinks = {"far": ("4g", {}), "field": ("lora-sf7", {}), "plain": ("4g", {"tls": False})}
    data: dict[str, Any] = {
        "schema": 1,
        "name": "links",
        "duration": "1 h",
        "models": {"m": {"profile": "stories15m", "quant": "q8_0"}},
        "network": {"keep_alive": "5 min"},
        "fleet": {
            "cloud": {"server": {"device": "cloud-cpu", "models": ["m"]}},
            "home": {
                name: {"device": "esp32-s3", "uplink": {"to": "cloud/server", "link": link, **more}}
                for name, (link, more) in uplinks.items()
            },
        },
        "workload": {
            "w": {
                "at": "home/far",
                "arrivals": {"process": "poisson", "rate": "1 /h"},
                "kinds": {"k": {"model": "m", "prompt_tokens": 5, "output_tokens": 5}},
            }
        },
    }
    fleet_ = sim.load_scenario(data).fleet
    found = {link.lower: link.network for link in fleet_.links}
    assert [found[f"home/{name}"].tls for name in uplinks] == [True, False, False]
    assert found["home/far"].keep_alive_s == 300.0
    data["network"] = {"tls": "yes"}
    with pytest.raises(sim.ScenarioError, match=r"network\.tls: must be true or false"):
        sim.load_scenario(data)
