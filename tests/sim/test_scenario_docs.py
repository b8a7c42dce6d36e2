"""docs/scenario.md and the table of keys say the same."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.sim._schema import KEYS
from edgellm.sim.scenario import load_scenario

DOC = (Path(__file__).parents[2] / "docs" / "scenario.md").read_text("utf-8")
LENGTHS = ("prompt_tokens", "output_tokens")
TIMES = ("think_time", "patience")


def _example() -> dict[str, Any]:
    (block,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    return tomllib.loads(block)


def _accepted() -> set[str]:
    return {f"{table}.{key}" if table else key for table, keys in KEYS.items() for key in keys}


def _documented() -> set[str]:
    return set(re.findall(r"^\| `([a-z0-9_.*]+)` \|", DOC, re.MULTILINE))


def test_scenario_keys_documented_are_those_accepted() -> None:
    assert _documented() == _accepted()


def _used(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield each key of a scenario by its pattern."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        pattern = ".".join((*path, key))
        yield pattern
        if path == () and key in ("models", "fleet", "initial", "workload"):
            for below in inner.values():
                yield from _used(below, (key, "*"))
        elif path == ("fleet", "*") and isinstance(inner, dict):
            yield from _used(inner, ("fleet", "*", "*"))
        elif key == "kinds":
            for below in inner.values():
                yield from _used(below, (*path, "kinds", "*"))
        elif key in LENGTHS:
            yield from _used(inner, (*path, "lengths"))
        elif key == "turns":
            yield from _used(inner, (*path, "kinds", "*", "lengths"))
        elif key in TIMES:
            yield from _used(inner, (*path, "times"))
        elif key not in ("device", "data"):  # whose keys are names of profiles
            yield from _used(inner, (*path, key))


def test_scenario_example_uses_every_key_and_loads(tmp_path: Path) -> None:
    data = _example()
    nodes = {"fleet.*.speaker", "fleet.*.hub", "fleet.*.server"}
    assert set(_used(data)) - nodes == _accepted()
    (tmp_path / "arrivals.csv").write_text("arrival_s\n60\n")
    (tmp_path / "questions.txt").write_text("Is the door closed?\n")
    scenario = load_scenario(data, base=tmp_path)
    requests = scenario.workload.requests(scenario.fleet, scenario.duration_s, np.random.default_rng(1))
    assert {r.kind for r in requests} == {"command", "alarm", "question"}
