"""Calls of services on other nodes: the way there, the service or an inbox, the way back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import Any

from edgellm.sim.strategy.protocol import Cancel, Interrupted, Kernel, Rejected, Settle, Waitable

from .network import check_bytes, data_class_of, nothing, request_of, size_of
from .node import NodeState
from .task import Task
from .trace import INBOX, Span


class RemoteCall(Waitable):
    """What `here.call` returns."""

    __slots__ = ("_args", "_calling", "_msg", "_name")

    def __init__(
        self, src: NodeState, dst: NodeState, name: str, msg: Any, nbytes: float, data_class: str
    ) -> None:
        self._args = (src, dst, check_bytes(nbytes), data_class)
        self._name, self._msg = name, msg

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        del kernel
        src, dst, nbytes, data_class = self._args
        self._calling = _Calling(src, dst, self._name, self._msg, done)
        return self._calling.start(nbytes, data_class)

    def __repr__(self) -> str:
        return f"the reply of {self._name!r} from {self._args[1].name}"

    @property
    def in_inbox(self) -> bool:
        """Whether it waits in an inbox, or was taken from one and not answered."""
        return self._calling in self._args[1].calls


class _Calling:
    """One call: the way there, the service, the way back. In an inbox it is a `Call`."""

    __slots__ = (
        "_answered",
        "_cancel",
        "_data_class",
        "_done",
        "_dst",
        "_name",
        "_request",
        "_src",
        "_there_s",
        "_value",
        "given_up",
        "msg",
        "sim",
    )

    def __init__(self, src: NodeState, dst: NodeState, name: str, msg: Any, done: Settle) -> None:
        self.sim = src.sim
        self._src, self._dst, self._name, self.msg = src, dst, name, msg
        self._done: Settle | None = done
        self._request = request_of(self.sim, msg)
        self._cancel: Callable[[], Any] = nothing
        self._value: Any = None  # of the reply on its way
        self._there_s = -1.0  # when a traced call arrived
        self._answered = False
        self._data_class = "none"  # of the call
        self.given_up = False  # as far as the serving node has heard

    @property
    def source(self) -> str:
        """Name of the calling node."""
        return self._src.name

    def start(self, nbytes: float, data_class: str) -> Cancel:
        self._data_class = data_class
        way = self.sim.transfer(
            self.sim, self._src, self._dst, nbytes, data_class, self._request, self._there
        )
        self._cancel = way.cancel
        way.start()
        return self.cancel

    def _there(self, error: Interrupted | None) -> None:
        self._cancel = nothing
        service = self._dst.services.get(self._name)
        if self._request is not None and self._request.spans is not None and error is None:
            self._there_s = self.sim.engine.now
        if error is not None:
            self._fail(error)
        elif service is not None:
            self._serve(service)
        elif self._name in self._dst.ports:
            self._dst.calls[self] = None
            self._cancel = self._give_up_far
            self._dst.ports[self._name].put(self)
        else:
            offered = ", ".join(sorted(self._dst.services)) or "none"
            self._fail(
                Rejected(
                    "no such service",
                    detail=f"{self._dst.name} offers no service {self._name!r} (it has: {offered})",
                )
            )

    def _serve(self, service: Callable[..., Any]) -> None:
        here = self.sim.here(self._dst)
        streams = getattr(service, "streams", False)
        try:
            script = service(self.msg, here)
        except Interrupted as error:
            self._fail(error)
            return
        except Exception as error:
            self.sim.strategy_raised(None, error, self._request)
            return
        if not isinstance(script, GeneratorType):
            self.reply(script)
            return
        task = Task(self.sim, script, self._dst, self._request, streams=streams, on_end=self._served)
        self._cancel = partial(self._cancel_far, task)
        task.start()

    def _served(self, task: Task) -> None:
        self._cancel = nothing
        if task.error is not None:
            self._fail(task.error)
        else:
            self.reply(task.value)

    def _cancel_far(self, task: Task) -> None:
        """Word of a cancelled call takes one latency to get there."""
        late_s = self.sim.latency_s(self._src, self._dst.name)
        self.sim.at(self.sim.now + late_s, task.cancel)

    def _give_up_far(self) -> None:
        """The same for a call in an inbox: whoever looks at it is told."""
        late_s = self.sim.latency_s(self._src, self._dst.name)
        self.sim.at(self.sim.now + late_s, self._heard)

    def _heard(self) -> None:
        self.given_up = True
        self._dst.calls.pop(self, None)

    def _traced(self) -> None:
        """Make a span of a traced call that is answered."""
        if self._there_s >= 0.0 and self._request is not None and self._request.spans is not None:
            what = self._name if self._name in self._dst.services else INBOX
            self._request.spans.append(
                Span(self._request.id, "service", self._dst.name, self._there_s, self.sim.engine.now, what)
            )
            self._there_s = -1.0

    def lost(self) -> None:
        """The node that had it in an inbox went down."""
        self._fail(self._dst.down())

    def _fail(self, error: Interrupted) -> None:
        self._traced()
        self._dst.calls.pop(self, None)
        if self._done is None:
            return
        late_s = self.sim.latency_s(self._dst, self._src.name)
        ticket = self.sim.at(self.sim.now + late_s, partial(self._finish, None, error))
        self._cancel = partial(self.sim.drop, ticket)

    def _finish(self, value: Any, error: Interrupted | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(value, error)

    def reply(self, value: Any = None, nbytes: float | None = None, data_class: str | None = None) -> None:
        """Send the reply on its way; nothing happens if nobody waits for it any more.

        A reply that does not say what kind of user data it is carries that of the call.

        Raises
        ------
        RuntimeError
            If it was replied to before.
        """
        self._dst.calls.pop(self, None)
        if self._answered:
            raise RuntimeError(f"a call of {self._name!r} from {self.source} was replied to before")
        self._answered = True
        self._traced()
        if self._done is None:
            return
        size = check_bytes(size_of(value) if nbytes is None else nbytes)
        kind = self._data_class
        if data_class is not None or hasattr(value, "data_class"):
            kind = data_class_of(value, data_class)
        self._value = value
        way = self.sim.transfer(self.sim, self._dst, self._src, size, kind, self._request, self._back)
        self._cancel = way.cancel
        way.start()

    def _back(self, error: Interrupted | None) -> None:
        self._cancel = nothing  # no cycle keeps the call, its messages and its request alive
        self._finish(self._value if error is None else None, error)

    def refuse(self, reason: str) -> None:
        """Throw `Rejected` at the caller."""
        self._answered = True
        self._fail(Rejected(reason))

    def cancel(self) -> None:
        """Give the call up."""
        self._done = None
        self._cancel()
