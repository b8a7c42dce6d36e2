"""What is there when a run begins: weights in memory, charge of batteries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import NodeState
    from .simulation import Simulation


def begin(sim: Simulation, state: NodeState) -> None:
    """Bring a node into the state that `[initial]` declares for it, else that it has by itself.

    Without a declaration the variants that are placed there (by the scenario or by `Strategy.setup`) are
    resident in their order as far as they fit, and the battery has the charge that the fleet says.
    """
    declared = sim.scenario.initial.get(f"{state.node.site}/{state.node.key}")
    resident = None if declared is None else declared.resident
    for model in state.models if resident is None else resident:
        state.memory.place(model)
    if declared is not None and declared.charge is not None and state.battery_j < math.inf:
        state.charge_to(declared.charge)
