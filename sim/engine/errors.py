"""What can go wrong with a simulation as a whole."""

from __future__ import annotations

#: How to get what `edgellm._sim` is built on.
INSTALL_HINT = (
    "the testbed needs SimGrid: `apt-get install libsimgrid-dev`, then install edgellm again "
    "(edgellm._sim is built where libsimgrid is found)"
)


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
