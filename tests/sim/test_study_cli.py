"""edgellm simulate, with SimGrid: what it prints, writes and returns, and what bad input gets."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgellm import cli, sim

SCENARIO = Path(__file__).parents[2] / "scenarios" / "first_steps.toml"
MINE = '''
from edgellm import sim


class Upstairs(sim.Strategy):
    """Ask the hub, and only the hub."""

    def handle(self, req, here):
        answer = yield here.call("gateway", "generate", req, req.nbytes)
        req.finish(answer, model=answer.model)


class Broken(sim.Strategy):
    def handle(self, req, here):
        yield here.run(sim.Prefill(req.model, req.prompt_tokens))
        raise KeyError("no such plan")


class NoStrategy:
    pass
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def simulate(*arguments):
    return cli.main(["simulate", str(SCENARIO), "--quality", "off", *map(str, arguments)])


def test_it_prints_the_table_and_where_the_files_are(tmp_path, capsys):
    out, report = tmp_path / "study.parquet", tmp_path / "deep" / "report.html"
    files = ("--out", out, "--report", report)
    assert simulate("--strategies", "local,cascade(threshold=0.3)", "--seeds", 1, *files) == 0
    text = capsys.readouterr().out
    for wanted in ("local", "cascade(threshold=0.3)", "TTFT", "unvalidated", str(out), str(report)):
        assert wanted in text
    assert len(sim.Study.load(out).runs) == 2
    assert report.read_text().startswith("<!DOCTYPE html>")


def test_the_same_call_again_writes_the_same_bytes(tmp_path):
    for name, workers in (("a", 2), ("b", 2), ("c", 1)):
        options = ("--seeds", "3,5", "--workers", workers, "--out", tmp_path / name)
        assert simulate("--strategies", "local,gateway", *options) == 0
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_json_is_json_and_complete(capsys):
    assert simulate("--strategies", "local", "--seeds", 1, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["rows"][0]["strategy"] == "local"
    assert data["rows"][0]["perplexity"] is None
    assert data["out"] is data["report"] is None
    assert {q["label"] for q in data["quality"]} == {"not measured: left out"}


def test_a_strategy_file_is_added_to_the_named_ones(mine, capsys):
    assert simulate("--strategies", "local", "--strategy", f"{mine}:Upstairs", "--seeds", 1, "--json") == 0
    assert [r["strategy"] for r in json.loads(capsys.readouterr().out)["rows"]] == ["local", "upstairs"]


def test_the_same_requests_arrive_under_every_strategy(tmp_path):
    simulate("--strategies", "local,cloud", "--seeds", 1, "--out", tmp_path / "x")
    rows = sim.Study.load(tmp_path / "x").requests()
    same = ["id", "node", "arrival_s", "prompt_tokens", "output_tokens"]
    parts = [rows[rows["strategy"] == s][same].reset_index(drop=True) for s in ("local", "cloud")]
    assert parts[0].equals(parts[1])


def test_a_cluster_that_is_not_there_is_named():
    """In a process of its own: dask leaves threads behind, which the tests of memory would see."""
    command = [sys.executable, "-m", "edgellm", "simulate", str(SCENARIO), "--dask", "tcp://127.0.0.1:1"]
    own = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert own.returncode == 1
    assert "edgellm: error: --dask tcp://127.0.0.1:1: " in own.stderr


def test_a_strategy_that_raises_leaves_the_others(mine, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    arguments = ["--strategies", "local", "--strategy", f"{mine}:Broken", "--seeds", 1, "--out", out]
    assert simulate(*arguments) == 1
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("edgellm: ")]
    assert len(lines) == 1
    assert "1 run of broken failed: strategy Broken raised KeyError" in lines[0]
    assert "no result: broken, seed 1" in told.out
    assert [run.strategy for run in sim.Study.load(out).runs] == ["local"]
    assert list(tmp_path.iterdir()) == [mine, out] or not (tmp_path / "x.parquet.runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--strategies", "nowhere"], 1, "nowhere"),
        (["--strategies", "cascade(threshold=7)"], 1, "threshold"),
        (["--strategy", "{mine}:Nobody"], 1, "Nobody"),
        (["--strategy", "{mine}:NoStrategy"], 1, "NoStrategy"),
        (["--strategies", "", "--strategy", "{mine}:Broken"], 1, "no such plan"),
        (["--strategy", "{mine}"], 2, "FILE.py:CLASS"),
        (["--strategy", "missing.py:Mine"], 1, "missing.py"),
        (["--models", "gpt:q4_0"], 1, "gpt:q4_0"),
        (["--seeds", "none"], 2, "--seeds"),
        (["--seeds", "0"], 2, "--seeds"),
        (["--workers", "0"], 2, "--workers"),
        (["--quality", "good"], 2, "--quality"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_clear_line(mine, tmp_path, capsys, arguments, code, words):
    filled = [a.format(mine=mine) for a in arguments]
    out = tmp_path / "x.parquet"
    assert simulate("--seeds", 1, *filled, "--out", out) == code
    error = capsys.readouterr().err
    assert words in error
    assert "internal error" not in error
    if words not in ("--quality",):  # argparse adds its usage
        assert len([line for line in error.splitlines() if line.startswith("edgellm: error")]) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('schema = 1\nname = "x"\nbandwith = 3\n', "bandwith"),
        ("this is not TOML", "TOML"),
        ("", "schema"),
        ("schema = 99\n", "99"),
    ],
)
def test_a_bad_scenario_is_exit_code_1_and_one_line(tmp_path, capsys, change, words):
    path = tmp_path / "bad.toml"
    path.write_text(change)
    assert cli.main(["simulate", str(path)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_ctrl_c_writes_what_had_ended(tmp_path):
    out = tmp_path / "study.parquet"
    command = [sys.executable, "-m", "edgellm", "simulate", str(SCENARIO), "--quality", "off"]
    command += ["--workers", "1", "--strategies", "local", "--seeds", "4000", "--out", str(out)]
    log = tmp_path / "log"
    with log.open("w") as err, subprocess.Popen(command, stderr=err, stdout=subprocess.DEVNULL) as child:
        for _ in range(600):  # until the bar shows a finished run
            shown = re.findall(r"(\d+)/4000", log.read_text())
            if child.poll() is not None or (shown and int(shown[-1]) > 0):
                break
            time.sleep(0.1)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(120) == 130
    assert "finished runs were kept" in log.read_text()
    study = sim.Study.load(out)
    assert study.interrupted
    assert 0 < len(study.runs) < 4000
