"""Heat as one resistance and one capacity, and a device that slows down when it gets hot.

A chip of heat capacity C (J/K) that loses its heat over R (K/W) to surroundings at T_a follows, at a
constant power P::

    C dT/dt = P - (T - T_a) / R,     T(t) = T_end + (T_0 - T_end) exp(-t / (R C)),     T_end = T_a + R P

which is solved, not stepped: the date at which it reaches a temperature is::

    t = R C ln((T_end - T_0) / (T_end - T))

At `throttle_c` the device begins to run at `factor` of its pace, drawing `power_factor` of the active power
(the same as `factor` unless said: voltage scaling saves more), and at `resume_c` it runs at full pace
again.

Source: the lumped-capacitance model of heat transfer (Incropera and DeWitt, Fundamentals of Heat and Mass
Transfer, chapter 5); R and C come from a soak test: the temperature after long, and the time to 63 % of the
way.

Everything here is pure arithmetic: no clock and no random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .profile import DeviceProfile


@dataclass(frozen=True, slots=True)
class Thermal:
    """A chip's constants of heat; temperatures in degrees Celsius.

    Attributes
    ----------
    r_k_per_w, c_j_per_k : float
        Resistance to the surroundings and heat capacity; positive.
    throttle_c, resume_c : float
        Where it slows down, and where it runs at full pace again; the second below the first.
    factor : float
        Pace while slowed down, in (0, 1].
    power_factor : float
        Share of the power above idle that it draws then, in (0, 1].
    """

    r_k_per_w: float
    c_j_per_k: float
    throttle_c: float
    resume_c: float
    factor: float
    power_factor: float

    def __post_init__(self) -> None:
        if not (0.0 < self.r_k_per_w < math.inf and 0.0 < self.c_j_per_k < math.inf):
            raise ValueError(
                f"r_k_per_w and c_j_per_k must be positive, got {self.r_k_per_w}, {self.c_j_per_k}"
            )
        if not self.resume_c < self.throttle_c:
            raise ValueError(f"resume_c must be below throttle_c, got {self.resume_c} and {self.throttle_c}")
        if not (0.0 < self.factor <= 1.0 and 0.0 < self.power_factor <= 1.0):
            raise ValueError(f"factors must be over 0 and at most 1, got {self.factor}, {self.power_factor}")

    @property
    def time_constant_s(self) -> float:
        """Seconds in which 63 % of a change have happened: R C."""
        return self.r_k_per_w * self.c_j_per_k

    def end_c(self, ambient_c: float, power_w: float) -> float:
        """Return the temperature that it ends at under a constant power."""
        return ambient_c + self.r_k_per_w * power_w

    def after_c(self, start_c: float, ambient_c: float, power_w: float, seconds: float) -> float:
        """Return the temperature after so many seconds at a constant power.

        Examples
        --------
        >>> chip = Thermal(10.0, 20.0, 80.0, 70.0, 0.5, 0.5)
        >>> round(chip.after_c(25.0, 25.0, 6.0, 200.0), 4)  # 63 % of the way from 25 to 85
        62.9272
        """
        end_c = self.end_c(ambient_c, power_w)
        return end_c + (start_c - end_c) * math.exp(-seconds / self.time_constant_s)

    def reaches_s(self, start_c: float, target_c: float, ambient_c: float, power_w: float) -> float:
        """Return the seconds until it is at a temperature, infinite if it never gets there.

        Examples
        --------
        >>> chip = Thermal(10.0, 20.0, 80.0, 70.0, 0.5, 0.5)
        >>> round(chip.reaches_s(25.0, 55.0, 25.0, 6.0), 3)  # half the way: 200 ln 2
        138.629
        >>> chip.reaches_s(25.0, 90.0, 25.0, 6.0)
        inf
        """
        if start_c == target_c:
            return 0.0
        end_c = self.end_c(ambient_c, power_w)
        ahead, behind = end_c - target_c, end_c - start_c
        if ahead * behind <= 0.0 or abs(ahead) >= abs(behind):
            return math.inf
        return self.time_constant_s * math.log(behind / ahead)

    def sustained_pace(self, ambient_c: float, idle_w: float, active_w: float) -> float:
        """Return the mean pace of work that never pauses, once the heat has settled.

        `active_w` is the whole power at full pace. Where it throttles, the device goes back and forth between
        `throttle_c` and `resume_c`, and the mean is over one such cycle.

        Examples
        --------
        >>> chip = Thermal(10.0, 20.0, 80.0, 70.0, 0.5, 0.5)
        >>> chip.sustained_pace(25.0, 1.0, 5.0)  # 75 C in the end: no throttling
        1.0
        >>> round(chip.sustained_pace(25.0, 1.0, 7.0), 4)
        0.6587
        """
        slow_w = idle_w + self.power_factor * (active_w - idle_w)
        up_s = self.reaches_s(self.resume_c, self.throttle_c, ambient_c, active_w)
        down_s = self.reaches_s(self.throttle_c, self.resume_c, ambient_c, slow_w)
        if up_s == math.inf:
            return 1.0
        if down_s == math.inf:
            return self.factor
        return (up_s + self.factor * down_s) / (up_s + down_s)


def thermal_of(device: DeviceProfile) -> Thermal | None:
    """Return the heat model of a device profile, None where it has none.

    Examples
    --------
    >>> from edgellm import cost
    >>> thermal_of(cost.load_device("cloud-cpu")) is None
    True
    """
    part = device.thermal
    if part is None:
        return None
    factor = part.factor.value
    power_factor = factor if part.power_factor is None else part.power_factor.value
    return Thermal(
        part.r_k_per_w.value,
        part.c_j_per_k.value,
        part.throttle_c.value,
        part.resume_c.value,
        factor,
        power_factor,
    )
