"""Profiles of devices and links: plain numbers, each with its source and, where known, its spread.

A profile is data only. `edgellm.cost.load` reads it from TOML; `edgellm.cost.roofline` turns a model and a
device into seconds. Every quantity that was measured or quoted is a `Constant`, so that a study can print
where each number came from and resample it within its spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .constant import Constant, constants_of, with_constants
from .parts import BatteryProfile, PowerProfile, RadioProfile, SizeFactor, ThermalProfile, TlsProfile

#: Version of the TOML schema of profiles. A file with another version is refused.
PROFILE_SCHEMA = 1


#: What a link may be.
LINK_CLASSES = ("ethernet", "wifi", "cellular", "ble", "802154", "lora", "nbiot", "wan")


def _no_constants() -> Mapping[Any, Constant]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A computer on which a model may run, with the engine that runs it.

    Four bandwidths are kept apart because they differ by 1.5 to 4 times: what the memory chips could do, what
    memcpy reaches, what decoding reaches and what prefill reaches (effective: bytes of weights over time).
    What depends on the engine belongs to the profile's `runtime`; `runtimes` names the others of the same
    file ("NAME@RUNTIME" loads one). `threads` holds, by number of threads, how many times longer a step takes
    than with all cores. `format_bandwidth` and `format_ops` hold, by storage type, what the decode bandwidth
    and the operations per second are multiplied by.
    """

    name: str
    title: str
    cores: Constant
    ram_bytes: Constant
    storage_bytes_per_s: Constant
    bandwidth_theoretical_bytes_per_s: Constant
    bandwidth_memcpy_bytes_per_s: Constant
    bandwidth_decode_bytes_per_s: Constant
    bandwidth_prefill_bytes_per_s: Constant
    ops_per_s: Constant  # multiply and add counted as two, reached in prefill by quantized matmuls
    attention_ops_per_s: Constant  # the same for scores and weighted sums of attention
    layer_overhead_s: Constant  # per layer and step: kernel starts, barriers, norms
    host_overhead_s: Constant  # per step: sampling, detokenizing, bookkeeping
    idle_w: Constant
    active_w: Constant  # total while computing, idle included
    price_usd: Constant
    battery_j: Constant | None = None
    usd_per_hour: Constant | None = None
    prefill_layer_overhead_s: Constant | None = None  # in steps of several tokens; None: layer_overhead_s
    unpack_weights_per_s: Constant | None = None  # what a step can unpack; None: reading is never slower
    head_bandwidth: Constant | None = None  # what the bandwidth is multiplied by for the head; None: 1
    occupancy: Constant | None = None  # share of the compute that memory-bound work holds; None: 1
    sync_message_s: Constant | None = None  # per message of a step that is split over nodes
    sync_bytes_per_s: Constant | None = None  # activations between nodes
    sync_skew: Constant | None = None  # share of a node's compute that it waits for the slowest
    sync_senders: Constant | None = None  # so many at once double a message's time: queues of the switch
    threads: Mapping[int, Constant] = field(default_factory=_no_constants, hash=False)
    format_bandwidth: Mapping[str, Constant] = field(default_factory=_no_constants, hash=False)
    format_ops: Mapping[str, Constant] = field(default_factory=_no_constants, hash=False)
    power: PowerProfile | None = None
    thermal: ThermalProfile | None = None
    battery: BatteryProfile | None = None
    runtime: str = ""
    firmware: str = ""
    runtimes: tuple[str, ...] = ()
    notes: str = ""
    stamp: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def constants(self) -> Iterator[tuple[str, Constant]]:
        """Yield (key, constant) for every number of the profile; keys of its tables are dotted.

        Examples
        --------
        >>> from edgellm.cost import load_device
        >>> dict(load_device("raspberry-pi-5").constants())["cores"].value
        4.0
        """
        return constants_of(self)

    def with_constants(self, changed: Mapping[str, Constant]) -> DeviceProfile:
        """Return the profile with some constants replaced, by the keys of `constants`.

        Raises
        ------
        KeyError
            If a key is not one of them.
        """
        return with_constants(self, changed)


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """A kind of link between a node and the node above it; up is away from the device.

    `sharing` is "shared" where both directions contend for one medium (radio, half duplex) and "split" where
    each direction has its own capacity. A transfer is cut into frames of at most `max_payload_bytes`; with a
    `duty_cycle` d, a frame of t seconds is followed by t (1/d - 1) seconds of silence before the next one. A
    transfer that would take more than `max_transfer_s` is infeasible, not slow.
    """

    name: str
    title: str
    up_bit_per_s: Constant
    down_bit_per_s: Constant
    latency_s: Constant  # one way
    loss: Constant  # probability that a transfer unit is lost and sent again
    energy_up_j_per_bit: Constant  # at the lower (device) end
    energy_down_j_per_bit: Constant
    sharing: str
    max_payload_bytes: Constant | None = None
    duty_cycle: Constant | None = None
    max_transfer_s: Constant | None = None
    link_class: str = ""  # the key `class`: one of LINK_CLASSES, or "" where a file does not say
    header_bytes: Constant | None = None  # of every packet
    mss_bytes: Constant | None = None  # payload of a full packet
    message_overhead_s: Constant | None = None
    tls: TlsProfile | None = None
    sizes: tuple[SizeFactor, ...] = ()  # by growing size
    radio: RadioProfile | None = None
    notes: str = ""

    def constants(self) -> Iterator[tuple[str, Constant]]:
        """Yield (key, constant) for every number of the profile; keys of its tables are dotted."""
        return constants_of(self)

    def with_constants(self, changed: Mapping[str, Constant]) -> LinkProfile:
        """Return the profile with some constants replaced, by the keys of `constants`.

        Raises
        ------
        KeyError
            If a key is not one of them.
        """
        return with_constants(self, changed)

    def frames(self, nbytes: float) -> int:
        """Return how many frames a message of `nbytes` takes (at least 1)."""
        if self.max_payload_bytes is None:
            return 1
        return max(1, math.ceil(nbytes / self.max_payload_bytes.value))

    def transfer_time_s(self, nbytes: float, up: bool = True) -> float:
        """Return the seconds that `nbytes` take alone on this link, silences of the duty cycle included.

        Latency is counted once. Loss is not included: it is drawn by the simulation.

        Examples
        --------
        >>> from edgellm.cost import load_link
        >>> round(load_link("wifi-5").transfer_time_s(100_000), 6)  # 1.5 ms, and 0.8 Mbit at 200 Mbit/s
        0.0055
        """
        rate = (self.up_bit_per_s if up else self.down_bit_per_s).value
        airtime_s = 8.0 * nbytes / rate
        if self.duty_cycle is not None:
            frames = self.frames(nbytes)
            full_s = airtime_s if frames == 1 else 8.0 * self._payload(nbytes) / rate
            airtime_s += (frames - 1) * full_s * (1.0 / self.duty_cycle.value - 1.0)
        return self.latency_s.value + airtime_s

    def infeasible(self, nbytes: float, up: bool = True) -> str | None:
        """Return why `nbytes` cannot cross this link, with the arithmetic, or None if it can."""
        if self.max_transfer_s is None:
            return None
        need_s = self.transfer_time_s(nbytes, up)
        if need_s <= self.max_transfer_s.value:
            return None
        frames = self.frames(nbytes)
        plural = "" if frames == 1 else "s"
        duty = "" if self.duty_cycle is None else f" at {100 * self.duty_cycle.value:g} % duty"
        return (
            f"link infeasible: {nbytes:.0f} bytes over {self.name} are {frames} frame{plural} and"
            f" {need_s:.3g} s{duty}, more than {self.max_transfer_s.value:g} s"
        )

    def _payload(self, nbytes: float) -> float:
        return nbytes if self.max_payload_bytes is None else self.max_payload_bytes.value
