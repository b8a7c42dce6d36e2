"""What a simulation hands back: plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .ledger import energy_columns
from .request import LEDGER_CLASSES
from .rows import Column
from .trace import Span

if TYPE_CHECKING:
    from .simulation import Simulation


@dataclass(frozen=True, slots=True)
class RunResult:
    """One strategy, one seed.

    Attributes
    ----------
    strategy : str
    seed : int
    requests, nodes, links : dict of str to (n,) ndarray, Texts or list of str
        Columns: one row per request (in order of arrival), node and link (in the fleet's order). Energies
        are in joules over `simulated_s`; a node's is the sum of its states (`ledger.STATES`), a link's the
        part of that which passed over it.
    simulated_s : float
        The scenario's duration, or until the last answer if that is later.
    events : int
        Activities and timers of the simulation.
    output : str
        What the strategy printed.
    trace : list of Span
        Of traced requests; by request and date.
    """

    strategy: str
    seed: int
    requests: dict[str, Column]
    nodes: dict[str, Column]
    links: dict[str, Column]
    simulated_s: float
    events: int
    output: str = ""
    trace: list[Span] = field(default_factory=list)


def collect(sim: Simulation) -> RunResult:
    """Return the result of a simulation that has run."""
    nodes = sim.fleet.nodes
    states = list(sim.nodes.in_order())
    for state in sim.nodes.values():
        state.close(sim.end_s)
    links = [(link, sim.links.get(link.lower)) for link in sim.fleet.links]
    return RunResult(
        strategy=sim.strategy.name,
        seed=sim.seed,
        requests=sim.rows.close(),
        nodes={
            "node": [n.name for n in nodes],
            "site": [n.site for n in nodes],
            "role": [n.role for n in nodes],
            "device": [n.device.name for n in nodes],
            "busy_s": np.array([s.work_s for s in states], dtype=np.float64),
            **energy_columns(states, sim.end_s),
            "battery_empty": np.array([s.reason == "battery empty" for s in states], dtype=np.bool_),
            "down_s": np.array([s.down_s for s in states], dtype=np.float64),
            "memory_peak_bytes": np.array([s.memory.peak_bytes for s in states], dtype=np.float64),
        },
        links={
            "link": [link.name for link, _ in links],
            "profile": [link.profile.name for link, _ in links],
            "bytes_up": np.array([s.bytes[1] if s else 0.0 for _, s in links], dtype=np.float64),
            "bytes_down": np.array([s.bytes[0] if s else 0.0 for _, s in links], dtype=np.float64),
            "energy_j": np.array([s.energy_j if s else 0.0 for _, s in links], dtype=np.float64),
            **{
                f"left_home_{c}_bytes": np.array([s.left_home.get(c, 0.0) if s else 0.0 for _, s in links])
                for c in LEDGER_CLASSES
            },
        },
        simulated_s=sim.end_s,
        events=sim.engine.events,
        trace=[] if sim.tracer is None else sim.tracer.result(),
    )
