"""The simulations of a study: planned, run wherever there is room, and kept as they end."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgellm.sim.columns import SCHEMA
from edgellm.sim.fingerprint import fingerprint
from edgellm.sim.quality import Quality
from edgellm.sim.runs import Run, RunError, make_run
from edgellm.sim.store import Store


@dataclass(frozen=True, slots=True)
class Planned:
    """One simulation to be made: `task` is a `RunTask`."""

    strategy: str
    base_model: str
    task: Any

    @property
    def key(self) -> str:
        """The name under which the run is kept: equal for runs with the same label and the same outcome."""
        import edgellm

        task, versions = self.task, (SCHEMA, edgellm.__version__, str(edgellm.__numerics__))
        confidence = sorted(task.confidence.items())
        what = (
            self.strategy,
            self.base_model,
            task.scenario.digest,
            task.strategy,
            task.seed,
            confidence,
            task.solver,
        )
        return fingerprint(versions, what)


@dataclass(slots=True)
class Sweep:
    """What has become of a plan: runs and errors by their place in it."""

    done: dict[int, Run] = field(default_factory=dict)
    errors: dict[int, RunError] = field(default_factory=dict)
    first_error: Exception | None = None
    interrupted: bool = False

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs in the order of the plan."""
        return tuple(self.done[i] for i in sorted(self.done))

    @property
    def failed(self) -> tuple[RunError, ...]:
        """The errors in the order of the plan."""
        return tuple(self.errors[i] for i in sorted(self.errors))


class TemporaryFolder:
    """A folder that is gone when nobody holds this any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edgellm-study-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def describe_store(
    store: Store, plan: Sequence[Planned], meta: dict[str, Any], qualities: dict[str, Quality], sweep: Sweep
) -> None:
    """Write into a store what makes its runs a study."""
    store.describe(
        {
            "schema": SCHEMA,
            "meta": meta,
            "quality": [quality.to_json() for quality in qualities.values()],
            "errors": [asdict(error) for error in sweep.failed],
            "keys": [planned.key for planned in plan],
        }
    )


def sweep(
    engine: Any, plan: Sequence[Planned], store: Store, workers: int, executor: Executor | None, bar: Any
) -> Sweep:
    """Make the runs of a plan that the store lacks.

    Parameters
    ----------
    engine : module
        `edgellm.sim.engine.run`.
    plan : sequence of Planned
    store : Store
        Keeps every run as it ends.
    workers, executor
        As in `edgellm.sim.evaluate`.
    bar : object with `update(count)`
        Is told of every run that is there.

    Raises
    ------
    EngineMissing
        If SimGrid is not installed where the simulations run.
    """
    out = Sweep()
    keys = [planned.key for planned in plan]
    for index, key in enumerate(keys):
        run = store.get(key)
        if run is not None:
            out.done[index] = run
    bar.update(len(out.done))
    todo = [index for index in range(len(plan)) if index not in out.done]
    results = engine.run_many([plan[index].task for index in todo], workers, executor)
    try:
        for place, result in results:
            index = todo[place]
            planned = plan[index]
            who = planned.strategy, planned.base_model, planned.task.seed
            if isinstance(result, ImportError):
                raise result
            if isinstance(result, Exception):
                out.first_error = out.first_error or result
                out.errors[index] = RunError(*who, type(result).__name__, str(result))
            else:
                out.done[index] = store.put(keys[index], make_run(*who, result))
            bar.update(1)
    except KeyboardInterrupt:
        out.interrupted = True
    finally:
        results.close()
    return out
