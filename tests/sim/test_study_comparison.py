"""Which strategy is better: paired differences, what they may judge, and steady runs."""

import math

import numpy as np
import pytest
import scipy.stats
from study_fakes import make_study

from edgellm.sim import comparison
from edgellm.sim.study import Run, Study

MODEL = ("smollm2-135m:q4_0",)
TEN = tuple(range(10))


@pytest.fixture(scope="module")
def study():
    return make_study(TEN, MODEL)


def with_columns(study, **columns):
    """Return the study with columns of each run replaced by f(run)."""
    runs = tuple(
        Run(
            r.strategy,
            r.base_model,
            r.seed,
            r.requests | {n: f(r) for n, f in columns.items()},
            r.nodes,
            r.links,
        )
        for r in study.runs
    )
    return Study(study.meta, runs, study.qualities)


def test_differences_are_paired_by_seed(study):
    rows = study.compare("energy_per_request_j", "local")
    assert [row["strategy"] for row in rows] == ["gateway", "cloud", "cascade(threshold=0.6)"]
    figures = comparison.figures(study)
    for row in rows:
        mine, base = (
            [f["energy_per_request_j"] for f in figures[name, MODEL[0]].values()]
            for name in (row["strategy"], "local")
        )
        want = scipy.stats.ttest_rel(mine, base)
        assert (row["low"], row["high"]) == pytest.approx(want.confidence_interval(0.95))
        assert row["p_value"] == pytest.approx(want.pvalue)
        assert row["pairs"] == 10


def test_every_pair_is_compared_where_no_baseline_is_named(study):
    rows = study.compare("e2e_p99_s")
    assert len(rows) == 6
    assert len({frozenset((r["strategy"], r["baseline"])) for r in rows}) == 6
    assert all(r["p_holm"] >= r["p_value"] for r in rows)


def test_a_baseline_is_compared_model_by_model():
    two = make_study((1, 2), ("smollm2-135m:q4_0", "smollm2-135m:q8_0"), ("local", "cloud"))
    rows = two.compare("e2e_p50_s", "local")
    assert [(r["base_model"], r["baseline_model"]) for r in rows] == [(m, m) for m in two.meta["models"]]
    one = two.compare("e2e_p50_s", ("local", "smollm2-135m:q4_0"))
    assert len(one) == 3


def test_winner_has_the_better_figure_and_no_interval_that_covers_zero(study):
    best = study.winner("e2e_p50_s")
    means = {row["strategy"]: row["e2e_p50_s"] for row in study.rows()}
    assert best == min(means, key=lambda name: means[name])
    assert all(r["winner"] == best for r in study.compare("e2e_p50_s", best))
    more = study.winner("slo_attainment")
    shares = {row["strategy"]: row["slo_attainment"] for row in study.rows()}
    assert more is None or more == max(shares, key=lambda name: shares[name])


def test_no_winner_where_an_interval_covers_zero():
    rng = np.random.default_rng(1)
    same = with_columns(
        make_study(TEN, MODEL, ("local", "gateway")), energy_j=lambda run: rng.exponential(1.0, 200)
    )
    (row,) = same.compare("energy_per_request_j")
    assert row["low"] < 0.0 < row["high"]
    assert (row["winner"], same.winner("energy_per_request_j")) == (None, None)
    assert row["pairs_needed"] > 10
    assert "energy_per_request_j: no winner; local, gateway cannot be told apart." in comparison.judgement(
        same
    )


def test_fewer_than_ten_replications_judge_nothing():
    few = make_study(tuple(range(9)), MODEL)
    rows = few.compare("e2e_p50_s")
    assert any(r["low"] > 0 or r["high"] < 0 for r in rows)
    assert not any(r["judged"] or r["winner"] for r in rows)
    assert few.winner("e2e_p50_s") is None
    assert "9 replications: too few to judge differences" in few.summary()


def test_infinite_percentiles_have_no_winner_unless_one_is_finite(study):
    lost = with_columns(
        study,
        status=lambda run: np.where(
            np.arange(200) < (40 if run.strategy in ("local", "cloud") else 0), "failed", "ok"
        ).astype(object),
        first_token_s=lambda run: np.ones(200),
        e2e_s=lambda run: np.where(
            np.arange(200) < (40 if run.strategy in ("local", "cloud") else 0), np.inf, 2.0
        ),
    )
    rows = {(r["baseline"], r["strategy"]): r for r in lost.compare("e2e_p99_s")}
    both = rows["local", "cloud"]
    assert (both["winner"], both["difference"], both["method"]) == (
        None,
        pytest.approx(math.nan, nan_ok=True),
        "rank",
    )
    assert (both["value"], both["low"], both["high"]) == (math.inf, -math.inf, math.inf)
    assert rows["local", "gateway"]["winner"] == "gateway"
    assert lost.winner("e2e_p99_s") is None  # gateway and cascade are equal
    assert rows["gateway", "cascade(threshold=0.6)"]["difference"] == 0.0


def test_mistakes_are_named(study):
    with pytest.raises(ValueError, match="no column 'speed'"):
        study.compare("speed")
    with pytest.raises(ValueError, match="not measured in each run"):
        study.compare("perplexity")
    with pytest.raises(ValueError, match="no strategy 'edge'"):
        study.compare("e2e_p50_s", "edge")
    with pytest.raises(ValueError, match="neither more nor less"):
        study.winner("escalated_share")


def test_one_row_alone_has_no_winner():
    alone = make_study(TEN, MODEL, ("local",))
    assert alone.winner("e2e_p50_s") is None
    assert comparison.judgement(alone) == []


def test_summary_says_how_many_differences_were_looked_at(study):
    assert "30 differences, paired over 10 replications" in study.summary()


def steady_study(transient=20.0, **settings):
    made = make_study((1,), MODEL, ("local", "cloud"))
    meta = made.meta | {"study": {"mode": "steady", "warmup_s": None, "batches": 20, **settings}}
    runs = []
    for run in made.runs:
        rng = np.random.default_rng(len(run.strategy))
        n = 4000
        arrival_s = np.sort(np.random.default_rng(1).random(n) * 3600.0)
        e2e_s = rng.exponential(1.0, n) + (0.0 if run.strategy == "local" else 1.0)
        e2e_s += np.where(arrival_s < 400.0, transient * (1.0 - arrival_s / 400.0), 0.0)
        columns = {k: np.resize(v, n) for k, v in run.requests.items()}
        columns |= {"arrival_s": arrival_s, "e2e_s": e2e_s, "status": np.full(n, "ok", dtype=object)}
        columns["first_token_s"] = e2e_s / 2.0
        runs.append(Run(run.strategy, run.base_model, run.seed, columns, run.nodes, run.links))
    return Study(meta, tuple(runs), made.qualities)


def test_steady_runs_lose_their_warm_up_and_are_cut_into_batches():
    study = steady_study()
    cut = comparison.steady(study)
    assert cut.found
    assert 200.0 <= cut.warmup_s <= 600.0
    assert len(cut.edges_s) == 21
    row = study.rows()[0]
    assert row["e2e_p50_s"] == pytest.approx(math.log(2.0), abs=0.1)
    assert 0.0 < row["e2e_p50_s_ci"] < 0.1
    assert row["goodput_per_s"] == pytest.approx(4000 / 3600 * (1 - math.exp(-2.0)), rel=0.1)
    assert row["requests"] == 4000
    assert math.isnan(row["fleet_energy_j_ci"])


def test_steady_runs_are_compared_batch_by_batch():
    study = steady_study()
    (row,) = study.compare("e2e_p50_s")
    assert row["pairs"] == 20
    assert row["low"] <= 1.0 <= row["high"]
    assert study.winner("e2e_p50_s") == "local"
    assert study.winner("fleet_energy_j") is None  # one run: one pair
    notes = "\n".join(comparison.judgement(study))
    assert "Steady state: the first" in notes
    assert "20 batches of steady runs" in notes


def test_warm_up_of_the_scenario_is_taken_as_it_is():
    assert comparison.steady(steady_study(warmup_s=1000.0, batches=10)).edges_s[:2].tolist() == [
        1000.0,
        1260.0,
    ]


def test_a_run_that_never_settles_is_said_to_be_too_short():
    study = steady_study()
    runs = tuple(
        Run(
            r.strategy,
            r.base_model,
            r.seed,
            r.requests | {"e2e_s": r.requests["arrival_s"]},
            r.nodes,
            r.links,
        )
        for r in study.runs
    )
    drifting = Study(study.meta, runs, study.qualities)
    assert not comparison.steady(drifting).found
    assert any("too short" in note for note in comparison.judgement(drifting))
