"""Nodes and links that go down and come back: what is told, what is lost, what is conserved."""

import math
from dataclasses import replace

import pytest
from engine_world import LARGE, SMALL, Script, device, fleet, log, log_of, request, simulated, wire
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgellm import sim
from edgellm.sim import Compute, Decode, Prefill
from edgellm.sim.examples import Batching, Hedge
from edgellm.sim.fleet import Fleet


def near(x):
    return pytest.approx(x, abs=2e-9)


def failing(nodes=None, links=None, **world):
    """The usual fleet, with outages by name of a node and of the lower node of a link."""
    whole = fleet(**world)
    nodes, links = nodes or {}, links or {}
    return Fleet(
        tuple(replace(node, outages=tuple(nodes.get(node.name, ()))) for node in whole.nodes),
        tuple(replace(link, outages=tuple(links.get(link.lower, ()))) for link in whole.links),
    )


def test_node_down_is_thrown_with_progress_and_work_goes_on_after_it():
    def handle(req, here, log):
        try:
            yield here.run(Decode(SMALL, 50))
        except sim.NodeDown as error:
            log([error.reason, error.done.tokens])
        try:
            yield here.run(Compute(1.0))
        except sim.NodeDown as error:
            log([error.reason, error.done])
        yield sim.until(7.0)
        yield here.run(Prefill(SMALL, 10))
        log()

    world = failing({"home/device0": [(1.25, 3.0)]})
    # after the outage its weights are read again: 2 s
    assert log(handle, fleet=world) == [
        [1.25, ["node down", 12]],
        [1.25, ["node down", None]],
        [near(9.1), None],
    ]


def test_requests_that_arrive_while_their_node_is_down_are_counted():
    specs = [request(i, float(i)) for i in range(5)]
    result = simulated(sim.strategy.Local(), *specs, fleet=failing({"home/device0": [(0.9, 1.5)]}))
    assert list(result.requests["reason"]) == ["", "node down", "node down", "", ""]
    assert list(result.requests["status"]) == ["ok", "failed", "failed", "ok", "ok"]


def test_link_down_cuts_what_is_on_it_and_refuses_what_comes():
    def handle(req, here, log):
        for _ in range(3):
            try:
                yield here.send("gateway", "p", None, 1000)
                log("arrived")
            except sim.LinkDown as error:
                log([error.reason, error.done])
                yield sim.sleep(0.1)

    world = failing(links={"home/device0": [(0.26, 0.1)]})
    result = simulated(Script(handle), fleet=world)
    assert log_of(result) == [
        [0.26, ["link down", near(250.0)]],
        [near(0.36 + 1.01), "arrived"],
        [near(0.36 + 2.02), "arrived"],
    ]
    assert result.requests["bytes_up"][0] == near(2250.0)
    assert result.links["bytes_up"].sum() == near(2250.0)


def test_link_that_is_down_further_up_is_told_when_the_message_gets_there():
    def handle(req, here, log):
        try:
            yield here.send("cloud", "p", None, 100)
        except sim.LinkDown as error:
            log([error.reason, error.done])

    world = failing(links={"home/gateway": [(0.0, 50.0)]})
    assert log(handle, fleet=world) == [[near(0.11), ["link down", None]]]


def test_message_through_a_node_that_dies_is_lost():
    def handle(req, here, log):
        try:
            yield here.send("cloud", "p", None, 1000)
        except sim.NodeDown as error:
            log([error.reason, error.done])

    world = failing({"home/gateway": [(0.5, 1.0)]})
    assert log(handle, fleet=world) == [[0.5, ["node down", 0.0]]]  # nothing has reached the far end


def test_caller_is_told_when_the_server_dies_before_during_and_after_its_work():
    def handle(req, here, log):
        try:
            yield here.call("gateway", "work", None, 0)
        except sim.NodeDown as error:
            log(error.reason)

    def setup(fleet):
        fleet["home/gateway"].provide("work", work)

    def work(msg, here):
        yield here.run(Compute(1.0))
        return b"x" * 1000

    for start_s, told_s in ((0.005, 0.005 + 0.01), (0.5, 0.5 + 0.01), (1.5, 1.5)):
        world = failing({"home/gateway": [(start_s, 3.0)]})
        assert log(handle, setup=setup, fleet=world) == [[near(told_s), "node down"]]


def test_calls_in_an_inbox_are_lost_with_their_node():
    def handle(req, here, log):
        try:
            yield here.call("gateway", "slow", None, 0)
        except sim.NodeDown as error:
            log(error.reason)

    def setup(fleet):
        gateway = fleet["home/gateway"]
        gateway.spawn(serve(gateway), daemon=True)

    def serve(here):
        while True:
            call = yield here.inbox("slow")
            yield here.run(Compute(10.0))
            call.reply()

    world = failing({"home/gateway": [(5.0, 1.0)]})
    two = [request(i) for i in range(2)]
    assert log(handle, *two, setup=setup, fleet=world) == [[near(5.01), "node down"]] * 2


def test_daemons_and_services_of_setup_are_back_after_an_outage():
    def handle(req, here, log):
        for date_s in (0.0, 20.0):
            yield sim.until(date_s)
            log((yield here.call("gateway", "count", None, 0)))
            log((yield here.call("gateway", "name", None, 0)))

    def setup(fleet):
        gateway = fleet["home/gateway"]
        gateway.provide("name", lambda msg, here: len(here.name))
        gateway.spawn(serve(gateway, first=7), daemon=True)

    def serve(here, first):
        while True:
            call = yield here.inbox("count")
            call.reply(first, nbytes=0)
            first += 1

    world = failing({"home/gateway": [(10.0, 5.0)]})
    assert [x for _, x in log(handle, setup=setup, fleet=world)] == [7, 12, 7, 12]


def test_strategy_may_say_itself_what_starts_again():
    class Mine(sim.Strategy):
        def setup(self, fleet):
            for here in fleet.of_role("gateway"):
                here.spawn(self.tick(here), daemon=True)

        def restarted(self, here):
            print(f'[{here.now}, "back"]')

        def tick(self, here):
            while True:
                yield sim.sleep(4.0)
                print(f'[{here.now}, "tick"]')

        def handle(self, req, here):
            yield sim.sleep(20.0)
            req.finish()

    world = failing({"home/gateway": [(10.0, 5.0)]})
    seen = log_of(simulated(Mine(), fleet=world, duration_s=20.0))
    assert seen == [[4.0, "tick"], [8.0, "tick"], [15.0, "back"]]


def test_restarted_that_raises_stops_the_run():
    class Mine(sim.strategy.Local):
        def restarted(self, here):
            raise KeyError("oops")

    with pytest.raises(sim.StrategyError, match="strategy Mine raised KeyError"):
        simulated(Mine(), request(0, 50.0), fleet=failing({"home/gateway": [(10.0, 5.0)]}))


def test_leases_and_sessions_are_lost_with_the_node():
    def handle(req, here, log):
        lease = here.try_reserve(8000)
        yield here.run(Prefill(SMALL, 10))
        try:
            yield sim.sleep(9)
        except sim.NodeDown:
            log(here.memory_free_bytes)
            lease.free()
            log(here.memory_free_bytes)

    assert log(handle, fleet=failing({"home/device0": [(1.0, 1.0)]})) == [[1.0, 10_000]] * 2


def test_node_draws_nothing_while_it_is_down():
    world = failing({"home/device1": [(10.0, 5.0), (50.0, 20.0)]})
    result = simulated(sim.strategy.Local(), fleet=world)
    at = list(result.nodes["node"]).index("home/device1")
    assert result.nodes["energy_j"][at] == near(2.0 * 75.0)
    assert math.isinf(result.nodes["down_s"][at])


def test_battery_does_not_drain_while_the_node_is_down():
    world = failing({"home/device0": [(10.0, 5.0)]}, device_=device(battery_j=100.0))
    result = simulated(sim.strategy.Local(), request(0, 90.0, node="home/device1"), fleet=world)
    at = list(result.nodes["node"]).index("home/device0")
    assert result.nodes["down_s"][at] == near(55.0)
    assert result.nodes["battery_empty"][at]


def test_outages_beyond_the_day_do_not_prolong_it():
    world = failing({"home/device0": [(500.0, 5.0)]}, {"home/device0": [(900.0, 5.0)]})
    assert simulated(sim.strategy.Local(), fleet=world).simulated_s == 100.0


class Retry(sim.Strategy):
    """Asks the cloud, then the gateway, then itself; gives up after that."""

    def handle(self, req, here):
        for to in ("cloud", "gateway", here.name):
            try:
                answer = yield sim.within(here.call(to, "generate", req, req.nbytes), 6.0)
            except sim.Interrupted:
                continue
            req.finish(answer, model=answer.model)
            return
        req.reject("given up")


def outages():
    one = st.tuples(st.floats(0.01, 40.0), st.floats(0.01, 15.0))
    return st.lists(one, max_size=3).map(apart)


def apart(found):
    kept = []
    for start_s, length_s in sorted(found):
        if not kept or kept[-1][0] + kept[-1][1] < start_s:
            kept.append((start_s, length_s))
    return kept


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    names=st.fixed_dictionaries(
        {n: outages() for n in ("home/device0", "home/device1", "home/gateway", "cloud/server")}
    ),
    links=st.fixed_dictionaries({n: outages() for n in ("home/device0", "home/device1", "home/gateway")}),
    battery_j=st.sampled_from((30.0, 90.0, 1e6)),
    strategy=st.sampled_from(
        (Retry(), Hedge(1.0), Batching(), sim.strategy.Cascade(), sim.strategy.Gateway())
    ),
    arrivals=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=12),
)
def test_requests_and_bytes_are_conserved_whatever_goes_down(names, links, battery_j, strategy, arrivals):
    specs = [
        request(i, t, node=f"home/device{i % 2}", model=SMALL if i % 3 else LARGE)
        for i, t in enumerate(sorted(arrivals))
    ]
    world = failing(names, links, device_=device(battery_j=battery_j), wifi=wire("wifi", loss=0.1))
    result = simulated(strategy, *specs, fleet=world, duration_s=60.0)
    columns = result.requests
    assert list(columns["id"]) == list(range(len(specs)))
    statuses, reasons = list(columns["status"]), list(columns["reason"])
    assert set(statuses) <= {"ok", "failed", "rejected"}
    assert all((status == "ok") == (reason == "") for status, reason in zip(statuses, reasons, strict=True))
    assert set(reasons) <= {"", "node down", "link down", "battery empty", "given up", "no such service"}
    for way in ("bytes_up", "bytes_down"):
        assert columns[way].sum() == pytest.approx(result.links[way].sum(), rel=1e-9, abs=1e-9)
    paid_j = columns["energy_j"].sum() + result.nodes["unattributed_energy_j"].sum()
    assert paid_j == pytest.approx(result.nodes["active_energy_j"].sum(), rel=1e-9, abs=1e-9)
    again = simulated(strategy, *specs, fleet=world, duration_s=60.0)
    assert all(repr(list(again.requests[name])) == repr(list(values)) for name, values in columns.items())
