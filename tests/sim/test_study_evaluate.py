"""evaluate: which runs it makes, what it keeps, and how it fails; SimGrid is replaced by made-up results."""

import gc
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pandas")

from study_fakes import make_result

from edgellm import sim
from edgellm.sim import evaluation, extras
from edgellm.sim.quality import QUANTILES, Quality

SCENARIO = Path(__file__).parents[2] / "scenarios" / "first_steps.toml"
MODELS = ("smollm2-135m:q4_0", "smollm2-135m:q8_0")


class FakeRuns:
    """In place of the simulation engine: results come in reverse order; may stop early or fail."""

    def __init__(self, stop_after=None, fail=None):
        self.stop_after, self.fail, self.tasks, self.closed = stop_after, fail, [], False

    def RunTask(self, scenario, strategy, seed, confidence, trace, solver):
        return SimpleNamespace(
            scenario=scenario, strategy=strategy, seed=seed, confidence=confidence, solver=solver
        )

    def run_many(self, tasks, workers, executor=None):
        self.tasks = list(tasks)
        try:
            for count, index in enumerate(reversed(range(len(self.tasks)))):
                if count == self.stop_after:
                    raise KeyboardInterrupt
                task = self.tasks[index]
                if self.fail is not None and self.fail[0] in ("all", task.strategy.name):
                    yield index, self.fail[1]
                    continue
                base = task.scenario.digest[:4]
                yield index, make_result(task.strategy.name, base, task.seed, 20)
        finally:
            self.closed = True


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    monkeypatch.setattr(evaluation, "require_simgrid", lambda: fake)
    return fake


def evaluate(**options):
    settings = {
        "strategies": ["local", "cloud"],
        "seeds": [1, 2],
        "quality": "off",
        "progress": False,
    } | options
    return sim.evaluate(settings.pop("scenario", SCENARIO), **settings)


def test_there_is_one_run_per_strategy_model_and_seed_in_that_order(runs):
    study = evaluate(models=MODELS)
    want = [(s, m, seed) for s in ("local", "cloud") for m in MODELS for seed in (1, 2)]
    assert [(r.strategy, r.base_model, r.seed) for r in study.runs] == want
    assert len({t.scenario.digest for t in runs.tasks}) == 2
    assert len(study.table()) == 4


def test_the_scenario_says_strategies_and_seeds_where_the_call_does_not(runs):
    study = sim.evaluate(SCENARIO, quality="off", progress=False)
    assert list(dict.fromkeys(r.strategy for r in study.runs)) == ["local", "gateway", "cloud", "cascade"]
    assert study.meta["seeds"] == list(range(1000, 1010))


def test_the_same_study_again_has_the_same_bytes(runs, tmp_path):
    first = evaluate().save(tmp_path / "a").read_bytes()
    assert evaluate().save(tmp_path / "b").read_bytes() == first
    for machine in (str(tmp_path).encode(), str(SCENARIO.parent).encode()):
        assert machine not in first


def test_ctrl_c_keeps_finished_runs(runs):
    runs.stop_after = 3
    study = evaluate()
    assert study.interrupted
    assert len(study.runs) == 3
    assert runs.closed
    assert len(study.table()) == 2


def test_ctrl_c_before_the_first_run_leaves_an_empty_study(runs):
    runs.stop_after = 0
    study = evaluate()
    assert study.interrupted
    assert len(study.table()) == 0


def test_a_strategy_that_fails_leaves_the_others(runs, tmp_path):
    runs.fail = ("local", sim.StrategyError("strategy Local raised on request 3\n\nTraceback ..."))
    with pytest.warns(UserWarning, match="2 runs of local failed: strategy Local raised on request 3$"):
        study = evaluate()
    assert {run.strategy for run in study.runs} == {"cloud"}
    assert [(e.strategy, e.seed, e.kind) for e in study.errors] == [
        ("local", 1, "StrategyError"),
        ("local", 2, "StrategyError"),
    ]
    assert sim.Study.load(study.save(tmp_path / "study.parquet")).errors == study.errors
    assert "strategy Local raised on request 3" in study.summary()


def test_an_error_is_raised_where_nothing_else_is_left(runs):
    runs.fail = ("all", sim.StrategyError("strategy raised on request 3"))
    with pytest.raises(sim.StrategyError, match="request 3"):
        evaluate()
    assert runs.closed


def test_a_store_makes_only_what_is_not_there(runs, tmp_path):
    runs.stop_after = 3
    first = evaluate(store=tmp_path / "s")
    assert first.interrupted
    runs.stop_after = None
    second = evaluate(store=tmp_path / "s")
    assert len(runs.tasks) == 1
    want = evaluate()
    assert second.save(tmp_path / "a").read_bytes() == want.save(tmp_path / "b").read_bytes()
    evaluate(store=tmp_path / "s", seeds=[1, 2, 3])
    assert sorted((t.strategy.name, t.seed) for t in runs.tasks) == [("cloud", 3), ("local", 3)]


def test_a_store_sees_that_a_strategy_has_changed(runs, tmp_path):
    evaluate(store=tmp_path, strategies=["cascade(threshold=0.5)"], seeds=[1])
    evaluate(store=tmp_path, strategies=["cascade(threshold=0.5)"], seeds=[1])
    assert runs.tasks == []
    evaluate(store=tmp_path, strategies=[sim.Cascade(threshold=0.6)], seeds=[1])
    assert len(runs.tasks) == 1


def test_a_store_is_read_as_a_study_whatever_became_of_it(runs, tmp_path):
    runs.stop_after = 3
    study = evaluate(store=tmp_path)
    (tmp_path / ".half-written").write_bytes(b"PAR1")
    back = sim.Study.load(tmp_path)
    assert back.interrupted
    assert repr(back.rows()) == repr(study.rows())
    damaged = next(tmp_path.glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert len(sim.Study.load(tmp_path).runs) == 2
    evaluate(store=tmp_path)
    assert len(runs.tasks) == 2
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(sim.StudyError, match="holds no study"):
        sim.Study.load(tmp_path)
    with pytest.raises(sim.StudyError, match="cannot hold runs"):
        evaluate(store=tmp_path / "study.json" / "below")


def test_results_of_a_study_without_a_store_go_with_it(runs):
    study = evaluate()
    folder = study.runs[0].requests.path.parent
    assert folder.is_dir()
    del study
    gc.collect()
    assert not folder.exists()


def test_measured_confidence_reaches_the_runs(runs, monkeypatch):
    quantiles = tuple(np.linspace(0.5, 0.9, QUANTILES))
    measured = {MODELS[0]: Quality(MODELS[0], 9.0, confidence=quantiles)}
    monkeypatch.setattr(evaluation, "measure_scenario", lambda *a, **k: measured)
    evaluate(quality="measure")
    assert all(task.confidence == {MODELS[0]: quantiles} for task in runs.tasks)


def test_strategies_may_be_names_with_parameters_classes_or_instances(runs):
    class Mine(sim.Strategy):
        """Answer at home. More text."""

        def handle(self, req, here):
            yield here.run(sim.Prefill(req.model, req.prompt_tokens))
            req.finish(model=req.model)

    chosen = evaluation.resolve_strategies(["cascade(threshold=0.6)", "cascade", Mine, Mine()])
    infos = [info for _, info in chosen]
    assert [i["label"] for i in infos] == ["cascade(threshold=0.6)", "cascade", "mine", "mine #2"]
    assert chosen[0][0].threshold == 0.6
    assert infos[2]["summary"] == "Answer at home. More text."
    assert infos[2]["validation"] == ""


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("nowhere", "nowhere"),
        ("cascade(threshold=2)", "threshold"),
        ("cascade(0.5)", "expected a name"),
        ("cascade(x=1)", "x"),
        ("a b", "expected a name"),
        ("__import__('os')", "expected a name"),
        (3, "is no strategy"),
        (dict, "is no strategy"),
    ],
)
def test_a_wrong_strategy_is_named(bad, words):
    with pytest.raises(sim.StudyError, match=words):
        evaluation.resolve_strategies([bad])


@pytest.mark.parametrize(
    "wrong",
    [{"quality": "best"}, {"workers": 0}, {"seeds": []}, {"strategies": []}],
    ids=lambda w: next(iter(w)),
)
def test_wrong_arguments_are_refused_before_anything_runs(runs, wrong):
    with pytest.raises(sim.StudyError, match=next(iter(wrong))[:4]):
        evaluate(**wrong)
    assert runs.tasks == []


def test_an_unknown_model_is_an_error_of_the_scenario(runs):
    with pytest.raises(sim.ScenarioError, match="nothing:q4_0"):
        evaluate(models=["nothing:q4_0"])


def test_quality_that_cannot_be_measured_is_labelled_and_warned_about(runs, tmp_path, monkeypatch):
    scenario = sim.load_scenario(SCENARIO)
    variants = {n: replace(v, weights="no-such-model.Q4_1.gguf") for n, v in scenario.models.items()}
    with pytest.warns(UserWarning, match="no-such-model"):
        study = evaluate(scenario=replace(scenario, models=variants), quality="measure", cache_dir=tmp_path)
    assert all(q.label.startswith("not measured") for q in study.qualities.values())
    assert math.isnan(study.rows()[0]["perplexity"])
    assert "not measured" in study.rows()[0]["quality_label"] or study.rows()[0]["answered_by"]


def test_quantizations_are_read_from_file_names():
    for name, want in {
        "SmolLM2-135M-Instruct.Q4_1.gguf": "q4_1", "gemma-3-270m-q4_k_m.gguf": "q4_k",
        "m.IQ4_NL.gguf": "iq4_nl",
        "model-F16.gguf": "f16", "x.bf16.gguf": "bf16", "y-Q8_0.gguf": "q8_0", "z.TQ2_0.gguf": "tq2_0",
    }.items():  # fmt: skip
        assert evaluation.shipped_quant(Path(name)) == want
    with pytest.raises(sim.QualityError, match="mystery"):
        evaluation.shipped_quant(Path("mystery.gguf"))


def test_missing_parts_are_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(sim.MissingExtra, match=r"pip install 'edgellm\[sim\]'") as caught:
        extras.require("pyarrow")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "edgellm._sim", None)
    with pytest.raises(sim.MissingExtra, match="libsimgrid-dev") as caught:
        extras.require_simgrid()
    assert "\n" not in str(caught.value)


def test_public_names_are_there_and_lazy():
    for name in sim.__all__:
        assert getattr(sim, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = sim.nothing
    assert set(sim.__all__) <= set(dir(sim))
