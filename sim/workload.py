"""Requests of a scenario: when they arrive, where, how long they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fleet import Fleet


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request as it arrives: lengths in tokens and bytes, and what it is allowed to take."""

    id: int
    node: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prompt_bytes: int
    answer_bytes: int
    data_class: str
    deadline_s: float | None  # after the arrival
    model: str  # name of the default variant
    kind: str
    text: str = ""  # of a real prompt, else empty


@dataclass(frozen=True, slots=True)
class Workload:
    """All streams of requests of a scenario."""

    def requests(self, fleet: Fleet, duration_s: float, rng: np.random.Generator) -> list[RequestSpec]:
        """Return the requests of a run, sorted by (arrival_s, id)."""
        raise NotImplementedError
