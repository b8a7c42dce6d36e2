"""Study: table, front, file, figures and report of made-up runs."""

import dataclasses
import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("matplotlib")

from study_fakes import STRATEGIES, VARIANTS, make_run_of, make_study  # noqa: E402 - after importorskip

from edgellm.sim import columns, metrics  # noqa: E402 - after importorskip
from edgellm.sim.report import figures, fleet  # noqa: E402 - after importorskip
from edgellm.sim.report.html import render  # noqa: E402 - after importorskip
from edgellm.sim.study import RunError, Study, StudyError  # noqa: E402 - after importorskip

DOCS = Path(__file__).parents[2] / "docs" / "study.md"


@pytest.fixture(scope="module")
def study():
    return make_study()


def test_table_has_the_documented_columns_and_one_row_per_strategy_and_model(study):
    table = study.table()
    assert list(table.columns) == columns.table_columns()
    assert list(zip(table["strategy"], table["base_model"], strict=True)) == [
        (s, v) for s in STRATEGIES for v in VARIANTS
    ]
    assert set(table["seeds"]) == {2}


def test_table_figures_are_means_over_seeds(study):
    row = study.table().iloc[0]
    runs = [r for r in study.runs if r.key == (STRATEGIES[0], VARIANTS[0])]
    each = [metrics.request_metrics(r.requests, study.slo, 3600.0)["e2e_p50_s"] for r in runs]
    assert row["e2e_p50_s"] == pytest.approx(np.mean(each))
    assert row["e2e_p50_s_ci"] == pytest.approx(12.7062047 * np.std(each, ddof=1) / math.sqrt(2))


def test_one_seed_has_no_interval():
    table = make_study(seeds=(1,)).table()
    assert table[[c for c in table.columns if c.endswith("_ci")]].isna().all(axis=None)


def test_quality_that_is_cited_is_never_averaged_with_measured_quality(study):
    table = study.table().set_index(["strategy", "base_model"])
    mixed = table.loc[("cascade(threshold=0.6)", VARIANTS[0])]
    assert math.isnan(mixed["perplexity"])
    assert "measured" in mixed["quality_label"]
    assert "cited" in mixed["quality_label"]
    assert table.loc[("cloud", VARIANTS[0]), "perplexity"] == pytest.approx(7.3)
    assert table.loc[("local", VARIANTS[1]), "top1_agreement"] == 0.9


def test_strategies_without_a_published_table_are_marked(study):
    marks = dict(zip(study.table()["strategy"], study.table()["validation"], strict=True))
    assert marks == {
        "local": "a table",
        "gateway": "unvalidated",
        "cloud": "unvalidated",
        STRATEGIES[3]: "unvalidated",
    }


def test_requests_have_every_row_and_the_documented_columns(study):
    rows = study.requests()
    assert list(rows.columns) == [c.name for c in columns.REQUEST_COLUMNS]
    assert len(rows) == sum(len(r.requests["id"]) for r in study.runs)
    assert np.isinf(rows.loc[rows["status"] != "ok", "e2e_s"]).all()


def test_failures_add_up_to_what_was_not_served(study):
    table, failures = study.table(), study.failures()
    missed = failures.groupby(["strategy", "base_model"])["requests"].sum()
    for _, row in table.iterrows():
        want = round((1 - row["served_share"]) * row["requests"] * 2)
        assert missed.get((row["strategy"], row["base_model"]), 0) == want


def test_pareto_keeps_only_rows_that_nothing_beats(study):
    table, front = study.table(), study.pareto("e2e_p95_s", "energy_per_request_j")
    assert 0 < len(front) < len(table)
    for _, row in front.iterrows():
        better = (table["e2e_p95_s"] < row["e2e_p95_s"]) & (
            table["energy_per_request_j"] < row["energy_per_request_j"]
        )
        assert not better.any()
    assert front["e2e_p95_s"].is_monotonic_increasing


@pytest.mark.parametrize("name", ["no_such", "strategy", "requests"])
def test_pareto_refuses_columns_without_a_better_direction(study, name):
    with pytest.raises(ValueError, match=name):
        study.pareto("e2e_p95_s", name)


def test_saved_study_comes_back_whole(study, tmp_path):
    path = study.save(tmp_path / "study.parquet")
    back = Study.load(path)
    pd.testing.assert_frame_equal(back.table(), study.table())
    pd.testing.assert_frame_equal(back.requests(), study.requests(), check_dtype=False)
    pd.testing.assert_frame_equal(back.nodes(), study.nodes())
    pd.testing.assert_frame_equal(back.quality(), study.quality())
    assert render(back) == render(study)
    assert not back.interrupted


def test_saved_study_has_the_same_bytes_each_time(study, tmp_path):
    first = study.save(tmp_path / "a.parquet").read_bytes()
    assert make_study().save(tmp_path / "b.parquet").read_bytes() == first
    assert Study.load(tmp_path / "a.parquet").save(tmp_path / "c.parquet").read_bytes() == first


def test_parquet_is_plain_for_other_tools(study, tmp_path):
    table = pq.read_table(study.save(tmp_path / "study.parquet"))
    assert table.column_names == [c.name for c in columns.REQUEST_COLUMNS]
    data = json.loads(table.schema.metadata[b"edgellm.study"])
    assert data["schema"] == columns.SCHEMA
    assert data["meta"]["scenario"]["digest"] == "0" * 64
    assert data["meta"]["seeds"] == [1, 2]


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut", "other", "schema"])
def test_a_file_that_is_no_study_is_refused_in_one_line(study, tmp_path, kind):
    path = tmp_path / "x.parquet"
    whole = study.save(tmp_path / "study.parquet").read_bytes()
    if kind == "other":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif kind == "schema":
        table = pq.read_table(tmp_path / "study.parquet")
        data = json.loads(table.schema.metadata[b"edgellm.study"]) | {"schema": 999}
        pq.write_table(table.replace_schema_metadata({b"edgellm.study": json.dumps(data)}), path)
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}[kind])
    with pytest.raises(StudyError) as caught:
        Study.load(path)
    assert "x.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(figures.KINDS))
def test_every_figure_draws_without_a_warning(study, kind, recwarn):
    figure = study.plot(kind)
    assert figure.to_svg().startswith("<svg")
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_figures_survive_a_strategy_that_serves_nothing():
    study = make_study(seeds=(1,), strategies=("local", "cloud"))
    for run in study.runs:
        if run.strategy == "local":
            run.requests["status"][:] = "failed"
            run.requests["reason"][:] = "battery empty"
            run.requests["model"][:] = ""
    for kind in figures.KINDS:
        assert study.plot(kind).to_svg()
    assert "battery empty" in render(study)


def test_a_study_without_requests_is_shown_as_such():
    study = Study(make_study().meta, (make_run_of("local", VARIANTS[0], 1, 0),))
    assert "No request arrived" in render(study)
    assert study.summary()
    assert math.isnan(study.rows()[0]["e2e_p50_s"])
    assert study.rows()[0]["goodput_per_s"] == 0.0


def test_names_of_strategies_may_hold_anything():
    name = "a$b_{<i>&x$\\frac{"
    meta = make_study().meta
    meta["strategies"] = [meta["strategies"][0] | {"label": name, "summary": "<script>"}]
    study = Study(meta, (make_run_of(name, VARIANTS[0], 1),))
    text = render(study)
    assert "&lt;i&gt;&amp;x$" in text
    assert "<script" not in text


def test_names_of_nodes_and_links_may_hold_anything():
    evil = "<script>&\"'"
    study = make_study(seeds=(1,), strategies=("local",))
    kind = {"site": evil, "key": evil, "role": evil, "sites": 2, "nodes": 4, "devices": {evil: 4}}
    kind |= {"models": [evil], "to": "", "link": "", "link_title": "", "shared": False}
    up = kind | {"key": "low", "to": f"{evil}/{evil}", "link": evil, "link_title": evil, "shared": True}
    study.meta["topology"] = [kind, up]
    study.meta["validation"] = [{"device": evil, "model": evil, "errors": []}]
    traced = dataclasses.replace(study.runs[0], trace=[[0, evil, evil, 0.0, 1.0, evil]])
    failed = RunError(evil, "", 1, "StrategyError", f"{evil}\nmore")
    text = render(dataclasses.replace(study, runs=(traced, *study.runs[1:]), errors=(failed,)))
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []


def test_a_fleet_of_many_kinds_of_site_is_drawn_in_part():
    base = {"role": "device", "sites": 1, "nodes": 1, "devices": {"box": 1}, "models": [], "shared": False}
    loop = [base | {"site": f"s{i}", "key": "n", "to": f"s{(i + 1) % 40}/n", "link": "l", "link_title": "l"}
            for i in range(40)]  # fmt: skip
    assert fleet.draw(loop).count("<rect") == 2 * fleet.MAX_SITES


def test_unknown_plots_are_named_and_an_empty_study_says_so(study):
    with pytest.raises(ValueError, match="no plot 'pie'"):
        study.plot("pie")
    empty = Study(study.meta, (), {})
    assert list(empty.table().columns) == columns.table_columns()
    for call in (empty.plot, lambda: empty.report("x.html")):
        with pytest.raises(StudyError, match="no finished run"):
            call()


class _Checker(html.parser.HTMLParser):
    """Collects addresses that a browser would load, and checks that elements nest."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.loads.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and not (value or "").startswith(("#", "data:")):
                self.loads.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_wellformed_file_that_loads_nothing(study, tmp_path):
    text = study.report(tmp_path / "report.html").read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.loads == []
    assert not re.search(r"url\((?!#)", text)
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_report_states_sources_guesses_reasons_quality_and_limits(study):
    text = render(study)
    for wanted in ("general knowledge &lt;b&gt;&amp;", "guess", "link infeasible", "deadline missed",
                   "cited: perplexity 7.3", "unvalidated", "0" * 64, "Limits", "SLO"):  # fmt: skip
        assert wanted in text
    assert "<b>&</b>" not in text
    assert render(make_study()) == text


def test_report_of_an_interrupted_study_says_so(study):
    cut = Study(study.meta, study.runs[:5], study.qualities, interrupted=True)
    assert "stopped early" in render(cut)
    assert len(cut.table()) == 3


def test_docs_list_every_column_as_the_code_has_it():
    text = DOCS.read_text(encoding="utf-8")
    groups = (columns.LABEL_COLUMNS, columns.METRIC_COLUMNS, columns.QUALITY_COLUMNS, columns.REQUEST_COLUMNS)
    want = [
        f"| `{c.name}` | {c.kind} | {c.unit} | {c.better} | {c.meaning} |" for group in groups for c in group
    ]
    got = [line for line in text.splitlines() if re.match(r"\| `\w+` \| (int|float|bool|str) \|", line)]
    assert got == want
    assert set(re.findall(r"`Study\.(\w+)\(", text)) <= set(dir(Study))
