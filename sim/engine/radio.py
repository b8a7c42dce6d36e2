"""The radio at a node's end of its uplink: awake, asleep, waking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgellm.cost import RadioPower

if TYPE_CHECKING:
    from .node import NodeState


class Radio:
    """Follows a radio with dates alone: it sets no alarm, however often it falls asleep.

    What sending and receiving add is counted with the bytes (`LinkState.j_per_bit`); here is the time it is
    awake (idle, or busy), asleep, or on its way from one to the other (promotion).
    """

    __slots__ = (
        "_busy", "_ready_s", "_silent_s", "_since_s", "asleep_s", "awake_s", "node", "owed_j", "power",
        "promotion_s",
    )  # fmt: skip

    def __init__(self, node: NodeState, power: RadioPower) -> None:
        self.node, self.power = node, power
        self.awake_s = self.asleep_s = self.promotion_s = 0.0
        self.owed_j = 0.0  # of promotions, not yet charged to a transfer
        self._busy = 0  # transfers
        self._since_s = 0.0  # the times above are exact up to here
        self._ready_s = 0.0  # when it was, or will be, awake
        self._silent_s = self._asleep_s()  # when the last transfer ended

    def _asleep_s(self) -> float:
        """A last transfer so long ago that it sleeps, if it ever does."""
        return 0.0 if self.power.tail_s == math.inf else -math.inf

    def change_s(self, date_s: float) -> float:
        """When it will next change its mode by itself, seen from a date; infinite if never."""
        if date_s < self._ready_s:
            return self._ready_s
        tail_ends_s = self._silent_s + self.power.tail_s
        return math.inf if self._busy or date_s >= tail_ends_s else tail_ends_s

    def mode_w(self, date_s: float) -> float:
        """Power of its mode at a date from which on it is not settled; sending adds to it."""
        if date_s < self._ready_s:
            return self.power.promotion_w
        asleep = not self._busy and date_s >= self._silent_s + self.power.tail_s
        return self.power.sleep_w if asleep else self.power.idle_w

    def settle(self, now_s: float) -> None:
        """Bring the times up to now; nothing is on while its node is down."""
        if not self.node.up:
            return
        while self._since_s < now_s:
            at_s = self._since_s
            until_s = min(now_s, self.change_s(at_s))
            if at_s < self._ready_s:
                self.promotion_s += until_s - at_s
                self.owed_j += self.power.promotion_w * (until_s - at_s)
            elif self._busy or at_s < self._silent_s + self.power.tail_s:
                self.awake_s += until_s - at_s
            else:
                self.asleep_s += until_s - at_s
            self._since_s = until_s

    def _settle(self) -> float:
        """Bring radio and meter up to now, before the mode changes; returns the date."""
        now_s = self.node.sim.now
        if self.node.meter is not None:
            self.node.meter.settle()
            self.node.meter.plan()
        self.settle(now_s)
        return now_s

    def begins(self) -> float:
        """A transfer wants the air; returns the seconds until the radio is awake."""
        now_s = self._settle()
        if (
            self.node.up
            and not self._busy
            and now_s >= max(self._ready_s, self._silent_s + self.power.tail_s)
        ):
            self._ready_s = now_s + self.power.promotion_s
        self._busy += 1
        return max(0.0, self._ready_s - now_s)

    def ends(self) -> float:
        """A transfer that began is over; returns the energy of waking that it has to pay."""
        now_s = self._settle()
        self._busy -= 1
        self._silent_s = max(now_s, self._ready_s)
        owed_j, self.owed_j = self.owed_j, 0.0
        return owed_j

    def restart(self) -> None:
        """Its node has power again; it sleeps."""
        self._since_s = self.node.sim.now
        self._ready_s, self._silent_s = 0.0, self._asleep_s()
