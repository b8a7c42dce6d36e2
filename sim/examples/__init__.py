"""Strategies to read, to use and to start from; docs/strategies.md walks through them.

From Python: `sim.evaluate(scenario, [Hedge(), "cloud"])`; from a shell, with a copy of its file:
`edgellm simulate FILE --strategy hedge.py:Hedge`.
"""

from .allreduce import TrainTogether, ring, tree
from .batching import Batching
from .bundle import Bundle
from .hedge import Hedge

__all__ = ["Batching", "Bundle", "Hedge", "TrainTogether", "ring", "tree"]
