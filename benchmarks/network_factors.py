"""Measures TCP and TLS messages over emulated links and refits the constants of `edgellm.cost.network`.

Two network namespaces are joined by a relay in user space that holds packets back as a link of a given rate
and delay would, so that the kernel's own TCP and OpenSSL's own TLS are what is measured. Needs Linux, root,
`ip` and `openssl`; prints the fit, and the errors on links that the fit did not see:

    python benchmarks/network_factors.py [--repeats 3] [--json results.json] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import select
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Process
from pathlib import Path
from typing import Any

from edgellm.cost import Constant, LinkProfile
from edgellm.cost import network as net

CLIENT, SERVER, PORT = "10.9.0.1", "10.9.0.2", 5000
MSS, HEADER = 1448, 52  # IP and TCP with time stamps; the emulated link has no frames of its own
CONGESTION = b"reno"
#: (bit/s, one-way delay in s): what the constants are fitted to, and what only judges them.
FITTED = ((20e6, 0.010), (40e6, 0.030))
HELD_OUT = ((10e6, 0.020), (5e6, 0.060), (2e6, 0.040))
SIZES = (100, 1_000, 8_000, 30_000, 100_000, 300_000, 1_000_000)
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Sample:
    """One measured message."""

    rate_bit_per_s: float
    latency_s: float
    nbytes: int
    tls: bool
    new: bool
    seconds: float
    fitted: bool


# ---- the emulated link


def _tun(address: str) -> int:
    """Enter a namespace of our own and return a TUN device with that address."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: network namespaces need root")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"edge0", _IFF_TUN | _IFF_NO_PI))
    peer = SERVER if address == CLIENT else CLIENT
    for words in (f"addr add {address} peer {peer} dev edge0", "link set edge0 up", "link set lo up"):
        subprocess.run(["ip", *words.split()], check=True)
    return device


def relay(left: int, right: int, control: socket.socket) -> None:
    """Forward packets between two devices at the rate and delay that `control` tells, until it closes."""
    rate, delay = 1e9, 0.0
    queues: tuple[deque[tuple[float, bytes]], deque[tuple[float, bytes]]] = (deque(), deque())
    free_at, outs = [0.0, 0.0], (right, left)
    for device in (left, right):
        os.set_blocking(device, False)
    while True:
        now = time.monotonic()
        for queue, out in zip(queues, outs, strict=True):
            while queue and queue[0][0] <= now:
                os.write(out, queue.popleft()[1])
        due = min((q[0][0] for q in queues if q), default=now + 1.0)
        ready, _, _ = select.select([left, right, control], [], [], max(due - now - 1e-4, 0.0))
        if control in ready:
            order = control.recv(16)
            if not order:
                return
            rate, delay = struct.unpack("dd", order)
            control.send(b"k")
        for side, device in enumerate((left, right)):
            if device in ready:
                _take(device, side, rate, delay, queues, free_at)


def _take(device: int, side: int, rate: float, delay: float, queues: Any, free_at: list[float]) -> None:
    while True:
        try:
            packet = os.read(device, 2048)
        except BlockingIOError:
            return
        start = max(time.monotonic(), free_at[side])
        free_at[side] = start + 8 * len(packet) / rate
        queues[side].append((free_at[side] + delay, packet))


# ---- both ends


def _tcp(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    return sock


def serve(links: socket.socket, notes: socket.socket, folder: str) -> None:
    """Accept connections and report on `notes` when each announced message is whole."""
    device = _tun(SERVER)
    socket.send_fds(links, [b"s"], [device])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    listener = _tcp(socket.create_server((SERVER, PORT)))
    pings = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pings.bind((SERVER, PORT))
    conn: socket.socket | None = None
    notes.send(b"r")
    while order := notes.recv(64):
        kind, amount = order[:1], int(order[1:] or b"0")
        if kind == b"p":
            pings.recv(2048)
        elif kind in b"at":
            conn = _tcp(listener.accept()[0])
            if kind == b"t":
                conn = context.wrap_socket(conn, server_side=True)
            _receive(conn, amount)
        elif kind == b"m" and conn is not None:
            _receive(conn, amount)
        elif kind == b"c" and conn is not None:
            conn.close()
        notes.send(struct.pack("d", time.monotonic()))


def _receive(conn: socket.socket, amount: int) -> None:
    while amount:
        amount -= len(conn.recv(min(amount, 1 << 16)))


class Client:
    """The near end, in a namespace of its own."""

    def __init__(self, links: socket.socket, notes: socket.socket, folder: str) -> None:
        device = _tun(CLIENT)
        socket.send_fds(links, [b"c"], [device])
        self.notes, self.context = notes, ssl.create_default_context(cafile=f"{folder}/cert.pem")
        self.context.check_hostname = False
        notes.recv(1)

    def _order(self, order: bytes, work: Callable[[], object]) -> float:
        """Return the seconds from starting `work` here until the far end has seen it whole."""
        self.notes.send(order)
        time.sleep(0.02)
        start = time.monotonic()
        work()
        (end,) = struct.unpack("d", self.notes.recv(8))
        return float(end - start)

    def ping_s(self) -> float:
        """One way, one small datagram."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return self._order(b"p", lambda: sock.sendto(b"x" * 20, (SERVER, PORT)))

    def connect(self, tls: bool) -> socket.socket:
        sock = _tcp(socket.socket())
        sock.connect((SERVER, PORT))
        return self.context.wrap_socket(sock) if tls else sock

    def first_s(self, nbytes: int, tls: bool) -> float:
        """A message on a connection that is set up for it."""
        opened = []

        def work() -> None:
            opened.append(self.connect(tls))
            opened[0].sendall(b"x" * nbytes)

        seconds = self._order(b"%c%d" % (b"at"[tls], nbytes), work)
        self._close(opened[0])
        return seconds

    def later_s(self, nbytes: int, tls: bool, gap_s: float) -> float:
        """A message on a connection that has carried a little and was silent: TCP starts again."""
        self.notes.send(b"t0" if tls else b"a0")
        sock = self.connect(tls)
        self.notes.recv(8)
        self._order(b"m20000", lambda: sock.sendall(b"x" * 20000))
        time.sleep(gap_s)
        seconds = self._order(b"m%d" % nbytes, lambda: sock.sendall(b"x" * nbytes))
        self._close(sock)
        return seconds

    def _close(self, sock: socket.socket) -> None:
        sock.close()
        self.notes.send(b"c")
        self.notes.recv(8)


def measure(repeats: int, quick: bool) -> Iterator[Sample]:
    """Yield measured messages over the emulated links."""
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        near, far = socket.socketpair()
        links = socket.socketpair()
        control, theirs = socket.socketpair()
        server = Process(target=serve, args=(links[1], far, folder), daemon=True)
        server.start()
        devices = list(socket.recv_fds(links[0], 1, 1)[1])
        client = Client(links[1], near, folder)
        devices += socket.recv_fds(links[0], 1, 1)[1]
        middle = Process(target=relay, args=(devices[1], devices[0], theirs), daemon=True)
        middle.start()
        try:
            for rate, delay in (*FITTED, *HELD_OUT):
                control.send(struct.pack("dd", rate, delay))
                control.recv(1)
                yield from _one_link(client, rate, delay, repeats, quick)
        finally:
            control.close()
            for process in (server, middle):
                process.terminate()
                process.join()


def _one_link(client: Client, rate: float, delay: float, repeats: int, quick: bool) -> Iterator[Sample]:
    client.ping_s()
    pings = [client.ping_s() for _ in range(24)]
    latency_s = min(pings) - 8 * 48 / rate  # other work on the machine only adds
    gap_s = 0.3 + 6 * delay  # more than the retransmission timeout
    for nbytes in SIZES[::2] if quick else SIZES:
        if 8 * nbytes / rate > 2.0:
            continue
        for tls in (False, True):
            later = [client.later_s(nbytes, tls, gap_s) for _ in range(repeats)]
            first = [client.first_s(nbytes, tls) for _ in range(repeats)]
            for new, times in ((False, later), (True, first)):
                seconds = statistics.median(times)
                yield Sample(rate, latency_s, nbytes, tls, new, seconds, (rate, delay) in FITTED)
        print(f"measured {nbytes} bytes at {rate / 1e6:g} Mbit/s, {1e3 * delay:g} ms", file=sys.stderr)


# ---- what needs no link


def certificate(folder: str) -> None:
    """Write a key and a self-signed certificate, RSA 2048 as most servers have."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=edge -addext subjectAltName=DNS:edge"
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)


def tls_in_memory(repeats: int = 20) -> dict[str, float]:
    """Return bytes and processor seconds of a handshake, and seconds per byte: both ends in one process."""
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        client = ssl.create_default_context(cafile=f"{folder}/cert.pem")
    times, per_byte, up, down = [], [], 0, 0
    for _ in range(repeats):
        c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
        near = client.wrap_bio(c_in, c_out, server_hostname="edge")
        far = server.wrap_bio(s_in, s_out, server_side=True)
        up = down = 0
        start = time.process_time()
        for _ in range(4):
            for end, out, into in ((near, c_out, s_in), (far, s_out, c_in)):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                moved = into.write(out.read())
                up, down = (up + moved, down) if end is near else (up, down + moved)
        times.append(time.process_time() - start)
        data, got = b"x" * (1 << 20), 0
        start = time.process_time()
        near.write(data)
        sealed = c_out.read()
        s_in.write(sealed)
        while got < len(data):
            got += len(far.read(1 << 16))
        per_byte.append((time.process_time() - start) / len(data))
    records = -(-len(data) // 16384)
    return {
        "up_bytes": up,
        "down_bytes": down,
        "handshake_s": statistics.median(times),
        "s_per_byte": statistics.median(per_byte),
        "record_overhead_bytes": (len(sealed) - len(data)) / records,
    }


def loopback_overhead_s(repeats: int = 300) -> float:
    """Return the median seconds that a small message takes from one process to another on this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        sock = _tcp(listener.accept()[0])
        while sock.recv(64):
            sock.send(struct.pack("d", time.monotonic()))
        os._exit(0)
    found = []
    with _tcp(socket.create_connection(listener.getsockname())) as sock:
        for _ in range(repeats):
            start = time.monotonic()
            sock.send(b"x" * 32)
            (end,) = struct.unpack("d", sock.recv(8))
            found.append(end - start)
    os.waitpid(child, 0)
    return statistics.median(found)


# ---- the fit


def predicted_s(sample: Sample, kind: net.NetworkClass) -> float:
    """Return what the formula of `edgellm.cost.network` says, with these constants."""
    goodput = Constant(sample.rate_bit_per_s * MSS / (MSS + HEADER), "bit_per_s", "emulated")
    zero = Constant(0.0, "", "emulated")
    latency = Constant(sample.latency_s, "s", "emulated")
    link = LinkProfile("emulated", "Emulated link", goodput, goodput, latency, zero, zero, zero, "split")
    return net.message_time_s(link, sample.nbytes, tls=sample.tls, new_connection=sample.new, kind=kind)


def fit(samples: list[Sample], start: net.NetworkClass) -> net.NetworkClass:
    """Return the first window and its growth that predict the fitted samples best (mean error)."""
    best, least = start, float("inf")
    for segments in range(4, 33):
        for growth in (1.0 + step / 20 for step in range(6, 31)):
            kind = replace(
                start,
                window_bytes=replace(start.window_bytes, value=float(segments * MSS)),
                growth=replace(start.growth, value=growth),
            )
            score = sum(abs(predicted_s(s, kind) / s.seconds - 1.0) for s in samples)
            if score < least:
                best, least = kind, score
    return best


def _errors(samples: list[Sample], kind: net.NetworkClass) -> list[float]:
    return [predicted_s(s, kind) / s.seconds - 1.0 for s in samples]


def _summary(name: str, errors: list[float]) -> None:
    sizes = sorted(map(abs, errors))
    print(f"{name:<44} {len(sizes):>3} messages: median {100 * statistics.median(sizes):.1f} %, worst "
          f"{100 * sizes[-1]:.1f} %")  # fmt: skip


def main() -> None:
    """Measure, fit, and print errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="every second size")
    parser.add_argument("--json", type=Path, help="also write every sample there")
    args = parser.parse_args()
    crypto, overhead_s = tls_in_memory(), loopback_overhead_s()
    base = net.network_classes()["ethernet"]
    measured = {
        "header_bytes": float(HEADER), "message_overhead_s": overhead_s, "tls_up_bytes": crypto["up_bytes"],
        "tls_down_bytes": crypto["down_bytes"], "tls_handshake_s": crypto["handshake_s"],
        "tls_s_per_byte": crypto["s_per_byte"], "record_overhead_bytes": crypto["record_overhead_bytes"],
    }  # fmt: skip
    for key, value in measured.items():
        print(f"{key:<24} {value:.6g}")
    changed = {key: replace(getattr(base, key), value=value) for key, value in measured.items()}
    start = replace(base, **changed)
    samples = list(measure(args.repeats, args.quick))
    kind = fit([s for s in samples if s.fitted], start)
    for key in ("window_bytes", "growth"):
        print(f"{key:<24} {getattr(kind, key).value:g}")
    held = [s for s in samples if not s.fitted]
    _summary("fitted links", _errors([s for s in samples if s.fitted], kind))
    _summary("held-out links", _errors(held, kind))
    for tls in (False, True):
        for new in (False, True):
            chosen = [s for s in held if s.tls == tls and s.new == new]
            words = f"  {'TLS' if tls else 'plain'}, {'new' if new else 'open'} connection"
            _summary(words, _errors(chosen, kind))
    bare = replace(start, window_bytes=replace(start.window_bytes, value=0.0))
    _summary("held-out links, without slow start", _errors(held, bare))
    if args.json:
        rows = [{**vars(s), "error": predicted_s(s, kind) / s.seconds - 1.0} for s in samples]
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
