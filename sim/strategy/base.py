"""What a strategy is, and what it can call.

`Strategy` is the class to derive from. `Here` (a node, seen from the code that runs on it), `Request` and
`FleetView` are what it is handed: described here as protocols, so that the same strategy file runs in the
simulator and on real hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from edgellm.sim.fleet import Node
from edgellm.sim.work import Work

from .protocol import Event, Queue, Script, Waitable


class Done(NamedTuple):
    """What `run` did, whole or until it was interrupted.

    Attributes
    ----------
    steps : int
        Repetitions that were completed.
    tokens : int
        Tokens that were completed (of a `Step`: over all sequences).
    seconds : float
        Simulated seconds from the start of the computation to its end.
    work_s : float
        Seconds it would have taken alone on the node.
    energy_j : float
        Active energy it took.
    model, node : str
        Variant ("" for none) and node.
    """

    steps: int
    tokens: int
    seconds: float
    work_s: float
    energy_j: float
    model: str
    node: str


class Answer(NamedTuple):
    """What the built-in service "generate" replies."""

    model: str
    node: str
    tokens: int
    nbytes: int
    data_class: str = "text"


class Generate(NamedTuple):
    """A message for the service "generate" that says more than a bare request.

    Attributes
    ----------
    request : Request
    model : str
        Variant to answer with; "" for the request's own, "*" for the largest placed on the node that answers.
    prompt_tokens, output_tokens : int or None
        None for the request's own.
    """

    request: Request
    model: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None


class Lease(Protocol):
    """Memory that a task holds; freed by itself when the task ends, or earlier with `free()` or `with`."""

    nbytes: int

    def free(self) -> None:
        """Give it back."""
        ...

    def __enter__(self) -> Lease: ...

    def __exit__(self, *error: object) -> None: ...


class Task(Protocol):
    """A generator that runs by itself; yield it to wait for its result."""

    def cancel(self) -> Any:
        """Throw `Cancelled` into it; returns the progress of what it was waiting for."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        ...

    def begin(self, kernel: Any, done: Any) -> Any:
        """Wait for it; for those who run strategies."""
        ...


class LiveSession(Protocol):
    """A conversation with a real model inside the simulation; what is yielded takes the cost model's time.

    The engine says what the tokens are (greedily), the cost model how long they take on this node. Work that
    is interrupted leaves the tokens that were completed.

    Attributes
    ----------
    ids : list of int
        The prompt's tokens and those produced.
    prompt_tokens : int
    ended : bool
        Whether the last token ends the text.
    """

    model: str
    ids: list[int]
    prompt_tokens: int
    ended: bool

    @property
    def text(self) -> str:
        """What was produced."""
        ...

    @property
    def confidence(self) -> float:
        """Geometric mean of the probabilities of the tokens produced, 0 to 1; 1 before the first."""
        ...

    def prefill(self, priority: float = 0) -> Waitable:
        """Read the prompt; yields a `Done`."""
        ...

    def decode(self, tokens: int = 1, stop: Event | None = None, priority: float = 0) -> Waitable:
        """Produce up to so many tokens, fewer where the text ends; yields a `Done`."""
        ...

    def verify(self, draft: Sequence[int], priority: float = 0) -> Waitable:
        """Check drafted tokens in one step; yields how many are what the model says.

        Those and the model's own next token are then in `ids`.
        """
        ...

    def close(self) -> None:
        """Give the engine's memory back; it happens by itself when nobody has the session any more."""
        ...


class Request(Protocol):
    """A request, from its arrival to its answer."""

    id: int
    node: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prompt_bytes: int
    answer_bytes: int
    data_class: str
    deadline_s: float | None
    model: str
    kind: str
    text: str
    conversation: int
    turn: int
    attempt: int
    context_tokens: int  # of the prompt: what earlier turns of the conversation said

    @property
    def nbytes(self) -> int:
        """Bytes of the prompt on a link."""
        ...

    @property
    def time_left_s(self) -> float:
        """Seconds until the deadline (negative when late); infinite without one."""
        ...

    @property
    def settled(self) -> bool:
        """Whether it was finished or rejected."""
        ...

    def first_token(self) -> None:
        """Say that the user sees the first token now; needed only where it is not the first decoded one."""
        ...

    def finish(self, answer: Any = None, model: str | None = None) -> None:
        """The user has the answer. `model` is the variant that made it."""
        ...

    def reject(self, reason: str) -> None:
        """The request is not served; the reason is counted."""
        ...

    def confidence(self, model: str) -> float:
        """How sure the variant is of its answer to this request, 0 to 1; the same number each time.

        Drawn from the distribution that the engine measured for the variant. A request is equally hard for
        all variants: its place in their distributions is the same.
        """
        ...


class Here(Protocol):
    """A node, for the code that runs on it. What is yielded takes time; everything else returns at once."""

    @property
    def now(self) -> float:
        """Simulated seconds since the beginning."""
        ...

    @property
    def rng(self) -> np.random.Generator:
        """The node's own random stream, from the seed and the node's name."""
        ...

    @property
    def node(self) -> Node:
        """What it is: `.name`, `.role`, `.site`, `.models`, `.device`."""
        ...

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Variants placed here, the preferred one first."""
        ...

    @property
    def running(self) -> int:
        """Computations that share the node now."""
        ...

    @property
    def memory_free_bytes(self) -> int:
        """Memory that nobody holds: not weights in use, not caches, not leases."""
        ...

    @property
    def battery_j(self) -> float:
        """Energy left; infinite without a battery."""
        ...

    def fits(self, model: str, context: int = 0) -> bool:
        """Whether the node's whole memory could hold a variant and one session of so many positions."""
        ...

    def run(
        self,
        work: Work,
        repeat: int = 1,
        stop: Event | None = None,
        priority: float = 0,
        charge: Sequence[Request] | None = None,
    ) -> Waitable:
        """Compute; yields a `Done`.

        Parameters
        ----------
        work : Prefill, Decode, Verify, Step, Load, Train or Compute
        repeat : int
            So many times, merged into one activity. A `Decode` grows its context from one to the next.
        stop : Event or None
            When it is set, the repetition in progress is the last.
        priority : float
            What runs together shares the node by 2 ** priority.
        charge : sequence of Request or None
            Who shares the energy and the cost equally; None for the request that the task works for.

        Raises
        ------
        Rejected
            If the model does not fit.
        NodeDown, Cancelled
            With `.done`, a `Done` of the repetitions completed.
        """
        ...

    def open(self, model: str, prompt: str | Sequence[int]) -> LiveSession:
        """A session with the real model of a variant: a text, or its tokens.

        Raises
        ------
        ValueError
            If the scenario names no `weights` for the variant, or they are not on this machine.
        """
        ...

    def cache_bytes(self, model: str, positions: int) -> int:
        """Bytes of the cache of one session with so many positions, as `reserve` would take them."""
        ...

    def reserve(self, nbytes: int) -> Waitable:
        """Wait for memory; yields a `Lease`. `Rejected` if the node can never have so much."""
        ...

    def try_reserve(self, nbytes: int) -> Lease | None:
        """Take memory at once, or None."""
        ...

    def send(self, node: str, port: str, msg: Any, nbytes: float, data_class: str | None = None) -> Waitable:
        """Send to a port of another node ("cloud", "gateway", a name); ends when it has arrived."""
        ...

    def recv(self, port: str) -> Waitable:
        """Wait for the next message at a port of this node; yields what was sent."""
        ...

    def call(self, node: str, name: str, msg: Any, nbytes: float, data_class: str | None = None) -> Waitable:
        """Call a service of another node; yields its reply.

        The service is a generator on that node. Its value is the reply; its size is its `nbytes`, or its
        length if it is text or bytes, else 0. A call that is cancelled cancels the service, one latency
        later.
        """
        ...

    def provide(self, name: str, service: Callable[[Any, Here], Any]) -> None:
        """Offer a service on this node: `service(msg, here)` is a generator function, or returns a value."""
        ...

    def inbox(self, name: str) -> Queue:
        """The queue of a port, or of calls to a name that no service takes (as `Call`, with `.reply`)."""
        ...

    def spawn(self, script: Script | Waitable, daemon: bool = False) -> Task:
        """Start a generator (or anything that could be yielded) on this node.

        A daemon does not keep the simulation going, and works for no request.
        """
        ...

    def restart(self) -> None:
        """Start the daemons again that `setup` spawned on this node."""
        ...


class Call(Protocol):
    """A call that waits in an inbox."""

    msg: Any
    source: str

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the reply any more."""
        ...

    def reply(self, value: Any = None, nbytes: float | None = None, data_class: str | None = None) -> None:
        """Send the reply on its way; its kind of user data is as said, else the value's, else the call's."""
        ...

    def refuse(self, reason: str) -> None:
        """Throw `Rejected` at the caller."""
        ...


class FleetView(Protocol):
    """The fleet, for `Strategy.setup`: iterate over it for every node, as `Here`."""

    def __iter__(self) -> Iterator[Here]: ...

    def __getitem__(self, name: str) -> Here: ...

    def __len__(self) -> int: ...

    def of_role(self, role: str) -> tuple[Here, ...]:
        """Every node of a role, in the fleet's order."""
        ...

    def of_site(self, site: str) -> tuple[Here, ...]:
        """Every node of a kind of site ("home"), in the fleet's order."""
        ...

    def place(self, model: str, on: Any) -> None:
        """Place a variant on a node (or its name) before the day begins, after those that are there."""
        ...

    @property
    def models(self) -> Mapping[str, Any]:
        """The scenario's variants, by name."""
        ...


class Strategy:
    """Where and how requests are answered. Derive, and write `handle`.

    Attributes
    ----------
    name : str
        What tables call it; the class's name in lower case unless set.

    Examples
    --------
    >>> from edgellm.sim.work import Decode, Prefill
    >>> class Mine(Strategy):
    ...     def handle(self, req, here):
    ...         yield here.run(Prefill(req.model, req.prompt_tokens))
    ...         yield here.run(Decode(req.model, req.output_tokens, context=req.prompt_tokens))
    ...         req.finish(model=req.model)
    >>> Mine.name
    'mine'
    """

    name: ClassVar[str] = "strategy"
    #: A published measurement that the strategy was compared with; "" for none.
    validation: ClassVar[str] = ""
    #: Processor seconds that it may compute while simulated time stands still; then the run is stopped.
    max_think_s: ClassVar[float] = 60.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()

    def setup(self, fleet: FleetView) -> None:
        """Called once before the first request: place models, offer services, spawn daemons."""

    def restarted(self, here: Here) -> None:
        """Called when a node is up again after an outage; starts what `setup` had spawned there.

        The node has lost what was in its memory and its inboxes; its services are offered as before.
        """
        here.restart()

    def handle(self, req: Request, here: Here) -> Script:
        """Serve one request: a generator, started on the node where it arrives.

        It ends with `req.finish(answer, model=...)` or `req.reject(reason)`. What is thrown at it and not
        caught ends the request with that reason.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle(self, req, here)")


def spawn(script: Script | Waitable, at: Here, daemon: bool = False) -> Task:
    """Start a generator on a node as a task of its own; see `Here.spawn`."""
    return at.spawn(script, daemon=daemon)
