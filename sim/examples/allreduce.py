"""Adding up gradients over many devices, along a ring or a tree, and training that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm import sim


def ring(here: Any, names: Sequence[str], parts: Sequence[Any], nbytes: float, port: str = "ring") -> Any:
    """Add up `parts` over all members: each passes `nbytes / n` to the next one, 2 (n - 1) times.

    A generator for every member: `total = yield from ring(here, names, parts, nbytes)`, with as many parts as
    there are members. Source: Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69(2), 117-124.
    """
    n, rank, parts = len(names), names.index(here.name), list(parts)
    following = names[(rank + 1) % n]
    for step in range(2 * (n - 1)):
        i = (rank - step) % n
        send = here.send(following, port, (i, parts[i]), nbytes / n, data_class="gradient")
        _, (j, part) = yield sim.gather(send, here.recv(port))
        parts[j] = parts[j] + part if step < n - 1 else part  # first they are added up, then handed round
    return parts


def tree(here: Any, names: Sequence[str], value: Any, nbytes: float, port: str = "tree") -> Any:
    """Add up `value` over all members: up a binary tree whose root is the first member, and down again.

    A generator for every member: `total = yield from tree(here, names, value, nbytes)`.
    """
    rank = names.index(here.name)
    children = [names[i] for i in (2 * rank + 1, 2 * rank + 2) if i < len(names)]
    for _ in children:
        value = value + (yield here.recv(f"{port} up"))
    if rank > 0:
        yield here.send(names[(rank - 1) // 2], f"{port} up", value, nbytes, data_class="gradient")
        value = yield here.recv(f"{port} down")
    down = [here.send(child, f"{port} down", value, nbytes, data_class="gradient") for child in children]
    yield sim.gather(*down)
    return value


class TrainTogether(sim.Local):
    """Devices answer by themselves; every `period_s` they train an adapter, and add up what they learned.

    Parameters
    ----------
    model : str
        Variant to train.
    nbytes : float
        Size of the adapter's gradients.
    tokens : int
        What each device trains on in a round.
    role : str
        Who takes part.
    along : {"ring", "tree"}
    """

    def __init__(
        self,
        model: str,
        nbytes: float = 1e6,
        tokens: int = 128,
        period_s: float = 3600.0,
        role: str = "device",
        along: str = "ring",
    ) -> None:
        super().__init__()
        self.trained, self.nbytes, self.tokens = model, nbytes, tokens
        self.period_s, self.role, self.along = period_s, role, along

    def setup(self, fleet: Any) -> None:
        members = fleet.of_role(self.role)
        for here in members:
            here.spawn(self.learn(here, [member.name for member in members]), daemon=True)

    def learn(self, here: Any, names: list[str]) -> Any:
        clock = sim.every(self.period_s, first_s=self.period_s)
        while True:
            yield clock
            yield here.run(sim.Train(self.trained, self.tokens), priority=-3)  # answers come first
            if self.along == "ring":
                yield from ring(here, names, [0.0] * len(names), self.nbytes)
            else:
                yield from tree(here, names, 0.0, self.nbytes)
