"""Energy, battery and heat: closed forms against integration in small steps and against hand calculations."""

import doctest
import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import cost
from edgellm.cost import Battery, Constant, IdleState, PowerProfile, RadioPower, Thermal


def number(value):
    return Constant(float(value), "", "a test")


def integrated(derivative, start, seconds, steps=2000):
    """Runge-Kutta of order 4."""
    y, h = start, seconds / steps
    for _ in range(steps):
        a = derivative(y)
        b = derivative(y + h / 2 * a)
        c = derivative(y + h / 2 * b)
        y += h / 6 * (a + 2 * b + 2 * c + derivative(y + h * c))
    return y


batteries = st.builds(
    Battery,
    capacity_j=st.floats(10, 1e6),
    discharge_efficiency=st.floats(0.3, 1),
    self_discharge_per_s=st.one_of(st.just(0.0), st.floats(1e-9, 1e-2)),
    peukert=st.floats(1, 1.4),
    rated_w=st.floats(0.01, 10),
    temperature_per_k=st.floats(0, 0.02),
    cutoff=st.floats(0, 0.5),
)


@settings(max_examples=60, deadline=None)
@given(batteries, st.floats(0.001, 20), st.floats(0, 500))
def test_battery_charge_follows_its_equation(battery, power_w, seconds):
    def derivative(charge_j):
        rate = max(1.0, (power_w / battery.rated_w) ** (battery.peukert - 1.0))
        return -battery.self_discharge_per_s * charge_j - power_w / battery.discharge_efficiency * rate

    start = battery.capacity_j
    want = integrated(derivative, start, seconds)
    assert battery.charge_after_j(start, power_w, seconds) == pytest.approx(want, rel=1e-6, abs=1e-6 * start)


@settings(max_examples=200, deadline=None)
@given(batteries, st.floats(0, 20), st.floats(0, 1), st.floats(-30, 40))
def test_battery_is_at_its_floor_when_it_is_said_to_be(battery, power_w, share, temperature_c):
    start, floor_j = share * battery.capacity_j, battery.floor_j(temperature_c)
    lasts_s = battery.lasts_s(start, power_w, temperature_c)
    if start <= floor_j:
        assert lasts_s == 0.0
    elif lasts_s < math.inf:
        assert battery.charge_after_j(start, power_w, lasts_s) == pytest.approx(
            floor_j, abs=1e-9 * battery.capacity_j
        )
    else:
        assert power_w == 0.0


def test_battery_by_hand():
    phone = Battery(69_300.0, discharge_efficiency=0.95, cutoff=0.03)  # 5000 mAh at 3.85 V
    assert phone.lasts_s(69_300.0, 5.0) == pytest.approx(0.97 * 69_300 * 0.95 / 5)
    lead = Battery(3600.0, peukert=1.2, rated_w=1.0)
    assert lead.lasts_s(3600.0, 1.0) == pytest.approx(3600)
    assert lead.lasts_s(3600.0, 10.0) == pytest.approx(360 / 10**0.2)
    assert lead.lasts_s(3600.0, 0.1) == pytest.approx(36_000)  # no more than the capacity comes out
    year_s = 365.25 * 86_400
    primary = Battery(246_000.0, self_discharge_per_s=0.01 / year_s)
    assert primary.charge_after_j(246_000.0, 0.0, year_s) == pytest.approx(246_000 * math.exp(-0.01))


@pytest.mark.parametrize(
    "change",
    [{"capacity_j": 0.0}, {"discharge_efficiency": 1.1}, {"peukert": 0.9}, {"cutoff": 1.0}, {"rated_w": 0.0}],
)
def test_battery_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change)).split("_")[0]):
        Battery(**{"capacity_j": 1.0, **change})


chips = st.builds(
    Thermal,
    r_k_per_w=st.floats(0.5, 20),
    c_j_per_k=st.floats(1, 200),
    throttle_c=st.floats(60, 100),
    resume_c=st.floats(40, 59),
    factor=st.floats(0.2, 1),
    power_factor=st.floats(0.1, 1),
)


@settings(max_examples=60, deadline=None)
@given(chips, st.floats(-20, 90), st.floats(-20, 45), st.floats(0, 30), st.floats(0, 2000))
def test_heat_follows_its_equation(chip, start_c, ambient_c, power_w, seconds):
    def derivative(temperature_c):
        return (power_w - (temperature_c - ambient_c) / chip.r_k_per_w) / chip.c_j_per_k

    seconds = min(seconds, 20 * chip.time_constant_s)
    want = integrated(derivative, start_c, seconds)
    assert chip.after_c(start_c, ambient_c, power_w, seconds) == pytest.approx(want, abs=1e-6)


@settings(max_examples=300, deadline=None)
@given(chips, st.floats(-20, 120), st.floats(-20, 120), st.floats(-20, 45), st.floats(0, 30))
def test_heat_reaches_a_temperature_when_it_is_said_to(chip, start_c, target_c, ambient_c, power_w):
    reaches_s = chip.reaches_s(start_c, target_c, ambient_c, power_w)
    if reaches_s < math.inf:
        assert reaches_s >= 0.0
        assert chip.after_c(start_c, ambient_c, power_w, reaches_s) == pytest.approx(target_c, abs=1e-6)
    else:
        far = [chip.after_c(start_c, ambient_c, power_w, k * chip.time_constant_s) for k in range(40)]
        assert all((t - target_c) * (start_c - target_c) > -1e-9 for t in far)


def test_chip_must_cool_before_it_resumes():
    with pytest.raises(ValueError, match="resume_c must be below throttle_c"):
        Thermal(1.0, 1.0, 80.0, 80.0, 0.5, 0.5)


def test_watts_at_the_wall_lead_to_the_chip():
    board = replace(
        cost.load_device("raspberry-pi-5"),
        idle_w=number(2.5),
        active_w=number(10.5),
        power=PowerProfile(
            states=MappingProxyType({"off": IdleState(number(0.5), number(20), number(60))}),
            meter="wall",
            supply_efficiency=number(0.8),
        ),
    )
    power = cost.power_of(board)
    assert (power.idle_w, power.power_w()) == (pytest.approx(2.0), pytest.approx(8.4))
    assert power.wall_w(power.power_w()) == pytest.approx(10.5)
    assert (power.modes["off"].w, power.modes["off"].wake_j) == (pytest.approx(0.4), pytest.approx(48))
    chip = cost.power_of(replace(board, power=replace(board.power, meter="chip")))
    assert chip.power_w() == pytest.approx(10.5)
    assert chip.wall_w(chip.power_w()) == pytest.approx(13.125)


def test_compute_and_memory_replace_the_active_power():
    board = replace(
        cost.load_device("raspberry-pi-5"),
        power=PowerProfile(compute_w=number(3), memory_w=number(5), meter="chip"),
    )
    power = cost.power_of(board)
    assert power.power_w(1.0, 0.2, 1.0) - power.idle_w == pytest.approx(0.6 + 5)
    assert power.work_j(7.0, 0.2, 1.0) == pytest.approx(7 * 5.6)


def test_silent_radio_sleeps_after_its_tail():
    lte = RadioPower(2.0, 1.6, 1.1, 0.02, tail_s=11.6)
    assert lte.silent_j(10.0) == pytest.approx(11.0)
    assert lte.silent_j(111.6) == pytest.approx(11.6 * 1.1 + 100 * 0.02)
    listening = RadioPower(1.0, 0.3, 0.29)
    assert listening.silent_j(1000.0) == pytest.approx(290)
    assert not listening.asleep(1e9)


def test_examples_of_the_page_are_right():
    page = Path(__file__).parents[2] / "docs" / "energy.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0
