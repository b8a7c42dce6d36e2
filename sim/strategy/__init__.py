"""Strategies: the protocol they are written in, and the built-in ones, which are also examples."""

from .base import Answer, Call, Done, FleetView, Generate, Here, Lease, Request, Strategy, Task, spawn
from .cascade import Cascade
from .cloud import Cloud
from .gateway import Gateway
from .groups import first, gather, race, within
from .local import Local
from .protocol import (
    Cancelled,
    Event,
    Interrupted,
    LinkDown,
    NodeDown,
    Queue,
    Rejected,
    TimedOut,
    Waitable,
    every,
    sleep,
    until,
)

#: The built-in strategies by name.
BUILT_IN: dict[str, type[Strategy]] = {s.name: s for s in (Local, Gateway, Cloud, Cascade)}

__all__ = [
    "BUILT_IN",
    "Answer",
    "Call",
    "Cancelled",
    "Cascade",
    "Cloud",
    "Done",
    "Event",
    "FleetView",
    "Gateway",
    "Generate",
    "Here",
    "Interrupted",
    "Lease",
    "LinkDown",
    "Local",
    "NodeDown",
    "Queue",
    "Rejected",
    "Request",
    "Strategy",
    "Task",
    "TimedOut",
    "Waitable",
    "every",
    "first",
    "gather",
    "race",
    "sleep",
    "spawn",
    "until",
    "within",
]
