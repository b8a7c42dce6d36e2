"""Run simulations: each in a process of its own, forked from a server that has one thread.

Never in the caller's process: SimGrid can be started once per process only, and a notebook's process has
threads, which do not survive a fork. docs/decisions/0003-simulations-in-forked-children.md has the reasons.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgellm.sim.scenario import Scenario
from edgellm.sim.strategy.base import Strategy

from . import errors
from .errors import EngineMissing, SimulationCrashed, SimulationError, StrategyError
from .results import RunResult
from .server import read_message, write_message
from .ship import Message, dump_task, dumps

__all__ = [
    "EngineMissing",
    "RunResult",
    "RunTask",
    "SimulationCrashed",
    "SimulationError",
    "StrategyError",
    "available",
    "run_many",
    "run_one",
]

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from edgellm.sim.engine.server import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


@dataclass(frozen=True, slots=True)
class RunTask:
    """One simulation.

    Attributes
    ----------
    scenario : Scenario
    strategy : Strategy
    seed : int
        At least 0. The same scenario, strategy and seed give the same bytes, wherever and beside whatever
        they run.
    confidence : mapping of str to tuple of float
        For each variant a sorted sample of its confidence; a variant without one is drawn uniformly.
    trace : int
        About how many requests are traced, spread over the run; results do not depend on it.
    solver : {"exact", "simgrid"}
        Who solves the sharing of nodes and links.

    Raises
    ------
    ValueError
        If `seed` or `trace` is negative.
    """

    scenario: Scenario
    strategy: Strategy
    seed: int
    confidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    trace: int = 0
    solver: Literal["exact", "simgrid"] = "exact"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if self.trace < 0:
            raise ValueError(f"trace must be 0 or more, got {self.trace}")


def available() -> bool:
    """Whether `edgellm._sim` was built here."""
    return importlib.util.find_spec("edgellm._sim") is not None


def run_one(task: RunTask) -> RunResult:
    """Run one simulation in a process of its own.

    Raises
    ------
    EngineMissing
        If SimGrid is not installed; the message says how to install it.
    StrategyError
        If the strategy raises.
    SimulationCrashed
        If the process dies.
    SimulationError
        If anything else goes wrong.
    """
    for _, result in run_many([task], 1):
        if isinstance(result, Exception):
            raise result
        return result
    raise SimulationError("the simulation gave no result")


def run_many(
    tasks: Iterable[RunTask], workers: int = 2, executor: Executor | None = None
) -> Iterator[tuple[int, RunResult | Exception]]:
    """Run simulations and yield (index of the task, result or error) as they end.

    Ctrl-C (or closing the iterator) ends the simulations that are under way here at once; what was yielded
    before is whole.

    Parameters
    ----------
    tasks : iterable of RunTask
    workers : int
        Simulations at once, at least 1. Results do not depend on it, only their order does.
    executor : concurrent.futures.Executor or None
        Who runs them instead: a pool of processes, a cluster (`dask.distributed.Client.get_executor()`).
        `workers` does not matter then. What has been handed to it and has not begun is cancelled at the end.

    Raises
    ------
    EngineMissing
        If SimGrid is not installed (here, without an executor).
    ValueError
        If `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    todo = list(tasks)
    if executor is None and not available():
        raise EngineMissing
    return _run(todo, workers, executor)


def _run(
    todo: list[RunTask], workers: int, executor: Executor | None
) -> Iterator[tuple[int, RunResult | Exception]]:
    scenarios: list[Any] = []
    sent: list[int] = []
    parts: list[bytes] = []
    for index, task in enumerate(todo):
        try:
            parts.append(dump_task(task, scenarios))
            sent.append(index)
        except Exception as error:
            yield index, _unsendable(task, error)
    if not sent:
        return
    if executor is not None:
        found = _elsewhere(executor, scenarios, parts)
    else:
        found = _here(dumps(scenarios), tuple(parts), workers)
    try:
        for place, (kind, value) in found:
            if kind == "result" and value.output:
                print(value.output, end="")
            yield sent[place], value if kind == "result" else _error(kind, value)
    finally:
        found.close()


def _unsendable(task: RunTask, error: Exception) -> SimulationError:
    return SimulationError(
        f"cannot send {type(task.strategy).__name__} to the simulation's process: {type(error).__name__}: "
        f"{error}; keep open files, locks and the like out of a strategy and of the globals it uses"
    )


Outcome = tuple[str, Any]  # "result" and a RunResult, or the name of an exception and its text


def _here(scenarios: bytes, tasks: tuple[bytes, ...], workers: int) -> Generator[tuple[int, Outcome]]:
    """Run in processes forked from a server, and yield outcomes as they come."""
    with tempfile.TemporaryDirectory(prefix="edgellm-sim-") as folder:
        server = _Connection()
        try:
            server.send(pickle.dumps(Message(scenarios, tasks, workers, folder)))
            for _ in tasks:
                index, trouble = server.receive()
                file = Path(folder, str(index))
                yield index, ("SimulationCrashed", trouble) if trouble else _read(file)
                file.unlink(missing_ok=True)
        finally:
            server.close()


def _read(file: Path) -> Outcome:
    with file.open("rb") as stream:
        outcome: Outcome = pickle.load(stream)
    return outcome


def _elsewhere(
    executor: Executor, scenarios: list[Any], tasks: list[bytes]
) -> Generator[tuple[int, Outcome]]:
    """Hand the tasks to an executor, and yield outcomes as they come."""
    blob = dumps(scenarios)
    places = {executor.submit(_worker, blob, task): i for i, task in enumerate(tasks)}
    try:
        for future in as_completed(places):
            try:
                outcome = pickle.loads(future.result())
            except Exception as error:
                outcome = ("SimulationError", f"a worker failed: {type(error).__name__}: {error}")
            yield places[future], outcome
    finally:
        for future in places:
            future.cancel()


def _worker(scenarios: bytes, task: bytes) -> bytes:
    """What an executor runs: one simulation, in a process of its own beside the worker's."""
    if not available():
        return pickle.dumps(("EngineMissing", str(EngineMissing())))
    for _, outcome in _here(scenarios, (task,), 1):
        return pickle.dumps(outcome, protocol=pickle.HIGHEST_PROTOCOL)
    raise AssertionError("no outcome of one task")


class _Connection:
    """A server process, in a session of its own: the terminal's Ctrl-C does not reach it, `close` does."""

    def __init__(self) -> None:
        far_source, self._sink = os.pipe()
        self._source, far_sink = os.pipe()
        path = json.dumps([str(entry) for entry in sys.path])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, path, str(far_source), str(far_sink)],
                pass_fds=(far_source, far_sink),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._sink)
            os.close(self._source)
            raise
        finally:
            os.close(far_source)
            os.close(far_sink)

    def send(self, message: bytes) -> None:
        with suppress(BrokenPipeError):  # it has died: receive() says so
            write_message(self._sink, message)

    def receive(self) -> tuple[int, str]:
        """Return which task has ended, and how its process died, or ""."""
        message = read_message(self._source)
        if message is None:
            code = self._process.wait()
            raise SimulationCrashed(
                f"the process that simulations are forked from ended with exit code {code}"
            )
        index, trouble = pickle.loads(message)
        if index is None:
            raise SimulationError(trouble)
        return index, trouble

    def close(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._sink)
        os.close(self._source)


def _error(kind: str, text: Any) -> Exception:
    made: Exception = getattr(errors, kind)(text)
    return made
