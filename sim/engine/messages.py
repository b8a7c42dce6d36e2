"""What messages cost on the links of a simulation: asked of `edgellm.cost.network` once for each size."""

from __future__ import annotations

from edgellm.cost.network import Connection, Message, connection, message
from edgellm.sim.fleet import Link, NetworkSettings

#: Sizes remembered for one kind of link; beyond them they are computed each time.
_REMEMBERED = 100_000

#: Kinds of links that differ in what their messages cost: identity of the profile, and the settings.
KnownCosts = dict[tuple[int, NetworkSettings], "MessageCosts"]


class MessageCosts:
    """What messages cost on all links of one profile with the same settings."""

    __slots__ = ("_known", "_link", "connection", "keep_alive_s")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[tuple[float, bool], Message] = {}
        self.keep_alive_s = link.network.keep_alive_s
        self.connection: Connection = connection(link.profile, link.network.tls)

    def message(self, nbytes: float, up: bool) -> Message:
        """Return what a message of so many bytes takes, without loss."""
        found = self._known.get((nbytes, up))
        if found is None:
            found = message(self._link.profile, nbytes, up, self._link.network.tls)
            if len(self._known) < _REMEMBERED:
                self._known[nbytes, up] = found
        return found


def message_costs(link: Link, known: KnownCosts) -> MessageCosts | None:
    """Return what messages cost on a link, None where they take latency plus bytes over rate."""
    if not link.network.factors or not link.profile.link_class:
        return None
    key = (id(link.profile), link.network)
    if key not in known:
        known[key] = MessageCosts(link)
    return known[key]
