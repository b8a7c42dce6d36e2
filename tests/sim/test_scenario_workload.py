import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import cost
from edgellm.sim.fleet import Fleet, FleetError, Link, Node
from edgellm.sim.scenario import ScenarioError, load_scenario
from edgellm.sim.workload import (
    Empirical,
    Fixed,
    Kind,
    LogNormal,
    Poisson,
    Prompt,
    Stream,
    Trace,
    TraceRow,
    Uniform,
    Workload,
    WorkloadError,
)

PI = cost.load_device("raspberry-pi-5")


def _fleet(n: int) -> Fleet:
    return Fleet(tuple(Node(f"home{i}/device", "home", "device", i, PI, key="device") for i in range(n)), ())


def _kind(name: str = "command", weight: float = 1.0, **more: Any) -> Kind:
    return Kind(name, weight, "m", Fixed(10), Fixed(5), **more)


def _stream(arrivals: Poisson | Trace, *kinds: Kind) -> Workload:
    return Workload((Stream("s", "home", "device", arrivals, kinds or (_kind(),)),))


def test_workload_same_seed_gives_the_same_requests() -> None:
    workload = _stream(Poisson(0.01), _kind("a"), _kind("b", 3.0))
    first, again, other = (
        workload.requests(_fleet(20), 3600.0, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert first == again != other


def test_workload_is_sorted_with_ids_in_order() -> None:
    requests = _stream(Poisson(0.01)).requests(_fleet(20), 3600.0, np.random.default_rng(1))
    assert [r.id for r in requests] == list(range(len(requests)))
    assert [r.arrival_s for r in requests] == sorted(r.arrival_s for r in requests)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1.0), st.integers(1, 50), st.floats(10.0, 1e5), st.floats(0.0, 23.9))
def test_workload_arrivals_stay_in_the_run(rate: float, nodes: int, duration_s: float, start: float) -> None:
    hours = tuple(float(h % 5) for h in range(24))
    rate = min(rate, 1e4 / (duration_s * nodes))
    times, where = Poisson(rate, hours, start).times(duration_s, nodes, np.random.default_rng(1))
    assert np.all((times >= 0) & (times < duration_s))
    assert np.all((where >= 0) & (where < nodes))


def test_workload_poisson_count_has_the_mean_and_variance_of_its_rate() -> None:
    rng = np.random.default_rng(5)
    counts = np.array([len(Poisson(0.02).times(1000.0, 5, rng)[0]) for _ in range(4000)])
    # mean 100, standard error 0.16; variance 100, standard error 2.2
    assert abs(counts.mean() - 100.0) <= 0.8
    assert abs(counts.var() - 100.0) <= 12.0


def test_workload_diurnal_follows_its_hours() -> None:
    hours = np.ones(24)
    hours[18] = 13.0  # mean 1.5
    profile = Poisson(0.1, tuple(hours / 1.5), start_hour=6.0)
    times, _ = profile.times(24 * 3600.0, 10, np.random.default_rng(3))
    assert abs(len(times) - 86400) <= 5 * math.sqrt(86400)
    clock = (6.0 + times / 3600.0) % 24.0
    share = np.mean((clock >= 18.0) & (clock < 19.0))
    assert abs(share - 13 / 36) <= 0.01


def test_workload_diurnal_of_zero_hours_is_silent_then() -> None:
    hours = tuple(2.0 if h % 2 else 0.0 for h in range(24))
    times, _ = Poisson(0.05, hours).times(48 * 3600.0, 3, np.random.default_rng(4))
    assert len(times) > 1000
    assert np.all(np.floor(times / 3600.0).astype(int) % 2 == 1)


@pytest.mark.parametrize(
    "lengths",
    [Fixed(3), Uniform(2, 9), LogNormal(20.0, 2.0, 3, 50), Empirical((1, 5)), Empirical((1, 5), (9.0, 1.0))],
)
def test_workload_lengths_stay_in_their_bounds(lengths: Any) -> None:
    drawn = lengths.sample(np.random.default_rng(1), 2000)
    assert drawn.dtype == np.int64
    bounds = {Fixed: (3, 3), Uniform: (2, 9), LogNormal: (3, 50), Empirical: (1, 5)}[type(lengths)]
    assert (drawn.min(), drawn.max()) == bounds


def test_workload_kinds_come_by_their_weights() -> None:
    requests = _stream(Poisson(0.05), _kind("a", 1.0), _kind("b", 3.0)).requests(
        _fleet(10), 36000.0, np.random.default_rng(1)
    )
    share = sum(r.kind == "b" for r in requests) / len(requests)
    assert abs(share - 0.75) <= 0.02


def test_workload_bytes_follow_tokens_and_the_prefix_is_not_sent() -> None:
    workload = _stream(Poisson(0.01), _kind(prefix_tokens=100, bytes_per_token=3.5))
    request = workload.requests(_fleet(5), 3600.0, np.random.default_rng(1))[0]
    assert (request.prompt_tokens, request.prompt_bytes) == (110, 35)
    assert (request.output_tokens, request.answer_bytes) == (5, 18)


def test_workload_real_prompts_carry_text_and_its_bytes() -> None:
    prompts = (Prompt("关灯", 2), Prompt("switch off the light", 4, output_tokens=9))
    requests = _stream(Poisson(0.05), _kind(prompts=prompts)).requests(
        _fleet(5), 3600.0, np.random.default_rng(1)
    )
    seen = {r.text: (r.prompt_tokens, r.prompt_bytes, r.output_tokens) for r in requests}
    assert seen == {"关灯": (2, 6, 5), "switch off the light": (4, 20, 9)}


def test_workload_trace_overrides_what_it_names() -> None:
    trace = Trace(
        (
            TraceRow(5.0, node="home3/device", kind="b", prompt_tokens=7, output_tokens=8, deadline_s=9.0),
            TraceRow(1.0),
            TraceRow(100.0),  # at the end of the run: left out
        )
    )
    workload = _stream(trace, _kind("a"), _kind("b", 1e-9))
    requests = workload.requests(_fleet(5), 100.0, np.random.default_rng(1))
    assert [r.arrival_s for r in requests] == [1.0, 5.0]
    last = requests[1]
    assert (last.node, last.kind, last.prompt_tokens, last.output_tokens) == ("home3/device", "b", 7, 8)
    assert (last.deadline_s, last.prompt_bytes, last.answer_bytes) == (9.0, 28, 32)


def test_workload_at_no_node_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="no node home/device"):
        _stream(Poisson(1.0)).requests(Fleet((), ()), 1.0, np.random.default_rng(1))


def _scenario(tmp_path: Any, stream: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "x",
        "duration": "1 h",
        "models": {"m": {"profile": "smollm2-135m", "quant": "q4_0"}},
        "fleet": {"home": {"device": {"device": "raspberry-pi-5", "models": ["m"]}}},
        "workload": {"s": {"at": "home/device", **stream}},
    }


KINDS = {"a": {"model": "m", "prompt_tokens": 5, "output_tokens": 5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time\n1\n", "the first line must name the columns"),
        ("arrival_s,colour\n1,red\n", "column 'colour'"),
        ("arrival_s,node\n1\n", "line 2: 2 columns expected"),
        ("arrival_s,node\n1,home/device,3\n", "line 2: 2 columns expected"),
        ("arrival_s\n-1\n", "line 2: arrival_s: must be a number"),
        ("arrival_s\nnan\n", "line 2: arrival_s: must be a number"),
        ("arrival_s\n", "no arrivals"),
        ("arrival_s,prompt_tokens\n1,0\n", "prompt_tokens: must be a whole number"),
        ("arrival_s,prompt_tokens\n1,2.5\n", "prompt_tokens: must be a whole number"),
        ("arrival_s,node\n1,home7/device\n", "node 'home7/device', which is not in the fleet"),
        ("arrival_s,kind\n1,b\n", "kind 'b'"),
    ],
)
def test_scenario_trace_with_a_fault_names_the_line(tmp_path: Any, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    data = _scenario(tmp_path, {"arrivals": {"process": "trace", "path": "t.csv"}, "kinds": KINDS})
    with pytest.raises(ScenarioError, match=message):
        load_scenario(data, base=tmp_path)


def test_scenario_trace_of_a_file_is_replayed(tmp_path: Any) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,kind,output_tokens\n12.5,a,3\n1,,\n")
    data = _scenario(tmp_path, {"arrivals": {"process": "trace", "path": "t.csv"}, "kinds": KINDS})
    scenario = load_scenario(data, base=tmp_path)
    requests = scenario.workload.requests(scenario.fleet, 3600.0, np.random.default_rng(1))
    assert [(r.arrival_s, r.output_tokens) for r in requests] == [(1.0, 5), (12.5, 3)]


def test_scenario_prompts_of_a_file_are_counted(tmp_path: Any) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "twelve bytes", "kind": "a"}\n\n{"prompt": "other", "kind": "b"}\n'
        '{"prompt": "known", "prompt_tokens": 77, "output_tokens": 2}\n'
    )
    kinds = {"a": {"model": "m", "prompts": "p.jsonl", "output_tokens": 5}}
    stream = {"arrivals": {"process": "poisson", "rate": "1 /min"}, "kinds": kinds}
    data = _scenario(tmp_path, stream)
    (kind,) = load_scenario(data, base=tmp_path).workload.streams[0].kinds
    assert kind.prompts == (Prompt("twelve bytes", 3), Prompt("known", 77, 2))
    (kind,) = load_scenario(data, base=tmp_path, count_tokens=len).workload.streams[0].kinds
    assert kind.prompts[0].tokens == 12


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", "{", "line 1: not JSON"),
        ("p.jsonl", "[1]", "must be an object"),
        ("p.jsonl", '{"prompt": "x", "tokens": 3}', "tokens: unknown key"),
        ("p.jsonl", '{"prompt": "x", "prompt_tokens": true}', "prompt_tokens: must be a whole number"),
        ("p.jsonl", '{"prompt": "x", "kind": "b"}', "no prompt for kind 'a'"),
        ("p.txt", "\n\n", "no prompt for kind 'a'"),
    ],
)
def test_scenario_prompts_with_a_fault_name_the_line(
    tmp_path: Any, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    kinds = {"a": {"model": "m", "prompts": name, "output_tokens": 5}}
    stream = {"arrivals": {"process": "poisson", "rate": "1 /min"}, "kinds": kinds}
    with pytest.raises(ScenarioError, match=message):
        load_scenario(_scenario(tmp_path, stream), base=tmp_path)


def test_scenario_mix_of_devices_keeps_its_shares() -> None:
    data = _scenario(None, {"arrivals": {"process": "poisson", "rate": "1 /min"}, "kinds": KINDS})
    data["fleet"]["home"]["count"] = 1000
    data["fleet"]["home"]["device"]["device"] = {"raspberry-pi-5": 3, "raspberry-pi-4b": 1}
    nodes = load_scenario(data).fleet.nodes
    for part in (nodes, nodes[:100], nodes[500:600]):
        share = sum(n.device.name == "raspberry-pi-5" for n in part) / len(part)
        assert abs(share - 0.75) <= 0.02


def test_fleet_with_a_fault_says_which() -> None:
    wifi = cost.load_link("wifi-5")
    a, b = (Node(n, "s", "device", i, PI) for i, n in enumerate("ab"))
    with pytest.raises(FleetError, match="node 'a' is there twice"):
        Fleet((a, a), ())
    with pytest.raises(FleetError, match="names node 'c', which is not in the fleet"):
        Fleet((a, b), (Link("l", wifi, "a", "c"),))
    with pytest.raises(FleetError, match="has parent None but its uplink goes to 'b'"):
        Fleet((a, b), (Link("l", wifi, "a", "b"),))
    with pytest.raises(FleetError, match="different trees"):
        Fleet((a, b), ()).route("a", "b")
    with pytest.raises(FleetError, match="no node 'z'"):
        Fleet((a, b), ()).node("z")
    with pytest.raises(FleetError, match="could be 'a' or 'b'"):
        Fleet((a, b, Node("c", "t", "gateway", 2, PI)), ()).resolve("c", "device")
