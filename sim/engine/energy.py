"""What follows a node through time: its idle modes, its heat and its battery.

Only nodes that sleep, heat up or have a battery have a `Meter`; counters do for the rest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgellm.cost import Battery, NodePower, Thermal
from edgellm.sim.fleet import Upkeep

if TYPE_CHECKING:
    from .node import NodeState

#: A battery that lasts no longer than this is empty, and a temperature this close to a limit is there.
TOLERANCE_S = 1e-9
TOLERANCE_K = 1e-7
#: No simulation gets here.
FAR_S = 1e12


class Meter:
    """Exact between events: power is constant there, so charge and temperature follow in closed form.

    Nothing is polled. A mode that changes by itself (falling asleep, the end of a radio's tail) is a date; an
    alarm is set for the next such date or crossing only where there is a battery or heat. Where a transfer
    shares its medium, its pace may change unseen: its energy is read off its progress whenever the meter
    settles, and the alarm assumes that it has the medium alone, so that it never rings too late.
    """

    __slots__ = (
        "_alarm",
        "_alone",
        "_live",
        "_load",
        "_planned",
        "_ready_s",
        "_since_s",
        "_sleep_s",
        "_slow",
        "asleep_s",
        "battery",
        "battery_loss_j",
        "charge_j",
        "drawn_j",
        "floor_j",
        "idle_s",
        "node",
        "owed_j",
        "peak_c",
        "power",
        "self_discharge_j",
        "slow_compute_s",
        "slow_memory_s",
        "slow_s",
        "slow_work_s",
        "temperature_c",
        "thermal",
        "throttled",
        "upkeep",
        "wake_j",
    )

    def __init__(
        self,
        node: NodeState,
        power: NodePower,
        upkeep: Upkeep,
        battery: Battery | None,
        thermal: Thermal | None,
    ) -> None:
        self.node, self.power, self.upkeep, self.battery, self.thermal = node, power, upkeep, battery, thermal
        self.idle_s = self.asleep_s = 0.0
        self.wake_j = self.owed_j = 0.0  # of waking: all of it, and what no run has paid yet
        self.charge_j = self.floor_j = math.inf
        if battery is not None:
            self.charge_j = battery.capacity_j * upkeep.charge
            self.floor_j = battery.floor_j(upkeep.ambient_c)
        self.drawn_j = self.battery_loss_j = self.self_discharge_j = 0.0
        self.temperature_c = self.peak_c = self._start_c()
        self.throttled = False
        self.slow_s = self.slow_work_s = self.slow_compute_s = self.slow_memory_s = 0.0
        self._slow: dict[
            Any, tuple[float, float]
        ] = {}  # run -> work when last looked at, slow work until then
        self._live: dict[int, list[float]] = {}  # ticket of a transfer -> energy, air time, energy so far
        self._load = (0.0, 0.0, 0.0)  # pace and shares of what runs
        self._since_s = 0.0  # everything is exact up to here
        self._ready_s = 0.0  # when it was, or will be, awake
        self._sleep_s = upkeep.sleep_after_s  # when it falls asleep unless something runs
        self._planned = False
        self._alarm = 0
        #: Only heat is followed: one run at a time that cannot get hot enough needs no alarm.
        self._alone = battery is None and thermal is not None and upkeep.sleep_after_s == math.inf

    def _start_c(self) -> float:
        if self.thermal is None:
            return self.upkeep.ambient_c
        return self.thermal.end_c(self.upkeep.ambient_c, self.power.idle_w)

    # Power.

    @property
    def asleep(self) -> bool:
        """Whether it sleeps, at the date up to which everything is exact."""
        return not self.node.running and self._since_s >= max(self._sleep_s, self._ready_s)

    def _waking_w(self) -> float:
        mode = self.power.modes[self.upkeep.sleep_mode]
        return mode.wake_j / mode.wake_s

    def _active_w(self) -> float:
        if not self.node.running:
            return 0.0
        pace, compute, memory = self._load
        power = self.power
        watts = power.active_w * pace + power.compute_w * compute + power.memory_w * memory
        return watts * self.slow_cost if self.throttled else watts

    @property
    def slow_cost(self) -> float:
        """Energy of a second of work while throttled, relative to full pace."""
        thermal = self.thermal
        return 1.0 if thermal is None else thermal.power_factor / thermal.factor

    def _mode_w(self) -> float:
        if self.node.running:
            return self.power.idle_w
        if self._since_s < self._ready_s:
            return self.power.idle_w + self._waking_w()
        return self.power.modes[self.upkeep.sleep_mode].w if self.asleep else self.power.idle_w

    def _radio_w(self) -> float:
        radio = self.node.radio
        return 0.0 if radio is None else radio.mode_w(self._since_s)

    def _change_s(self) -> float:
        """When something will next change by itself."""
        date_s = math.inf
        if not self.node.running:
            for limit_s in (self._ready_s, self._sleep_s):
                if self._since_s < limit_s:
                    date_s = limit_s
                    break
        if self.battery is not None and self.node.radio is not None:
            date_s = min(date_s, self.node.radio.change_s(self._since_s))
        return date_s

    # Time passes.

    def settle(self, radio_j: float = 0.0) -> None:
        """Bring everything up to now; `radio_j` was spent on the air since, beside what is in progress."""
        now_s = self.node.sim.now
        if not self.node.up:
            return
        for ticket, live in self._live.items():
            share = 1.0 - self.node.sim.engine.remaining(ticket) / live[1] if live[1] > 0.0 else 1.0
            radio_j += live[0] * share - live[2]
            live[2] = live[0] * share
        span_s = now_s - self._since_s
        if span_s <= 0.0:
            self._use(radio_j, 0.0)
            return
        radio_w = radio_j / span_s
        while self._since_s < now_s:
            self._advance(min(now_s, self._change_s()), radio_w)

    def _advance(self, until_s: float, radio_w: float) -> None:
        span_s = until_s - self._since_s
        mode_w = self._mode_w()
        chip_w = mode_w + self._active_w()
        if self.asleep:
            self.asleep_s += span_s
        else:
            self.idle_s += span_s
            if not self.node.running and self._since_s < self._ready_s:
                self._wakes((mode_w - self.power.idle_w) * span_s)
        if self.thermal is not None:
            self._heat(chip_w, span_s)
        if self.battery is not None:
            self._use((chip_w + self._radio_w() + radio_w) * span_s, span_s)
        self._since_s = until_s

    def _wakes(self, energy_j: float) -> None:
        self.wake_j += energy_j
        self.owed_j += energy_j

    def _heat(self, power_w: float, span_s: float) -> None:
        assert self.thermal is not None
        ambient_c = self.upkeep.ambient_c
        self.temperature_c = self.thermal.after_c(self.temperature_c, ambient_c, power_w, span_s)
        self.peak_c = max(self.peak_c, self.temperature_c)
        self.slow_s += span_s if self.throttled else 0.0

    def _use(self, energy_j: float, span_s: float) -> None:
        """Take energy out of the battery, spread evenly over a span (0: at once)."""
        battery = self.battery
        if battery is None or (energy_j == 0.0 and span_s == 0.0):
            return
        if span_s > 0.0:
            used_j = battery.used_j(self.charge_j, energy_j / span_s, span_s)
            drain_j = battery.drain_w(energy_j / span_s) * span_s
        else:
            used_j = drain_j = energy_j / battery.discharge_efficiency
        self.charge_j -= used_j
        self.drawn_j += used_j
        self.battery_loss_j += drain_j - energy_j
        self.self_discharge_j += used_j - drain_j

    # What happens to the node.

    def wake(self) -> float:
        """Something wants to run: return the seconds until it can."""
        if self._alone:
            return 0.0
        self.settle()
        now_s = self.node.sim.now
        if self.asleep:
            mode = self.power.modes[self.upkeep.sleep_mode]
            at_once = mode.wake_s <= TOLERANCE_S
            self._ready_s = now_s if at_once else now_s + mode.wake_s
            self._sleep_s = self._ready_s + self.upkeep.sleep_after_s
            if at_once:
                self._wakes(mode.wake_j)
                self._use(mode.wake_j, 0.0)
            self.plan()
        return max(0.0, self._ready_s - now_s)

    def work_begins(self, run: Any) -> None:
        """One more run; `node.running` still is what it was."""
        self.settle()
        if self.thermal is not None and self.slow_cost != 1.0:
            self._slow[run] = (0.0, 0.0)
        if self._stays_cool() and not self.node.running:
            self._load = (1.0, run.plan.compute, run.plan.memory)
            power = self.power
            watts = power.active_w + power.compute_w * self._load[1] + power.memory_w * self._load[2]
            if self._ends_below(power.idle_w + watts):
                return
        self.plan()

    def _stays_cool(self) -> bool:
        """Whether nothing is to be watched but one run that begins or ends."""
        return self._alone and not (self.throttled or self._alarm or self._planned)

    def _ends_below(self, power_w: float) -> bool:
        assert self.thermal is not None
        return self.thermal.end_c(self.upkeep.ambient_c, power_w) < self.thermal.throttle_c - TOLERANCE_K

    def work_ends(self, run: Any, work_s: float) -> tuple[float, float]:
        """A run is over: return what its work counts as at full pace, and the energy of waking it has to pay.

        Called before `node.running` changes.
        """
        self.settle()
        if self.node.running == 1:
            self._sleep_s = self.node.sim.now + self.upkeep.sleep_after_s
        if not (self._stays_cool() and self.node.running == 1 and self._ends_below(self.power.idle_w)):
            self.plan()
        owed_j, self.owed_j = self.owed_j, 0.0
        slow_s = self._slow_work(run, work_s)
        self._slow.pop(run, None)
        if slow_s == 0.0:
            return work_s, owed_j
        self.slow_work_s += slow_s
        self.slow_compute_s += slow_s * run.plan.compute
        self.slow_memory_s += slow_s * run.plan.memory
        return work_s + slow_s * (self.slow_cost - 1.0), owed_j

    def _slow_work(self, run: Any, work_s: float) -> float:
        seen_s, slow_s = self._slow.get(run, (work_s, 0.0))
        return slow_s + (work_s - seen_s if self.throttled else 0.0)

    def on_air(self, ticket: int, energy_j: float, airtime_s: float) -> None:
        """A transfer begins that takes so much energy if it is not cut."""
        if self.battery is not None and self.node.up:
            self.settle()
            self._live[ticket] = [energy_j, airtime_s, 0.0]
            self.plan()

    def off_air(self, ticket: int, energy_j: float) -> float:
        """A transfer is over, `energy_j` was for what was sent; returns what was really drawn."""
        live = self._live.pop(ticket, None)
        if self.battery is None:
            return energy_j
        if not self.node.up:
            return 0.0 if live is None else live[2]
        self.settle(energy_j - (0.0 if live is None else live[2]))
        self.plan()
        return energy_j

    # Alarms.

    def plan(self) -> None:
        """Set the alarm anew once everything that happens at this date has happened."""
        if not self._planned and (self.battery is not None or self.thermal is not None):
            self._planned = True
            self.node.sim.soon(self._plan)

    def _used(self) -> tuple[float, float, float]:
        """Pace, compute and memory of what runs, all of it together."""
        return self.node.sim.engine.load(self.node.host)

    def _plan(self) -> None:
        self._planned = False
        node, sim = self.node, self.node.sim
        if not node.up:
            return
        self.settle()
        self._load = self._used()
        sim.drop(self._alarm)
        self._alarm = 0
        if self._limits():
            return
        date_s = min(self._change_s(), sim.now + self._crosses_s())
        if date_s < FAR_S:
            self._alarm = sim.at(date_s, self._rings)

    def _rings(self) -> None:
        self._alarm = 0
        self._plan()

    def _limits(self) -> bool:
        """Act on a limit that is reached; returns whether the node went down."""
        if self.battery is not None and self._lasts_s() <= TOLERANCE_S:
            self.node.fail("battery empty")
            return True
        if self.thermal is not None:
            if not self.throttled and self.temperature_c >= self.thermal.throttle_c - TOLERANCE_K:
                self._throttle(True)
            elif self.throttled and self.temperature_c <= self.thermal.resume_c + TOLERANCE_K:
                self._throttle(False)
        return False

    def _lasts_s(self) -> float:
        assert self.battery is not None
        power_w = self._mode_w() + self._active_w() + self._radio_w()
        power_w += sum(live[0] / live[1] for live in self._live.values() if live[1] > 0.0)
        return self.battery.lasts_s(self.charge_j, power_w, self.upkeep.ambient_c)

    def _crosses_s(self) -> float:
        """Seconds until the battery is empty or a temperature is reached, if nothing changes."""
        soonest_s = math.inf if self.battery is None else self._lasts_s()
        thermal = self.thermal
        if thermal is not None:
            target_c = thermal.resume_c if self.throttled else thermal.throttle_c
            chip_w = self._mode_w() + self._active_w()
            reaches_s = thermal.reaches_s(self.temperature_c, target_c, self.upkeep.ambient_c, chip_w)
            soonest_s = min(soonest_s, reaches_s)
        return soonest_s

    def _throttle(self, throttled: bool) -> None:
        assert self.thermal is not None
        for run in self._slow:
            worked_s = run.worked_s()
            self._slow[run] = (worked_s, self._slow_work(run, worked_s))
        self.throttled = throttled
        self.node.sim.engine.speed(self.node.host, self.thermal.factor if throttled else 1.0)
        self._load = self._used()

    # Down and up again.

    def stop(self) -> None:
        """The node is about to go down."""
        self.settle()
        self.node.sim.drop(self._alarm)
        self._alarm = 0

    def start(self) -> bool:
        """The node is about to come up again; returns whether its battery lets it."""
        now_s = self.node.sim.now
        span_s, self._since_s = now_s - self._since_s, now_s
        if self.thermal is not None:
            ambient_c = self.upkeep.ambient_c
            self.temperature_c = self.thermal.after_c(self.temperature_c, ambient_c, 0.0, span_s)
        self._use(0.0, span_s)
        self._live.clear()
        self._ready_s = now_s
        self._sleep_s = now_s + self.upkeep.sleep_after_s
        self.plan()
        return self.charge_j > self.floor_j or self.battery is None

    @property
    def left_j(self) -> float:
        """Charge that can still be used; infinite on a socket."""
        if self.battery is None:
            return math.inf
        return max(0.0, self.charge_j - self.floor_j)
