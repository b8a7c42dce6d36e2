"""Power of a device and of its radio, by what they do.

A device that computes draws, at the chip::

    P = w(mode) + active * pace + compute_w * u_c + memory_w * u_m

w(mode): the idle mode (idle, sleep, off); pace: the sum of the paces of what runs (1 for one run alone);
u_c and u_m: the used shares of the compute and of the memory bandwidth. A profile with `[power]` compute_w
or memory_w has active = 0. One with idle_w and active_w only has active = active_w - idle_w, and compute_w
= memory_w = 0: whoever gets half of the pace pays half.

A run of w seconds of work that holds the shares c and m of the two budgets takes, however slowly it goes on
a busy device::

    E = w (active + compute_w c + memory_w m)

A radio draws the power of its mode (idle for `tail_s` after the last bit, then sleep; for ever idle where
no tail is given), and on top of it (tx_w - idle_w) or (rx_w - idle_w) for the air time, and the link's
energy per bit. A radio that slept needs `promotion_s` at `promotion_w` before its first bit.

Watts are those at the chip. On a socket the wall sees them divided by `supply_efficiency`; watts of a
profile metered at the wall are multiplied by it first.

Sources: the linear model of utilisation of Fan, Weber and Barroso (ISCA 2007, "Power provisioning for a
warehouse-sized computer"), with one term for each budget; promotion and tail of cellular radios: Huang et
al. (MobiSys 2012, "A close examination of performance and power characteristics of 4G LTE networks").

Everything here is pure arithmetic: no clock and no random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .profile import DeviceProfile, LinkProfile


@dataclass(frozen=True, slots=True)
class IdleMode:
    """A mode in which a device computes nothing: its power at the chip, and what waking from it takes."""

    w: float
    wake_s: float = 0.0
    wake_j: float = 0.0  # in addition to the mode that it wakes into


@dataclass(frozen=True, slots=True)
class NodePower:
    """Watts of a device at the chip.

    Attributes
    ----------
    idle_w : float
        On, and nothing runs.
    active_w : float
        Added for each unit of pace; 0 where the next two are given.
    compute_w, memory_w : float
        Added at full use of the compute, and of the memory bandwidth.
    modes : dict of str to IdleMode
        Other idle modes.
    supply_efficiency : float
        Power at the chip over power at the wall, in (0, 1].

    Examples
    --------
    >>> box = NodePower(2.0, 0.0, compute_w=3.0, memory_w=4.0, supply_efficiency=0.8)
    >>> box.power_w(compute=0.5, memory=1.0)  # 2 + 1.5 + 4
    7.5
    >>> box.wall_w(7.5)
    9.375
    >>> box.work_j(10.0, compute=0.5, memory=1.0)  # what the work adds to idle
    55.0
    """

    idle_w: float
    active_w: float
    compute_w: float = 0.0
    memory_w: float = 0.0
    modes: Mapping[str, IdleMode] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    supply_efficiency: float = 1.0

    def power_w(self, pace: float = 1.0, compute: float = 1.0, memory: float = 1.0) -> float:
        """Return the power while the given paces and shares are used."""
        return self.idle_w + self.active_w * pace + self.compute_w * compute + self.memory_w * memory

    def work_j(self, work_s: float, compute: float = 1.0, memory: float = 1.0) -> float:
        """Return what `work_s` seconds of work that hold these shares add to idle."""
        return work_s * (self.active_w + self.compute_w * compute + self.memory_w * memory)

    def wall_w(self, chip_w: float) -> float:
        """Return the power at the wall for a power at the chip."""
        return chip_w / self.supply_efficiency


def power_of(device: DeviceProfile) -> NodePower:
    """Return the power model of a device profile.

    Examples
    --------
    >>> from edgellm import cost
    >>> power = power_of(cost.load_device("cloud-cpu"))  # knows idle_w and active_w only
    >>> power.power_w() == power.idle_w + power.active_w
    True
    """
    part = device.power
    extra_w = max(0.0, device.active_w.value - device.idle_w.value)
    if part is None:
        return NodePower(device.idle_w.value, extra_w)
    supply = 1.0 if part.supply_efficiency is None else part.supply_efficiency.value
    at_chip = supply if part.meter == "wall" else 1.0
    modes = {
        name: IdleMode(
            at_chip * state.w.value,
            0.0 if state.wake_s is None else state.wake_s.value,
            0.0 if state.wake_j is None else at_chip * state.wake_j.value,
        )
        for name, state in part.states.items()
    }
    idle = modes.pop("idle", IdleMode(at_chip * device.idle_w.value))
    split = part.compute_w is not None or part.memory_w is not None
    return NodePower(
        idle_w=idle.w,
        active_w=0.0 if split else at_chip * extra_w,
        compute_w=0.0 if part.compute_w is None else at_chip * part.compute_w.value,
        memory_w=0.0 if part.memory_w is None else at_chip * part.memory_w.value,
        modes=MappingProxyType(modes),
        supply_efficiency=supply,
    )


@dataclass(frozen=True, slots=True)
class RadioPower:
    """Watts of a radio by state, each the whole of its power in that state, and its times.

    Attributes
    ----------
    tx_w, rx_w : float
        Sending and receiving.
    idle_w, sleep_w : float
        Awake and silent; asleep.
    tail_s : float
        How long it stays awake after the last bit; infinite for one that never sleeps.
    promotion_s, promotion_w : float
        From sleep to the first bit.

    Examples
    --------
    >>> lte = RadioPower(2.0, 1.6, 1.1, 0.02, tail_s=11.6, promotion_s=0.26, promotion_w=1.2)
    >>> lte.silent_j(5.0), round(lte.silent_j(20.0), 3)  # a gap within the tail, and a longer one
    (5.5, 12.928)
    >>> lte.asleep(11.0), lte.asleep(12.0)
    (False, True)
    """

    tx_w: float
    rx_w: float
    idle_w: float = 0.0
    sleep_w: float = 0.0
    tail_s: float = math.inf
    promotion_s: float = 0.0
    promotion_w: float = 0.0

    def above_w(self, up: bool) -> float:
        """Return what sending (or receiving) adds to idle."""
        return max(0.0, (self.tx_w if up else self.rx_w) - self.idle_w)

    def asleep(self, silent_s: float) -> bool:
        """Say whether it sleeps after so many seconds of silence."""
        return silent_s > self.tail_s

    def silent_j(self, silent_s: float) -> float:
        """Return the energy of a silence that began when the last bit had passed."""
        awake_s = min(silent_s, self.tail_s)
        return awake_s * self.idle_w + (silent_s - awake_s) * self.sleep_w


def radio_of(link: LinkProfile) -> RadioPower | None:
    """Return the radio at the device's end of a link, None where the profile has energies per bit only.

    Examples
    --------
    >>> from edgellm import cost
    >>> radio_of(cost.load_link("ethernet-1g")) is None
    True
    """
    part = link.radio
    if part is None:
        return None
    idle_w = 0.0 if part.idle_w is None else part.idle_w.value
    return RadioPower(
        part.tx_w.value,
        part.rx_w.value,
        idle_w,
        sleep_w=0.0 if part.sleep_w is None else part.sleep_w.value,
        tail_s=math.inf if part.tail_s is None else part.tail_s.value,
        promotion_s=0.0 if part.promotion_s is None else part.promotion_s.value,
        promotion_w=idle_w if part.promotion_w is None else part.promotion_w.value,
    )
