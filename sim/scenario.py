"""A scenario: what is simulated, read from one TOML file and checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from edgellm.cost import ModelProfile

from .fleet import Fleet
from .workload import Workload


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names the key."""


@dataclass(frozen=True, slots=True)
class ModelVariant:
    """A model in one storage type: what is placed on nodes and what a request asks for.

    `weights` is a name known to `edgellm pull` or a path, of which the variant is (re)quantized so that its
    quality can be measured; None for a model that has no weights here and takes its quality from
    `profile.quality`.
    """

    name: str
    profile: ModelProfile
    quant: str
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """A request attains the service level if it keeps every bound set; `target` is the share wanted."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    target: float = 0.95


@dataclass(frozen=True, slots=True)
class Prices:
    """Electricity, and data by link profile; a cloud's nodes cost their profile's usd_per_hour."""

    electricity_usd_per_kwh: float = 0.0
    data_usd_per_gb: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """How the study measures quality: on which text, how many tokens, in windows of which context."""

    text: str | None = None  # a path, or None for the study's own text
    tokens: int = 2048
    context: int = 512
    kv: str = "f16"


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Defaults of a study: strategies, seeds, and variants that each strategy is tried with.

    With `models` set, every strategy runs once per variant (see `Scenario.with_model`).
    """

    strategies: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. `digest` is the SHA-256 of everything that it was built from."""

    schema: int
    name: str
    title: str
    duration_s: float
    fleet: Fleet
    workload: Workload
    models: Mapping[str, ModelVariant]
    slo: Slo
    prices: Prices
    quality: QualitySettings
    study: StudySettings
    context: int  # positions of cache that a session reserves
    kv: str
    source_path: str
    digest: str
