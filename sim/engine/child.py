"""What runs in the child process of one simulation."""

from __future__ import annotations

import contextlib
import gc
import io
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import SimulationError

if TYPE_CHECKING:
    from .run import RunTask

#: A result keeps at most so much of what a strategy prints.
MAX_OUTPUT_CHARACTERS = 200_000


def simulate(task: RunTask) -> bytes:
    """Run one simulation in this process, which can run no other; returns a pickled (kind, value).

    The kind is "result" (a `RunResult`), or the name of an exception (its text).
    """
    gc.collect()
    gc.freeze()  # what was there before is shared with the server: leave its pages alone
    gc.set_threshold(100_000, 50, 100)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            from .results import collect
            from .simulation import Simulation

            sim = Simulation(task.scenario, task.strategy, task.seed, task.confidence)
            sim.run()
            result = replace(collect(sim), output=printed.getvalue()[:MAX_OUTPUT_CHARACTERS])
        return pickle.dumps(("result", result), protocol=pickle.HIGHEST_PROTOCOL)
    except SimulationError as error:
        return pickle.dumps((type(error).__name__, str(error)))
    except Exception as error:
        import traceback

        text = f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
        return pickle.dumps(("SimulationError", text))
