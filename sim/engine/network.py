"""Messages between nodes: store and forward over the hops of a route, and calls of services."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edgellm.sim.fleet import Link, Node
from edgellm.sim.strategy.base import Generate
from edgellm.sim.strategy.protocol import Cancel, Interrupted, Kernel, LinkDown, Settle, Waitable

from .losses import key, lost, mixed, unharmed_below
from .messages import MessageCosts, message_costs
from .node import NodeState
from .request import DATA_CLASSES, Request
from .trace import Span

if TYPE_CHECKING:
    from .simulation import Simulation

#: Bytes of a transfer unit where the link names no payload: the usual limit of Ethernet and Wi-Fi.
UNIT_BYTES = 1500
#: A link remembers how many units messages of so many sizes have.
MOST_SIZES = 4096
LINK_INFEASIBLE = "link infeasible"


#: Links of a way, each with its direction: whether it is crossed upwards.
Route = tuple[tuple["LinkState", bool], ...]


class LinkState:
    """A link: one link of the engine of capacity one, shared by its group; transfers are air time."""

    __slots__ = (
        "_crossings",
        "_key",
        "_units",
        "alive_until_s",
        "always_feasible",
        "bytes",
        "costs",
        "energy_j",
        "extra_latency_s",
        "flying",
        "j_per_bit",
        "latency_s",
        "left_home",
        "link",
        "loss",
        "lower",
        "medium",
        "on_battery",
        "places",
        "plain",
        "radio",
        "rates",
        "sim",
        "up",
        "upper",
        "waits_inside",
    )

    def __init__(self, sim: Simulation, link: Link, medium: int, extra_latency_s: float) -> None:
        self.sim, self.link, self.medium = sim, link, medium
        self.extra_latency_s = extra_latency_s  # beyond that of the group's quickest link
        profile = link.profile
        self.latency_s = profile.latency_s.value
        self.rates = (profile.down_bit_per_s.value, profile.up_bit_per_s.value)  # by `up`
        self.loss = profile.loss.value
        self.plain = profile.duty_cycle is None  # air time is bits / rate
        self.always_feasible = profile.max_transfer_s is None
        self.costs = message_costs(link, sim.message_costs)
        self.alive_until_s = -1.0  # until then its connection is open
        self.bytes = [0.0, 0.0]
        self.energy_j = 0.0
        self.lower, self.upper = sim.nodes[link.lower], sim.nodes[link.upper]
        self.j_per_bit = self.lower.join(profile)  # by `up`
        self.radio = self.lower.radio
        meter = self.lower.meter
        self.on_battery = meter is not None and meter.battery is not None
        self.waits_inside = sim.waits_inside and self.radio is None and not self.on_battery
        ends = place(self.upper.node), place(self.lower.node)
        #: The places at its ends, by `up` the one that is left; None where they are the same.
        self.places = ends if ends[0] != ends[1] else None
        self.left_home: dict[str, float] = {}  # data class -> bytes that left the home they came from
        self._key = key(sim.seed, link.name, "loss") if self.loss else 0
        self._units: dict[float, tuple[int, int]] = {}  # by bytes
        self._crossings = 0  # of messages that belong to no request
        self.up = True
        #: Transfers on it, where something may cut them; None where nothing can.
        self.flying: dict[Transfer, None] | None = sim.outages.watch(self)

    def down(self) -> LinkDown:
        """What is thrown at who sends over it while it is down."""
        return LinkDown(detail=f"{self.link.name} is down")

    def fail(self) -> None:
        """Go down: what is on it is lost."""
        self.up = False
        self.cut(self.down)

    def recover(self) -> None:
        """Come up again."""
        self.up = True

    def cut(self, why: Callable[[], Interrupted]) -> None:
        """Interrupt every transfer on it."""
        for transfer in list(self.flying or ()):
            transfer.interrupt(why())

    def airtime_s(self, nbytes: float, up: bool) -> float:
        """Seconds of the medium that `nbytes` take without loss."""
        if self.plain:
            return 8.0 * nbytes / self.rates[up]
        return self.link.profile.transfer_time_s(nbytes, up) - self.latency_s

    def overhead(self, nbytes: float, up: bool, request: Request | None) -> float:
        """Draw how many times as much is sent as is received: every unit that is lost is sent again.

        What a message meets hangs on the link, its direction, its request, and how many messages of that
        request went this way before, not on what else a strategy sends.
        """
        if self.loss == 0.0 or nbytes == 0:
            return 1.0
        if request is None:
            index, self._crossings = self._crossings, self._crossings + 1
            word = mixed(self._key, up, index)
        else:
            word = mixed(self._key, 2 + up, request.id, request.crossing((self.link.name, up)))
        known = self._units.get(nbytes)
        if known is None:
            known = self._units[nbytes] = self._count_units(nbytes)
        units, unharmed = known
        if word < unharmed:
            return 1.0
        return 1.0 + lost(units, self.loss, word) / units

    def _count_units(self, nbytes: float) -> tuple[int, int]:
        """Units of a message, and the words below which all of them arrive at the first try."""
        profile = self.link.profile
        units = (
            max(1, -(-int(nbytes) // UNIT_BYTES))
            if profile.max_payload_bytes is None
            else profile.frames(nbytes)
        )
        if len(self._units) >= MOST_SIZES:
            self._units.clear()
        return units, unharmed_below(units, self.loss)


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
        "_paid",
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
        self._sent = self._paid = self._airtime_s = 0.0  # of the hop in progress
        self._cancel: Callable[[], Any] = nothing

    def start(self) -> Transfer:
        error = self._refusal()
        if error is not None or not self._hops:
            self._refuse(error)
        else:
            self._hop()
        return self

    def _refuse(self, error: Interrupted | None) -> None:
        self._ticket = self.sim.soon(partial(self._ended, error))
        self._cancel = self._drop

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
        link, up = self._hops[self._at]
        if link.flying is not None:
            if not link.up:
                self._refuse(link.down())
                return
            link.flying[self] = None
        if self.request is not None and self.request.spans is not None:
            self._begun_s = self.sim.engine.now
        wait_s, then = link.extra_latency_s, self._transmit if link.radio is None else self._wake
        if self.nbytes == 0:
            self._sent = self._paid = 0.0
            wait_s, then = link.latency_s, self._arrived
        else:
            if link.costs is not None:
                wait_s += self._wait_s(link, up)
            if link.waits_inside:
                self._transmit(wait_s)
                return
            if wait_s <= 0.0:
                then()
                return
        self._ticket = self.sim.at(self.sim.engine.now + wait_s, then)
        self._cancel = self._drop

    def _wake(self) -> None:
        """Wait for the radio, if it sleeps."""
        radio = self._hops[self._at][0].radio
        assert radio is not None
        wait_s = radio.begins()
        self._sent = self._paid = self._airtime_s = 0.0
        if wait_s > 0.0:
            self._ticket = self.sim.at(self.sim.engine.now + wait_s, self._transmit)
            self._cancel = self._cut
        else:
            self._transmit()

    def _transmit(self, wait_s: float = 0.0) -> None:
        link, up = self._hops[self._at]
        self._sent, self._paid, self._airtime_s = self._load(link, up)
        self._ticket = self.sim.engine.transfer(link.medium, up, self._airtime_s, self._arrived, wait_s)
        self._cancel = self._cut
        if link.on_battery:
            assert link.lower.meter is not None
            link.lower.meter.on_air(self._ticket, 8.0 * self._paid * link.j_per_bit[up], self._airtime_s)

    def _load(self, link: LinkState, up: bool) -> tuple[float, float, float]:
        """Bytes on a link's wire, bytes of full packets that cost as much, and air time; losses are drawn."""
        nbytes = self.nbytes
        again = link.overhead(nbytes, up, self.request) if link.loss else 1.0
        if link.costs is None or nbytes == 0:
            return nbytes * again, nbytes * again, link.airtime_s(nbytes, up) * again
        cost = link.costs.message(nbytes, up)
        return cost.wire_bytes * again, cost.payload_bytes * again, cost.airtime_s * again

    def _wait_s(self, link: LinkState, up: bool) -> float:
        """Seconds beyond latency and air time: a connection where none is open, overhead, stalls."""
        if link.costs is None:
            return 0.0
        return self._connect(link, link.costs) + link.costs.message(self.nbytes, up).wait_s - link.latency_s

    def _drop(self) -> float:
        self.sim.drop(self._ticket)
        return 0.0

    def _cut(self) -> float:
        left_s = self.sim.engine.cancel(self._ticket)
        share = 1.0 - left_s / self._airtime_s if self._airtime_s > 0.0 else 0.0
        link, up = self._hops[self._at]
        self._pay(link, up, self._sent * share, self._paid * share, share)
        return self.nbytes * share if self._at == len(self._hops) - 1 else 0.0

    def _arrived(self) -> None:
        self._cancel = nothing
        link, up = self._hops[self._at]
        if link.flying is not None:
            del link.flying[self]
        self._pay(link, up, self._sent, self._paid, 1.0)
        self._at += 1
        self._reached(link.upper if up else link.lower)

    def _reached(self, end: NodeState) -> None:
        if not end.up:
            self._ended(end.down())
        elif self._at == len(self._hops):
            self._ended(None)
        else:
            self._hop()

    def _connect(self, link: LinkState, costs: MessageCosts) -> float:
        """Set up a connection where none is open; returns the seconds that it takes."""
        now, wait_s = self.sim.engine.now, 0.0
        if now > link.alive_until_s:
            new = costs.connection
            wait_s = new.wait_s
            for up, part in ((True, new.up), (False, new.down)):
                if part.wire_bytes:
                    self._charge(link, up, part.wire_bytes, part.payload_bytes, 0)
        link.alive_until_s = now + wait_s + costs.keep_alive_s
        return wait_s

    def _charge(self, link: LinkState, up: bool, sent: float, paid: float, ticket: int) -> None:
        """Count bytes on the wire; energy is that of `paid` bytes in full packets."""
        lower, radio = link.lower, link.radio
        energy_j = lower.drain(8.0 * paid * link.j_per_bit[up], up, ticket)
        if ticket and radio is not None and self.nbytes:
            energy_j += lower.scale * radio.ends()
        link.bytes[up] += sent
        link.energy_j += energy_j
        if self.request is None:
            lower.unattributed_j += energy_j
        else:
            self.request.charge_bytes(energy_j, sent, up, lower.name)

    def _pay(self, link: LinkState, up: bool, sent: float, paid: float, share: float) -> None:
        self._charge(link, up, sent, paid, self._ticket)
        request = self.request
        if link.places is not None and self.data_class != "none":
            self._note_privacy(link.places[up], link, self.nbytes * share)
        if request is not None and request.spans is not None:
            way = f"{sent:.0f} bytes {'up' if up else 'down'}"
            request.spans.append(
                Span(request.id, "transfer", link.link.name, self._begun_s, self.sim.engine.now, way)
            )

    def _note_privacy(self, left: str, link: LinkState, nbytes: float) -> None:
        """Note user data that leaves its home: where the request arrived, else where the sender stands.

        What a cloud sends for nobody's request is not a user's.
        """
        request = self.request
        if request is not None:
            home = self.sim.place_of(request.node)
        elif self.src.node.role != "cloud":
            home = place(self.src.node)
        else:
            return
        if left == home:
            link.left_home[self.data_class] = link.left_home.get(self.data_class, 0.0) + nbytes
            if request is not None:
                request.charge_privacy(self.data_class, nbytes)

    def cancel(self) -> float:
        """Stop it where it is; returns the bytes that have arrived at the far end."""
        self._leave()
        done = self._cancel()
        self._cancel = nothing
        return done or 0.0

    def _leave(self) -> None:
        if self._at < len(self._hops):
            flying = self._hops[self._at][0].flying
            if flying is not None:
                flying.pop(self, None)

    def interrupt(self, error: Interrupted) -> None:
        """Something on its way went down."""
        error.done = self.cancel()
        self._ended(error)


def nothing() -> None:
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
        return (
            sim.transfer(sim, src, dst, nbytes, data_class, request_of(sim, self._msg), ended).start().cancel
        )
