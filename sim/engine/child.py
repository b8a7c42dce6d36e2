"""What runs in the child process of one simulation."""

from __future__ import annotations

import contextlib
import gc
import io
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from .errors import SimulationError

if TYPE_CHECKING:
    from .run import RunTask

#: A result keeps at most so much of what a strategy prints.
MAX_OUTPUT_CHARACTERS = 200_000


def simulate(task: RunTask, sink: BinaryIO) -> None:
    """Run one simulation in this process, which can run no other, and write a pickled (kind, value).

    The kind is "result" (a `RunResult`), or the name of an exception (its text). A million rows go to the
    file as they lie in memory: they are not copied into one string first.
    """
    gc.collect()
    gc.freeze()  # what was there before is shared with the server: leave its pages alone
    gc.set_threshold(100_000, 50, 100)
    pickle.dump(_outcome(task), sink, protocol=pickle.HIGHEST_PROTOCOL)


def _outcome(task: RunTask) -> tuple[str, object]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            from .results import collect
            from .simulation import Simulation

            sim = Simulation(
                task.scenario, task.strategy, task.seed, task.confidence, task.trace, task.solver
            )
            sim.run()
            return "result", replace(collect(sim), output=printed.getvalue()[:MAX_OUTPUT_CHARACTERS])
    except SimulationError as error:
        return type(error).__name__, str(error)
    except Exception as error:
        import traceback

        text = f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
        return "SimulationError", text
