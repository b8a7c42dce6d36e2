"""What a traced request went through: spans of simulated time, each at one node or link.

A request that is not traced has `spans = None`, and costs one comparison where a span would end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgellm.sim.work import Load, Step

if TYPE_CHECKING:
    from .compute import _Running
    from .request import Request

#: Detail of a service that takes its calls from an inbox.
INBOX = "from an inbox"


class Span(NamedTuple):
    """A stretch of time that a request spent on one thing in one place.

    Attributes
    ----------
    request : int
        Its id.
    kind : str
        "wait" (for memory), "load", "prefill", "decode", "verify", "step", "train", "compute", "queue" (a
        call in an inbox), "transfer" (one hop) or "service" (a call, from its arrival to its reply).
    where : str
        Name of the node or of the link.
    start_s, end_s : float
        Simulated seconds.
    detail : str
        A few words for people.
    """

    request: int
    kind: str
    where: str
    start_s: float
    end_s: float
    detail: str


class Tracer:
    """Chooses the requests to trace, spread over the run, and keeps their spans.

    Parameters
    ----------
    wanted : int
        How many requests to trace, about; at least 1.
    expected : int
        How many requests will arrive.
    """

    __slots__ = ("_every", "_spans")

    def __init__(self, wanted: int, expected: int) -> None:
        self._every = max(1, expected // wanted)
        self._spans: dict[int, list[Span]] = {}

    def of(self, request: int) -> list[Span] | None:
        """Return the list that spans of this request go into, or None where it is not traced."""
        return self._spans.setdefault(request, []) if request % self._every == 0 else None

    def result(self) -> list[Span]:
        """Return all spans by request and date, with what a call waited for in its inbox made a span."""
        out: list[Span] = []
        for _, spans in sorted(self._spans.items()):
            spans = spans + _queueing(spans)
            out += sorted(spans, key=lambda s: (s.start_s, -s.end_s, s.kind != "service", s.kind, s.where))
        return out


def _queueing(spans: list[Span]) -> list[Span]:
    """What lies between the arrival of a call in an inbox and the first work done for it there."""
    out = []
    for call in spans:
        if call.kind != "service" or call.detail != INBOX:
            continue
        work = [s for s in spans if s.where == call.where and s.kind != "service"]
        begun = [s.start_s for s in work if call.start_s <= s.start_s < call.end_s]
        until_s = min(begun, default=call.end_s)
        if until_s > call.start_s:
            out.append(Span(call.request, "queue", call.where, call.start_s, until_s, "in an inbox"))
    return out


def trace_run(request: Request, run: _Running, units: int) -> None:
    """Note what a computation was for a traced request that pays for it: waiting, reading weights, work.

    Steps of batches that follow each other at once are one span.
    """
    spans, where, now = request.spans, run.node.name, run.sim.engine.now
    if spans is None:
        return
    if run.waited_s > 0.0:
        spans.append(Span(request.id, "wait", where, run.begun_s - run.waited_s, run.begun_s, "for memory"))
    work, begun_s = run.run.work, run.begun_s
    if run.cold_s > 0.0 and run.done_s > 0.0:
        # what shares the node slows reading and computing alike, as far as one can tell afterwards
        begun_s += (now - begun_s) * min(1.0, run.cold_s / run.done_s)
        spans.append(Span(request.id, "load", where, run.begun_s, begun_s, run.plan.model))
    if isinstance(work, Load):
        return
    last = spans[-1] if spans else None
    if (
        isinstance(work, Step)
        and last is not None
        and (last.kind, last.where, last.end_s) == ("step", where, begun_s)
    ):
        spans[-1] = last._replace(end_s=now, detail=f"{run.plan.model}, steps of batches")
        return
    what = f"{units * run.plan.tokens} tokens, " if run.plan.tokens else ""
    alone = f"{what}{max(0.0, run.done_s - run.cold_s):.3g} s of work"
    detail = f"{run.plan.model}, {alone}" if run.plan.model else alone
    spans.append(Span(request.id, type(work).__name__.lower(), where, begun_s, now, detail))
