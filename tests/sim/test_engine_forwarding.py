"""Links that forward streams: a message holds its neighbouring links at once."""

from dataclasses import replace

import pytest
from engine_world import Script, fleet, log, log_of, request, simulated, wire

from edgellm import sim
from edgellm.sim.fleet import Fleet
from edgellm.sim.scenario import ScenarioError, load_scenario


def streaming(world, *names):
    """The same fleet, where the links of these nodes (or all) stream."""
    links = [
        replace(link, forwarding="stream") if not names or link.lower in names else link
        for link in world.links
    ]
    return Fleet(world.nodes, tuple(links))


def near(x):
    return pytest.approx(x, abs=2e-9)


def send(req, here, log):
    yield here.send("cloud", "port", "hello", 100)
    log()


def test_stream_takes_all_latencies_and_the_slowest_link():
    world = streaming(fleet(broadband=wire("broadband", latency_s=0.02, up_bit_per_s=80_000)))
    result = simulated(Script(send), fleet=world)
    assert [t for t, _ in log_of(result)] == [near(0.01 + 0.02 + 0.1)]
    assert result.requests["bytes_up"][0] == 200  # 100 on each link


def test_a_lone_streamed_link_stores_and_forwards():
    world = streaming(fleet(broadband=wire("broadband", latency_s=0.02, up_bit_per_s=80_000)), "home/gateway")
    assert [t for t, _ in log(send, fleet=world)] == [near(0.01 + 0.1 + 0.02 + 0.01)]


def test_streams_of_two_devices_share_the_uplink():
    world = streaming(fleet(broadband=wire("broadband", latency_s=0.02, up_bit_per_s=12_000)))
    two = [request(i, node=f"home/device{i}") for i in range(2)]
    # 6000 bit/s each of the uplink's 12000, below the 8000 of their own links
    assert [t for t, _ in log(send, *two, fleet=world)] == [near(0.03 + 800 / 6000)] * 2


def test_empty_message_takes_the_latencies():
    def handle(req, here, log):
        yield here.send("cloud", "port", None, 0)
        log()

    assert [t for t, _ in log(handle, fleet=streaming(fleet()))] == [near(0.03)]


def test_cut_stream_is_paid_as_far_as_it_went_on_every_link():
    def handle(req, here, log):
        try:
            yield sim.within(here.send("cloud", "port", "hello", 100), 0.08)
        except sim.TimedOut as error:
            log(error.done)

    world = streaming(fleet(broadband=wire("broadband", latency_s=0.02)))
    result = simulated(Script(handle), fleet=world)
    assert log_of(result) == [[near(0.08), near(50.0)]]  # half of it, at the far end already
    assert result.requests["bytes_up"][0] == near(100.0)
    assert result.requests["energy_j"][0] > 0


@pytest.mark.parametrize("who", ["home/device0", "home/gateway"])
def test_link_that_goes_down_cuts_the_stream_wherever_it_is(who):
    def handle(req, here, log):
        try:
            yield here.send("cloud", "port", "hello", 100)
        except sim.LinkDown:
            log("cut")
        yield sim.sleep(1.0)
        yield here.send("cloud", "port", "hello", 100)
        log("there")

    world = streaming(fleet(broadband=wire("broadband", latency_s=0.02)))
    links = [replace(x, outages=((0.08, 0.5),)) if x.lower == who else x for x in world.links]
    seen = log(handle, fleet=Fleet(world.nodes, tuple(links)))
    assert seen == [[near(0.08), "cut"], [near(1.08 + 0.13), "there"]]


SCENARIO = """
schema = 1
name = "streams"
duration = "10 s"

[models."smollm2-135m:q4_1"]
profile = "smollm2-135m"
quant = "q4_1"

[fleet.home.speaker]
device = "raspberry-pi-5"
uplink = {{ to = "cloud/server", link = "home-broadband", forwarding = "{forwarding}" }}

[fleet.cloud.server]
device = "cloud-cpu"
models = ["smollm2-135m:q4_1"]

[workload.day]
at = "home/speaker"
arrivals = {{ process = "poisson", rate = "1 /s" }}

[workload.day.kinds.command]
model = "smollm2-135m:q4_1"
prompt_tokens = 10
output_tokens = 10

[study]
solver = "{solver}"
"""


@pytest.mark.parametrize(
    ("forwarding", "solver", "match"), [("stream", "simgrid", "SimGrid"), ("teleport", "exact", "teleport")]
)
def test_scenario_says_what_cannot_be(tmp_path, forwarding, solver, match):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO.format(forwarding=forwarding, solver=solver))
    with pytest.raises(ScenarioError, match=match):
        load_scenario(path)
    path.write_text(SCENARIO.format(forwarding="stream", solver="exact"))
    assert load_scenario(path).fleet.links[0].forwarding == "stream"
