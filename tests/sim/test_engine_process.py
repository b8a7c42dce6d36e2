"""Simulations in processes of their own: determinism, Ctrl-C, crashes, strategies from anywhere."""

import dataclasses
import enum
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from engine_world import SMALL, Requests, World, fleet, request, wire
from hypothesis import given
from hypothesis import strategies as st

from edgellm import sim
from edgellm.sim.engine import run as engine
from edgellm.sim.engine import ship

HERE = Path(__file__).parent


def tasks(strategies, seeds=(1, 2), **world):
    world.setdefault("fleet", fleet(wifi=wire("wifi", loss=0.1)))
    specs = tuple(request(i, 1.7 * i, node=f"home/device{i % 2}") for i in range(40))
    scenario = World(workload=Requests(specs), **world)
    return [engine.RunTask(scenario, s, seed, {SMALL: (0.1, 0.9)}) for s in strategies for seed in seeds]


def results(plan, workers):
    found = dict(engine.run_many(plan, workers))
    return [pickle.dumps(found[i]) for i in range(len(plan))]


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers():
    plan = tasks([sim.strategy.Cloud(), sim.strategy.Cascade()])
    once = results(plan, 1)
    assert once == results(plan, 3)
    assert len(set(once)) == 4  # two strategies, two seeds


def test_strategy_of_a_notebook_is_sent_by_value(tmp_path):
    """A script's classes live in __main__, like those of a notebook: nothing can import them."""
    script = tmp_path / "cell.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, math
            from dataclasses import dataclass, field
            from enum import Enum
            from engine_world import SMALL, Requests, World, fleet, request
            from edgellm import sim
            from edgellm.sim.engine.run import RunTask, run_one

            class Where(Enum):
                HERE = "here"
                CLOUD = "cloud"

            @dataclass(frozen=True)
            class Rule:
                limit: int = 12
                seen: list = field(default_factory=list)
                def where(self, req):
                    return Where.HERE if req.prompt_tokens < self.limit else Where.CLOUD

            RULE = Rule()
            offset = lambda x: math.floor(x) + helper(0)

            def helper(n):
                return n if n <= 0 else helper(n - 1)

            class Base(sim.Strategy):
                def setup(self, fleet):
                    self.ready = True
                def decide(self, req):
                    return RULE.where(req)

            class Mine(Base):
                def setup(self, fleet):
                    super().setup(fleet)
                def handle(self, req, here):
                    assert self.ready and offset(0.5) == 0
                    if self.decide(req) is Where.HERE:
                        yield here.run(sim.Prefill(req.model, req.prompt_tokens))
                        yield here.run(sim.Decode(req.model, req.output_tokens, context=req.prompt_tokens))
                        req.finish(model=req.model)
                    else:
                        answer = yield here.call("cloud", "generate", req, req.nbytes)
                        req.finish(answer, model=req.model)

            specs = tuple(request(i, 9.0 * i, prompt_tokens=10 + i) for i in range(4))
            result = run_one(RunTask(World(fleet(), Requests(specs)), Mine(), 1))
            moved = [bool(x) for x in result.requests["bytes_up"]]
            print(result.strategy, list(result.requests["status"]), moved)
            """
        )
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mine ['ok', 'ok', 'ok', 'ok'] [False, False, True, True]\n"


def run_script(script, **kwargs):
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **kwargs,
    )


def test_what_a_strategy_prints_is_shown(capfd):
    class Loud(sim.Strategy):
        def handle(self, req, here):
            print("request", req.id)
            yield sim.sleep(0)
            req.finish()

    result = engine.run_one(tasks([Loud()], [1])[0])
    assert result.output.splitlines()[:2] == ["request 0", "request 1"]
    assert capfd.readouterr().out == result.output


def test_error_of_one_run_leaves_the_others(capfd):
    class Wrong(sim.Strategy):
        def handle(self, req, here):
            raise ZeroDivisionError("one by nothing")
            yield

    found = dict(engine.run_many(tasks([Wrong(), sim.strategy.Local()], [1]), 2))
    assert isinstance(found[0], engine.StrategyError)
    assert "strategy Wrong raised ZeroDivisionError on request 0" in str(found[0])
    assert found[1].requests["status"].count("ok") == 40
    assert capfd.readouterr().err == ""


def test_process_that_dies_is_named():
    class Killer(sim.Strategy):
        def handle(self, req, here):
            os.kill(os.getpid(), signal.SIGKILL)
            yield

    with pytest.raises(engine.SimulationCrashed, match="SIGKILL"):
        engine.run_one(tasks([Killer()], [1])[0])


def test_strategy_that_cannot_be_sent_is_an_error():
    class Holder(sim.Strategy):
        def __init__(self):
            self.file = open(os.devnull)  # noqa: SIM115 - an open file is what cannot be sent

    with pytest.raises(engine.SimulationError, match=r"cannot send Holder.*open files"):
        engine.run_one(tasks([Holder()], [1])[0])


def test_a_strategy_that_cannot_be_sent_leaves_the_others():
    class Holder(sim.strategy.Local):
        def __init__(self):
            self.file = open(os.devnull)  # noqa: SIM115 - an open file is what cannot be sent

    found = dict(engine.run_many(tasks([Holder(), sim.strategy.Local()], [1]), 1))
    assert "cannot send Holder" in str(found[0])
    assert found[1].requests["status"].count("ok") == 40


def test_an_executor_gives_the_same_results():
    plan = tasks([sim.strategy.Cloud()])
    want = results(plan, 1)
    with ProcessPoolExecutor(2) as pool:
        found = dict(engine.run_many(plan, executor=pool))
    assert [pickle.dumps(found[i]) for i in range(2)] == want


def test_a_worker_that_dies_is_named():
    class Broken(Executor):
        def submit(self, call, /, *args, **kwargs):
            future = Future()
            future.set_exception(BrokenProcessPool("a process was killed"))
            return future

    found = dict(engine.run_many(tasks([sim.strategy.Cloud()]), executor=Broken()))
    assert all("a worker failed: BrokenProcessPool" in str(error) for error in found.values())


def test_missing_simgrid_says_what_to_install(monkeypatch):
    monkeypatch.setattr(engine, "available", lambda: False)
    with pytest.raises(ImportError, match="apt-get install libsimgrid-dev") as error:
        engine.run_one(tasks([sim.strategy.Local()], [1])[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_out_of_range_are_an_error(workers):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        engine.run_many(tasks([sim.strategy.Local()], [1]), workers)


def test_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="seed must be 0 or more, got -5"):
        tasks([sim.strategy.Local()], [-5])


def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_running(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from test_engine_process import tasks
            from edgellm import sim
            from edgellm.sim.engine.run import run_many

            class Endless(sim.Strategy):
                def handle(self, req, here):
                    while True:
                        yield sim.sleep(1e-5)

            kept = []
            try:
                for i, result in run_many(tasks([sim.strategy.Local(), Endless()], [1]), 2):
                    kept.append(result.strategy)
                    print("ready", flush=True)
            except KeyboardInterrupt:
                print("kept", *kept, flush=True)
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    child = subprocess.Popen(
        [sys.executable, str(script)], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout.readline() == "ready\n"
    servers = children_of(child.pid)
    assert servers
    simulations = [pid for server in servers for pid in children_of(server)]
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert out == "kept local\n"
    assert child.returncode == 0
    deadline = time.monotonic() + 30
    while any(map(is_running, servers + simulations)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, servers + simulations))


def children_of(pid):
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What is sent by value.


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)


def reload_elsewhere(value, expression):
    """Evaluate an expression of `x` in a process that cannot import this module."""
    code = f"import pickle, sys; x = pickle.loads(sys.stdin.buffer.read()); print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", code], input=ship.dumps(value), capture_output=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_things_without_an_importable_name_arrive_whole(monkeypatch):
    monkeypatch.setattr(ship, "_find", lambda module: module != __name__)
    count = 0

    def counter():
        nonlocal count
        count += 1
        return count

    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    class Slotted:
        __slots__ = ("a",)

        def __init__(self):
            self.a = 3

        @property
        def twice(self):
            return 2 * self.a

        @staticmethod
        def three():
            return 3

        @classmethod
        def made(cls):
            return cls()

    thing = {
        "counter": [counter, counter],
        "factorial": factorial,
        "slotted": Slotted(),
        "point": Point(1, [2]),
        "red": Colour.RED,
        "lambda": lambda x, *, y=2: x + y,
    }
    expression = (
        "[x['counter'][0](), x['counter'][1](), x['factorial'](5), x['slotted'].twice, x['slotted'].three(), "
        "x['slotted'].made().a, __import__('dataclasses').asdict(x['point']), x['red'].name, x['lambda'](1)]"
    )
    assert reload_elsewhere(thing, expression) == "[1, 2, 120, 6, 3, 3, {'x': 1, 'y': [2]}, 'RED', 3]"


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_plain_data_is_sent_as_it_is(value):
    assert pickle.loads(ship.dumps(value)) == value
