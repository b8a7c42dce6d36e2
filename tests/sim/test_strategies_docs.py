"""Every strategy that docs/strategies.md shows is run as it stands there, and every name it lists exists."""

import re
from pathlib import Path

import pytest
from engine_world import in_child

from edgellm import sim
from edgellm.sim import strategy
from edgellm.sim.engine.here import Here
from edgellm.sim.engine.live import LiveSession
from edgellm.sim.engine.request import Request
from edgellm.sim.engine.run import RunTask

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MODEL = Path("~/.cache/edgellm/models/smollm2-135m").expanduser()


def scenario(**keys):
    kind = {"model": "small", "prompt_tokens": 12, "output_tokens": 6}
    uplink = {"to": "gateway", "link": "wifi-4", "outages": [["10 min", "2 min"]]}
    return sim.load_scenario(
        {
            "schema": 1,
            "name": "docs",
            "duration": "1 h",
            "models": {"small": {"profile": "smollm2-135m", "quant": "q4_1", **keys}},
            "session": {"context": 128},
            "fleet": {
                "home": {
                    "count": 3,
                    "device": {"device": "raspberry-pi-4b", "models": ["small"], "uplink": uplink},
                    "gateway": {
                        "device": "n100-mini-pc",
                        "models": ["small"],
                        "outages": [["30 min", "5 min"]],
                        "uplink": {"to": "cloud/server", "link": "home-broadband"},
                    },
                },
                "cloud": {"server": {"device": "cloud-cpu", "models": ["small"]}},
            },
            "workload": {
                "w": {
                    "at": "home/device",
                    "arrivals": {"process": "poisson", "rate": "60 /h"},
                    "kinds": {"k": kind},
                }
            },
        }
    )


def shown():
    for block in BLOCKS:
        (name,) = re.findall(r"^class (\w+)\(sim.Strategy\)", block, re.MULTILINE)
        yield pytest.param(block, name, id=name)


@pytest.mark.parametrize(("block", "name"), list(shown()))
def test_strategy_of_the_page_runs_as_it_stands(block, name):
    space = {}
    exec(block, space)
    real = "here.open" in block
    if real and not MODEL.is_dir():
        pytest.skip("smollm2-135m is not on this machine: edgellm pull smollm2-135m")
    world = scenario(weights="smollm2-135m") if real else scenario()
    result = in_child(RunTask(world, space[name](), 1, {}))
    statuses = list(result.requests["status"])
    assert len(statuses) > 100
    assert statuses.count("ok") > 0.85 * len(statuses)  # 7 minutes of the hour something is down
    assert set(statuses) <= {"ok", "failed", "rejected"}


def names(after, before):
    """Names in backquotes in the first column of the table that follows a heading."""
    table = PAGE[PAGE.index(after) :].split("\n\n")[0]
    assert before in table
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return {
        re.match(r"(?:yield session\.)?(\w+)", code)[1]
        for cell in cells
        for code in re.findall("`([^`]+)`", cell)
    }


def test_names_of_the_tables_exist():
    for heading, some, found in (
        ("| on `req` |", "confidence", dir(Request)),
        ("| on `here`, at once |", "try_reserve", [*dir(Here), *dir(strategy.Here)]),
        ("| on a session |", "verify", [*dir(LiveSession), "ids", "prompt_tokens", "ended"]),
    ):
        missing = names(heading, some) - set(found) - {"yield"}
        assert missing == set(), f"{heading}: {missing}"


def test_every_name_of_the_protocol_is_on_the_page():
    public = [n for n in sim.__all__ if n[0].islower() or hasattr(getattr(sim, n), "default")]
    protocol = [
        n
        for n in strategy.__all__
        if n in sim.__all__ and n not in ("BUILT_IN", "Local", "Gateway", "Cloud", "Cascade")
    ]
    for name in {*protocol, *(n for n in public if n in strategy.__all__)}:
        assert re.search(rf"\b{name}\b", PAGE), f"{name} is not on the page"
    for name in (n for n in vars(strategy.Here) if not n.startswith("_")):
        assert re.search(rf"\b{name}\b", PAGE), f"here.{name} is not on the page"
