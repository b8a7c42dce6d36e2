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
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgellm.sim.scenario import Scenario
from edgellm.sim.strategy.base import Strategy

from . import errors
from .errors import EngineMissing, SimulationCrashed, SimulationError, StrategyError
from .results import RunResult
from .server import read_message, write_message
from .ship import dumps

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

    Raises
    ------
    ValueError
        If `seed` is negative.
    """

    scenario: Scenario
    strategy: Strategy
    seed: int
    confidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")


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


def run_many(tasks: Iterable[RunTask], workers: int = 2) -> Iterator[tuple[int, RunResult | Exception]]:
    """Run simulations, `workers` at once, and yield (index of the task, result or error) as they end.

    Ctrl-C (or closing the iterator) ends the simulations that are under way at once; what was yielded
    before is whole.

    Parameters
    ----------
    tasks : iterable of RunTask
    workers : int
        At least 1. Results do not depend on it, only their order does.

    Raises
    ------
    EngineMissing
        If SimGrid is not installed.
    ValueError
        If `workers` is less than 1.
    SimulationError
        If the strategy cannot be sent to the simulation's process.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if not available():
        raise EngineMissing
    todo = list(tasks)
    try:
        message = dumps((workers, todo))
    except Exception as error:
        names = ", ".join(sorted({type(t.strategy).__name__ for t in todo}))
        raise SimulationError(
            f"cannot send {names} to the simulation's process: {type(error).__name__}: {error}; "
            "keep open files, locks and the like out of a strategy and of the globals it uses"
        ) from error
    return _results(message, len(todo))


def _results(message: bytes, count: int) -> Iterator[tuple[int, RunResult | Exception]]:
    if count == 0:
        return
    server = _Connection()
    try:
        server.send(message)
        for _ in range(count):
            yield server.receive()
    finally:
        server.close()


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

    def receive(self) -> tuple[int, RunResult | Exception]:
        message = read_message(self._source)
        if message is None:
            code = self._process.wait()
            raise SimulationCrashed(
                f"the process that simulations are forked from ended with exit code {code}"
            )
        (index,) = struct.unpack_from("<Q", message)
        kind, value = pickle.loads(message[8:])
        if kind == "fatal":
            raise SimulationError(value)
        if kind != "result":
            return index, _error(kind, value)
        if value.output:
            print(value.output, end="")
        return index, value

    def close(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._sink)
        os.close(self._source)


def _error(kind: str, text: Any) -> Exception:
    made: Exception = getattr(errors, kind)(text)
    return made
