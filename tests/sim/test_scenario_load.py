import copy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import cost
from edgellm.sim.scenario import Scenario, ScenarioError, load_scenario
from edgellm.sim.work import Compute, Decode, Load, Prefill, Step, Train, Verify

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FIRST = SCENARIOS / "first_steps.toml"


@pytest.fixture
def data() -> dict[str, Any]:
    return tomllib.loads(FIRST.read_text())


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda p: p.stem)
def test_scenario_shipped_loads_and_has_requests(path: Path) -> None:
    scenario = load_scenario(path)
    requests = scenario.workload.requests(scenario.fleet, scenario.duration_s, np.random.default_rng(1))
    assert requests
    assert all(0 <= r.arrival_s < scenario.duration_s for r in requests)


def _edit(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    *path, last = key.split("/")
    at = changed
    for part in path:
        at = at[part]
    at[last] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("durration", "1 h", r"durration: unknown key; did you mean 'duration'\?"),
        ("schema", 2, "schema: this version reads schema 1, got 2"),
        ("duration", 3600, "duration: 3600 has no unit"),
        ("duration", "-1 h", "duration: must be positive"),
        ("duration", "nan s", "duration: 'nan s' is not a quantity"),
        ("duration", "1e999 s", "duration: .* not a finite number"),
        ("fleet/home/count", 0, "fleet.home.count: must be a whole number from 1"),
        ("fleet/home/count", True, "fleet.home.count: must be a whole number"),
        ("fleet/home/color", "red", "fleet.home.color: unknown key"),
        (
            "fleet/home/device/device",
            "raspberry-pi-6",
            r"fleet.home.device.device: unknown device 'raspberry-pi-6'",
        ),
        ("fleet/home/device/devise", "x", r"fleet.home.device.devise: unknown key; did you mean 'device'"),
        (
            "fleet/home/device/models",
            ["smollm"],
            r"fleet.home.device.models: unknown model 'smollm'; known: smollm2",
        ),
        ("fleet/home/device/battery", "-5 kJ", "fleet.home.device.battery: must be positive"),
        ("fleet/home/device/uplink/to", "hub", "fleet.home.device.uplink.to: no node 'hub'"),
        ("fleet/home/device/uplink/link", "wifi", "fleet.home.device.uplink.link: unknown link 'wifi'"),
        ("fleet/home/gateway/uplink/to", "device", "fleet.home.device.uplink: uplinks form a cycle"),
        ("fleet", {}, "fleet: missing"),
        ("workload", {}, "workload: missing"),
        ("workload/residents/at", "home/lamp", "workload.residents.at: no node 'home/lamp'"),
        ("workload/residents/arrivals/rate", "-1 /h", "workload.residents.arrivals.rate: must be positive"),
        ("workload/residents/arrivals/hours", [1] * 24, "workload.residents.arrivals.hours: not a parameter"),
        ("workload/residents/arrivals/process", "poison", "did you mean 'poisson'"),
        ("workload/residents/kinds/command/weight", -1, "kinds.command.weight: must be positive"),
        ("workload/residents/kinds/command/data_class", "secret", "data_class: unknown value 'secret'"),
        ("workload/residents/kinds/command/prompt_tokens", 0, "prompt_tokens: must be a whole number from 1"),
        (
            "workload/residents/kinds/command/prompt_tokens/dist",
            "normal",
            "prompt_tokens.dist: unknown value",
        ),
        ("workload/residents/kinds/command/prompt_tokens/mean", 3, "prompt_tokens.mean: unknown key"),
        (
            "workload/residents/kinds/command/prompt_tokens/high",
            1,
            "prompt_tokens.high: must be a whole number",
        ),
        ("workload/residents/kinds/command/model", "gpt", "model: unknown model 'gpt'"),
        ("models/smollm2-135m:q4_0/quant", "q4", 'models."smollm2-135m:q4_0".quant: unknown value'),
        ("models/smollm2-135m:q4_0/profile", "smolm", 'models."smollm2-135m:q4_0".profile: unknown model'),
        ("session/context", "long", "session.context: must be a whole number"),
        ("session/kv", "q4", "session.kv: unknown value"),
        ("slo/target", 1.5, "slo.target: must be at most 1"),
        ("slo/ttft", "2", "slo.ttft: '2' has no unit"),
        ("study/seeds", [1, 1], "study.seeds: must be different"),
        ("study/strategies", "local", "study.strategies: must be a list of str"),
        ("study/models", ["x"], "study.models: unknown model"),
        ("prices", {"data": {"wifi": "1 USD/GB"}}, "prices.data.wifi: unknown link"),
        ("quality", {"text": "no/such/file.txt"}, "quality.text: no file"),
    ],
)
def test_scenario_with_a_fault_names_the_key(
    data: dict[str, Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        load_scenario(_edit(data, key, value))


def test_scenario_error_from_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("schema = 1\nname = 'x'\nduration = '5 W'\n")
    with pytest.raises(ScenarioError, match=r"mine\.toml:3: duration: '5 W' has unit 'W'"):
        load_scenario(path)
    path.write_text("schema = \n")
    with pytest.raises(ScenarioError, match=r"mine\.toml:1: not valid TOML"):
        load_scenario(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "absent.toml")


def test_scenario_digest_follows_content_not_place(data: dict[str, Any], tmp_path: Path) -> None:
    copied = tmp_path / "copy.toml"
    copied.write_bytes(FIRST.read_bytes())
    assert load_scenario(copied).digest == load_scenario(FIRST).digest == load_scenario(data).digest
    assert load_scenario(_edit(data, "slo/ttft", "3 s")).digest != load_scenario(data).digest


def test_scenario_digest_follows_the_profiles(data: dict[str, Any], tmp_path: Path) -> None:
    import edgellm.cost

    shipped = Path(edgellm.cost.__file__).parent / "profiles/devices/raspberry-pi-5.toml"
    mine = tmp_path / "mine.toml"
    edited = _edit(data, "fleet/home/device/device", "./mine.toml")
    mine.write_text(shipped.read_text())
    before = load_scenario(edited, base=tmp_path)
    mine.write_text(shipped.read_text().replace('idle_w = { value = "2.5 W"', 'idle_w = { value = "2.6 W"'))
    after = load_scenario(edited, base=tmp_path)
    assert before.digest != after.digest


def test_scenario_with_a_negative_bandwidth_names_file_and_key(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        """
        schema = 1
        kind = "link"
        name = "bad"
        title = "a link that cannot be"
        sharing = "split"
        up_bit_per_s = { value = "-3 Mbit/s", source = "me" }
        """
    )
    edited = _edit(data, "fleet/home/device/uplink/link", "bad.toml")
    with pytest.raises(
        ScenarioError, match=r"uplink\.link: .*bad\.toml:7: up_bit_per_s\.value: must be positive"
    ):
        load_scenario(edited, base=tmp_path)


def test_scenario_with_model_changes_every_request(data: dict[str, Any]) -> None:
    scenario = load_scenario(data)
    other = scenario.with_model("smollm2-135m:q8_0")
    assert other.digest != scenario.digest
    before, after = (
        s.workload.requests(s.fleet, s.duration_s, np.random.default_rng(3)) for s in (scenario, other)
    )
    assert {r.model for r in after} == {"smollm2-135m:q8_0"}
    assert [r.arrival_s for r in before] == [r.arrival_s for r in after]
    with pytest.raises(ScenarioError, match="unknown model"):
        scenario.with_model("nothing")


def test_scenario_battery_of_a_node_replaces_the_profile_s(data: dict[str, Any]) -> None:
    scenario = load_scenario(_edit(data, "fleet/home/device/battery", "15 kJ"))
    battery = scenario.fleet.node("home0/device").device.battery_j
    assert battery is not None
    assert battery.value == 15_000.0
    assert scenario.fleet.node("home0/gateway").device.battery_j is None


def test_scenario_nodes_and_routes(data: dict[str, Any]) -> None:
    scenario: Scenario = load_scenario(_edit(data, "fleet/home/device/count", 2))
    fleet = scenario.fleet
    assert len(fleet.nodes) == 10 * 3 + 1
    hops = fleet.route("home4/device-1", "cloud/server")
    assert [(h.link.lower, h.up) for h in hops] == [("home4/device-1", True), ("home4/gateway", True)]
    back = fleet.route("cloud/server", "home4/device-1")
    assert [(h.link.lower, h.up) for h in back] == [("home4/gateway", False), ("home4/device-1", False)]
    across = fleet.route("home4/device-0", "home5/device-0")
    assert [h.up for h in across] == [True, True, False, False]
    assert fleet.route("cloud/server", "cloud/server") == ()
    assert hops[0].link.group == "home4/wifi"
    assert fleet.resolve("home4/device-1", "cloud").name == "cloud/server"
    assert fleet.resolve("home4/device-1", "gateway").name == "home4/gateway"
    assert fleet.resolve("home4/device-1", "home9/gateway").name == "home9/gateway"


def test_scenario_work_takes_the_time_of_the_roofline(data: dict[str, Any]) -> None:
    scenario = load_scenario(data)
    node = scenario.fleet.node("home0/gateway")
    name = "smollm2-135m:q8_0"
    model, device = scenario.variant(name).profile, node.device
    took = scenario.work_time_s
    assert took(node, Prefill(name, 40, 8)) == cost.prefill_time_s(model, "q8_0", device, 40, 8)
    assert took(node, Decode(name, 9, 40)) == cost.decode_time_s(model, "q8_0", device, 9, 40)
    assert took(node, Step(name, (1, 5), (7, 0))) == cost.step_time_s(model, "q8_0", device, [1, 5], [7, 0])
    assert took(node, Verify(name, 5, 40)) > took(node, Prefill(name, 5, 40))
    assert took(node, Load(name)) == model.weight_bytes("q8_0") / device.storage_bytes_per_s.value
    assert took(node, Train(name, 64)) == 3 * took(node, Prefill(name, 64))
    assert took(node, Compute(3e9)) == 3e9 / device.ops_per_s.value
    with pytest.raises(ScenarioError, match="unknown model 'gpt'"):
        took(node, Decode("gpt"))
    with pytest.raises(TypeError, match="int is not an item of work"):
        took(node, 3)  # type: ignore[arg-type]  # what is tested


def test_node_with_threads_is_slower_and_asks_for_no_more_than_it_has(data: dict[str, Any]) -> None:
    fast = next(n for n in load_scenario(data).fleet.nodes if n.key == "device")
    data["fleet"]["home"]["device"]["threads"] = 2
    slow = next(n for n in load_scenario(data).fleet.nodes if n.key == "device")
    assert slow.device.cores.value == 2
    assert slow.device.ops_per_s.value < fast.device.ops_per_s.value
    data["fleet"]["home"]["device"]["threads"] = 99
    with pytest.raises(ScenarioError, match=r"device\.threads: .* cores, not 99"):
        load_scenario(data)
