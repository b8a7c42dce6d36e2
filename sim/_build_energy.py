"""Reads how a node of a scenario is powered and cooled: battery, idle mode, surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from edgellm.cost import BatteryProfile, Constant, DeviceProfile, IdleState, PowerProfile
from edgellm.cost.schema import BATTERY_FIELDS
from edgellm.cost.units import near_matches

from ._schema import Table
from .fleet import SCENARIO, USUAL, Upkeep
from .units import UnitError, parse_quantity

#: Surroundings of a computer, in degrees Celsius; anything else is a slip of the pen.
COLDEST_C, HOTTEST_C = -90.0, 150.0
#: Keys of a `battery` table that replace constants of the profile's `[battery]`.
_BATTERY_KEYS: Mapping[str, str] = {
    "charge_efficiency": "charge_efficiency",
    "discharge_efficiency": "discharge_efficiency",
    "self_discharge": "self_discharge_per_s",
    "peukert": "peukert",
    "rated": "rated_w",
    "temperature_derating": "temperature_per_k",
    "rated_temperature": "rated_c",
    "cutoff": "cutoff",
}
_BATTERY, _SLEEP = "fleet.*.*.battery", "fleet.*.*.sleep"
_NO_STATE = IdleState(Constant(0.0, "w", SCENARIO))


def temperature_c(table: Table, name: str, default: float) -> float:
    """Return a temperature in degrees Celsius."""
    if name not in table:
        return default
    try:
        value = parse_quantity(table.data[name], "c")
    except UnitError as err:
        raise table.fail(name, str(err)) from None
    if not COLDEST_C <= value <= HOTTEST_C:
        raise table.fail(name, f"must be from {COLDEST_C:g} C to {HOTTEST_C:g} C, got {table.data[name]!r}")
    return value


def powered(table: Table, profile: DeviceProfile) -> DeviceProfile:
    """Return a profile with what its node says of battery and sleep in place of its own."""
    if "battery" in table:
        profile = _with_battery(table, profile)
    return _with_sleep(table.table("sleep", _SLEEP), profile) if "sleep" in table else profile


def _with_battery(table: Table, profile: DeviceProfile) -> DeviceProfile:
    raw = table.data["battery"]
    if not isinstance(raw, dict):
        capacity_j = table.quantity("battery", "j")
        return replace(profile, battery_j=Constant(capacity_j, "j", f"{SCENARIO}{table.key('battery')}"))
    part = table.table("battery", _BATTERY)
    battery = profile.battery or BatteryProfile()
    for key, name in _BATTERY_KEYS.items():
        if key in part:
            battery = replace(battery, **{name: _constant(part, key, name)})
    if "capacity" in part:
        capacity = Constant(part.quantity("capacity", "j"), "j", f"{SCENARIO}{part.key('capacity')}")
        profile = replace(profile, battery_j=capacity)
    if profile.battery_j is None:
        raise part.fail("capacity", f"missing; {profile.name} has no battery of its own")
    return replace(profile, battery=battery)


def _constant(part: Table, key: str, name: str) -> Constant:
    rule = BATTERY_FIELDS[name]
    if rule.dimension == "c":
        value = temperature_c(part, key, 25.0)
    else:
        value = part.quantity(key, rule.dimension, zero=not rule.strict)
    if not max(rule.minimum, rule.least) <= value <= rule.maximum:
        low, high = max(rule.minimum, rule.least), rule.maximum
        raise part.fail(key, f"must be from {low:g} to {high:g}, got {part.data[key]!r}")
    return Constant(value, rule.dimension, f"{SCENARIO}{part.key(key)}")


def _with_sleep(part: Table, profile: DeviceProfile) -> DeviceProfile:
    mode = part.text("mode", "sleep")
    power = profile.power or PowerProfile()
    state = power.states.get(mode)
    if mode == "idle":
        raise part.fail("mode", "idle is not asleep")
    if "power" in part:
        state = replace(state or _NO_STATE, w=_given(part, "power", "w"))
    elif state is None:
        hint = near_matches(mode, tuple(power.states))
        raise part.fail("power", f"missing; {profile.name} has no idle mode {mode!r} in its profile{hint}")
    if "wake_time" in part:
        state = replace(state, wake_s=_given(part, "wake_time", "s"))
    if "wake_energy" in part:
        state = replace(state, wake_j=_given(part, "wake_energy", "j"))
    states = MappingProxyType({**power.states, mode: state})
    return replace(profile, power=replace(power, states=states))


def _given(part: Table, key: str, dimension: str) -> Constant:
    return Constant(part.quantity(key, dimension, zero=True), dimension, f"{SCENARIO}{part.key(key)}")


def read_upkeep(table: Table, site: Table, at_wall: bool) -> Upkeep:
    """Return how a node is powered and cooled."""
    charge, sleep_after_s, mode = USUAL.charge, USUAL.sleep_after_s, USUAL.sleep_mode
    if isinstance(table.data.get("battery"), dict):
        part = table.table("battery", _BATTERY)
        charge = part.quantity("charge", "ratio", 1.0, zero=True)
        if charge > 1.0:
            raise part.fail("charge", f"must be at most 1, got {charge:g}")
    if "sleep" in table:
        part = table.table("sleep", _SLEEP)
        sleep_after_s, mode = part.quantity("after", "s", zero=True), part.text("mode", mode)
    ambient_c = temperature_c(table, "ambient", temperature_c(site, "ambient", USUAL.ambient_c))
    return Upkeep(ambient_c, charge, sleep_after_s, mode, at_wall)
