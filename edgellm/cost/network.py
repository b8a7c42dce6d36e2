"""Time and bytes of a message on a link, by the link's class and the message's size.

A link profile states what large messages reach. A message of n bytes takes more than n / rate, because

- every packet carries headers, and every TLS record 22 bytes more::

    wire = s + h ceil(s / m),   s = n + r ceil(n / 16384)

- both ends spend a fixed time on it, and TLS some for each byte;
- TCP starts slowly: it sends a window, waits for a round trip, and multiplies the window. A connection that
  was idle for longer than a round trip starts again (RFC 2861, RFC 5681), so that every message of an
  interactive workload pays this. With an initial window w, growth g, rate R and round trip T the stalls are::

    sum over rounds k with data left of max(0, T - w g^k / R)

- a new connection takes one round trip for TCP and another for TLS 1.3 (RFC 8446).

Sources: N. Cardwell, S. Savage, T. Anderson, "Modeling TCP latency", INFOCOM 2000, for the rounds; RFC 6928
for the initial window of ten segments. The numbers of each class are in `data/network.toml`, fitted to
measurements by `benchmarks/network_factors.py` where a machine can measure them; docs/network.md has the
errors. A profile without a `class` has none of this: its messages take latency plus bytes over rate.

Everything here is pure arithmetic: no clock, no random numbers, no SimGrid.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from .constant import Constant
from .profile import LINK_CLASSES, LinkProfile
from .reading import Field, check_keys, read_fields, read_sources, read_table

_FIELDS: Mapping[str, Field] = {
    "header_bytes": Field("bytes", strict=False),
    "mss_bytes": Field("bytes"),
    "message_overhead_s": Field("s", strict=False),
    "window_bytes": Field("bytes", strict=False),
    "growth": Field("count", minimum=1.0, strict=False),
    "connect_rtts": Field("count", strict=False),
    "tls_rtts": Field("count", strict=False),
    "tls_up_bytes": Field("bytes", strict=False),
    "tls_down_bytes": Field("bytes", strict=False),
    "tls_handshake_s": Field("s", strict=False),
    "tls_s_per_byte": Field("count", strict=False),
    "record_bytes": Field("bytes"),
    "record_overhead_bytes": Field("bytes", strict=False),
}


@dataclass(frozen=True, slots=True)
class NetworkClass:
    """What messages cost on the links of a class, beyond the bytes and the latency of the link itself.

    `window_bytes` is the first window of TCP, 0 where nothing waits for acknowledgements; `growth` multiplies
    it every round trip. `connect_rtts` is what a connection takes before its first byte, `tls_rtts` what TLS
    adds; `tls_handshake_s` and `tls_s_per_byte` are the time of both processors.
    """

    header_bytes: Constant
    mss_bytes: Constant
    message_overhead_s: Constant
    window_bytes: Constant
    growth: Constant
    connect_rtts: Constant
    tls_rtts: Constant
    tls_up_bytes: Constant
    tls_down_bytes: Constant
    tls_handshake_s: Constant
    tls_s_per_byte: Constant
    record_bytes: Constant
    record_overhead_bytes: Constant


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a link.

    `wire_bytes` counts headers and records. `airtime_s` is what it takes of the link's capacity, silences of
    a duty cycle included, and `payload_bytes` the bytes of full packets that would take as long: energies per
    bit refer to those. `wait_s` is all other time until it has arrived: latency, overhead, stalls.
    """

    wire_bytes: float
    payload_bytes: float
    airtime_s: float
    wait_s: float

    @property
    def time_s(self) -> float:
        """Seconds from the first byte to the last one's arrival, alone on the link."""
        return self.wait_s + self.airtime_s


@dataclass(frozen=True, slots=True)
class Connection:
    """The set-up of a connection: what it sends each way, and the time before the first byte may be sent."""

    up: Message
    down: Message
    wait_s: float


@functools.cache
def network_classes() -> Mapping[str, NetworkClass]:
    """Return the constants of every class of links.

    Examples
    --------
    >>> network_classes()["ethernet"].mss_bytes.value
    1448.0
    """
    raw = resources.files("edgellm.cost").joinpath("data", "network.toml").read_text("utf-8")
    data = tomllib.loads(raw)
    sources = read_sources(data, "network.toml")
    found: dict[str, NetworkClass] = {}
    for name in LINK_CLASSES:
        table = read_table(data, name, "network.toml")
        check_keys(table, _FIELDS, "network.toml", f"{name}.")
        found[name] = NetworkClass(**read_fields(table, _FIELDS, sources, "network.toml", f"{name}."))
    return MappingProxyType(found)


def class_of(link: LinkProfile) -> NetworkClass | None:
    """Return the constants of a link's class with the link's own in their place, None without a class."""
    if not link.link_class:
        return None
    return _own(network_classes()[link.link_class], link)


def runs_tcp(link: LinkProfile) -> bool:
    """Say whether messages of a link go over TCP connections, which are encrypted unless a scenario says no.

    Examples
    --------
    >>> from edgellm.cost import load_link
    >>> runs_tcp(load_link("4g")), runs_tcp(load_link("lora-sf7"))
    (True, False)
    """
    kind = class_of(link)
    return kind is not None and kind.connect_rtts.value > 0


def _own(base: NetworkClass, link: LinkProfile) -> NetworkClass:
    tls = link.tls
    share = base.tls_up_bytes.value / max(base.tls_up_bytes.value + base.tls_down_bytes.value, 1.0)

    def scaled(total: Constant, part: float) -> Constant:
        return Constant(total.value * part, total.unit, total.source, guess=total.guess)

    return NetworkClass(
        header_bytes=link.header_bytes or base.header_bytes,
        mss_bytes=link.max_payload_bytes or link.mss_bytes or base.mss_bytes,
        message_overhead_s=link.message_overhead_s or base.message_overhead_s,
        window_bytes=base.window_bytes,
        growth=base.growth,
        connect_rtts=base.connect_rtts,
        tls_rtts=tls.handshake_rtts if tls else base.tls_rtts,
        tls_up_bytes=scaled(tls.handshake_bytes, share) if tls else base.tls_up_bytes,
        tls_down_bytes=scaled(tls.handshake_bytes, 1.0 - share) if tls else base.tls_down_bytes,
        tls_handshake_s=base.tls_handshake_s,
        tls_s_per_byte=base.tls_s_per_byte,
        record_bytes=tls.record_bytes if tls else base.record_bytes,
        record_overhead_bytes=tls.record_overhead_bytes if tls else base.record_overhead_bytes,
    )


def wire_bytes(link: LinkProfile, nbytes: float, tls: bool = False) -> float:
    """Return the bytes that a message of `nbytes` puts on the link: payload, records, headers.

    Examples
    --------
    >>> from edgellm.cost import load_link
    >>> wire_bytes(load_link("ethernet-1g"), 1448)
    1538.0
    >>> wire_bytes(load_link("ethernet-1g"), 1000, tls=True)
    1112.0
    """
    return message(link, nbytes, tls=tls).wire_bytes


def message_time_s(
    link: LinkProfile,
    nbytes: float,
    up: bool = True,
    tls: bool = False,
    new_connection: bool = False,
    kind: NetworkClass | None = None,
) -> float:
    """Return the seconds until a message of `nbytes` has arrived, alone on the link.

    Parameters
    ----------
    link : LinkProfile
        Its rates are those that large messages reach.
    nbytes : float
        Payload, at least 0.
    up : bool
        Away from the device, or towards it.
    tls : bool
        Whether the connection is encrypted.
    new_connection : bool
        Whether the connection is set up first.
    kind : NetworkClass or None
        Constants to take; None for those of `class_of`.

    Raises
    ------
    ValueError
        If `nbytes` is negative or not finite.

    Examples
    --------
    >>> from edgellm.cost import load_link
    >>> wan = load_link("home-broadband")
    >>> message_time_s(wan, 200) < message_time_s(wan, 200, new_connection=True)
    True
    >>> round(message_time_s(wan, 10_000_000) / (10_000_000 * 8 / 20e6), 2)  # large messages: near the rate
    1.02
    """
    start_s = connection(link, tls, kind=kind).wait_s if new_connection else 0.0
    return start_s + message(link, nbytes, up, tls, kind=kind).time_s


def message(
    link: LinkProfile,
    nbytes: float,
    up: bool = True,
    tls: bool = False,
    ops_per_s: float | None = None,
    kind: NetworkClass | None = None,
) -> Message:
    """Return what a message of `nbytes` payload takes of a link.

    Parameters are those of `message_time_s`; `ops_per_s` is the speed of the device, for links whose profile
    states `tls.ops_per_byte` (otherwise the time of the class is taken).
    """
    if not 0 <= nbytes < math.inf:
        raise ValueError(f"nbytes must be finite and 0 or more, got {nbytes}")
    kind = kind or class_of(link)
    if kind is None or nbytes == 0:
        time_s = link.transfer_time_s(nbytes, up) if nbytes else link.latency_s.value
        return Message(nbytes, nbytes, time_s - link.latency_s.value, link.latency_s.value)
    sent = nbytes
    if tls:
        sent += math.ceil(nbytes / kind.record_bytes.value) * kind.record_overhead_bytes.value
    header, mss = kind.header_bytes.value, kind.mss_bytes.value
    wire = sent + math.ceil(sent / mss) * header
    payload = wire * mss / (mss + header)  # the profile's rate is that of full packets
    rate_factor, latency_factor = _size_factors(link, nbytes)
    latency_s = link.latency_s.value * latency_factor
    rate = (link.up_bit_per_s if up else link.down_bit_per_s).value * rate_factor
    airtime_s = 8.0 * payload / rate
    if link.duty_cycle is not None:
        frames = math.ceil(sent / mss)
        full_s = airtime_s if frames == 1 else 8.0 * mss / rate
        airtime_s += (frames - 1) * full_s * (1.0 / link.duty_cycle.value - 1.0)
    wait_s = latency_s + kind.message_overhead_s.value
    if tls:
        wait_s += nbytes * _tls_s_per_byte(link, kind, ops_per_s)
    if not link.sizes:  # a profile's own factors were fitted to whole messages, stalls included
        wait_s += _stalls_s(kind, sent, rate, 2.0 * latency_s)
    return Message(wire, payload, airtime_s, wait_s)


def connection(
    link: LinkProfile, tls: bool = False, ops_per_s: float | None = None, kind: NetworkClass | None = None
) -> Connection:
    """Return what setting up a connection takes, before the first byte of a message may be sent.

    Examples
    --------
    >>> from edgellm.cost import load_link
    >>> wan = load_link("home-broadband")
    >>> connection(wan).wait_s, round(connection(wan, tls=True).wait_s, 3)
    (0.03, 0.062)
    """
    kind = kind or class_of(link)
    nothing = Message(0.0, 0.0, 0.0, 0.0)
    if kind is None or (kind.connect_rtts.value == 0 and not tls):
        return Connection(nothing, nothing, 0.0)
    rtt_s, rtts = 2.0 * link.latency_s.value, kind.connect_rtts.value
    header = kind.header_bytes.value
    up_bytes, down_bytes = 2.0 * header, header  # SYN and ACK; SYN with ACK
    busy_s = 0.0
    if tls:
        rtts += kind.tls_rtts.value
        packets = math.ceil(kind.tls_down_bytes.value / kind.mss_bytes.value)
        up_bytes += kind.tls_up_bytes.value + 2 * header
        down_bytes += kind.tls_down_bytes.value + packets * header
        busy_s = _tls_handshake_s(link, kind, ops_per_s)
    up, down = _bare(link, kind, up_bytes, True), _bare(link, kind, down_bytes, False)
    airtime_s = up.airtime_s + down.airtime_s if tls else 0.0
    return Connection(up, down, rtts * rtt_s + busy_s + airtime_s)


def _bare(link: LinkProfile, kind: NetworkClass, wire: float, up: bool) -> Message:
    mss = kind.mss_bytes.value
    payload = wire * mss / (mss + kind.header_bytes.value)
    rate = (link.up_bit_per_s if up else link.down_bit_per_s).value
    return Message(wire, payload, 8.0 * payload / rate, 0.0)


def _stalls_s(kind: NetworkClass, sent: float, rate_bit_per_s: float, rtt_s: float) -> float:
    """Return the seconds for which the sender waits for acknowledgements with data left."""
    window, growth = kind.window_bytes.value, kind.growth.value
    if window == 0 or growth <= 1.0:
        return 0.0
    packet_s = 8.0 * kind.mss_bytes.value / rate_bit_per_s  # acknowledged once it is whole
    left, stalled_s = sent - window, 0.0
    while left > 0:
        gap_s = rtt_s + packet_s - 8.0 * window / rate_bit_per_s
        if gap_s <= 0:
            break
        stalled_s += gap_s
        window *= growth
        left -= window
    return stalled_s


def _size_factors(link: LinkProfile, nbytes: float) -> tuple[float, float]:
    rate, latency = 1.0, 1.0
    for entry in link.sizes:
        if nbytes >= entry.bytes.value:
            rate, latency = entry.rate.value, entry.latency.value
    return rate, latency


def _tls_s_per_byte(link: LinkProfile, kind: NetworkClass, ops_per_s: float | None) -> float:
    if link.tls is not None and link.tls.ops_per_byte is not None and ops_per_s:
        return link.tls.ops_per_byte.value / ops_per_s
    return kind.tls_s_per_byte.value


def _tls_handshake_s(link: LinkProfile, kind: NetworkClass, ops_per_s: float | None) -> float:
    if link.tls is not None and link.tls.handshake_ops is not None and ops_per_s:
        return link.tls.handshake_ops.value / ops_per_s
    return kind.tls_handshake_s.value
