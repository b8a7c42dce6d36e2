"""Executors, SQL and studies in files, with SimGrid."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgellm import sim

SCENARIO = Path(__file__).parents[2] / "scenarios" / "first_steps.toml"


def evaluate(**options):
    settings = {"strategies": ["local", "cloud"], "seeds": [1, 2], "quality": "off", "progress": False}
    return sim.evaluate(SCENARIO, **(settings | options))


@pytest.fixture(scope="module")
def study():
    return evaluate()


def saved(study, path):
    return study.save(path).read_bytes()


def test_two_dask_workers_give_the_same_bytes(study, tmp_path):
    """In a process of its own: dask leaves threads behind, which the tests of memory would see."""
    pytest.importorskip("distributed")
    script = textwrap.dedent(
        f"""
        import distributed
        from edgellm import sim

        if __name__ == "__main__":
            with (
                distributed.LocalCluster(
                    n_workers=2, threads_per_worker=1, dashboard_address=None,
                    local_directory={str(tmp_path)!r},
                ) as cluster,
                distributed.Client(cluster) as client,
            ):
                study = sim.evaluate(
                    {str(SCENARIO)!r}, ["local", "cloud"], [1, 2], quality="off", progress=False,
                    executor=client.get_executor(),
                )
            study.save({str(tmp_path / "a")!r})
        """
    )
    file = tmp_path / "on_dask.py"
    file.write_text(script)
    subprocess.run([sys.executable, file], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "a").read_bytes() == saved(study, tmp_path / "b")


def test_an_executor_of_threads_gives_the_same_bytes(study, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = evaluate(executor=pool)
    assert saved(found, tmp_path / "a") == saved(study, tmp_path / "b")


def test_simgrid_itself_gives_the_same_study(study):
    """The exact queues are checked on a whole study against SimGrid, which shares nothing with them."""
    data = tomllib.loads(SCENARIO.read_text())
    data["study"]["solver"] = "simgrid"
    settings = {"seeds": [1, 2], "quality": "off", "progress": False}
    other = sim.evaluate(sim.load_scenario(data, base=SCENARIO.parent), ["local", "cloud"], **settings)
    for ours, theirs in zip(study.runs, other.runs, strict=True):
        for name in ours.requests:
            mine, oracle = ours.requests[name], theirs.requests[name]
            if mine.dtype.kind == "f":
                np.testing.assert_allclose(mine, oracle, rtol=1e-6, atol=1e-7, err_msg=name)
            else:
                assert (mine == oracle).all(), name


def test_duckdb_agrees_with_the_table(study, tmp_path):
    pytest.importorskip("duckdb")
    sql = """select strategy, count(*) as n, sum(energy_j) as energy_j from requests
             group by strategy order by strategy"""
    want = study.requests().groupby("strategy")["energy_j"].agg(["count", "sum"])
    back = sim.Study.load(study.save(tmp_path / "study.parquet"))
    for one in (study, back):
        found = one.query(sql)
        assert list(found["strategy"]) == ["cloud", "local"]
        assert list(found["n"]) == list(want["count"])
        assert list(found["energy_j"]) == pytest.approx(list(want["sum"]))
    assert study.query("select sum(count) as n from nodes")["n"][0] == study.nodes()["count"].sum()
    with pytest.raises(sim.StudyError, match=r"query: .*no_such"):
        study.query("select no_such from requests")


def test_a_study_killed_at_any_moment_leaves_a_readable_folder(tmp_path):
    script = textwrap.dedent(
        f"""
        from edgellm import sim
        sim.evaluate({str(SCENARIO)!r}, ["local", "cloud", "gateway"], range(1, 40), quality="off",
                     store={str(tmp_path / "s")!r}, workers=1)
        """
    )
    for wanted in (1, 3, 6):
        own = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        while own.poll() is None and len(list((tmp_path / "s").glob("[!.]*.parquet"))) < wanted:
            time.sleep(0.005)
        os.kill(own.pid, signal.SIGKILL)
        own.wait()
        found = sim.Study.load(tmp_path / "s")
        assert found.interrupted
        assert len(found.runs) >= wanted
        assert found.requests()["id"].size == sum(len(run.requests["id"]) for run in found.runs)
        assert found.table()["requests"].min() > 0
