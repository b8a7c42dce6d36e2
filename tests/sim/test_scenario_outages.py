"""`outages` of nodes and uplinks, as a scenario writes them."""

import pytest

from edgellm.sim import ScenarioError, load_scenario


def scenario(node=None, link=None):
    uplink = {"to": "gateway", "link": "wifi-4"} | ({} if link is None else {"outages": link})
    device = {"device": "raspberry-pi-5", "uplink": uplink} | ({} if node is None else {"outages": node})
    kind = {"model": "m", "prompt_tokens": 5, "output_tokens": 5}
    return {
        "schema": 1,
        "name": "outages",
        "duration": "1 h",
        "models": {"m": {"profile": "smollm2-135m", "quant": "q4_0"}},
        "fleet": {"home": {"count": 2, "gateway": {"device": "n100-mini-pc"}, "device": device}},
        "workload": {
            "w": {
                "at": "home/device",
                "arrivals": {"process": "poisson", "rate": "1 /h"},
                "kinds": {"k": kind},
            }
        },
    }


def test_outages_are_read_in_order():
    fleet = load_scenario(scenario([["10 min", "30 s"], ["0 s", "1 min"]], [["1 h", "2 s"]])).fleet
    for i in range(2):
        assert fleet.node(f"home{i}/device").outages == ((0.0, 60.0), (600.0, 30.0))
        assert fleet.uplink(f"home{i}/device").outages == ((3600.0, 2.0),)
        assert fleet.node(f"home{i}/gateway").outages == ()


@pytest.mark.parametrize(
    ("outages", "text"),
    [
        ("1 h", "must be a list"),
        (["1 h"], "must be a list of list"),
        ([["1 h"]], "start"),
        ([["1 h", "5 min", "1 s"]], "start"),
        ([["1 h", "0 s"]], "positive"),
        ([["-1 h", "1 s"]], "0 or more"),
        ([["1 h", "5 bits"]], "unit"),
        ([["1 h", 5]], "unit"),
        ([["0 s", "10 s"], ["10 s", "1 s"]], "before the one at 0 s ends"),
    ],
)
def test_impossible_outages_are_errors_that_name_the_key(outages, text):
    for where, data in (("device", scenario(node=outages)), ("device.uplink", scenario(link=outages))):
        with pytest.raises(ScenarioError, match=rf"fleet\.home\.{where}\.outages: .*{text}"):
            load_scenario(data)
