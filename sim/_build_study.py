"""Turns `[study]` of a scenario file into settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.cost.units import near_matches

from ._schema import Table
from .strategy import BUILT_IN

#: Replications of a study that compares something, where the scenario does not say.
REPLICATIONS = 10
#: Seeds of replications are consecutive from this many times the study's seed: studies with neighbouring
#: seeds share none.
SEEDS_APART = 1000
MODES = ("terminating", "steady")
#: Who solves the sharing of nodes and links: exact queues of our own, or SimGrid.
SOLVERS = ("exact", "simgrid")


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Defaults of a study: strategies, seeds, and variants that each strategy is tried with.

    With `models` set, every strategy runs once per variant (see `Scenario.with_model`). `seeds` is empty
    where the scenario does not name them: `seeds_for` then derives them from `seed`. `warmup_s` None: by
    MSER-5.
    """

    strategies: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    seed: int = 1
    replications: int | None = None
    mode: str = "terminating"
    warmup_s: float | None = None
    batches: int = 20
    solver: str = "exact"

    def seeds_for(self, compared: bool) -> tuple[int, ...]:
        """Return the seeds of the replications.

        Parameters
        ----------
        compared : bool
            Whether several rows are compared, which takes ten replications of a terminating study; one row
            alone, or one long run of a steady state, does with one.

        Examples
        --------
        >>> StudySettings(seed=2).seeds_for(compared=False)
        (2000,)
        >>> len(StudySettings().seeds_for(compared=True))
        10
        """
        if self.seeds:
            return self.seeds[: self.replications]
        count = self.replications
        if count is None:
            count = REPLICATIONS if compared and self.mode == "terminating" else 1
        return tuple(SEEDS_APART * self.seed + i for i in range(count))

    def to_meta(self) -> dict[str, Any]:
        """Return what a study's metadata says of how its runs are to be read."""
        return {"mode": self.mode, "warmup_s": self.warmup_s, "batches": self.batches}


def build_study(table: Table, models: Mapping[str, Any], duration_s: float, streams: bool) -> StudySettings:
    """Return the settings of `[study]`; `streams`: there are links that forward streams."""
    seeds = table.list_of("seeds", int, ())
    if "seeds" in table and (not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0):
        raise table.fail("seeds", "must be different whole numbers, 0 or more, at least one")
    replications = table.whole("replications", high=SEEDS_APART) if "replications" in table else None
    if seeds and replications is not None and replications > len(seeds):
        raise table.fail("replications", f"{replications} of {len(seeds)} seeds")
    variants = table.list_of("models", str, ())
    for name in variants:
        if name not in models:
            raise table.fail("models", f"unknown model {name!r}{near_matches(name, models)}")
    strategies = table.list_of("strategies", str, ())
    for spec in strategies:
        name = spec.partition("(")[0].strip()
        if name not in BUILT_IN:
            raise table.fail(
                "strategies", f"no strategy {name!r}{near_matches(name, BUILT_IN, label='built in')}"
            )
    mode = table.choice("mode", MODES, "terminating")
    for key in ("warmup", "batches"):
        if key in table and mode != "steady":
            raise table.fail(key, 'only of a study with mode = "steady"')
    solver = table.choice("solver", SOLVERS, SOLVERS[0])
    if solver == "simgrid" and streams:
        raise table.fail("solver", 'SimGrid cannot solve links with forwarding = "stream"')
    warmup_s = _warmup(table)
    if warmup_s is not None and warmup_s >= duration_s:
        raise table.fail("warmup", f"must be shorter than the duration, got {warmup_s:g} s")
    return StudySettings(
        strategies=strategies,
        seeds=seeds,
        models=variants,
        seed=table.whole("seed", 1, low=0, high=10**9),
        replications=replications,
        mode=mode,
        warmup_s=warmup_s,
        batches=table.whole("batches", 20, low=2, high=10_000),
        solver=solver,
    )


def _warmup(table: Table) -> float | None:
    if "warmup" not in table or table.data["warmup"] == "mser5":
        return None
    return table.quantity("warmup", "s", zero=True)
