"""Constants drawn from their spreads: who wins then, what it hangs on, and going on where it stopped."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from study_fakes import make_result

from edgellm import sim
from edgellm.cost import Constant
from edgellm.sim import uncertainty
from edgellm.sim.columns import METRIC_COLUMNS
from edgellm.sim.fleet import FleetError
from edgellm.sim.store import StudyError
from edgellm.sim.uncertainty import Sensitivity, Spread, rank_correlation, sensitivity, spreads

SCENARIO = Path(__file__).parents[2] / "scenarios" / "first_steps.toml"


@pytest.fixture(scope="module")
def scenario():
    return sim.load_scenario(SCENARIO)


class FakeEngine:
    """Answers in a time that follows two constants of the scenario: local its device's, cloud its link's."""

    def __init__(self):
        self.seen = []

    def RunTask(self, scenario, strategy, seed, confidence):
        return scenario, strategy, seed

    def run_many(self, tasks, workers, executor):
        for i, (scenario, strategy, seed) in enumerate(tasks):
            self.seen.append((scenario.digest, strategy.name, seed))
            device = next(n.device for n in scenario.fleet.nodes if n.role == "device")
            link = scenario.fleet.links[0].profile
            scale = {
                "local": 1e10 / device.bandwidth_decode_bytes_per_s.value,
                "cloud": 1e-2 + 100.0 * link.latency_s.value,
            }[strategy.name]
            result = make_result(strategy.name, "", seed, 50)
            result.requests |= {
                "e2e_s": np.full(50, scale),
                "first_token_s": np.full(50, scale / 2.0),
                "status": np.full(50, "ok", dtype=object),
            }
            yield i, result


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(uncertainty, "require_simgrid", lambda: fake)
    return fake


def run(scenario, **options):
    return sensitivity(scenario, ["local", "cloud"], draws=40, progress=False, **options)


def test_the_constants_that_decide_are_found(engine, scenario):
    found = run(scenario)
    assert found.drawn.shape == (40, len(found.constants))
    top = {(row["profile"], row["constant"]) for row in found.effects() if row["p_holm"] < 0.05}
    device = next(n.device for n in scenario.fleet.nodes if n.role == "device")
    link = scenario.fleet.links[0].profile
    uncertain = {(s.profile, s.constant) for s in found.constants}
    asked = {(device.name, "bandwidth_decode_bytes_per_s"), (link.name, "latency_s")} & uncertain
    assert asked
    assert top & asked
    assert len(top) <= 3  # none of the others but by chance
    assert sum(row["wins"] for row in found.rows()) <= 1.0
    assert found.winner in ("local", "cloud")
    assert f"{found.winner} is best as given" in found.text()


def test_every_strategy_of_a_draw_meets_the_same_constants(engine, scenario):
    run(scenario)
    by_world = {}
    for digest, name, seed in engine.seen:
        by_world.setdefault(digest, []).append((name, seed))
    assert len(by_world) == 41
    assert all(sorted(who) == [("cloud", 1000), ("local", 1000)] for who in by_world.values())


def test_the_same_seed_draws_the_same(engine, scenario):
    once, again, other = run(scenario), run(scenario), run(scenario, seed=2)
    assert np.array_equal(once.drawn, again.drawn)
    assert not np.array_equal(once.drawn, other.drawn)
    parts = np.sort(np.floor(once.drawn * 40), axis=0)
    assert np.array_equal(parts, np.tile(np.arange(40.0)[:, None], (1, once.drawn.shape[1])))


def test_a_file_keeps_what_was_simulated(engine, scenario, tmp_path):
    path = tmp_path / "draws.jsonl"
    whole = run(scenario, resume=path)
    assert len(engine.seen) == 82
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:31]) + lines[31][:40])  # killed while writing
    engine.seen.clear()
    again = run(scenario, resume=path)
    assert len(engine.seen) == 52
    assert all(np.array_equal(again.figures[n], whole.figures[n]) for n in whole.strategies)
    engine.seen.clear()
    assert run(scenario, resume=path, metric="energy_per_request_j").metric == "energy_per_request_j"
    assert engine.seen == []
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_file_of_something_else_is_refused(engine, scenario, tmp_path):
    path = tmp_path / "draws.jsonl"
    run(scenario, resume=path)
    with pytest.raises(StudyError, match="another scenario"):
        run(scenario, resume=path, seed=9)
    path.write_text("hello\n")
    with pytest.raises(StudyError, match="another scenario"):
        run(scenario, resume=path)


def test_ctrl_c_leaves_the_draws_that_had_ended(engine, scenario, monkeypatch):
    real = engine.run_many

    def stopping(tasks, workers, executor):
        if len(engine.seen) >= 21:
            raise KeyboardInterrupt
        yield from real(tasks, workers, executor)

    monkeypatch.setattr(engine, "run_many", stopping)
    found = run(scenario)
    assert len(found.drawn) == 10
    assert found.winner is not None


def test_spreads_are_the_profiles_or_a_factor_of_two(scenario):
    found = {(s.profile, s.constant): s for s in spreads(scenario.fleet)}
    assert found
    for node in scenario.fleet.nodes[:30]:
        for key, constant in node.device.constants():
            spread = found.get((node.device.name, key))
            if constant.unit == "ratio":
                continue  # stays on its side of 1
            if constant.low is not None and constant.low < constant.high:
                assert (spread.low, spread.high) == (constant.low, constant.high)
            elif spread is not None:
                assert constant.guess
                assert (spread.low, spread.high) == (constant.value / 2.0, constant.value * 2.0)
    assert all(s.low <= s.value <= s.high for s in found.values())
    assert all(
        0.0 <= s.draw(u) <= 1.0 for s in found.values() if s.constant == "loss" for u in (0.0, 0.5, 1.0)
    )


def test_a_spread_is_drawn_evenly_in_its_logarithm():
    drawn = [Spread("p", "c", 4.0, 1.0, 16.0, "s", True).draw(u) for u in (0.0, 0.25, 0.5, 1.0)]
    assert drawn == pytest.approx([1.0, 2.0, 4.0, 16.0])
    assert Spread("p", "loss", 0.1, 0.0, 0.4, "ratio", False).draw(0.25) == pytest.approx(0.1)


def test_a_scenario_with_other_constants_is_another_scenario(scenario):
    device = next(n.device for n in scenario.fleet.nodes if n.role == "device")
    changed = scenario.with_constants({(device.name, "idle_w"): 99.0})
    old, new = ({id(n.device) for n in s.fleet.nodes} for s in (scenario, changed))
    assert len(old) == len(new)  # still one profile for a kind of node
    for before, after in zip(scenario.fleet.nodes, changed.fleet.nodes, strict=True):
        same = before.device.name == device.name
        assert after.device.idle_w.value == (99.0 if same else before.device.idle_w.value)
        assert after.device.ops_per_s == before.device.ops_per_s
    assert changed.digest != scenario.digest
    assert scenario.with_constants({(device.name, "idle_w"): 99.0}).digest == changed.digest
    with pytest.raises(FleetError, match="no profile 'toaster'"):
        scenario.with_constants({("toaster", "idle_w"): 1.0})


def test_a_battery_of_the_scenario_keeps_its_capacity(scenario):
    node = next(n for n in scenario.fleet.nodes if n.role == "device")
    mine = replace(node.device, battery_j=Constant(5.0, "j", "the scenario, fleet.home.device.battery"))
    nodes = tuple(replace(n, device=mine) if n.device is node.device else n for n in scenario.fleet.nodes)
    fleet = replace(scenario.fleet, nodes=nodes).with_constants({(mine.name, "battery_j"): 77.0})
    assert fleet.node(node.name).device.battery_j.value == 5.0


@pytest.mark.parametrize(
    "options",
    [{"draws": 1}, {"replications": 0}, {"metric": "perplexity"}, {"metric": "requests"}, {"seed": -1}],
)
def test_what_cannot_be_asked_is_refused(engine, scenario, options):
    with pytest.raises(ValueError, match=r"at least|not measured|neither"):
        sensitivity(scenario, ["local"], progress=False, **options)


def test_infinite_figures_lose_and_two_of_them_are_equal():
    drawn = np.array([[0.1], [0.9], [0.5]])
    inf = math.inf
    found = Sensitivity(
        "e2e_p99_s", ("a", "b"), (Spread("p", "c", 1.0, 0.5, 2.0, "s", True),), {"a": 1.0, "b": 2.0}, drawn,
        {"a": np.array([1.0, inf, inf]), "b": np.array([2.0, 2.0, inf])},
    )  # fmt: skip
    assert found.winners() == ["a", "b", None]
    assert found.changed == pytest.approx(2 / 3)
    assert "b" in found.text()


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 9, 30), rng.normal(size=30)
        assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) == 0.0


def test_metrics_have_the_names_of_the_table(engine, scenario):
    found = run(scenario, metric="slo_attainment")
    assert found.metric in {c.name for c in METRIC_COLUMNS}


def test_few_draws_prove_nothing():
    rng = np.random.default_rng(2)
    constants = tuple(Spread("p", f"c{i}", 1.0, 0.5, 2.0, "s", True) for i in range(80))
    drawn = np.array([rng.permutation(5) for _ in constants]).T / 5.0
    drawn[:, 0] = np.arange(5) / 5.0
    figures = {"a": np.ones(5), "b": 2.0 + np.arange(5)}
    found = Sensitivity("e2e_p99_s", ("a", "b"), constants, {"a": 1.0, "b": 2.0}, drawn, figures)
    assert abs(found.effects()[0]["lead"]) == pytest.approx(1.0)
    assert min(row["p_holm"] for row in found.effects()) > 0.05
    assert "No constant alone" in found.text()
