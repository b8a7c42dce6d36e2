"""The process that simulations are forked from.

It is started afresh for every `run_many`, has one thread, imports only what a simulation needs and never
makes a SimGrid engine itself. It reads one message (the tasks), forks a child for each task, at most
`workers` at once, and says which has ended; a child writes its result to a file of its own. When the other
end is gone it ends its children and itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import struct
import sys
from typing import BinaryIO

from .child import simulate
from .ship import Message, load_task

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


class _Server:
    def __init__(self, message: Message, source: int, sink: int) -> None:
        self.message, self.source, self.sink = message, source, sink
        self.scenarios = pickle.loads(message.scenarios)
        self.children: dict[int, tuple[int, int]] = {}  # by the end of a pipe that is open while it runs
        self.selector = selectors.DefaultSelector()
        self.selector.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        waiting = list(range(len(self.message.tasks)))[::-1]
        while waiting or self.children:
            while waiting and len(self.children) < self.message.workers:
                self.fork(waiting.pop())
            for key, _ in self.selector.select():
                if key.fd == self.source:  # nothing more is ever sent: the other end is gone
                    self.kill()
                    return
                self.ended(key.fd)

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
                with open(os.path.join(self.message.folder, str(index)), "wb") as file:
                    self.simulate(index, file)
                status = 0
            finally:
                os._exit(status)  # SimGrid's and Python's clean-up have nothing to say here
        os.close(sink)
        self.children[source] = index, pid
        self.selector.register(source, selectors.EVENT_READ)

    def simulate(self, index: int, file: BinaryIO) -> None:
        try:
            task = load_task(self.message.tasks[index], self.scenarios)
        except Exception as error:
            text = f"the simulation's process cannot load the strategy: {type(error).__name__}: {error}"
            pickle.dump(("SimulationError", text), file)
            return
        simulate(task, file)

    def ended(self, fd: int) -> None:
        self.selector.unregister(fd)
        os.close(fd)
        index, pid = self.children.pop(fd)
        _, status = os.waitpid(pid, 0)
        write_message(self.sink, pickle.dumps((index, _how(status) if status != 0 else "")))

    def kill(self) -> None:
        for _, pid in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"the process of the simulation ended with exit code {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"the process of the simulation was ended by {signal.Signals(-code).name}{hint}"


def main(source: int, sink: int) -> None:
    """Serve one `run_many`, then end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end, which ends this process
    data = read_message(source)
    if data is None:
        return
    try:
        server = _Server(pickle.loads(data), source, sink)
        from . import simulation  # noqa: F401 - imported once here instead of once in each child
    except Exception as error:
        text = f"the simulation's process cannot load the scenario: {type(error).__name__}: {error}"
        write_message(sink, pickle.dumps((None, text)))
        return
    with contextlib.suppress(BrokenPipeError):
        server.run()
    sys.stdout.flush()
