"""The process that simulations are forked from.

It is started afresh for every `run_many`, has one thread, imports only what a simulation needs and never
makes a SimGrid engine itself. It reads one message (the tasks), forks a child for each task, at most
`workers` at once, and passes on what they write. When the other end is gone it ends its children and
itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from .child import simulate

_LENGTH = struct.Struct("<Q")


def write_message(fd: int, payload: bytes) -> None:
    """Write one message: its length, then its bytes."""
    view = memoryview(_LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[os.write(fd, view) :]


def read_message(fd: int) -> bytes | None:
    """Read one message, or None at the end of the stream."""
    head = _read(fd, _LENGTH.size)
    if head is None:
        return None
    return _read(fd, _LENGTH.unpack(head)[0])


def _read(fd: int, n: int) -> bytes | None:
    data = bytearray()
    while len(data) < n:
        part = os.read(fd, min(n - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


@dataclass
class _Child:
    index: int
    pid: int
    data: bytearray = field(default_factory=bytearray)


class _Server:
    def __init__(self, tasks: list[Any], workers: int, source: int, sink: int) -> None:
        self.tasks, self.workers, self.source, self.sink = tasks, workers, source, sink
        self.children: dict[int, _Child] = {}  # by the end of the pipe that is read
        self.selector = selectors.DefaultSelector()
        self.selector.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        waiting = list(range(len(self.tasks)))[::-1]
        while waiting or self.children:
            while waiting and len(self.children) < self.workers:
                self.fork(waiting.pop())
            for key, _ in self.selector.select():
                if key.fd == self.source:  # nothing more is ever sent: the other end is gone
                    self.kill()
                    return
                self.read(key.fd)

    def fork(self, index: int) -> None:
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(source)
                os.close(self.sink)
                for fd in self.children:
                    os.close(fd)
                write_all(sink, simulate(self.tasks[index]))
                status = 0
            finally:
                os._exit(status)  # SimGrid's and Python's clean-up have nothing to say here
        os.close(sink)
        self.children[source] = _Child(index, pid)
        self.selector.register(source, selectors.EVENT_READ)

    def read(self, fd: int) -> None:
        child = self.children[fd]
        part = os.read(fd, 1 << 20)
        if part:
            child.data += part
            return
        self.selector.unregister(fd)
        os.close(fd)
        del self.children[fd]
        _, status = os.waitpid(child.pid, 0)
        payload = bytes(child.data)
        if status != 0:
            payload = pickle.dumps(("SimulationCrashed", _how(status)))
        write_message(self.sink, struct.pack("<Q", child.index) + payload)

    def kill(self) -> None:
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"the process of the simulation ended with exit code {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"the process of the simulation was ended by {signal.Signals(-code).name}{hint}"


def main(source: int, sink: int) -> None:
    """Serve one `run_many`, then end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end, which ends this process
    message = read_message(source)
    if message is None:
        return
    try:
        workers, tasks = pickle.loads(message)
        from . import simulation  # noqa: F401 - imported once here instead of once in each child
    except Exception as error:
        text = f"the simulation process cannot load the strategy: {type(error).__name__}: {error}"
        write_message(sink, struct.pack("<Q", 0) + pickle.dumps(("fatal", text)))
        return
    with contextlib.suppress(BrokenPipeError):
        _Server(tasks, workers, source, sink).run()
    sys.stdout.flush()
