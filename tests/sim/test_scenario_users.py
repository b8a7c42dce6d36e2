"""What a scenario says of users and of the beginning: each mistake names its key."""

import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from edgellm.sim.scenario import Scenario, ScenarioError, load_scenario
from edgellm.sim.workload import Conversation, Exponential, Fixed, FixedTime, LogNormalTime

FIRST = tomllib.loads((Path(__file__).parents[2] / "scenarios" / "first_steps.toml").read_text())
(STREAM,) = FIRST["workload"]
AT = FIRST["workload"][STREAM]["at"]


def _with(users: dict[str, Any], **top: Any) -> Scenario:
    data = deepcopy(FIRST) | top
    data["workload"][STREAM] |= users
    return load_scenario(data)


def test_without_a_word_on_users_every_request_is_alone() -> None:
    assert _with({}).workload.streams[0].conversation is None


def test_users_are_what_the_scenario_says() -> None:
    scenario = _with(
        {"turns": 3, "think_time": "5 s", "patience": {"dist": "exponential", "mean": "1 min"}, "retries": 2}
    )
    assert scenario.workload.streams[0].conversation == Conversation(
        Fixed(3), FixedTime(5.0), scenario.context, Exponential(60.0), "answer", 2, 1.0
    )
    lognormal = {"dist": "lognormal", "median": "8 s", "sigma": 0.5}
    found = _with({"turns": 2, "think_time": lognormal, "context_tokens": 0}).workload.streams[0].conversation
    assert found == Conversation(Fixed(2), LogNormalTime(8.0, 0.5), 0)


@pytest.mark.parametrize(
    ("users", "text"),
    [
        ({"turns": 0}, "turns: must be a whole number from 1"),
        ({"turns": 10**6}, "turns: must be a whole number from 1 to 10000"),
        ({"turns": {"dist": "uniform", "low": 1, "high": 10**6}}, "turns.high: must be"),
        ({"think_time": "5 s"}, "think_time: has no meaning without turns"),
        ({"backoff": "5 s"}, "backoff: has no meaning without retries"),
        ({"patience_until": "answer"}, "patience_until: has no meaning without patience"),
        ({"patience": "0 s"}, "patience: must be positive"),
        ({"patience": 5}, "patience: .*unit"),
        ({"patience": {"dist": "gamma"}}, "patience.dist: unknown value 'gamma'"),
        ({"patience": {"dist": "exponential", "median": "1 s"}}, "patience.median: not a parameter"),
        ({"patience": {"dist": "exponential"}}, "patience.mean: missing"),
        ({"retries": -1}, "retries: must be a whole number from 0"),
        ({"retries": 101}, "retries: must be"),
        ({"turns": 2, "context_tokens": -5}, "context_tokens: must be"),
    ],
)
def test_mistakes_about_users_name_their_key(users: dict[str, Any], text: str) -> None:
    with pytest.raises(ScenarioError, match=f"workload.{STREAM}.{text}"):
        _with(users)


def test_too_many_requests_are_refused_with_their_turns() -> None:
    with pytest.raises(ScenarioError, match="requests are expected"):
        _with({"turns": 10_000, "arrivals": {"process": "poisson", "rate": "10 /s"}})


@pytest.mark.parametrize(
    ("initial", "text"),
    [
        ({"home/nowhere": {}}, "initial.*no node 'home/nowhere'"),
        ({AT: {"resident": ["gpt-9"]}}, "resident: unknown model 'gpt-9'"),
        ({AT: {"charge": 1.5}}, "charge: must be at most 1"),
        ({AT: {"charge": 0.5}}, "charge: .* has no battery"),
        ({AT: {"backlog": -1}}, "backlog: must be a whole number from 0"),
        ({"cloud/server": {"backlog": 1}}, "backlog: no stream of requests arrives"),
        ({AT: {"warm": True}}, "warm: unknown key"),
        ([], "initial: must be a table"),
    ],
)
def test_mistakes_about_the_beginning_name_their_key(initial: Any, text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        _with({}, initial=initial)


def test_the_beginning_is_what_the_scenario_says() -> None:
    found = _with({}, initial={AT: {"resident": [], "backlog": 2}})
    assert found.initial[AT].resident == ()
    assert found.workload.streams[0].backlog == 2
    assert found.digest != _with({}).digest
