"""A battery under a load that is constant for a while: how its charge falls, and when it is used up.

The charge q (J) of a battery of capacity C that delivers the power P falls as::

    dq/dt = -s q - D(P),     D(P) = P / e * max(1, (P / P_rated) ^ (k - 1))

s: self-discharge, a share of the charge a second; e: efficiency of discharging (cells and converter); k:
Peukert's exponent; P_rated: the load at which C is stated. A load below P_rated gets no more than C out, so
that nothing is created. Between two changes of P the solution is exact::

    q(t) = (q0 + D / s) exp(-s t) - D / s,     or q0 - D t without self-discharge

and the device goes dark when q reaches the floor (`cutoff` plus what the cold locks in) times C::

    floor = cutoff + a max(0, T_rated - T),     t = log1p(s (q0 - floor C) / (s floor C + D)) / s

Sources: Peukert, Elektrotechnische Zeitschrift 20 (1897), "Ueber die Abhaengigkeit der Kapazitaet von der
Entladestromstaerke bei Bleiakkumulatoren", as a law of power at a constant voltage; a capacity that falls
linearly in the cold is how data sheets of lithium cells are commonly read (charge at -20 C against 25 C).

Everything here is pure arithmetic: no clock and no random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .constant import constants_of
from .profile import DeviceProfile


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery's constants.

    Attributes
    ----------
    capacity_j : float
        Charge when full, in joules; positive.
    charge_efficiency, discharge_efficiency : float
        Energy stored over energy taken from the charger, and energy delivered over charge used; in (0, 1].
    self_discharge_per_s : float
        Share of the charge that is lost in a second, 0 or more.
    peukert : float
        Exponent k of the rate, 1 or more; 1 is no derating.
    rated_w : float
        Load at which the capacity is stated; used where `peukert` is over 1.
    temperature_per_k : float
        Share of the capacity locked in by each kelvin below `rated_c`.
    rated_c : float
        Temperature at which the capacity is stated, in degrees Celsius.
    cutoff : float
        Share of the capacity at which the device switches off, in [0, 1).
    """

    capacity_j: float
    charge_efficiency: float = 1.0
    discharge_efficiency: float = 1.0
    self_discharge_per_s: float = 0.0
    peukert: float = 1.0
    rated_w: float = math.inf
    temperature_per_k: float = 0.0
    rated_c: float = 25.0
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.capacity_j < math.inf:
            raise ValueError(f"capacity_j must be positive and finite, got {self.capacity_j}")
        for name in ("charge_efficiency", "discharge_efficiency"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be over 0 and at most 1, got {getattr(self, name)}")
        for name in ("self_discharge_per_s", "temperature_per_k"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 1.0 <= self.peukert < math.inf or not self.rated_w > 0.0:
            raise ValueError(
                f"peukert must be 1 or more and rated_w positive, got {self.peukert}, {self.rated_w}"
            )
        if not 0.0 <= self.cutoff < 1.0:
            raise ValueError(f"cutoff must be in [0, 1), got {self.cutoff}")

    def drain_w(self, power_w: float) -> float:
        """Return the charge used a second at a load, self-discharge left out.

        Examples
        --------
        >>> Battery(1000.0, discharge_efficiency=0.8).drain_w(4.0)
        5.0
        >>> Battery(1000.0, peukert=1.5, rated_w=1.0).drain_w(4.0)  # 4 W * sqrt(4)
        8.0
        """
        if power_w <= 0.0:
            return 0.0
        rate = 1.0 if power_w <= self.rated_w else (power_w / self.rated_w) ** (self.peukert - 1.0)
        return power_w / self.discharge_efficiency * rate

    def floor_j(self, temperature_c: float = 25.0) -> float:
        """Return the charge that cannot be used at a temperature, at most the capacity.

        Examples
        --------
        >>> cold = Battery(1000.0, temperature_per_k=0.01, cutoff=0.05)
        >>> cold.floor_j(25.0), cold.floor_j(5.0)  # 20 K below: a fifth more
        (50.0, 250.0)
        """
        cold = self.temperature_per_k * max(0.0, self.rated_c - temperature_c)
        return self.capacity_j * min(1.0, self.cutoff + cold)

    def charge_after_j(self, charge_j: float, power_w: float, seconds: float) -> float:
        """Return the charge after so many seconds at a load; it may come out below the floor, or negative.

        Examples
        --------
        >>> Battery(1000.0).charge_after_j(1000.0, 2.0, 100.0)
        800.0
        >>> leaky = Battery(1000.0, self_discharge_per_s=0.001)
        >>> round(leaky.charge_after_j(1000.0, 2.0, 100.0), 6)  # 3000 exp(-0.1) - 2000
        714.512254
        """
        return charge_j - self.used_j(charge_j, power_w, seconds)

    def used_j(self, charge_j: float, power_w: float, seconds: float) -> float:
        """Return the charge that a load and self-discharge take together in so many seconds."""
        drain_j, lost = self.drain_w(power_w) * seconds, self.self_discharge_per_s * seconds
        if lost == 0.0:
            return drain_j
        share = -math.expm1(-lost)
        return share * charge_j + drain_j * (share / lost)

    def lasts_s(self, charge_j: float, power_w: float, temperature_c: float = 25.0) -> float:
        """Return the seconds until the charge reaches its floor at a constant load.

        0 where it is there already, infinite where it never gets there.

        Examples
        --------
        >>> Battery(1000.0, cutoff=0.1).lasts_s(1000.0, 2.0)
        450.0
        >>> leaky = Battery(1000.0, self_discharge_per_s=0.001)
        >>> round(leaky.lasts_s(1000.0, 2.0), 6)  # 1000 ln(1.5)
        405.465108
        >>> leaky.lasts_s(1000.0, 0.0)  # an exponential never ends
        inf
        """
        drain_w, loss, floor_j = self.drain_w(power_w), self.self_discharge_per_s, self.floor_j(temperature_c)
        if charge_j <= floor_j:
            return 0.0
        speed_w = loss * floor_j + drain_w  # at the floor, where it is slowest
        if speed_w <= 0.0:
            return math.inf
        slowest_s = (charge_j - floor_j) / speed_w
        lost = loss * slowest_s
        return slowest_s if lost == 0.0 else slowest_s * (math.log1p(lost) / lost)

    def refill_j(self, used_j: float) -> float:
        """Return what the charger takes to put a charge back.

        Examples
        --------
        >>> Battery(1000.0, charge_efficiency=0.9).refill_j(450.0)
        500.0
        """
        return used_j / self.charge_efficiency


def battery_of(device: DeviceProfile) -> Battery | None:
    """Return the battery of a device profile, None where it hangs on a socket.

    Examples
    --------
    >>> from edgellm import cost
    >>> battery_of(cost.load_device("cloud-cpu")) is None
    True
    """
    if device.battery_j is None:
        return None
    given = {} if device.battery is None else {key: c.value for key, c in constants_of(device.battery)}
    return Battery(device.battery_j.value, **given)
