"""What a traced request went through: spans of simulated time, each at one node or link.

A request that is not traced has `spans = None`, and costs one comparison where a span would end.
"""

from __future__ import annotations

from typing import NamedTuple


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
        How many requests to trace, about; 0 for none.
    expected : int
        How many requests will arrive.
    """

    __slots__ = ("_every", "spans")

    def __init__(self, wanted: int, expected: int) -> None:
        self._every = max(1, -(-expected // wanted)) if wanted > 0 else 0
        self.spans: list[Span] = []

    def of(self, request: int) -> list[Span] | None:
        """Return the list that spans of this request go into, or None where it is not traced."""
        return self.spans if self._every and request % self._every == 0 else None

    def result(self) -> list[Span]:
        """Return all spans by request and date, with what a call waited for in its inbox made a span."""
        spans = sorted(self.spans, key=lambda s: (s.request, s.start_s, -s.end_s, s.kind, s.where))
        return sorted(spans + _queueing(spans), key=lambda s: (s.request, s.start_s, -s.end_s, s.kind, s.where))


def _queueing(spans: list[Span]) -> list[Span]:
    """What lies between the arrival of a call in an inbox and the first work done for it there."""
    out = []
    for call in spans:
        if call.kind != "service" or call.detail != INBOX:
            continue
        begun = [
            s.start_s
            for s in spans
            if s.request == call.request and s.where == call.where and s.kind != "service"
            and call.start_s <= s.start_s < call.end_s
        ]  # fmt: skip
        until_s = min(begun, default=call.end_s)
        if until_s > call.start_s:
            out.append(Span(call.request, "queue", call.where, call.start_s, until_s, "in an inbox"))
    return out


#: Detail of a service that takes its calls from an inbox.
INBOX = "from an inbox"
