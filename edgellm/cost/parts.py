"""Optional tables of device and link profiles: power states, heat, battery, radio, TLS, message sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .constant import Constant

#: Where a device's watts are measured: at the wall (power supply included) or at the chip's own rails.
METERS = ("wall", "chip")


@dataclass(frozen=True, slots=True)
class IdleState:
    """A mode in which a device computes nothing; waking from it takes time and energy."""

    w: Constant
    wake_s: Constant | None = None
    wake_j: Constant | None = None


@dataclass(frozen=True, slots=True)
class PowerProfile:
    """Power by what a device does.

    `states` are the idle modes by name ("idle", "sleep", "off"). `compute_w` and `memory_w` are what full use
    of the arithmetic and of the memory bandwidth add to idle. Watts are those at `meter`;
    `supply_efficiency` leads from the chip to the wall.
    """

    states: Mapping[str, IdleState] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    compute_w: Constant | None = None
    memory_w: Constant | None = None
    meter: str = "wall"
    supply_efficiency: Constant | None = None


@dataclass(frozen=True, slots=True)
class ThermalProfile:
    """Heat as one resistance and one capacity; a device slows down between two temperatures.

    At `throttle_c` it begins to run at `factor` of its pace, and at `resume_c` it runs at full pace again.
    `power_factor` is the share of the power above idle that it draws meanwhile: `factor` if left out.
    """

    r_k_per_w: Constant  # kelvin above the surroundings for every watt, in the end
    c_j_per_k: Constant
    throttle_c: Constant  # degrees Celsius of the chip
    resume_c: Constant
    factor: Constant
    power_factor: Constant | None = None


@dataclass(frozen=True, slots=True)
class BatteryProfile:
    """How a battery differs from a bucket of joules; its capacity is the device's `battery_j`."""

    charge_efficiency: Constant | None = None
    discharge_efficiency: Constant | None = None
    self_discharge_per_s: Constant | None = None  # share of the charge lost in a second
    peukert: Constant | None = None  # exponent of the rate: 1 is no derating
    rated_w: Constant | None = None  # the load at which the capacity is stated
    temperature_per_k: Constant | None = None  # share of the capacity lost for each kelvin below rated_c
    rated_c: Constant | None = None
    cutoff: Constant | None = None  # share of the charge at which the device switches off


@dataclass(frozen=True, slots=True)
class RadioProfile:
    """Power of the radio at the device's end of a link, by state."""

    tx_w: Constant
    rx_w: Constant
    idle_w: Constant | None = None
    sleep_w: Constant | None = None
    tail_s: Constant | None = None  # stays in `idle_w` so long after the last byte, then sleeps
    promotion_s: Constant | None = None  # from sleep to the first byte
    promotion_w: Constant | None = None  # meanwhile; `idle_w` if left out


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """What encryption adds to a link's messages."""

    handshake_rtts: Constant
    handshake_bytes: Constant
    record_bytes: Constant  # payload of a full record
    record_overhead_bytes: Constant
    handshake_ops: Constant | None = None
    ops_per_byte: Constant | None = None


@dataclass(frozen=True, slots=True)
class SizeFactor:
    """From messages of `bytes` on, until the next entry, the link's rate and latency are multiplied."""

    bytes: Constant
    rate: Constant
    latency: Constant
