"""Energy, batteries, memory, bytes and money, each against a calculation by hand."""

import math

import numpy as np
import pytest
from engine_world import LARGE, SMALL, Script, device, fleet, log, log_of, request, simulated, wire

from edgellm import sim
from edgellm.sim import Compute, Decode, Load, Prefill

BITS_100 = 800  # of a prompt of 100 bytes
BITS_50 = 400


def near(x):
    return pytest.approx(x, abs=1e-8)


def node(result, name):
    i = result.nodes["node"].index(name)
    return {key: values[i] for key, values in result.nodes.items()}


def test_energy_is_power_times_time():
    result = simulated(sim.strategy.Local())
    assert result.requests["energy_j"][0] == near(0.6 * (5 - 2))
    assert result.requests["device_energy_j"][0] == near(0.6 * 3)
    box = node(result, "home/device0")
    assert (box["busy_s"], box["active_energy_j"]) == (near(0.6), near(1.8))
    assert (box["idle_energy_j"], box["energy_j"]) == (near(200.0), near(201.8))


def test_energy_of_requests_that_share_a_node_adds_up():
    specs = [request(i, 0.1 * i, output_tokens=3 + i) for i in range(6)]
    result = simulated(sim.strategy.Local(), *specs)
    assert result.requests["energy_j"].sum() == near(node(result, "home/device0")["active_energy_j"])
    assert result.requests["energy_j"][5] == near(3 * 0.9)


def test_energy_of_links_is_counted_by_bits():
    result = simulated(sim.strategy.Cloud())
    columns = result.requests
    radio_j = (BITS_100 + BITS_50) * 1e-6
    assert columns["energy_j"][0] == near(0.6 * 3 + 2 * radio_j)
    assert columns["device_energy_j"][0] == near(radio_j)
    assert (columns["bytes_up"][0], columns["bytes_down"][0]) == (200.0, 100.0)
    assert list(result.links["bytes_up"]) == [100.0, 100.0, 0.0]
    assert list(result.links["energy_j"]) == [near(radio_j), near(radio_j), 0.0]


def test_cloud_is_paid_for_the_time_it_computes():
    columns = simulated(sim.strategy.Cloud()).requests
    assert (columns["cloud_s"][0], columns["cost_usd"][0]) == (near(0.6), near(0.6))  # 3600 USD an hour


def test_text_that_leaves_the_home_is_counted_once():
    cloud = simulated(sim.strategy.Cloud()).requests
    assert cloud["left_home_bytes"][0] == cloud["left_home_text_bytes"][0] == 100.0
    home = simulated(sim.strategy.Gateway()).requests
    assert home["left_home_bytes"][0] == 0.0


def test_ledger_keeps_the_classes_apart():
    def handle(req, here, log):
        yield here.send("cloud", "p", None, 70, data_class="activations")
        yield here.send("cloud", "p", None, 30, data_class="metadata")
        yield here.send("cloud", "p", None, 10, data_class="none")
        yield here.send("cloud", "p", req, 5)

    columns = simulated(Script(handle)).requests
    assert columns["left_home_bytes"][0] == 105.0
    assert columns["left_home_activations_bytes"][0] == 70.0
    assert columns["left_home_metadata_bytes"][0] == 30.0
    assert columns["left_home_text_bytes"][0] == 5.0


def test_transfer_cut_short_is_counted_for_what_was_sent():
    def handle(req, here, log):
        try:
            yield sim.within(here.send("gateway", "p", req, 1000), 0.51)  # 0.01 s, then half of 1 s
        except sim.TimedOut as error:
            log(error.done)

    result = simulated(Script(handle))
    assert log_of(result) == [[near(0.51), near(500.0)]]
    assert result.requests["bytes_up"][0] == near(500.0)
    assert result.requests["energy_j"][0] == near(4000e-6)


def test_battery_dies_at_the_exact_moment():
    def handle(req, here, log):
        try:
            yield here.run(Decode(SMALL, 1000))
        except sim.NodeDown as error:
            log([error.reason, error.done.tokens])
            raise

    # 5 s at 2 W leave 90 J, which last 18 s at 5 W
    world = fleet(device(battery_j=100))
    result = simulated(
        Script(handle), request(0, 5.0), request(1, 60.0), request(2, 70.0, node="home/device1"), fleet=world
    )
    assert log_of(result)[0] == [near(23.0), ["battery empty", 180]]
    assert result.requests["status"] == ["failed", "failed", "failed"]
    assert result.requests["reason"] == ["battery empty", "battery empty", "battery empty"]
    box = node(result, "home/device0")
    assert (box["down_s"], box["battery_left_j"], box["battery_empty"]) == (near(23.0), 0.0, True)
    assert box["energy_j"] == near(100.0)
    idle = node(result, "home/device1")
    assert (idle["down_s"], idle["energy_j"]) == (near(50.0), near(100.0))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_battery_does_not_depend_on_how_often_it_is_looked_at(n):
    def handle(req, here, log):
        for _ in range(n):
            yield here.run(Compute(6.0 / n))
            log(here.battery_j)

    left = log(handle, fleet=fleet(device(battery_j=1000)))[-1][1]
    assert left == near(1000 - 6 * 5)


def test_battery_pays_for_the_radio():
    def handle(req, here, log):
        yield here.send("gateway", "p", None, 1000)
        log(here.battery_j)

    world = fleet(device(battery_j=100), wifi=wire("wifi", energy_up_j_per_bit=1e-3))
    assert log(handle, fleet=world) == [[near(1.01), near(100 - 2 * 1.01 - 8)]]


def test_caller_of_a_node_that_dies_is_told():
    def handle(req, here, log):
        try:
            yield here.call("gateway", "long", None, 0)
        except sim.NodeDown as error:
            log(error.reason)
        try:
            yield here.send("gateway", "p", None, 100)
        except sim.NodeDown as error:
            log(error.reason)

    def setup(fleet):
        fleet["home/gateway"].provide("long", long)

    def long(msg, here):
        yield here.run(Compute(90.0))

    world = fleet(gateway=device("hub", battery_j=50))
    # 0.01 s at 2 W, the rest at 5 W
    dies_s = 0.01 + (50 - 0.02) / 5
    assert log(handle, setup=setup, fleet=world) == [
        [near(dies_s + 0.01), "battery empty"],
        [near(dies_s + 0.01 + 0.11), "battery empty"],
    ]


def test_model_that_does_not_fit_is_a_reason():
    columns = simulated(sim.strategy.Local(), fleet=fleet(device(ram_bytes=1014))).requests
    no_room = "model does not fit: small:q4_0 with 15 positions takes 0.001015 MB, box has 0.001014 MB"
    assert (columns["status"], columns["reason"]) == (["failed"], [no_room])
    assert columns["energy_j"][0] == near(0.1 * 3)  # the prefill did fit
    reserved = simulated(sim.strategy.Local(), fleet=fleet(device(ram_bytes=1014)), context=50).requests
    assert reserved["energy_j"][0] == 0.0


def test_model_that_fits_exactly_runs():
    assert simulated(sim.strategy.Local(), fleet=fleet(device(ram_bytes=1015))).requests["status"] == ["ok"]


def test_prompt_beyond_the_model_is_a_reason():
    columns = simulated(sim.strategy.Local(), request(0, prompt_tokens=4999, output_tokens=2)).requests
    assert columns["reason"] == ["context exceeded: small:q4_0 holds 5000 positions, not 5001"]


def test_sessions_wait_for_memory_in_turn():
    def handle(req, here, log):
        yield here.run(Prefill(SMALL, 100))
        log(req.id)

    # weights 1000, each session 100: two at a time
    specs = [request(i, 0.01 * i) for i in range(4)]
    seen = log(handle, *specs, fleet=fleet(device(ram_bytes=1200)))
    assert [i for _, i in seen] == [0, 1, 2, 3]
    assert [t for t, _ in seen] == [near(1.99), near(2.01), near(3.99), near(4.0)]


def test_lease_is_freed_when_its_task_ends():
    def handle(req, here, log):
        holder = sim.spawn(hold(here), here)
        yield sim.sleep(1)
        log([here.try_reserve(100) is None, here.memory_free_bytes])
        lease = yield here.reserve(100)
        log(lease.nbytes)
        with here.try_reserve(9_900):
            log(here.memory_free_bytes)
        log([here.memory_free_bytes, holder.finished])

    def hold(here):
        yield here.reserve(9_950)
        yield sim.sleep(5)

    assert log(handle) == [[1.0, [True, 50]], [5.0, 100], [5.0, 0], [5.0, [9_900, True]]]


def test_lease_that_can_never_be_had_is_refused():
    def handle(req, here, log):
        try:
            yield here.reserve(10_001)
        except sim.Rejected as error:
            log(error.reason)

    assert log(handle) == [[0.0, "model does not fit"]]


def test_wait_for_memory_can_be_given_up():
    def handle(req, here, log):
        first = here.try_reserve(10_000)
        try:
            yield sim.within(here.reserve(1), 2)
        except sim.TimedOut:
            log("late")
        first.free()
        log([here.try_reserve(10_000) is not None, here.memory_free_bytes])

    assert log(handle) == [[2.0, "late"], [2.0, [True, 0]]]


def test_variant_not_used_makes_room_and_must_be_read_again():
    def handle(req, here, log):
        yield here.run(Prefill(req.model, 10))
        log(req.model)

    # room for one variant at a time; reading takes 2 s, the prefill 0.1 s
    specs = [request(0, 0.0), request(1, 10.0, model=LARGE), request(2, 20.0, model=LARGE), request(3, 30.0)]
    seen = log(handle, *specs, fleet=fleet(device(ram_bytes=1500)))
    assert seen == [[near(0.1), SMALL], [near(12.1), LARGE], [near(20.1), LARGE], [near(32.1), SMALL]]


def test_load_reads_once():
    def handle(req, here, log):
        yield here.run(Load(LARGE))
        log()
        yield here.run(Load(LARGE))
        log()

    assert [t for t, _ in log(handle)] == [near(2.0), near(2.0)]


def test_placed_by_the_strategy_is_resident():
    def handle(req, here, log):
        log(list(here.models))
        yield here.run(Prefill(LARGE, 10))
        log()

    def setup(fleet):
        for here in fleet.of_role("device"):
            fleet.place(LARGE, on=here)

    assert log(handle, setup=setup) == [[0.0, [SMALL, LARGE]], [near(0.1), None]]


def test_largest_variant_of_the_cloud_takes_escalations():
    weights = {SMALL: 1000, LARGE: 2000}
    columns = simulated(sim.strategy.Cascade(threshold=1.0), weights=weights).requests
    assert columns["model"] == [LARGE]
    weights = {SMALL: 2000, LARGE: 1000}
    columns = simulated(sim.strategy.Cascade(threshold=1.0), weights=weights).requests
    assert columns["model"] == [SMALL]


def test_cascade_escalates_what_is_below_its_threshold():
    specs = [request(i, 20.0 * i) for i in range(50)]
    values = {SMALL: tuple(np.linspace(0, 1, 11))}
    result = simulated(sim.strategy.Cascade(threshold=0.3), *specs, confidence=values, duration_s=2000.0)
    share = result.requests["escalated"].mean()
    assert 0.1 <= share <= 0.5
    wasted = result.requests["tokens_wasted"]
    assert list(wasted) == [5 if e else 0 for e in result.requests["escalated"]]


def test_columns_are_finite_where_they_must_be():
    columns = simulated(sim.strategy.Cascade(), *(request(i, i) for i in range(10))).requests
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and name not in {"deadline_s"}:
            assert np.isfinite(values).all(), name
    assert math.isnan(columns["deadline_s"][0])


def test_energy_of_idling_ends_with_the_last_answer():
    def handle(req, here, log):
        yield here.run(Compute(2.0))

    result = simulated(Script(handle), request(arrival_s=99.0))
    assert result.simulated_s == near(101.0)
    assert node(result, "home/device1")["energy_j"] == near(202.0)


def test_battery_that_would_last_longer_does_not_prolong_the_day():
    result = simulated(sim.strategy.Local(), fleet=fleet(device(battery_j=1000)))
    assert result.simulated_s == 100.0
    assert node(result, "home/device1")["battery_left_j"] == near(800.0)
    assert node(result, "home/device0")["battery_left_j"] == near(800.0 - 0.6 * 3)
