"""What user data left the home: every class, every way, once."""

import pytest
from engine_world import Script, device, request, simulated, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import sim
from edgellm.sim.columns import DATA_CLASSES
from edgellm.sim.fleet import Fleet, Link, Node
from edgellm.sim.strategy import Answer


def chain() -> Fleet:
    """A bed in a room of a home, under a provider, under a cloud; the garden hangs below the home."""
    box = device()
    cloud = device("server", usd_per_hour=3600.0)
    nodes = (
        Node("cloud/server", "cloud", "cloud", 0, cloud, (), None, "cloud"),
        Node("isp/box", "isp", "gateway", 0, box, (), "cloud/server", "isp"),
        Node("home/gateway", "home", "gateway", 0, box, (), "isp/box", "home0"),
        Node("home/device0", "home", "device", 0, box, (), "home/gateway", "home0"),
        Node("garden/mower", "garden", "device", 0, box, (), "home/gateway", "garden0"),
    )
    lines = [("isp/box", "cloud/server"), ("home/gateway", "isp/box"), ("home/device0", "home/gateway")]
    lines.append(("garden/mower", "home/gateway"))
    return Fleet(nodes, tuple(Link(f"{low}>{up}", wire("line"), low, up) for low, up in lines))


def left(columns, of=0):
    return {
        c: columns[f"left_home_{c}_bytes"][of] for c in DATA_CLASSES if columns[f"left_home_{c}_bytes"][of]
    }


def run(handle, setup=None):
    return simulated(Script(handle, setup), request(0), fleet=chain())


PLACES = ["cloud/server", "isp/box", "home/gateway", "home/device0", "garden/mower"]
OUTSIDE = {"cloud/server", "isp/box", "garden/mower"}
message = st.tuples(st.sampled_from(PLACES), st.sampled_from(["none", *DATA_CLASSES]), st.integers(0, 5000))


@given(st.lists(message, max_size=6))
@settings(max_examples=15, deadline=None)
def test_everything_sent_out_of_the_home_is_counted_once_under_its_class(messages):
    def handle(req, here, log):
        for to, kind, nbytes in messages:
            yield here.send(to, "port", None, nbytes, data_class=kind)

    result = run(handle)
    want = {}
    for to, kind, nbytes in messages:
        if to in OUTSIDE and kind != "none" and nbytes:
            want[kind] = want.get(kind, 0.0) + nbytes
    assert left(result.requests) == want
    assert result.requests["left_home_bytes"][0] == sum(want.values())
    for kind in DATA_CLASSES:
        assert result.links[f"left_home_{kind}_bytes"].sum() == want.get(kind, 0.0)


@pytest.mark.parametrize(
    ("value", "nbytes", "kind", "want"),
    [
        (b"x" * 300, None, None, {"gradient": 300}),  # carries the class of the call
        (b"x" * 300, None, "activations", {"activations": 300}),
        (None, 700, "adapter", {"adapter": 700}),
        (Answer("small:q4_0", "home/gateway", 3, 40, "text"), None, None, {"text": 40}),
        (b"x" * 300, None, "none", {}),
    ],
)
def test_replies_that_leave_the_home_are_counted_too(value, nbytes, kind, want):
    def ask(here):
        yield here.call("home/gateway", "train", None, 50, data_class="gradient")

    def handle(req, here, log):
        yield here.send("cloud", "go", req, 0, data_class="none")
        yield sim.sleep(20)

    def serve(gateway):
        call = yield gateway.recv("train")
        call.reply(value, nbytes, data_class=kind)

    def setup(fleet):
        gateway, cloud = fleet["home/gateway"], fleet["cloud/server"]
        gateway.inbox("train")
        gateway.spawn(serve(gateway), daemon=True)
        cloud.spawn(waits(cloud), daemon=True)

    def waits(cloud):
        yield cloud.recv("go")
        yield from ask(cloud)

    result = run(handle, setup)
    links = {c: result.links[f"left_home_{c}_bytes"].sum() for c in DATA_CLASSES}
    assert {c: v for c, v in links.items() if v} == want
    assert left(result.requests) == {}  # a daemon's call belongs to no request


def test_data_of_no_request_counts_against_its_home_and_a_cloud_has_none():
    def learns(here):
        yield here.send("cloud", "model", None, 900, data_class="gradient")

    def spreads(cloud):
        yield cloud.send("home/gateway", "model", None, 500, data_class="adapter")

    def setup(fleet):
        fleet["home/device0"].spawn(learns(fleet["home/device0"]), daemon=True)
        fleet["cloud/server"].spawn(spreads(fleet["cloud/server"]), daemon=True)

    def handle(req, here, log):
        yield sim.sleep(30)

    result = run(handle, setup)
    assert {c: result.links[f"left_home_{c}_bytes"].sum() for c in DATA_CLASSES if c != "gradient"} == {
        c: 0.0 for c in DATA_CLASSES if c != "gradient"
    }
    assert result.links["left_home_gradient_bytes"].sum() == 900.0
    assert result.requests["left_home_bytes"][0] == 0.0
