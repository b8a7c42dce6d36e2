"""What strategies are handed: a node seen from the code that runs on it, and the fleet for `setup`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.sim.fleet import Node
from edgellm.sim.strategy.base import Answer, Generate
from edgellm.sim.strategy.protocol import Cancel, Event, Kernel, Queue, Rejected, Script, Settle, Waitable
from edgellm.sim.work import Decode, Prefill, Work

from .calls import RemoteCall
from .compute import Run
from .live import LiveSession
from .memory import NO_FIT
from .network import Send, data_class_of
from .node import NodeState
from .request import Request
from .task import Lease, Task

if TYPE_CHECKING:
    from .simulation import Simulation


class _Reserve(Waitable):
    """What `here.reserve` returns."""

    __slots__ = ("_nbytes", "_node")

    def __init__(self, node: NodeState, nbytes: int) -> None:
        self._node, self._nbytes = node, _check(nbytes)

    def begin(self, kernel: Kernel, done: Settle) -> Cancel:
        node, nbytes, task = self._node, self._nbytes, self._node.sim.current
        error: Any = None
        if not node.up:
            error = node.down()
        elif nbytes > node.memory.ram_bytes:
            error = Rejected(NO_FIT, detail=f"{nbytes} bytes are more than {node.name} has")
        if error is not None:
            return partial(kernel.drop, kernel.soon(partial(done, None, error)))
        granted: list[Any] = []

        def grant() -> None:
            lease = Lease(node, task, nbytes)
            granted[:] = [lease, kernel.soon(partial(done, lease, None))]

        leave = node.memory.wait(nbytes, grant)

        def cancel() -> None:
            if granted:
                kernel.drop(granted[1])
                granted[0].free()
            else:
                leave()

        return cancel


def _check(nbytes: int) -> int:
    if nbytes < 0:
        raise ValueError(f"nbytes must be 0 or more, got {nbytes}")
    return int(nbytes)


class Here:
    """See `edgellm.sim.strategy.Here`, where every call is described."""

    __slots__ = ("_node", "_sim", "node")

    def __init__(self, sim: Simulation, state: NodeState) -> None:
        self._sim, self._node = sim, state
        self.node: Node = state.node

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    @property
    def now(self) -> float:
        return self._sim.now

    @property
    def rng(self) -> np.random.Generator:
        return self._node.rng

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._node.models)

    @property
    def running(self) -> int:
        return self._own("look at what runs").running

    @property
    def memory_free_bytes(self) -> int:
        return self._own("look at the memory").memory.free_bytes

    @property
    def battery_j(self) -> float:
        return self._own("look at the battery").battery_j

    def fits(self, model: str, context: int = 0) -> bool:
        self._sim.variant(model)
        return self._node.memory.fits(model, max(context, self._sim.scenario.context))

    def run(
        self,
        work: Work,
        repeat: int = 1,
        stop: Event | None = None,
        priority: float = 0,
        charge: Sequence[Any] | None = None,
    ) -> Waitable:
        return Run(self._node, work, repeat, stop, priority, charge)

    def open(self, model: str, prompt: str | Sequence[int]) -> LiveSession:
        return LiveSession(self._own("open a session"), model, prompt)

    def cache_bytes(self, model: str, positions: int) -> int:
        self._sim.variant(model)
        memory_bytes = self._sim.memory_bytes
        return max(0, memory_bytes(self._node, model, positions) - memory_bytes(self._node, model, 0))

    def reserve(self, nbytes: int) -> Waitable:
        return _Reserve(self._own("reserve memory"), nbytes)

    def try_reserve(self, nbytes: int) -> Lease | None:
        self._own("reserve memory")
        if not self._node.up or not self._node.memory.try_hold(_check(nbytes)):
            return None
        return Lease(self._node, self._sim.current, int(nbytes))

    def send(self, node: str, port: str, msg: Any, nbytes: float, data_class: str | None = None) -> Waitable:
        to = self._sim.resolve(self._own("send"), node)
        return Send(self._node, to, port, msg, nbytes, data_class_of(msg, data_class))

    def recv(self, port: str) -> Waitable:
        return self._own("receive").port(port)

    def call(self, node: str, name: str, msg: Any, nbytes: float, data_class: str | None = None) -> Waitable:
        to = self._sim.resolve(self._own("call"), node)
        return RemoteCall(self._node, to, name, msg, nbytes, data_class_of(msg, data_class))

    def provide(self, name: str, service: Callable[..., Any]) -> None:
        if not callable(service):
            raise TypeError(f"a service is a function of (msg, here), got {service!r}")
        self._node.services[name] = service

    def inbox(self, name: str) -> Queue:
        return self._own("open an inbox").port(name)

    def spawn(self, script: Script | Waitable, daemon: bool = False) -> Task:
        node = self._own("start a task")
        if isinstance(script, Waitable):
            script = _wait_for(script)
        if not isinstance(script, GeneratorType):
            hint = " (call the function: spawn(work(here), here))" if callable(script) else ""
            raise TypeError(f"spawn needs a generator, got {script!r}{hint}")
        current = self._sim.current
        if daemon and current is None:
            self._sim.outages.remember(node, script)
        request = current.request if current is not None else None
        streams = current.streams if current is not None else False
        return Task(self._sim, script, self._node, None if daemon else request, daemon, streams).start()

    def restart(self) -> None:
        for script in self._sim.outages.daemons(self._own("restart daemons")):
            Task(self._sim, script, self._node, None, True).start()

    def _own(self, what: str) -> NodeState:
        """The node, where the running generator may act on it: in `setup`, and on the node itself."""
        task = self._sim.current
        if task is not None and task.node is not self._node:
            raise ValueError(
                f"a generator on {task.node.name} cannot {what} on {self.name}: send it a message, or start "
                "a service or a task there in setup"
            )
        return self._node


def _wait_for(x: Waitable) -> Script:
    return (yield x)


class Fleet:
    """See `edgellm.sim.strategy.FleetView`."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def __iter__(self) -> Iterator[Here]:
        return (self[node.name] for node in self._sim.fleet.nodes)

    def __len__(self) -> int:
        return len(self._sim.fleet.nodes)

    def __getitem__(self, name: str) -> Here:
        return self._sim.here(self._sim.nodes[self._sim.fleet.node(name).name])

    node = __getitem__

    def of_site(self, site: str) -> tuple[Here, ...]:
        """Every node of a kind of site, in the fleet's order."""
        return tuple(self[node.name] for node in self._sim.fleet.of_site(site))

    def of_role(self, role: str) -> tuple[Here, ...]:
        """Every node of a role, in the fleet's order."""
        return tuple(self[node.name] for node in self._sim.fleet.of_role(role))

    def place(self, model: str, on: Any) -> None:
        """Place a variant on a node, after those that are there."""
        state = self._sim.nodes[on if isinstance(on, str) else on.name]
        self._sim.variant(model)
        if model not in state.models:
            state.models.append(model)

    @property
    def models(self) -> Mapping[str, Any]:
        """The scenario's variants, by name."""
        return self._sim.scenario.models


def generate(msg: Any, here: Any) -> Script:
    """The built-in service "generate": answer a request with a variant on this node.

    `msg` is a request, or a `Generate` that says which variant and how many tokens.
    """
    ask = msg if isinstance(msg, Generate) else Generate(msg)
    req = ask.request
    if not isinstance(req, Request):
        raise TypeError(f"the service 'generate' takes a request or a Generate, got {msg!r}")
    model = _largest(here) if ask.model == "*" else ask.model
    model = model or req.model
    prompt = req.prompt_tokens if ask.prompt_tokens is None else ask.prompt_tokens
    output = req.output_tokens if ask.output_tokens is None else ask.output_tokens
    yield here.run(Prefill(model, prompt))
    yield here.run(Decode(model, output, context=prompt))
    return Answer(model, here.name, output, req.answer_bytes, req.data_class)


generate.streams = True  # type: ignore[attr-defined]  # its first token is seen by the user one latency later


def _largest(here: Any) -> str:
    sizes = {m: here._node.memory.weights(m) for m in here.models}
    return max(sizes, key=lambda m: sizes[m]) if sizes else ""
