"""Messages that stream: a gateway passes on what comes while it comes, over several links at once."""

from __future__ import annotations

from .network import Route, Transfer, nothing


class Streamed(Transfer):
    """One message on its way, where some links of the fleet forward streams.

    Neighbouring links that do are crossed by one flow of the engine, at the pace of the slowest of them under
    way, after the sum of their latencies. It arrives on all of them at once, and what is cut short has gone
    as far on each.
    """

    __slots__ = ("_leg", "_loads", "_slowest_s")
    _leg: Route

    def _hop(self) -> None:
        end = self._at
        while end < len(self._hops) and self._hops[end][0].link.forwarding == "stream":
            end += 1
        self._leg = self._hops[self._at : end]
        if len(self._leg) < 2:
            self._leg = ()
            super()._hop()
        elif self._board():
            self._wake_all()

    def _board(self) -> bool:
        """Note that it is on every link of the leg; where one is down, it ends."""
        for link, _ in self._leg:
            if not link.up:
                self._refuse(link.down())
                return False
        for link, _ in self._leg:
            if link.flying is not None:
                link.flying[self] = None
        if self.request is not None and self.request.spans is not None:
            self._begun_s = self.sim.engine.now
        return True

    def _wake_all(self) -> None:
        """Wait for the radios on the leg, if some sleep."""
        self._loads, self._slowest_s, wait_s = [(0.0, 0.0, 0.0)] * len(self._leg), 0.0, 0.0
        for link, _ in self._leg if self.nbytes else ():
            if link.radio is not None:
                wait_s = max(wait_s, link.radio.begins())
        if wait_s > 0.0:
            self._ticket = self.sim.at(self.sim.engine.now + wait_s, self._flow)
            self._cancel = self._cut_leg
        else:
            self._flow()

    def _flow(self) -> None:
        nbytes, engine = self.nbytes, self.sim.engine
        latency_s = sum(link.latency_s for link, _ in self._leg)
        self._loads = [self._load(link, up) for link, up in self._leg]
        self._slowest_s = max(airtime_s for _, _, airtime_s in self._loads)
        if nbytes == 0:
            self._ticket = self.sim.at(engine.now + latency_s, self._through)
            self._cancel = self._drop
            return
        wait_s = latency_s + sum(self._wait_s(link, up) for link, up in self._leg)
        hops = [(link.medium, up, load[2]) for (link, up), load in zip(self._leg, self._loads, strict=True)]
        self._ticket = engine.stream(hops, wait_s, self._through)
        self._cancel = self._cut_leg
        for (link, up), (_, paid, _) in zip(self._leg, self._loads, strict=True):
            if link.lower.meter is not None:
                energy_j = 8.0 * paid * link.j_per_bit[up]
                link.lower.meter.on_air(self._ticket, energy_j, self._slowest_s)

    def _pay_leg(self, share: float) -> None:
        for (link, up), (sent, paid, _) in zip(self._leg, self._loads, strict=True):
            self._pay(link, up, sent * share, paid * share, share)

    def _cut_leg(self) -> float:
        left_s = self.sim.engine.cancel(self._ticket)
        share = 1.0 - left_s / self._slowest_s if self._slowest_s > 0.0 else 0.0
        self._pay_leg(share)
        return self.nbytes * share if self._at + len(self._leg) == len(self._hops) else 0.0

    def _through(self) -> None:
        self._cancel = nothing
        self._leave()
        self._pay_leg(1.0)
        self._at += len(self._leg)
        ends = [link.upper if up else link.lower for link, up in self._leg]
        self._reached(next((end for end in ends if not end.up), ends[-1]))

    def _leave(self) -> None:
        super()._leave()
        for link, _ in self._leg:
            if link.flying is not None:
                link.flying.pop(self, None)
