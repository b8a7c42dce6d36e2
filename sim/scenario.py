"""A scenario: what is simulated, read from one TOML file and checked whole before anything runs.

docs/scenario.md documents the file. Unknown keys, unknown names, wrong units and impossible numbers are
errors that name the line of the file and the full key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgellm import cost
from edgellm.cost import (
    KV_BYTES,
    QUANTS,
    Budget,
    DeviceProfile,
    LinkProfile,
    ModelProfile,
    ProfileError,
    StepCosts,
    known_profiles,
)
from edgellm.cost.toml_lines import line_of, parse_toml
from edgellm.cost.units import near_matches

from ._build_fleet import build_fleet, check_reachable
from ._build_initial import Initial, build_initial
from ._build_study import StudySettings, build_study
from ._build_workload import CountTokens, build_workload
from ._schema import SCENARIO_SCHEMA, ScenarioError, Table, resolve_path
from .fleet import Fleet, Node
from .quality import BUILT_IN_TEXTS
from .work import Compute, Decode, Load, Prefill, Step, Train, Verify, Work
from .workload import Workload

__all__ = [
    "ModelVariant",
    "Prices",
    "QualitySettings",
    "Scenario",
    "ScenarioError",
    "Slo",
    "StudySettings",
    "load_scenario",
]

#: A scenario is a few pages of text; anything bigger is not one.
MAX_SCENARIO_BYTES = 16 << 20
#: Bounds on what a simulation is asked for, so that a slip of the pen is an error and not a day of waiting.
MAX_DURATION_S = 3.16e8
MAX_REQUESTS = 2e7


@dataclass(frozen=True, slots=True)
class ModelVariant:
    """A model in one storage type: what is placed on nodes and what a request asks for.

    `weights` is a name known to `edgellm pull` or a path, of which the variant is (re)quantized so that its
    quality can be measured; None for a model that has no weights here and takes its quality, labelled as
    cited, from `profile.quality`.
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

    text: str | None = None  # a built-in text or a path; None for the study's own choice
    tokens: int = 2048
    context: int = 512
    kv: str = "f16"


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
    # (variant, device) -> what its steps cost; a fleet's devices live as long as the scenario
    _costs: dict[tuple[str, int], StepCosts] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    initial: Mapping[str, Initial] = field(default_factory=lambda: MappingProxyType({}))  # by "SITE/NODE"

    def variant(self, name: str) -> ModelVariant:
        """Return the variant of that name; ScenarioError if there is none."""
        try:
            return self.models[name]
        except KeyError:
            raise ScenarioError(f"models: unknown model {name!r}{near_matches(name, self.models)}") from None

    def with_model(self, name: str) -> Scenario:
        """Return the scenario in which every request asks for the variant `name`."""
        self.variant(name)
        digest = hashlib.sha256(f"{self.digest} model {name}".encode()).hexdigest()
        return replace(self, workload=self.workload.with_model(name), digest=digest)

    def with_constants(self, values: Mapping[tuple[str, str], float]) -> Scenario:
        """Return the scenario with other values of some constants; see `Fleet.with_constants`."""
        what = sorted((*key, float(value)) for key, value in values.items())
        digest = hashlib.sha256(f"{self.digest} constants {what}".encode()).hexdigest()
        return replace(self, fleet=self.fleet.with_constants(values), digest=digest)

    def memory_needed_bytes(self, node: Node, variant: ModelVariant | str, context: int | None = None) -> int:
        """Return the bytes that a variant and one session take on a node.

        Parameters
        ----------
        node : Node
            Where; today's estimate does not depend on it.
        variant : ModelVariant or str
            What.
        context : int or None
            Positions of the cache; None for the scenario's own.
        """
        chosen = self.variant(variant) if isinstance(variant, str) else variant
        positions = self.context if context is None else context
        return cost.memory_bytes(chosen.profile, chosen.quant, positions, self.kv)

    def work_time_s(self, node: Node, work: Work) -> float:
        """Return the seconds that an item of `edgellm.sim.work` takes alone on a node.

        Parameters
        ----------
        node : Node
            Where it runs.
        work : Prefill, Decode, Verify, Step, Load, Train or Compute
            What runs. `Train` is counted as three forward passes (forward, and twice that backward; Kaplan et
            al. 2020, section 2.1).

        Raises
        ------
        TypeError
            If `work` is none of these.
        """
        return self.work_budget(node, work).seconds

    def work_budget(self, node: Node, work: Work) -> Budget:
        """Return what an item of work takes alone on a node: seconds, and shares of its two budgets.

        As `work_time_s`, with the mean shares of the device's arithmetic and memory bandwidth that the work
        holds. Loading holds the node whole, as if storage were its processor; other computing holds only
        arithmetic.
        """
        device = node.device
        if isinstance(work, Compute):
            return Budget(work.ops / device.ops_per_s.value, 1.0, 0.0)
        if not isinstance(work, Prefill | Decode | Verify | Step | Load | Train):
            raise TypeError(f"{type(work).__name__} is not an item of work")
        if isinstance(work, Load):
            variant = self.variant(work.model)
            return Budget(cost.load_time_s(variant.profile, variant.quant, device), 1.0, 0.0)
        costs = self._costs.get((work.model, id(device)))
        if costs is None:
            variant = self.variant(work.model)
            costs = cost.step_costs(variant.profile, variant.quant, device, kv=self.kv)
            self._costs[work.model, id(device)] = costs
        if isinstance(work, Decode):
            return costs.decode_budget(work.tokens, work.context)
        if isinstance(work, Step):
            return costs.step_budget(work.new_tokens, work.contexts)
        if work.tokens == 0:
            return Budget(0.0, 1.0, 0.0)
        if isinstance(work, Train):
            forward = costs.step_budget((work.tokens,), (0,))
            return Budget(3.0 * forward.seconds, forward.compute, forward.memory)
        heads = work.tokens if isinstance(work, Verify) else None
        return costs.step_budget((work.tokens,), (work.context,), heads)


def load_scenario(
    source: str | Path | Mapping[str, Any],
    *,
    count_tokens: CountTokens | None = None,
    base: Path | None = None,
) -> Scenario:
    """Read and check a scenario.

    Parameters
    ----------
    source : path, or mapping as parsed from TOML
        The file, or its content for scenarios built in a notebook.
    count_tokens : callable or None
        Counts the tokens of real prompts whose file does not say; None estimates one token per 4 bytes.
    base : Path or None
        Folder that relative paths start from; None for the file's own, or the current one for a mapping.

    Returns
    -------
    Scenario

    Raises
    ------
    ScenarioError
        If anything is wrong; the message begins with the full key, for a file with "file:line: " before it.

    Examples
    --------
    >>> load_scenario({"schema": 1, "name": "x", "duration": "24 parsecs"})
    Traceback (most recent call last):
        ...
    edgellm.sim._schema.ScenarioError: duration: '24 parsecs' has unit 'parsecs'; expected one of s, ms, us,
    ns, min, h, d
    """
    if isinstance(source, Mapping):
        return _build(dict(source), "", base, count_tokens)
    path = Path(source)
    raw = _read(path)
    try:
        data = dict(parse_toml(raw, str(path)))
    except ValueError as err:
        raise ScenarioError(str(err)) from None
    try:
        return _build(data, str(path), path.parent if base is None else base, count_tokens)
    except ScenarioError as err:
        raise ScenarioError(f"{path}:{line_of(raw.decode(), str(err))}: {err}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SCENARIO_BYTES + 1)
    except OSError as err:
        raise ScenarioError(f"{path}: cannot be read: {err.strerror or err}") from None
    if len(raw) > MAX_SCENARIO_BYTES:
        raise ScenarioError(f"{path}: more than {MAX_SCENARIO_BYTES} bytes; not a scenario")
    return raw


def _build(data: dict[str, Any], path: str, base: Path | None, count_tokens: CountTokens | None) -> Scenario:
    top = Table(data, "", "")
    schema = top.whole("schema", low=0)
    if schema != SCENARIO_SCHEMA:
        raise top.fail("schema", f"this version reads schema {SCENARIO_SCHEMA}, got {schema}")
    name = top.text("name")
    duration_s = top.quantity("duration", "s")
    if duration_s > MAX_DURATION_S:
        raise top.fail("duration", f"must be at most {MAX_DURATION_S:g} s (ten years), got {duration_s:g} s")
    models = _models(top, base)
    fleet = build_fleet(top, models, base)
    session = top.table("session", "session")
    context = session.whole("context", 2048, high=10_000_000)
    initial = build_initial(top, fleet, models)
    backlog = {name: state.backlog for name, state in initial.items()}
    workload, files = build_workload(top, fleet, models, base, count_tokens, context, backlog)
    check_reachable(fleet, {stream.site for stream in workload.streams})
    _check_amount(top, workload, fleet, duration_s)
    streams = any(link.forwarding == "stream" for link in fleet.links)
    return Scenario(
        schema=schema,
        name=name,
        title=top.text("title", name),
        duration_s=duration_s,
        fleet=fleet,
        workload=workload,
        initial=initial,
        models=MappingProxyType(models),
        slo=_slo(top.table("slo", "slo")),
        prices=_prices(top.table("prices", "prices")),
        quality=_quality(top.table("quality", "quality"), base),
        study=build_study(top.table("study", "study"), models, duration_s, streams),
        context=context,
        kv=session.choice("kv", tuple(KV_BYTES), "f16"),
        source_path=path,
        digest=_digest(data, fleet, models, files),
    )


def _check_amount(top: Table, workload: Workload, fleet: Fleet, duration_s: float) -> None:
    for name, expected in workload.expected(fleet, duration_s).items():
        if expected > MAX_REQUESTS:
            table = top.table("workload", "", open_keys=True)
            raise table.fail(name, f"{expected:.3g} requests are expected, more than {MAX_REQUESTS:g}")


def _models(top: Table, base: Path | None) -> dict[str, ModelVariant]:
    found: dict[str, ModelVariant] = {}
    for name, table in top.table("models", "", open_keys=True).tables("models.*"):
        try:
            profile = cost.load_model(table.text("profile"), base)
        except ProfileError as err:
            raise table.fail("profile", str(err)) from None
        quant = table.choice("quant", QUANTS)
        found[name] = ModelVariant(name, profile, quant, table.optional_text("weights"))
    if not found:
        raise top.fail("models", "missing; a scenario needs at least one model")
    return found


def _slo(table: Table) -> Slo:
    target = table.quantity("target", "ratio", 0.95)
    if target > 1:
        raise table.fail("target", f"must be at most 1, got {target:g}")
    bounds = [table.optional_quantity(key, "s") for key in ("ttft", "tpot", "e2e")]
    return Slo(bounds[0], bounds[1], bounds[2], target)


def _prices(table: Table) -> Prices:
    data = table.table("data", "", open_keys=True)
    for link in data.data:
        if link not in known_profiles("link") and not link.endswith(".toml"):
            raise data.fail(link, f"unknown link{near_matches(link, known_profiles('link'))}")
    per_gb = {link: data.quantity(link, "usd_per_gb", zero=True) for link in data.data}
    electricity = table.quantity("electricity", "usd_per_kwh", "0 USD/kWh", zero=True)
    return Prices(electricity, MappingProxyType(per_gb))


def _quality(table: Table, base: Path | None) -> QualitySettings:
    text = table.optional_text("text")
    if text is not None and text not in BUILT_IN_TEXTS:
        path = resolve_path(text, base)
        if not path.is_file():
            raise table.fail("text", f"no file {path}; built in: {', '.join(BUILT_IN_TEXTS)}")
        text = str(path)
    return QualitySettings(
        text=text,
        tokens=table.whole("tokens", 2048, low=2),
        context=table.whole("context", 512, low=2, high=10_000_000),
        kv=table.choice("kv", tuple(KV_BYTES), "f16"),
    )


def _digest(
    data: dict[str, Any], fleet: Fleet, models: Mapping[str, ModelVariant], files: list[bytes]
) -> str:
    """Return the SHA-256 of the file's content, every profile used, and every file read."""
    profiles: dict[int, DeviceProfile | LinkProfile] = {}  # by identity: a node kind shares one object
    profiles.update((id(node.device), node.device) for node in fleet.nodes)
    profiles.update((id(link.profile), link.profile) for link in fleet.links)
    parts: list[str] = [json.dumps(data, sort_keys=True, default=str)]
    for profile in profiles.values():
        parts.append(repr([(key, asdict(constant)) for key, constant in profile.constants()]))
    parts.extend(repr(variant) for variant in models.values())
    digest = hashlib.sha256()
    for part in [p.encode() for p in parts] + files:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
