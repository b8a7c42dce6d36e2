"""From where a server can be reached, and by which names."""

from __future__ import annotations

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def local_names(host: str) -> tuple[str, ...]:
    """What a request from this machine may call a server that listens at `host`.

    A page of another name whose DNS suddenly points here ("DNS rebinding") calls it otherwise.
    """
    return ("localhost", "127.0.0.1", "::1", host.lower())


def own_host(header: str) -> str:
    """The name in a Host header, without the port.

    Examples
    --------
    >>> own_host("localhost:8080"), own_host("[::1]:8080"), own_host("a.b")
    ('localhost', '::1', 'a.b')
    """
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if ":" in text else text
