"""A request while it is simulated, and everything that is counted for it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgellm.sim.metrics import INFEASIBLE
from edgellm.sim.strategy.base import Answer, Done
from edgellm.sim.strategy.protocol import Interrupted, Rejected
from edgellm.sim.workload import RequestSpec

if TYPE_CHECKING:
    from .node import NodeState
    from .simulation import Simulation
    from .trace import Span

#: Classes of user data in the privacy ledger; "none" is no user data.
LEDGER_CLASSES = ("text", "metadata", "activations", "adapter", "gradient")
DATA_CLASSES = ("none", *LEDGER_CLASSES)
#: Why a request failed whose user did not wait for the answer.
ABANDONED = "abandoned"
_NONE = (0.0,) * len(LEDGER_CLASSES)
_ALL_HOME = (0.0, *_NONE)


def uniform(seed: int, *names: object) -> float:
    """Return a number in [0, 1) that depends on nothing but the seed and the names.

    Examples
    --------
    >>> uniform(1, "request", 7) == uniform(1, "request", 7) != uniform(2, "request", 7)
    True
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2.0**64


def quantile(sorted_values: Sequence[float], u: float) -> float:
    """Return the value at share `u` (0 to 1) of a sorted sample, linear between its points.

    Examples
    --------
    >>> quantile((0.0, 0.5, 1.0), 0.25)
    0.25
    """
    at = u * (len(sorted_values) - 1)
    low = min(int(at), len(sorted_values) - 1)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (sorted_values[high] - sorted_values[low]) * (at - low)


def _explained(error: Interrupted) -> str:
    """The reason of a failure; with the arithmetic where no waiting would have helped."""
    text = str(error)
    if error.reason not in INFEASIBLE or text.startswith(error.reason):
        return text if error.reason in INFEASIBLE else error.reason
    return f"{error.reason}: {text}"


class Request:
    """What a strategy sees of a request (`edgellm.sim.strategy.Request`), and its ledger."""

    __slots__ = (
        "_crossed",
        "_first_token_s",
        "_hardness",
        "_sim",
        "answer_bytes",
        "arrival_s",
        "attempt",
        "bytes_down",
        "bytes_up",
        "cloud_s",
        "context_tokens",
        "conversation",
        "cost_usd",
        "data_class",
        "deadline_s",
        "device_energy_j",
        "e2e_s",
        "energy_j",
        "first_s",
        "id",
        "kind",
        "left_home",
        "marks",
        "model",
        "node",
        "output_tokens",
        "prompt_bytes",
        "prompt_tokens",
        "reason",
        "row_number",
        "served_by",
        "spans",
        "status",
        "text",
        "tokens_decoded",
        "turn",
        "users",
    )

    def __init__(self, sim: Simulation, spec: RequestSpec) -> None:
        self._sim = sim
        self.id, self.node, self.arrival_s, self.kind = spec.id, spec.node, spec.arrival_s, spec.kind
        self.prompt_tokens, self.output_tokens = spec.prompt_tokens, spec.output_tokens
        self.prompt_bytes, self.answer_bytes = spec.prompt_bytes, spec.answer_bytes
        self.data_class, self.deadline_s, self.model = spec.data_class, spec.deadline_s, spec.model
        self.text = spec.text
        self.conversation, self.turn, self.attempt = spec.conversation, spec.turn, spec.attempt
        self.context_tokens = spec.context_tokens
        self.status, self.reason, self.served_by = "unfinished", "", ""
        self.energy_j = self.device_energy_j = self.cloud_s = self.cost_usd = 0.0
        self.bytes_up = self.bytes_down = 0.0
        self.left_home: dict[str, float] = {}
        self.tokens_decoded = 0
        self.first_s = self.e2e_s = math.inf
        self._first_token_s: float | None = None  # said by the strategy
        self.marks: dict[tuple[str, str], float] = {}  # (variant, node) -> first token seen by the user
        self._hardness: float | None = None
        self._crossed: dict[tuple[str, bool], int] = {}  # (link, up) -> messages
        self.users = 0  # tasks that work for it
        self.spans: list[Span] | None = None  # what it went through, where it is traced
        self.row_number = -1  # in the table of settled requests, where it has a row

    def __repr__(self) -> str:
        return f"<request {self.id} at {self.node}: {self.status}>"

    @property
    def nbytes(self) -> int:
        """Bytes of the prompt on a link."""
        return self.prompt_bytes

    @property
    def settled(self) -> bool:
        """Whether it was finished or rejected."""
        return self.status != "unfinished"

    @property
    def abandoned(self) -> bool:
        """Whether the user has left."""
        return self.reason == ABANDONED

    @property
    def seen(self) -> bool:
        """Whether the user has seen a first token."""
        waited_s = self._sim.now - self.arrival_s
        return self._first_token_s is not None or any(date <= waited_s for date in self.marks.values())

    @property
    def time_left_s(self) -> float:
        """Seconds until the deadline; infinite without one."""
        if self.deadline_s is None:
            return math.inf
        return self.arrival_s + self.deadline_s - self._sim.now

    @property
    def escalated(self) -> bool:
        """Whether a first answer was given up for another."""
        first = next(iter(self.marks), None)
        return first is not None and self.served_by != "" and first[0] != self.served_by

    def first_token(self) -> None:
        """Say that the first token is there: its user sees it now, or one latency later on another node."""
        if self._first_token_s is None:
            sim = self._sim
            late_s = 0.0 if sim.current is None else sim.latency_s(sim.current.node, self.node)
            self._first_token_s = sim.now + late_s - self.arrival_s

    def mark(self, model: str, node: str, date_s: float) -> None:
        """Note when the user sees the first token of an attempt."""
        self.marks.setdefault((model, node), date_s - self.arrival_s)

    def confidence(self, model: str) -> float:
        """How sure the variant is of its answer; uniform where no distribution was measured.

        Raises
        ------
        ValueError
            If the scenario has no such variant.
        """
        self._sim.variant(model)
        if self._hardness is None:
            self._hardness = uniform(self._sim.seed, "confidence", self.id - self.attempt)
        values = self._sim.confidence.get(model)
        return quantile(values, self._hardness) if values else self._hardness

    def finish(self, answer: Any = None, model: str | None = None) -> None:
        """The user has the answer now; nothing happens if the user has left.

        Raises
        ------
        RuntimeError
            If it was finished or rejected before.
        ValueError
            If the scenario has no such variant.
        """
        if self.abandoned:
            return
        self._open()
        by = model if model is not None else getattr(answer, "model", "") or self.model
        self._sim.variant(by)
        self.served_by = by
        at = answer.node if isinstance(answer, Answer | Done) else None
        self.e2e_s = self._sim.now - self.arrival_s
        self.first_s = min(self._first(by, at), self.e2e_s)
        if self.deadline_s is not None and self.e2e_s > self.deadline_s:
            self._settle("failed", "deadline missed")
        else:
            self._settle("ok", "")

    def _first(self, model: str, node: str | None) -> float:
        if self._first_token_s is not None:
            return self._first_token_s
        if node is not None and (model, node) in self.marks:
            return self.marks[model, node]
        seen = [date for (by, _), date in self.marks.items() if by == model]
        return seen[-1] if seen else self.e2e_s

    def reject(self, reason: str) -> None:
        """The request is not served; nothing happens if the user has left.

        Raises
        ------
        RuntimeError
            If it was finished or rejected before.
        """
        if self.abandoned:
            return
        self._open()
        self._settle("rejected", str(reason) or Rejected.default)

    def fail(self, error: Interrupted) -> None:
        """Settle it with what ended its handler."""
        if not self.settled:
            self._settle("failed", _explained(error))

    def abandon(self) -> None:
        """The user leaves."""
        self._open()
        self._settle("failed", ABANDONED)

    def close(self) -> None:
        """The simulation is over."""
        if not self.settled and self.time_left_s < 0:
            self._settle("failed", "deadline missed")
        elif not self.settled:
            self.reason = self.reason or "not finished when the simulation ended"

    def _open(self) -> None:
        if self.settled:
            raise RuntimeError(f"request {self.id} is already settled ({self.status})")

    def _settle(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        if status != "ok":
            self.e2e_s = math.inf
        self._sim.request_settled(self)

    def leave(self) -> None:
        """A task that worked for it has ended."""
        self.users -= 1
        if self.users == 0 and self.status != "unfinished":
            self._sim.rows.add(self)

    def crossing(self, way: tuple[str, bool]) -> int:
        """Count a message over a lossy link, and return how many went that way before."""
        before = self._crossed.get(way, 0)
        self._crossed[way] = before + 1
        return before

    # What it is charged for.

    def charge_work(
        self, node: NodeState, work_s: float, energy_j: float, share: float, tokens_decoded: int
    ) -> None:
        """Pay a share of a computation."""
        self.energy_j += share * energy_j
        if self.node == node.name:
            self.device_energy_j += share * energy_j
        if node.usd_per_s is not None:
            self.cloud_s += share * work_s
            self.cost_usd += share * work_s * node.usd_per_s
        self.tokens_decoded += tokens_decoded
        if self.row_number >= 0:
            self._sim.rows.correct(self)

    def charge_bytes(self, energy_j: float, sent: float, up: bool, lower: str) -> None:
        """Pay for bytes on a link whose lower node is `lower`."""
        self.energy_j += energy_j
        if self.node == lower:
            self.device_energy_j += energy_j
        if up:
            self.bytes_up += sent
        else:
            self.bytes_down += sent
        if self.row_number >= 0:
            self._sim.rows.correct(self)

    def charge_privacy(self, data_class: str, nbytes: float) -> None:
        """Note that user data left the home."""
        self.left_home[data_class] = self.left_home.get(data_class, 0.0) + nbytes
        if self.row_number >= 0:
            self._sim.rows.correct(self)

    def row(self) -> tuple[Any, ...]:
        """Values of the columns of `rows.REQUEST_COLUMNS`, in their order."""
        ok = self.status == "ok"
        answered = self.output_tokens if ok else 0
        tpot_s = (self.e2e_s - self.first_s) / (answered - 1) if answered > 1 else math.nan
        if not ok:
            tpot_s = math.inf
        home = self.left_home
        left_home = (math.fsum(home.values()), *map(home.get, LEDGER_CLASSES, _NONE)) if home else _ALL_HOME
        return (
            self.id,
            self.conversation,
            self.turn,
            self.attempt,
            self.node,
            self.arrival_s,
            self.kind,
            self.prompt_tokens,
            self.output_tokens,
            self.data_class,
            math.nan if self.deadline_s is None else self.deadline_s,
            self.status,
            self.reason,
            self.served_by if ok else "",
            self.first_s if ok else math.inf,
            self.e2e_s,
            tpot_s,
            self.energy_j,
            self.device_energy_j,
            self.bytes_up,
            self.bytes_down,
            *left_home,
            self.cloud_s,
            self.cost_usd,
            self.escalated,
            max(0, self.tokens_decoded - answered),
        )
