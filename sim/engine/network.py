"""Messages between nodes: store and forward over the hops of a route, and calls of services."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from edgellm.sim.fleet import Link, Node
from edgellm.sim.strategy.base import Generate
from edgellm.sim.strategy.protocol import Cancel, Interrupted, Kernel, LinkDown, Rejected, Settle, Waitable

from .node import NodeState
from .request import DATA_CLASSES, Request
from .trace import INBOX, Span

if TYPE_CHECKING:
    from .simulation import Simulation
    from .task import Task

#: Bytes of a transfer unit where the link names no payload: the usual limit of Ethernet and Wi-Fi.
UNIT_BYTES = 1500
LINK_INFEASIBLE = "link infeasible"


class LinkState:
    """A link: one link of the engine of capacity one, shared by its group; transfers are air time."""

    __slots__ = (
        "_rng",
        "always_feasible",
        "bytes",
        "energy_j",
        "extra_latency_s",
        "j_per_bit",
        "latency_s",
        "leaves",
        "link",
        "loss",
        "lower",
        "medium",
        "plain",
        "rates",
        "sim",
        "upper",
    )

    def __init__(self, sim: Simulation, link: Link, medium: int, extra_latency_s: float) -> None:
        self.sim, self.link, self.medium = sim, link, medium
        self.extra_latency_s = extra_latency_s  # beyond that of the group's quickest link
        profile = link.profile
        self.latency_s = profile.latency_s.value
        self.rates = (profile.down_bit_per_s.value, profile.up_bit_per_s.value)  # by `up`
        self.j_per_bit = (profile.energy_down_j_per_bit.value, profile.energy_up_j_per_bit.value)
        self.loss = profile.loss.value
        self.plain = profile.duty_cycle is None  # air time is bits / rate
        self.always_feasible = profile.max_transfer_s is None
        self.bytes = [0.0, 0.0]
        self.energy_j = 0.0
        self.lower, self.upper = sim.nodes[link.lower], sim.nodes[link.upper]
        site = place(self.lower.node)
        self.leaves = site if site != place(self.upper.node) else None
        self._rng: Any = None

    def airtime_s(self, nbytes: float, up: bool) -> float:
        """Seconds of the medium that `nbytes` take without loss."""
        if self.plain:
            return 8.0 * nbytes / self.rates[up]
        return self.link.profile.transfer_time_s(nbytes, up) - self.latency_s

    def overhead(self, nbytes: float) -> float:
        """Draw how many times as much is sent as is received: every unit that is lost is sent again."""
        if self.loss == 0.0 or nbytes == 0:
            return 1.0
        if self._rng is None:
            self._rng = self.sim.stream("link", self.link.name)
        profile = self.link.profile
        units = (
            max(1, -(-int(nbytes) // UNIT_BYTES))
            if profile.max_payload_bytes is None
            else profile.frames(nbytes)
        )
        return 1.0 + float(self._rng.negative_binomial(units, 1.0 - self.loss)) / units


def place(node: Node) -> str:
    """The one site that a node stands in."""
    return node.instance or node.site


class Transfer:
    """One message on its way. `ended(None)` when it has arrived, `ended(error)` when it cannot."""

    __slots__ = (
        "_airtime_s",
        "_at",
        "_begun_s",
        "_cancel",
        "_ended",
        "_hops",
        "_sent",
        "_ticket",
        "data_class",
        "dst",
        "nbytes",
        "request",
        "sim",
        "src",
    )

    def __init__(
        self,
        sim: Simulation,
        src: NodeState,
        dst: NodeState,
        nbytes: float,
        data_class: str,
        request: Request | None,
        ended: Callable[[Interrupted | None], None],
    ) -> None:
        self.sim, self.src, self.dst, self.nbytes = sim, src, dst, nbytes
        self.data_class, self.request, self._ended = data_class, request, ended
        self._hops = sim.route(src, dst)
        self._at = 0
        self._ticket = 0
        self._sent = self._airtime_s = 0.0  # of the hop in progress
        self._cancel: Callable[[], Any] = _nothing

    def start(self) -> Transfer:
        error = self._refusal()
        if error is not None or not self._hops:
            self._ticket = self.sim.soon(partial(self._ended, error))
            self._cancel = self._drop
        else:
            self._hop()
        return self

    def _refusal(self) -> Interrupted | None:
        if not self.src.up:
            return self.src.down()
        for link, up in self._hops:
            if link.always_feasible:
                continue
            why = link.link.profile.infeasible(self.nbytes, up)
            if why is not None:
                return LinkDown(LINK_INFEASIBLE, detail=why)
        return None

    def _hop(self) -> None:
        link, _ = self._hops[self._at]
        if self.request is not None and self.request.spans is not None:
            self._begun_s = self.sim.engine.now
        wait_s, then = link.extra_latency_s, self._transmit
        if self.nbytes == 0:
            self._sent, wait_s, then = 0.0, link.latency_s, self._arrived
        elif wait_s <= 0.0:
            self._transmit()
            return
        self._ticket = self.sim.at(self.sim.engine.now + wait_s, then)
        self._cancel = self._drop

    def _transmit(self) -> None:
        link, up = self._hops[self._at]
        nbytes = self.nbytes
        self._sent = nbytes * link.overhead(nbytes) if link.loss else nbytes
        airtime_s = link.airtime_s(nbytes, up) * (self._sent / nbytes)
        self._airtime_s = airtime_s
        self._ticket = self.sim.engine.transfer(link.medium, up, airtime_s, self._arrived)
        self._cancel = self._cut

    def _drop(self) -> None:
        self.sim.drop(self._ticket)

    def _cut(self) -> None:
        left_s = self.sim.engine.cancel(self._ticket)
        share = 1.0 - left_s / self._airtime_s if self._airtime_s > 0.0 else 0.0
        link, up = self._hops[self._at]
        self._pay(link, up, self._sent * share, share)

    def _arrived(self) -> None:
        self._cancel = _nothing
        link, up = self._hops[self._at]
        self._pay(link, up, self._sent, 1.0)
        end = link.upper if up else link.lower
        self._at += 1
        if not end.up:
            self._ended(end.down())
        elif self._at == len(self._hops):
            self._ended(None)
        else:
            self._hop()

    def _pay(self, link: LinkState, up: bool, sent: float, share: float) -> None:
        energy_j = 8.0 * sent * link.j_per_bit[up]
        link.bytes[up] += sent
        link.energy_j += energy_j
        lower = link.lower
        lower.drain(energy_j)
        request = self.request
        if request is None:
            return
        request.charge_bytes(energy_j, sent, up, lower.name)
        if (
            up
            and link.leaves is not None
            and self.data_class != "none"
            and link.leaves == self.sim.place_of(request.node)
        ):
            request.charge_privacy(self.data_class, self.nbytes * share)
        if request.spans is not None:
            way = f"{sent:.0f} bytes {'up' if up else 'down'}"
            request.spans.append(
                Span(request.id, "transfer", link.link.name, self._begun_s, self.sim.engine.now, way)
            )

    def cancel(self) -> float:
        """Stop it where it is; returns the bytes that have arrived, which is none."""
        self._cancel()
        return 0.0


def _nothing() -> None:
    return None


def data_class_of(msg: Any, said: str | None) -> str:
    """What kind of user data a message carries: as said, else as the message itself says, else none.

    Raises
    ------
    ValueError
        If it is not one of the ledger's classes.

    Examples
    --------
    >>> data_class_of("hello", None), data_class_of("hello", "text")
    ('none', 'text')
    """
    if type(msg) is Generate and said is None:
        kind = msg.request.data_class
    else:
        inner = getattr(msg, "request", msg)
        kind = said if said is not None else str(getattr(inner, "data_class", "none"))
    if kind not in DATA_CLASSES:
        raise ValueError(f"data_class must be one of {', '.join(DATA_CLASSES)}, got {kind!r}")
    return kind


def size_of(value: Any) -> float:
    """Bytes of a reply: its `nbytes`, or the length of text or bytes, else 0.

    Examples
    --------
    >>> size_of("grüß"), size_of(b"abc"), size_of(None)
    (6.0, 3.0, 0.0)
    """
    if isinstance(value, str):
        return float(len(value.encode()))
    if isinstance(value, bytes | bytearray):
        return float(len(value))
    return float(getattr(value, "nbytes", 0))


def check_bytes(nbytes: float) -> float:
    """Return a size as a float; ValueError if it is negative or not finite."""
    if not 0 <= nbytes < float("inf"):
        raise ValueError(f"nbytes must be finite and 0 or more, got {nbytes}")
    return float(nbytes)


def request_of(sim: Simulation, msg: Any) -> Request | None:
    """Who pays for a message: the request that the running task works for, else the one that is sent."""
    task = sim.current
    if task is not None and task.request is not None:
        return task.request
    inner = getattr(msg, "request", msg)
    return inner if isinstance(inner, Request) else None


class Send(Waitable):
    """What `here.send` returns."""

    __slots__ = ("_args", "_msg", "_port")

    def __init__(
        self, src: NodeState, dst: NodeState, port: str, msg: Any, nbytes: float, data_class: str
    ) -> None:
        self._args = (src, dst, check_bytes(nbytes), data_class)
        self._port, self._msg = port, msg

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        del kernel
        src, dst, nbytes, data_class = self._args

        def ended(error: Interrupted | None) -> None:
            if error is None:
                dst.port(self._port).put(self._msg)
            done(None, error)

        sim = src.sim
        return Transfer(sim, src, dst, nbytes, data_class, request_of(sim, self._msg), ended).start().cancel


class RemoteCall(Waitable):
    """What `here.call` returns."""

    __slots__ = ("_args", "_msg", "_name")

    def __init__(
        self, src: NodeState, dst: NodeState, name: str, msg: Any, nbytes: float, data_class: str
    ) -> None:
        self._args = (src, dst, check_bytes(nbytes), data_class)
        self._name, self._msg = name, msg

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        del kernel
        src, dst, nbytes, data_class = self._args
        return _Calling(src, dst, self._name, self._msg, done).start(nbytes, data_class)


class _Calling:
    """One call: the way there, the service, the way back. In an inbox it is a `Call`."""

    __slots__ = ("_cancel", "_done", "_dst", "_name", "_request", "_src", "_there_s", "_value", "msg", "sim")

    def __init__(self, src: NodeState, dst: NodeState, name: str, msg: Any, done: Settle) -> None:
        self.sim = src.sim
        self._src, self._dst, self._name, self.msg = src, dst, name, msg
        self._done: Settle | None = done
        self._request = request_of(self.sim, msg)
        self._cancel: Callable[[], Any] = _nothing
        self._value: Any = None  # of the reply on its way
        self._there_s = -1.0  # when a traced call arrived

    @property
    def source(self) -> str:
        """Name of the calling node."""
        return self._src.name

    def start(self, nbytes: float, data_class: str) -> Cancel:
        way = Transfer(self.sim, self._src, self._dst, nbytes, data_class, self._request, self._there)
        self._cancel = way.cancel
        way.start()
        return self.cancel

    def _there(self, error: Interrupted | None) -> None:
        self._cancel = _nothing
        service = self._dst.services.get(self._name)
        if self._request is not None and self._request.spans is not None and error is None:
            self._there_s = self.sim.engine.now
        if error is not None:
            self._fail(error)
        elif service is not None:
            self._serve(service)
        elif self._name in self._dst.ports:
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
        from .task import Task

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
        self._cancel = _nothing
        if task.error is not None:
            self._fail(task.error)
        else:
            self.reply(task.value)

    def _cancel_far(self, task: Task) -> None:
        """Word of a cancelled call takes one latency to get there."""
        late_s = self.sim.latency_s(self._src, self._dst.name)
        self.sim.at(self.sim.now + late_s, task.cancel)

    def _traced(self) -> None:
        """Make a span of a traced call that is answered."""
        if self._there_s >= 0.0 and self._request is not None and self._request.spans is not None:
            what = self._name if self._name in self._dst.services else INBOX
            self._request.spans.append(
                Span(self._request.id, "service", self._dst.name, self._there_s, self.sim.engine.now, what)
            )
            self._there_s = -1.0

    def _fail(self, error: Interrupted) -> None:
        self._traced()
        if self._done is None:
            return
        late_s = self.sim.latency_s(self._dst, self._src.name)
        ticket = self.sim.at(self.sim.now + late_s, partial(self._finish, None, error))
        self._cancel = partial(self.sim.drop, ticket)

    def _finish(self, value: Any, error: Interrupted | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(value, error)

    def reply(self, value: Any = None, nbytes: float | None = None) -> None:
        """Send the reply on its way; nothing happens if nobody waits for it any more."""
        self._traced()
        if self._done is None:
            return
        size = check_bytes(size_of(value) if nbytes is None else nbytes)
        kind = data_class_of(value, None)
        self._value = value
        way = Transfer(self.sim, self._dst, self._src, size, kind, self._request, self._back)
        self._cancel = way.cancel
        way.start()

    def _back(self, error: Interrupted | None) -> None:
        self._finish(self._value if error is None else None, error)

    def refuse(self, reason: str) -> None:
        """Throw `Rejected` at the caller."""
        self._fail(Rejected(reason))

    def cancel(self) -> None:
        """Give the call up."""
        self._done = None
        self._cancel()
