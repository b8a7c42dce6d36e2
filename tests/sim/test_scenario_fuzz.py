"""Whatever stands in a scenario or a profile: it loads, or it is an error of ours that names a key."""

import copy
import datetime
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm import cost
from edgellm.cost.units import DIMENSIONS
from edgellm.sim.scenario import ScenarioError, load_scenario

ROOT = Path(__file__).parents[2]
FIRST = tomllib.loads((ROOT / "scenarios" / "first_steps.toml").read_text())
PROFILES = Path(cost.__file__).parent / "profiles"
SHIPPED = {
    "device": tomllib.loads((PROFILES / "devices/raspberry-pi-5.toml").read_text()),
    "link": tomllib.loads((PROFILES / "links/lora-sf7.toml").read_text()),
    "model": tomllib.loads((PROFILES / "models/llama-3-8b.toml").read_text()),
}

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["1e308 s", "-1 /h", "1e12 /s", "1e9 h", "0 s", "home/device", "raspberry-pi-5", "../x"]),
    st.just(datetime.datetime(2026, 1, 1)),
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [path, *(p for key, inner in value.items() for p in _paths(inner, (*path, key)))]


def _mutated(data: dict[str, Any], draw: st.DataObject) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    for _ in range(draw.draw(st.integers(1, 2))):
        path = draw.draw(st.sampled_from([p for p in _paths(changed) if p]))
        at = changed
        for key in path[:-1]:
            at = at[key]
        how = draw.draw(st.sampled_from(["replace", "delete", "add"]))
        if how == "delete":
            del at[path[-1]]
        elif how == "replace":
            at[path[-1]] = draw.draw(VALUES)
        else:
            at[draw.draw(st.text(max_size=8))] = draw.draw(VALUES)
    return changed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_scenario_mutated_loads_or_says_why(draw: st.DataObject) -> None:
    try:
        scenario = load_scenario(_mutated(FIRST, draw), base=ROOT / "scenarios")
    except ScenarioError as error:
        said = str(error)
        if not said.partition(":")[0]:
            pytest.fail(f"names no key: {said!r}")
    else:
        assert math.isfinite(scenario.duration_s)
        assert sum(scenario.workload.expected(scenario.fleet, scenario.duration_s).values()) <= 4e7


@pytest.mark.parametrize("kind", sorted(SHIPPED))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_profile_mutated_loads_or_says_why(kind: str, draw: st.DataObject) -> None:
    build = {
        "device": cost.device_from_mapping,
        "link": cost.link_from_mapping,
        "model": cost.model_from_mapping,
    }[kind]
    try:
        profile = build(_mutated(SHIPPED[kind], draw), "mine.toml")
    except cost.ProfileError as error:
        if not str(error).startswith("mine.toml: "):
            pytest.fail(f"names no file: {error}")
    else:
        if isinstance(profile, cost.DeviceProfile):
            time_s = cost.decode_time_s(cost.load_model("smollm2-135m"), "q4_0", profile, 8, 8)
            assert math.isfinite(time_s)
        elif isinstance(profile, cost.LinkProfile):
            assert math.isfinite(profile.transfer_time_s(1e6))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(DIMENSIONS)), SCALARS)
def test_quantity_of_anything_is_finite_or_an_error(dimension: str, value: Any) -> None:
    try:
        number = cost.parse_quantity(value, dimension, bare=True)
    except cost.UnitError:
        return
    assert math.isfinite(number)


@given(st.floats(-1e9, 1e9, allow_nan=False), st.data())
def test_quantity_with_each_unit_is_its_factor(number: float, draw: st.DataObject) -> None:
    dimension = draw.draw(st.sampled_from(sorted(DIMENSIONS)))
    unit, factor = draw.draw(st.sampled_from(sorted(DIMENSIONS[dimension].items())))
    assert cost.parse_quantity(f"{number!r} {unit}", dimension) == number * factor
    assert cost.parse_quantity(f"{number!r}{unit}", dimension) == number * factor
