"""Outages: nodes and links that a scenario takes down for a while, and what starts again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from inspect import CO_VARARGS, CO_VARKEYWORDS, GEN_CREATED, getgeneratorstate
from types import FunctionType, GeneratorType
from typing import TYPE_CHECKING, Any

from edgellm.sim.strategy.protocol import Script

if TYPE_CHECKING:
    from .network import LinkState, Transfer
    from .node import NodeState
    from .simulation import Simulation

NODE_DOWN = "node down"


class Outages:
    """The outages of a run, what they cut, and the daemons that `setup` started where there are some."""

    __slots__ = ("_daemons", "_links", "_sim", "happened")

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._daemons: dict[str, list[Callable[[], Script]]] = {
            node.name: [] for node in sim.fleet.nodes if node.outages
        }
        self._links: dict[str, list[LinkState]] = {}  # by node that may go down
        self.happened = False  # something went down

    def watch(self, link: LinkState) -> dict[Transfer, None] | None:
        """A place to note what is on a link, if the link or one of its ends may go down."""
        mortal = [end.name for end in (link.lower, link.upper) if _mortal(end)]
        for name in mortal:
            self._links.setdefault(name, []).append(link)
        return {} if mortal or link.link.outages else None

    def start(self) -> None:
        """Set the alarms."""
        sim = self._sim
        for name in self._daemons:
            state = sim.nodes[name]
            for start_s, length_s in state.node.outages:
                sim.at(start_s, partial(state.fail, NODE_DOWN))
                sim.at(start_s + length_s, partial(self._up, state))
        for plain in sim.fleet.links:
            for start_s, length_s in plain.outages:
                link = sim.links[plain.lower]
                sim.at(start_s, partial(self._cut, link))
                sim.at(start_s + length_s, link.recover)

    def _cut(self, link: LinkState) -> None:
        self.happened = True
        link.fail()

    def lose(self, state: NodeState) -> None:
        """A node has gone down: interrupt what runs there, lose its memory and what is on its links."""
        self.happened = True
        tasks = list(state.tasks)
        for task in tasks:
            task.interrupt(state.down())
        for task in tasks:
            for lease in list(task.leases):
                lease.free()
            state.memory.leave(task)
        state.memory.lose()
        for queue in state.ports.values():
            queue.clear()
        for call in list(state.calls):
            call.lost()
        for link in self._links.get(state.name, ()):
            link.cut(state.down)

    def _up(self, state: NodeState) -> None:
        sim = self._sim
        if state.reason != NODE_DOWN:
            return
        state.recover()
        if not state.up:
            return
        try:
            sim.strategy.restarted(sim.here(state))
        except Exception as error:
            sim.strategy_raised(None, error)

    def remember(self, state: NodeState, script: GeneratorType[Any, Any, Any]) -> None:
        """Note a daemon that `setup` starts, if its node will need it again."""
        found = self._daemons.get(state.name)
        if found is not None:
            found.append(recipe(script))

    def daemons(self, state: NodeState) -> list[Script]:
        """The daemons of a node, from their beginning."""
        return [make() for make in self._daemons.get(state.name, ())]


def _mortal(state: NodeState) -> bool:
    return bool(state.node.outages) or state.node.device.battery_j is not None


def recipe(script: GeneratorType[Any, Any, Any]) -> Callable[[], Script]:
    """Return a function that makes a generator like `script`, which has not begun, again.

    It calls the same function (which a generator that has not begun refers to) with the same arguments.

    Raises
    ------
    ValueError
        If the generator has begun.

    Examples
    --------
    >>> def count(n, step=1):
    ...     yield from range(0, n, step)
    >>> make = recipe(count(4, step=2))
    >>> list(make()), list(make())
    ([0, 2], [0, 2])
    """
    code, frame = script.gi_code, script.gi_frame
    if frame is None or getgeneratorstate(script) != GEN_CREATED:
        raise ValueError(f"{script!r} has begun, so it cannot be started again")
    given = frame.f_locals
    function = next(f for f in gc.get_referents(script) if isinstance(f, FunctionType) and f.__code__ is code)
    split = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames
    positional = [given[name] for name in names[: code.co_argcount]]
    named = {name: given[name] for name in names[code.co_argcount : split]}
    if code.co_flags & CO_VARARGS:
        positional += given[names[split]]
        split += 1
    if code.co_flags & CO_VARKEYWORDS:
        named |= given[names[split]]
    return partial(function, *positional, **named)
