"""Idle modes, shares of power, radios, batteries and heat, each against a calculation by hand."""

import contextlib
import math
from dataclasses import replace

import pytest
from engine_world import Script, constant, device, fleet, log_of, request, simulated, wire

from edgellm import sim
from edgellm.cost import BatteryProfile, IdleState, PowerProfile, RadioProfile, Thermal, ThermalProfile
from edgellm.sim import Compute
from edgellm.sim.engine.ledger import ACTIVE_STATES, STATES
from edgellm.sim.fleet import Upkeep


def near(x):
    return pytest.approx(x, abs=1e-8)


def node(result, name="home/device0"):
    i = result.nodes["node"].index(name)
    return {key: values[i] for key, values in result.nodes.items()}


def kept(world, **upkeep):
    """The fleet whose devices have this upkeep."""
    nodes = [replace(n, upkeep=Upkeep(**upkeep)) if n.role == "device" else n for n in world.nodes]
    return replace(world, nodes=tuple(nodes))


def power(**tables):
    numbers = {key: constant(v) for key, v in tables.items() if isinstance(v, int | float)}
    return PowerProfile(**(tables | numbers))


def sleeper(**changes):
    state = IdleState(constant(0.1), constant(0.5), constant(2.0))
    return device(power=power(states={"sleep": state}, meter="chip"), **changes)


def work(seconds, setup=None):
    def handle(req, here, log):
        yield here.run(Compute(seconds))
        log()

    return Script(handle, setup)


def assert_states_add_up(result):
    columns = result.nodes
    total = sum(columns[f"{state}_energy_j"] for state in STATES)
    active = sum(columns[f"{state}_energy_j"] for state in ACTIVE_STATES)
    assert columns["energy_j"] == pytest.approx(total, rel=1e-12)
    assert columns["active_energy_j"] == pytest.approx(active, rel=1e-12, abs=1e-12)


def test_node_sleeps_after_a_while_and_pays_for_waking():
    # asleep from 10 s; woken at 40 s for 0.5 s and 2 J; works 5 s; asleep again from 55.5 s to 100 s
    result = simulated(work(5.0), request(0, 40.0), fleet=kept(fleet(sleeper()), sleep_after_s=10.0))
    assert log_of(result)[0][0] == near(45.5)
    box = node(result)
    assert box["asleep_s"] == near(30 + 44.5)
    assert box["sleep_energy_j"] == near(7.45)
    assert box["idle_energy_j"] == near((100 - 74.5) * 2)
    assert (box["wake_energy_j"], box["compute_energy_j"]) == (near(2.0), near(5 * 3))
    assert result.requests["energy_j"][0] == near(15 + 2)  # who wakes it pays
    assert_states_add_up(result)


def test_node_that_wakes_lets_others_wait_for_it():
    result = simulated(
        work(1.0), request(0, 40.0), request(1, 40.2), fleet=kept(fleet(sleeper()), sleep_after_s=10.0)
    )
    assert [t for t, _ in log_of(result)] == [near(42.5), near(42.5)]  # both begin at 40.5 and share
    assert node(result)["wake_energy_j"] == near(2.0)


def test_waking_for_nothing_is_not_charged():
    def handle(req, here, log):
        with contextlib.suppress(sim.TimedOut):
            yield sim.within(here.run(Compute(1.0)), 0.2)

    result = simulated(Script(handle), request(0, 40.0), fleet=kept(fleet(sleeper()), sleep_after_s=10.0))
    box = node(result)
    assert result.requests["energy_j"][0] == 0.0
    assert box["unattributed_energy_j"] == near(2.0)
    assert box["asleep_s"] == near(30 + (100 - 50.5))  # 10 s after it was awake it sleeps again


def test_compute_and_memory_are_counted_apart():
    board = device(power=power(compute_w=3.0, memory_w=4.0, meter="chip"))
    box = node(simulated(work(5.0), fleet=fleet(board)))
    assert (box["compute_energy_j"], box["memory_energy_j"]) == (near(15), near(20))
    assert box["energy_j"] == near(200 + 35)


@pytest.mark.parametrize(("at_wall", "scale"), [(True, 1.25), (False, 1.0)])
def test_wall_sees_the_loss_of_the_supply(at_wall, scale):
    board = device(power=power(supply_efficiency=0.8, meter="chip"))
    world = kept(fleet(board, wifi=wire("wifi", energy_up_j_per_bit=1e-3)), at_wall=at_wall)

    def handle(req, here, log):
        yield here.run(Compute(5.0))
        yield here.send("gateway", "p", None, 100)

    result = simulated(Script(handle), fleet=world)
    box = node(result)
    assert box["idle_energy_j"] == near(200 * scale)
    assert box["compute_energy_j"] == near(15 * scale)
    assert box["radio_tx_energy_j"] == near(0.8 * scale)
    assert result.requests["energy_j"][0] == near(15.8 * scale)
    assert result.links["energy_j"][1] == near(0.8 * scale)


def test_watts_read_at_the_wall_stay_what_they_are_at_the_wall():
    board = device(power=power(supply_efficiency=0.8, meter="wall"))
    assert node(simulated(work(5.0), fleet=fleet(board)))["energy_j"] == near(200 + 15)
    at_chip = kept(fleet(board), at_wall=False)
    assert node(simulated(work(5.0), fleet=at_chip))["energy_j"] == near(0.8 * 215)


def lte(**changes):
    numbers = {"tx_w": 2.0, "rx_w": 1.5, "idle_w": 1.0, "sleep_w": 0.01, "tail_s": 5.0, "promotion_s": 0.25}
    numbers |= {"promotion_w": 1.2} | changes
    return RadioProfile(**{key: constant(value) for key, value in numbers.items()})


def test_radio_is_promoted_sends_and_stays_awake_for_its_tail():
    def handle(req, here, log):
        yield here.send("gateway", "p", None, 1000)
        log()
        yield here.send("gateway", "p", None, 1000)  # within the tail: no promotion
        log()

    wifi = wire("wifi", radio=lte(), energy_up_j_per_bit=0)
    result = simulated(Script(handle), request(0, 20.0), fleet=fleet(wifi=wifi))
    assert [t for t, _ in log_of(result)] == [near(20.25 + 1.01), near(20.25 + 2.02)]
    box = node(result)
    assert box["radio_tx_energy_j"] == near(2 * 1.0 * (2 - 1))  # what sending adds to being awake
    assert box["radio_promotion_energy_j"] == near(0.25 * 1.2)
    awake_s = 2.02 + 5
    assert box["radio_idle_energy_j"] == near(awake_s * 1.0)
    assert box["radio_sleep_energy_j"] == near((100 - awake_s - 0.25) * 0.01)
    assert result.requests["energy_j"][0] == near(2 + 0.3)
    assert_states_add_up(result)


def test_transfer_given_up_while_the_radio_wakes_pays_for_that():
    def handle(req, here, log):
        with contextlib.suppress(sim.TimedOut):
            yield sim.within(here.send("gateway", "p", None, 1000), 0.1)

    wifi = wire("wifi", radio=lte(), energy_up_j_per_bit=0)
    result = simulated(Script(handle), request(0, 20.0), fleet=fleet(wifi=wifi))
    box = node(result)
    assert result.requests["energy_j"][0] == near(0.1 * 1.2)
    assert box["unattributed_energy_j"] == near(0.15 * 1.2)  # it wakes all the same
    assert box["radio_idle_energy_j"] == near(5.0)


def test_battery_pays_for_modes_and_radio():
    battery = sleeper(battery_j=100.0)
    world = kept(
        fleet(battery, wifi=wire("wifi", radio=lte(), energy_up_j_per_bit=0)), sleep_after_s=10.0, charge=0.5
    )

    def handle(req, here, log):
        yield here.send("gateway", "p", None, 1000)
        yield here.run(Compute(1.0))
        log(here.battery_j)

    result = simulated(Script(handle), request(0, 20.0), fleet=world)
    # 20 s of the radio asleep; promoted at 20 s; sends from 20.25 s to 21.26 s; then the processor wakes
    radio_j = 20 * 0.01 + 0.25 * 1.2 + (1.01 + 1.5) * 1.0 + 1.0 * (2 - 1)
    node_j = 10 * 2 + (10 + 1.26) * 0.1 + 0.5 * 2 + 2.0 + 1.0 * 5
    left_j = 50 - radio_j - node_j
    assert log_of(result)[0] == [near(22.76), near(left_j)]
    box = node(result)
    # 3 W until the tail ends at 26.26 s, then 2.01 W until it is empty, before it would sleep
    assert box["down_s"] == near(26.26 + (left_j - 3.5 * 3) / 2.01)
    assert box["battery_drawn_j"] == near(box["energy_j"])
    assert_states_add_up(result)


def test_battery_with_losses_dies_when_the_formula_says():
    table = BatteryProfile(
        discharge_efficiency=constant(0.8),
        self_discharge_per_s=constant(0.001),
        peukert=constant(1.2),
        rated_w=constant(2.0),
        temperature_per_k=constant(0.01),
        cutoff=constant(0.05),
    )
    world = kept(fleet(device(battery_j=1000.0, battery=table)), ambient_c=5.0, charge=0.9)
    result = simulated(work(500.0), request(0, 10.0), fleet=world, duration_s=1000.0)
    loss = 0.001
    floor_j = 1000 * (0.05 + 20 * 0.01)
    at_10_s = (900 + 2 / 0.8 / loss) * math.exp(-loss * 10) - 2 / 0.8 / loss
    drain_w = 5 / 0.8 * 2.5**0.2
    dies_s = 10 + math.log((at_10_s + drain_w / loss) / (floor_j + drain_w / loss)) / loss
    box = node(result)
    assert box["down_s"] == pytest.approx(dies_s, rel=1e-9)
    assert result.requests["reason"] == ["battery empty"]
    assert box["compute_energy_j"] == near(3 * (dies_s - 10))
    assert box["battery_drawn_j"] == pytest.approx(900 - floor_j, rel=1e-9)
    assert box["energy_j"] == pytest.approx(900 - floor_j, rel=1e-9)
    assert (box["battery_left_j"], box["battery_empty"]) == (near(0.0), True)
    assert_states_add_up(result)


def test_battery_dies_in_the_middle_of_a_transfer():
    def handle(req, here, log):
        try:
            yield here.send("gateway", "p", None, 10_000)  # 10 s, 80 J
        except sim.NodeDown as error:
            log(error.reason)
            raise

    # 10 W of radio and 2 W of idle from 0.01 s on; 0.02 J before
    world = fleet(device(battery_j=60.02), wifi=wire("wifi", energy_up_j_per_bit=1e-3))
    result = simulated(Script(handle), fleet=world)
    assert log_of(result) == [[near(0.01 + 60 / 10), "battery empty"]]
    box = node(result)
    assert box["radio_tx_energy_j"] == near(6 * 8)
    assert box["energy_j"] == near(60.02)
    assert result.requests["energy_j"][0] == near(48)
    assert result.requests["bytes_up"][0] == near(6000)


def test_radios_that_share_a_medium_empty_the_battery_at_the_right_moment():
    def handle(req, here, log):
        yield here.send("gateway", "p", None, 10_000)

    # two share 8000 bit/s: each sends at half the pace, so at 4 W, beside 2 W of idle
    wifi = wire("wifi", sharing="shared", energy_up_j_per_bit=1e-3)
    world = fleet(device(battery_j=30.0), wifi=wifi, group="wifi")
    result = simulated(Script(handle), request(0, 0.0), request(1, 0.0, node="home/device1"), fleet=world)
    assert list(result.nodes["down_s"][2:]) == [near(0.01 + (30 - 0.02) / 6)] * 2
    assert list(result.nodes["energy_j"][2:]) == [near(30.0)] * 2


HOT = ThermalProfile(
    r_k_per_w=constant(10), c_j_per_k=constant(2), throttle_c=constant(70), resume_c=constant(60),
    factor=constant(0.5), power_factor=constant(0.3),
)  # fmt: skip


def test_hot_node_slows_down_and_recovers_at_the_exact_moments():
    # idle at 2 W: 45 C; at 5 W it would end at 75 C, throttled (2 + 0.3 * 3 = 2.9 W) at 54 C; RC is 20 s
    result = simulated(work(60.0), request(0, 10.0), fleet=fleet(device(thermal=HOT)), duration_s=200.0)
    chip = Thermal(10.0, 2.0, 70.0, 60.0, 0.5, 0.3)
    at_s, left_s, temperature_c, slow_s = 10.0, 60.0, 45.0, 0.0
    throttled = False
    while True:
        target_c, watts, pace = (60.0, 2.9, 0.5) if throttled else (70.0, 5.0, 1.0)
        span_s = chip.reaches_s(temperature_c, target_c, 25.0, watts)
        if left_s <= pace * span_s:
            at_s, slow_s = at_s + left_s / pace, slow_s + throttled * left_s / pace
            break
        at_s, left_s, temperature_c = at_s + span_s, left_s - pace * span_s, target_c
        slow_s += span_s * throttled
        throttled = not throttled
    assert log_of(result)[0][0] == pytest.approx(at_s, rel=1e-9)
    box = node(result)
    slow_work_s = 0.5 * slow_s
    assert box["compute_energy_j"] == pytest.approx(3 * (60 - slow_work_s) + 0.9 * slow_s, rel=1e-9)
    assert result.requests["energy_j"][0] == pytest.approx(box["compute_energy_j"], rel=1e-12)
    assert box["peak_c"] == pytest.approx(70.0, abs=1e-6)
    assert box["throttled_s"] >= slow_s - 1e-9


def test_node_that_stays_cool_is_not_slowed_down():
    cool = replace(HOT, throttle_c=constant(80))
    result = simulated(work(60.0), fleet=fleet(device(thermal=cool)))
    assert log_of(result)[0][0] == near(60.0)
    assert node(result)["throttled_s"] == 0.0
    assert node(result)["peak_c"] == pytest.approx(75 - 30 * math.exp(-60 / 20))


def test_pace_of_long_work_is_the_sustained_one():
    result = simulated(work(4000.0), fleet=fleet(device(thermal=HOT)), duration_s=8000.0)
    chip = Thermal(10.0, 2.0, 70.0, 60.0, 0.5, 0.3)
    assert 4000 / log_of(result)[0][0] == pytest.approx(chip.sustained_pace(25.0, 2.0, 5.0), rel=0.01)


def test_work_in_progress_at_the_end_is_paid_for():
    def handle(req, here, log):
        yield here.run(Compute(1e6))

    result = simulated(Script(handle), request(0, 10.0))
    end_s = result.simulated_s
    assert result.requests["status"] == ["unfinished"]
    assert result.requests["energy_j"][0] == near(3 * (end_s - 10))
    assert node(result)["active_energy_j"] == near(3 * (end_s - 10))


def test_work_for_nobody_is_not_attributed():
    def setup(fleet):
        here = fleet["home/device0"]
        sim.spawn(daemon(here), here, daemon=True)

    def daemon(here):
        while True:
            yield here.run(Compute(1.0))
            yield here.send("gateway", "p", None, 100)
            yield sim.sleep(9.0)

    def handle(req, here, log):
        yield here.run(Compute(2.0))

    result = simulated(Script(handle, setup), request(0, 2.0))
    box = node(result)
    assert result.requests["energy_j"][0] == near(6.0)
    assert box["unattributed_energy_j"] == near(box["active_energy_j"] - 6.0)
    assert box["unattributed_energy_j"] > 10 * 3.0


def test_node_that_went_down_and_came_back_draws_nothing_between():
    def setup(fleet):
        here = fleet["home/device0"]
        sim.spawn(outage(here), fleet["cloud/server"], daemon=True)

    def outage(here):
        yield sim.sleep(20.0)
        here._node.fail("node down")
        yield sim.sleep(30.0)
        here._node.recover()

    for box in (device(), device(battery_j=1000.0), sleeper(), device(thermal=HOT)):
        upkeep = {"sleep_after_s": 1000.0} if box.power else {}
        result = simulated(work(5.0, setup), request(0, 18.0), fleet=kept(fleet(box), **upkeep))
        row = node(result)
        assert (row["off_s"], row["down_s"]) == (near(30.0), math.inf)
        assert (row["idle_energy_j"], row["compute_energy_j"]) == (near(140.0), near(6.0))
        assert result.requests["reason"] == ["node down"]
