"""What can go wrong with a simulation as a whole."""

from __future__ import annotations

#: How to get what `edgellm._sim` is built on.
INSTALL_HINT = (
    "the testbed needs SimGrid: `apt-get install libsimgrid-dev`, then install edgellm again "
    "(edgellm._sim is built where libsimgrid is found)"
)


#: A task that is resumed so often at one date will never let time go on.
RESUMPTIONS = 1 << 16


class SimulationError(Exception):
    """A simulation did not come to its end."""


class EngineMissing(SimulationError, ImportError):
    """`edgellm._sim` was not built here; the message says what to install."""

    def __init__(self, text: str = INSTALL_HINT) -> None:
        super().__init__(text)


class StrategyError(SimulationError):
    """A strategy raised; the message names its class and the request, and ends with its own traceback."""


class SimulationCrashed(SimulationError):
    """The process of a simulation died (out of memory, killed, or a defect)."""


def endless(now_s: float) -> RuntimeError:
    """Return what to say of a task that is resumed again and again at one date."""
    return RuntimeError(
        f"resumed {RESUMPTIONS} times at {now_s:.6g} s: a loop that never lets simulated time pass; "
        "yield something in it that takes time, as sim.sleep(1)"
    )
