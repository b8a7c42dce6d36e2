"""A small world with round numbers, for tests of the simulation against hand calculations.

One token of prefill takes 0.01 s, one of decode 0.1 s, one operation 1 s, reading weights 2 s. A device
idles at 2 W and computes at 5 W. Weights take 1000 bytes, a position of cache 1 byte.
"""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgellm.cost import Constant, DeviceProfile, LinkProfile
from edgellm.cost.schema import DEVICE_FIELDS
from edgellm.cost.step_costs import Budget
from edgellm.sim.engine.child import simulate
from edgellm.sim.engine.run import RunResult, RunTask, _error
from edgellm.sim.fleet import Fleet, Link, Node
from edgellm.sim.strategy import Strategy
from edgellm.sim.work import Compute, Decode, Load, Step
from edgellm.sim.workload import RequestSpec

SMALL, LARGE = "small:q4_0", "large:q4_0"


def constant(value: float) -> Constant:
    return Constant(float(value), "", "a test")


def device(name: str = "box", **changes: Any) -> DeviceProfile:
    """A device of 10,000 bytes of memory; `changes` are numbers, or tables (`power`, `thermal`, ...)."""
    numbers: dict[str, Any] = dict.fromkeys(DEVICE_FIELDS, 1.0)
    numbers |= {"idle_w": 2.0, "active_w": 5.0, "ram_bytes": 10_000.0}
    numbers |= {"battery_j": None, "usd_per_hour": None, **changes}
    return DeviceProfile(name=name, title=name, **_constants(numbers))


def _constants(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: constant(n) if isinstance(n, int | float) else n for key, n in numbers.items()}


def wire(name: str, **changes: Any) -> LinkProfile:
    """8000 bit/s each way, 0.01 s, no loss, 1 uJ per bit; `changes` are numbers, the sharing or a radio."""
    numbers = {
        "up_bit_per_s": 8000.0,
        "down_bit_per_s": 8000.0,
        "latency_s": 0.01,
        "loss": 0.0,
        "energy_up_j_per_bit": 1e-6,
        "energy_down_j_per_bit": 1e-6,
    }
    sharing = changes.pop("sharing", "split")
    return LinkProfile(name=name, title=name, sharing=sharing, **_constants(numbers | changes))


def fleet(
    device_: DeviceProfile | None = None,
    gateway: DeviceProfile | None = None,
    cloud: DeviceProfile | None = None,
    wifi: LinkProfile | None = None,
    broadband: LinkProfile | None = None,
    group: str = "",
    models: tuple[str, ...] = (SMALL,),
) -> Fleet:
    """Two devices under one gateway at home, under a cloud."""
    profiles = (device_ or device(), gateway or device("hub"), cloud or device("server", usd_per_hour=3600.0))
    nodes = [Node("cloud/server", "cloud", "cloud", 0, profiles[2], (LARGE, SMALL), None, "cloud")]
    nodes.append(Node("home/gateway", "home", "gateway", 0, profiles[1], models, "cloud/server", "home0"))
    for i in range(2):
        nodes.append(
            Node(f"home/device{i}", "home", "device", i, profiles[0], models, "home/gateway", "home0")
        )
    wifi = wifi or wire("wifi")
    links = [
        Link(
            "home/gateway>cloud",
            broadband or wire("broadband", latency_s=0.02),
            "home/gateway",
            "cloud/server",
        )
    ]
    links += [
        Link(f"home/device{i}>gateway", wifi, f"home/device{i}", "home/gateway", group) for i in range(2)
    ]
    return Fleet(tuple(nodes), tuple(links))


@dataclass(frozen=True)
class Variant:
    name: str
    profile: Any = field(default_factory=lambda: Shape())


@dataclass(frozen=True)
class Shape:
    context: int = 5000


@dataclass(frozen=True)
class Requests:
    specs: tuple[RequestSpec, ...]

    def requests(self, fleet: Fleet, duration_s: float, rng: Any) -> list[RequestSpec]:
        return list(self.specs)


@dataclass(frozen=True)
class World:
    """A scenario, as far as the engine looks at one."""

    fleet: Fleet
    workload: Requests
    duration_s: float = 100.0
    context: int = 0
    weights: dict[str, int] = field(default_factory=lambda: {SMALL: 1000, LARGE: 1000})
    initial: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, Variant]:
        return {name: Variant(name) for name in self.weights}

    def work_time_s(self, node: Node, work: Any) -> float:
        if isinstance(work, Compute):
            return work.ops
        if isinstance(work, Load):
            return 2.0
        if isinstance(work, Decode):
            return 0.1 * work.tokens
        if isinstance(work, Step):
            return 0.1 * max(work.new_tokens)
        return 0.01 * work.tokens

    def work_budget(self, node: Node, work: Any) -> Budget:
        return Budget(self.work_time_s(node, work), 1.0, 1.0)

    def memory_needed_bytes(self, node: Node, variant: str, context: int) -> int:
        return self.weights[variant] + context


def request(id: int = 0, arrival_s: float = 0.0, **changes: Any) -> RequestSpec:
    """10 tokens in, 5 out, 100 bytes up, 50 down, at home/device0, without a deadline."""
    spec = RequestSpec(id, "home/device0", arrival_s, 10, 5, 100, 50, "text", None, SMALL, "question")
    return replace(spec, **changes)


def simulated(
    strategy: Strategy, *specs: RequestSpec, seed: int = 1, confidence: Any = None, **world: Any
) -> RunResult:
    """Run in a child forked from here, as the server would, and return the result or raise its error."""
    world.setdefault("fleet", fleet())
    scenario = World(workload=Requests(specs or (request(),)), **world)
    return in_child(RunTask(scenario, strategy, seed, confidence or {}))  # type: ignore[arg-type]  # as far as it goes


def in_child(task: RunTask) -> RunResult:
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(sink, "wb") as file:
                simulate(task, file)
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    assert data, "the child died"
    kind, value = pickle.loads(data)
    if kind != "result":
        raise _error(kind, value)
    return value


class Script(Strategy):
    """Runs a function as the handler of every request; `log(x)` notes (time, x)."""

    def __init__(self, handle: Callable[..., Any], setup: Callable[..., Any] | None = None) -> None:
        self._handle, self._setup = handle, setup

    def setup(self, fleet: Any) -> None:
        if self._setup is not None:
            self._setup(fleet)

    def handle(self, req: Any, here: Any) -> Any:
        yield from self._handle(req, here, lambda x=None: print(json.dumps([here.now, x])))
        if not req.settled:
            req.finish()


def log_of(result: RunResult) -> list[list[Any]]:
    """What a `Script` noted: [time, thing] each."""
    return [json.loads(line) for line in result.output.splitlines()]


def log(
    handle: Callable[..., Any], *specs: RequestSpec, setup: Callable[..., Any] | None = None, **world: Any
) -> Any:
    """Simulate a function as a handler and return what it noted."""
    return log_of(simulated(Script(handle, setup), *specs, **world))
