"""The Pareto search: small spaces whole, large ones with NSGA-II, the same points from the same seed."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import cli, sim
from edgellm.sim import metrics
from edgellm.sim.pareto import read_space, set_key

SCENARIO = Path(__file__).parents[2] / "scenarios" / "first_steps.toml"
SPACE = {
    "strategy": ["local", "cloud", "cascade(threshold={threshold})"],
    "threshold": [0.2, 0.8],
    "fleet.home.device.device": ["raspberry-pi-4b", "raspberry-pi-5"],
}
OBJECTIVES = ("e2e_p95_s", "energy_per_request_j", "left_home_bytes_per_request")


def search(space=SPACE, objectives=OBJECTIVES, **options):
    settings = {"seeds": [1], "quality": "off", "progress": False}
    return sim.search(SCENARIO, space, objectives, **(settings | options))


@pytest.fixture(scope="module")
def found():
    return search()


def test_a_small_space_is_tried_whole_and_each_point_once(found):
    points = {(p["strategy"], p["fleet.home.device.device"]) for p in found.points}
    strategies = ("local", "cloud", "cascade(threshold=0.2)", "cascade(threshold=0.8)")
    assert points == set(itertools.product(strategies, SPACE["fleet.home.device.device"]))
    assert len(found.points) == 8
    assert {p["threshold"] for p in found.points if p["strategy"] == "local"} == {None}


def test_the_figures_are_those_of_a_study(found):
    [row] = sim.evaluate(SCENARIO, ["cloud"], [1], quality="off", progress=False).rows()
    device = "raspberry-pi-4b"
    scenario = SCENARIO.read_text()
    same = [p for p in found.points if p["strategy"] == "cloud"]
    assert any(p["e2e_p95_s"] == row["e2e_p95_s"] for p in same), (device, scenario)


def test_nothing_beats_the_front_and_everything_else_is_beaten(found):
    front = found.front()

    def values(point):
        return [point[name] for name in OBJECTIVES]

    for point in found.points:
        better = [
            p for p in found.points if all(a <= b for a, b in zip(values(p), values(point), strict=True))
        ]
        beaten = any(values(p) != values(point) for p in better)
        assert beaten != (point in front)
    assert list(found.table()["on_front"]) == [point in front for point in found.points]
    assert found.plot().to_svg().startswith("<svg")
    assert found.plot(y="left_home_bytes_per_request").to_svg()


def test_a_large_space_is_searched_and_resumed_from_its_seed(tmp_path, monkeypatch):
    space = SPACE | {"threshold": (0.1, 0.9)}
    first = search(space, trials=10, seed=3, store=tmp_path)
    assert 0 < len(first.points) <= 10 + 16
    assert all(0.1 <= p["threshold"] <= 0.9 for p in first.points if p["threshold"] is not None)
    runs = len(list(tmp_path.glob("*.parquet")))
    again = search(space, trials=10, seed=3, store=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == runs
    assert repr(again.points) == repr(first.points)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.inf, math.nan]), min_size=3, max_size=3)))
@settings(max_examples=200, deadline=None)
def test_beaten_is_what_it_says(rows):
    values = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    for i, (row, told) in enumerate(zip(rows, metrics.beaten(values), strict=True)):
        others = [r for j, r in enumerate(rows) if j != i]
        expected = any(math.isnan(v) for v in row) or any(
            all(a <= b for a, b in zip(r, row, strict=True)) and r != row for r in others
        )
        assert told == expected


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "no 'strategy'"),
        ({"strategy": []}, "strategy: expected a list"),
        ({"strategy": ["cascade(threshold={t})"]}, "{t}"),
        ({"strategy": ["local"], "t": [1]}, "'t' is used by no strategy"),
        ({"strategy": ["a{b}"], "b": (3, 1)}, "no range from 3 to 1"),
        ({"strategy": ["a{b}"], "b": {"low": 0, "high": 1, "log": True}}, "with log"),
        ({"strategy": ["a{b}"], "b": {"low": 0}}, "a range has low"),
        ({"strategy": ["a{b}"], "b": (0, math.nan)}, "no range"),
        ({"strategy": ["{"]}, "strategy '{'"),
    ],
)
def test_a_wrong_space_is_named(space, words):
    with pytest.raises(sim.StudyError) as caught:
        read_space(space)
    assert words in str(caught.value)


def test_wrong_objectives_keys_and_choices_are_named():
    for objectives in (["e2e_p95_s"], ["e2e_p95_s", "e2e_p95_s"], ["e2e_p95_s", "requests"]):
        with pytest.raises(sim.StudyError, match="search: "):
            search(objectives=objectives)
    with pytest.raises(sim.StudyError, match=r"nothing at 'nowhere.x'"):
        search(SPACE | {"nowhere.x": [1]})
    with pytest.raises(sim.ScenarioError, match="raspbery"):
        search(SPACE | {"fleet.home.device.device": ["raspbery-pi-4b"]})
    with pytest.raises(sim.StudyError, match="nothing"):
        search({"strategy": ["nothing"]})
    with pytest.raises(sim.StudyError, match="is no table"):
        set_key({"a": 1}, "a.b", 2)


def test_the_command_writes_table_and_figure(tmp_path, capsys):
    file = tmp_path / "space.toml"
    file.write_text(
        'objectives = ["e2e_p95_s", "energy_per_request_j"]\n[space]\nstrategy = ["local", "cloud"]\n'
    )
    out, figure = tmp_path / "front.csv", tmp_path / "front.svg"
    command = ["simulate", str(SCENARIO), "--search", str(file), "--quality", "off", "--seeds", "1"]
    assert cli.main([*command, "--out", str(out), "--report", str(figure)]) == 0
    assert "2 points tried" in capsys.readouterr().out
    assert out.read_text().startswith("on_front,strategy")
    assert "<svg" in figure.read_text()
    assert cli.main([*command, "--out", str(tmp_path / "x.txt")]) == 2
    file.write_text("spce = 1\n")
    assert cli.main(command) == 1
    assert "unknown key 'spce'" in capsys.readouterr().err
