"""benchmarks/compare_engines.py: its arithmetic, its pages, and a whole run with a tiny model."""

import dataclasses
import importlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

figures = importlib.import_module("compare.figures")
files = importlib.import_module("compare.files")
measure = importlib.import_module("compare.measure")
page = importlib.import_module("compare.page")
stamp = importlib.import_module("compare.stamp")
readme = importlib.import_module("compare.readme")
peers = importlib.import_module("compare.peers")
script = importlib.import_module("compare_engines")

OURS, LLAMA, PLAIN = figures.OURS, figures.LLAMA, figures.PLAIN
AMX = ["avx2", "amx_int8"]


def row(kind="decode", quant="q4_0", times=1.0, **more):
    """A row in which ours takes 1 s, three rounds, and llama.cpp `times` as long."""
    seconds = {OURS: [1.0, 1.0, 1.0], LLAMA: [times, times, times]}
    base = {"model": "SmolLM2-135M", "kind": kind, "quant": quant, "threads": 1, "clock": "cpu_s"}
    return {**base, **figures.summary(seconds, 128.0), **more}


def found(rows, flags=()):
    """Results as the script writes them."""
    machine = {"cpu": "Some(R) CPU @ 2 GHz", "flags": list(flags), "cores": 2}
    about = {
        "date": "2026-01-02T03:04+00:00", "commit": "abc", "machine": machine, "isas": ["ref", "avx2"],
        "governor": None, "load_before": 0.1,
    }  # fmt: skip
    return {
        "stamp": about, "rows": rows, "complete": True, "load_after": 0.2, "troubles": [],
        "settings": dataclasses.asdict(measure.Settings()), "versions": {LLAMA: {"version": "9"}},
    }  # fmt: skip


def test_ratio_is_the_median_over_pairs_of_rounds():
    assert figures.ratio([1.0, 10.0, 2.0], [2.0, 10.0, 6.0]) == figures.Spread(2.0, 1.0, 3.0)


def test_ratio_of_unpaired_rounds_is_refused():
    with pytest.raises(ValueError, match="zip"):
        figures.ratio([1.0, 2.0], [1.0])


def test_summary_rates_are_amount_by_time_and_slowest_is_low():
    got = figures.summary({OURS: [1.0, 2.0, 4.0], LLAMA: [4.0, 4.0, 4.0]}, 8.0, [5.0, 7.0, 6.0])
    assert got["rate"][OURS] == {"median": 4.0, "low": 2.0, "high": 8.0}
    assert got["ratio"][LLAMA] == {"median": 2.0, "low": 1.0, "high": 4.0}
    assert got["read_bytes_per_s"] == 6.0


def test_shares_are_of_what_was_measured_beside():
    one = row(read_bytes_per_s=1e10, token_bytes=70_000_000, token_ops=2e8, peak_ops_per_s=1e11)
    assert math.isclose(figures.share_of_read(one), 128 * 7e7 / 1e10)
    assert math.isclose(figures.share_of_peak(one), 128 * 2e8 / 1e11)
    assert figures.share_of_read(row()) is None
    assert figures.share_of_peak(row(peak_ops_per_s=None, token_ops=1.0)) is None


@pytest.mark.parametrize(("quant", "least"), [("q4_0", 1.6), ("q4_1", 1.6), ("q8_0", 1.4), ("q4_k_m", 3.0)])
def test_decode_target_is_met_from_its_ratio_on(quant, least):
    assert figures.verdicts(row(quant=quant, times=least), False)[0].met
    assert not figures.verdicts(row(quant=quant, times=least - 0.01), False)[0].met


def test_decode_target_is_met_by_the_share_of_reading_but_not_for_q4_k_m():
    near = {"read_bytes_per_s": 1e10, "token_bytes": 0.86e10 / 128}
    assert figures.verdicts(row(times=1.0, **near), False)[0].met
    assert not figures.verdicts(row(times=1.0, quant="q4_k_m", **near), False)[0].met
    far = {**near, "token_bytes": 0.84e10 / 128}
    assert not figures.verdicts(row(times=1.0, **far), False)[0].met


def test_prefill_target_depends_on_amx_and_asks_for_torch_there():
    assert [v.met for v in figures.verdicts(row("prefill", times=1.5), False)] == [True]
    seconds = {OURS: [1.0], LLAMA: [2.9], figures.BF16: [1.6]}
    one = {**row("prefill"), **figures.summary(seconds, 512.0)}
    assert [v.met for v in figures.verdicts(one, True)] == [False, True]


def test_verdict_of_nan_is_not_met():
    assert not figures.at_least("x", math.nan, 1.0).met
    assert not figures.Agreement(math.nan, 0.07, 4.0, 0.9).holds


def test_rows_of_other_models_and_without_peer_have_no_verdict():
    assert figures.verdicts({**row(times=9.0), "model": "random, width 768"}, False) == []
    alone = {**row(), **figures.summary({OURS: [1.0]}, 128.0)}
    assert figures.verdicts(alone, False) == []


def test_memory_is_judged_against_llama_and_against_the_plan():
    base = {"kind": "memory", "quant": "q4_0", "plan_bytes": 100}
    met = figures.verdicts({**base, "beyond_bytes": {OURS: 101, LLAMA: 203}}, False)
    assert [v.met for v in met] == [True, True]
    assert [v.met for v in figures.verdicts({**base, "beyond_bytes": {OURS: 103, LLAMA: 203}}, False)] == [
        False,
        False,
    ]
    assert [v.met for v in figures.verdicts({**base, "beyond_bytes": {OURS: 97}}, False)] == [False]


def test_package_is_judged_by_import_size_and_build():
    one = {"kind": "package", "import_s": {OURS: {"median": 0.02}}, "build_s": None}
    one["extension_bytes"] = 1_000_001
    assert [v.met for v in figures.verdicts(one, False)] == [True, False]
    assert [v.met for v in figures.verdicts({**one, "build_s": 121.0}, False)] == [True, False, False]


def test_agreement_stops_a_broken_engine():
    good = figures.Agreement(distance=0.07, yardstick=0.07, chance=4.0, same_top=0.96)
    assert good.holds
    assert dataclasses.replace(good, yardstick=0.0).holds  # formats that leave llama.cpp equal to itself
    assert not dataclasses.replace(good, distance=2.0).holds
    assert not dataclasses.replace(good, same_top=0.3).holds


def test_interleave_takes_turns_after_one_round_of_warm_up():
    order = []

    def work(name):
        return lambda: order.append(name) or {"cpu_s": float(len(order))}

    settings = measure.Settings(repeat=5, least=2, group_s=0.0)
    got = measure.interleave({"a": work("a"), "b": work("b")}, settings)
    assert order == ["a", "b"] * 3  # no time for more than the least rounds
    assert got == {"a": [{"cpu_s": 3.0}, {"cpu_s": 5.0}], "b": [{"cpu_s": 4.0}, {"cpu_s": 6.0}]}


def test_interleave_gives_the_other_peers_the_least_rounds_only():
    works = {name: (lambda: {"cpu_s": 1.0}) for name in (OURS, LLAMA, PLAIN)}
    got = measure.interleave(works, measure.Settings(repeat=4, least=2, group_s=60.0))
    assert [len(got[name]) for name in works] == [4, 4, 2]
    seconds = {name: [turn["cpu_s"] for turn in turns] for name, turns in got.items()}
    assert figures.summary(seconds, 1.0)["ratio"][PLAIN]["median"] == 1.0


def test_page_puts_targets_beside_figures_and_says_what_is_missing():
    text = page.page(
        found(
            [row(times=2.0, read_bytes_per_s=1e10), {**row("batch"), **figures.summary({OURS: [1.0]}, 1.0)}]
        )
    )
    assert "| decode q4_0, 1 thr | 1.6 x llama.cpp | 2.00 | yes |" in text
    assert "the family is not in yet | not measured" in text
    assert "| q4_0 | 1 | 128 (128-128) | 64 (64-64) | 2.00 (2.00-2.00) | - | 10.0 |" in text


def test_page_shows_a_missed_target_as_missed():
    assert "| 3 x llama.cpp | 1.20 | **no** |" in page.page(
        found([row("prefill", times=1.2, token_ops=2e8)], AMX)
    )


def test_page_tells_times_in_milliseconds_and_reasons_of_absent_rows():
    absent = {
        "model": "SmolLM2-135M",
        "kind": "load edge",
        "quant": "q4_0",
        "threads": 1,
        "reason": "no images",
    }
    text = page.page(found([{**row("load"), **figures.summary({OURS: [0.02], LLAMA: [0.2]}, 1)}, absent]))
    assert "| q4_0 | 1 | 20 (20-20) | 200 (200-200) | 10.00 (10.00-10.00) | - |" in text
    assert "| load edge q4_0, 1 thr | - | no images | not measured |" in text


def test_page_has_a_table_for_the_plain_map_only_where_it_was_measured():
    seconds = {OURS: [1.0], LLAMA: [2.0], PLAIN: [3.0]}
    both = {**row("prefill", token_ops=2e8), **figures.summary(seconds, 512.0)}
    assert "plain map" in page.page(found([both]))
    assert "plain map" not in page.page(found([row("prefill", token_ops=2e8)]))


def test_paragraph_for_the_front_page_never_rounds_up():
    rows = [row(times=1.69), row(times=3.09, quant="q8_0"), {**row("load edge", times=57.9)}]
    rows.append({**row(times=99.0), "model": "random, width 768"})
    rows.append({"model": "SmolLM2-135M", "kind": "memory", "beyond_bytes": {OURS: 47, LLAMA: 100}})
    text = " ".join(readme.paragraph(found(rows), "compare-x").split())
    assert "it writes 1.6 to 3 times, loads an edge image 57 times as fast as llama.cpp" in text
    assert "needs 0.47 to 0.47 of the memory" in text
    assert "(benchmarks/results/compare-x.md)" in text


def test_paragraph_replaces_what_is_between_its_marks():
    before = f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n"
    assert readme.replaced(before, "new\nlines") == before.replace("old", "new\nlines")
    with pytest.raises(ValueError, match="marks"):
        readme.replaced("a page", "new")


def test_stamp_names_no_folder_and_no_host(tmp_path):
    text = json.dumps(stamp.stamp())
    assert str(ROOT) not in text
    assert json.loads(text)["core_sha256"] == stamp.core_sha256()
    assert stamp.name_of(found([])["stamp"]) == "some-2-cores-avx2"


def test_hyperthreads_of_a_core_come_after_every_core(tmp_path):
    for cpu, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n", "ascii")
    assert stamp.one_per_core([3, 2, 1, 0], str(tmp_path)) == [0, 2, 1, 3]
    assert stamp.one_per_core([7, 5], str(tmp_path)) == [5, 7]


def test_rows_are_kept_for_the_same_build_only(tmp_path):
    path = tmp_path / "work" / "rows.json"
    first = script.Rows(path, {"core": "a"}, fresh=False)
    first.put("job", [row()], 1.0)
    assert script.Rows(path, {"core": "a"}, fresh=False).all() == [row()]
    assert script.Rows(path, {"core": "b"}, fresh=False).all() == []
    assert script.Rows(path, {"core": "a"}, fresh=True).all() == []
    path.write_text("{", "utf-8")
    assert script.Rows(path, {"core": "a"}, fresh=False).all() == []
    first.end()
    assert not path.exists()


class Broken:
    """A run whose second job fails and whose third is interrupted, once."""

    def __init__(self, stops):
        self.stops, self.done, self.engines = stops, [], self

    def restart(self):
        self.done.append("restart")

    def jobs(self):
        def job(name):
            if name == "b":
                raise peers.EngineDied("peer_llama.py died")
            if name == "c" and self.stops:
                raise KeyboardInterrupt
            self.done.append(name)
            yield row(quant=name)

        return [(name, lambda n=name: job(n)) for name in ("a", "b", "c", "d")]


def test_interrupted_comparison_keeps_what_is_done_and_continues(tmp_path):
    rows = script.Rows(tmp_path / "rows.json", {}, fresh=False)
    run = Broken(stops=True)
    with pytest.raises(KeyboardInterrupt):
        script.collect(run, rows, shown=False)
    assert list(rows.jobs) == ["a"]
    again = Broken(stops=False)
    troubles = script.collect(again, script.Rows(tmp_path / "rows.json", {}, fresh=False), shown=False)
    assert again.done == ["restart", "c", "d"]
    assert troubles == ["b: peer_llama.py died"]


def test_comparison_out_of_time_starts_nothing_more(tmp_path):
    rows = script.Rows(tmp_path / "rows.json", {}, fresh=False)
    with pytest.raises(KeyboardInterrupt):
        script.collect(Broken(stops=False), rows, shown=False, most_s=-1.0)
    assert rows.all() == []


def test_engines_that_disagree_are_not_timed(tmp_path):
    class Run:
        engines = Broken(False)

        def jobs(self):
            def disagree():
                raise script.Disagree("log-probabilities are 3.000 apart")

            return [
                ("m q4_0 agreement", disagree),
                ("m q4_0 speed 1", lambda: iter([row()])),
                ("m q8_0 speed 1", lambda: iter([row(quant="q8_0")])),
            ]

    rows = script.Rows(tmp_path / "rows.json", {}, fresh=False)
    script.collect(Run(), rows, shown=False)
    assert list(rows.jobs) == ["m q8_0 speed 1"]


def test_missing_peers_are_an_error_that_names_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGELLM_PEERS", str(tmp_path))
    assert script.main(["--work", str(tmp_path), "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "`make peers`" in said
    assert "--alone" in said


def test_token_work_counts_the_tied_head_and_not_the_norms(tmp_path):
    path = files.write_sample(tmp_path / "m.gguf", quant="q8_0", layers=1, width=64, ffn=128)
    nbytes, operations = files.token_work(path)
    weights = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    assert operations == 2.0 * weights
    assert nbytes == (weights + 300 * 64) // 32 * 34


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")
def test_limits_of_the_machine_are_measured():
    with peers.Limits() as limits:
        limits.ask("open", bytes=1 << 20, threads=2)
        assert limits.ask("read")["bytes_per_s"] > 1e7
        limits.ask("open", bytes=1 << 20, threads=1)
        peak = limits.ask("peak", rounds=20_000)
    assert peak["isa"] is None or peak["ops_per_s"] > 1e8


def test_quick_comparison_writes_both_files(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "compare_engines.py"), "--quick"]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out").glob("compare-*.json")
    held = json.loads(written.read_text("utf-8"))
    assert held["complete"]
    assert {"decode", "prefill", "first token", "batch", "load", "memory", "package"} <= {
        r["kind"] for r in held["rows"]
    }
    assert page.page(held) == written.with_suffix(".md").read_text("utf-8")
    assert not (tmp_path / "work" / "quick.json").exists()
