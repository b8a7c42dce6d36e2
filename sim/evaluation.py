"""`evaluate`: measure quality, simulate every strategy with every seed, and keep it all in a `Study`."""

import ast
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, cast

from edgellm.sim import quality as q
from edgellm.sim.extras import require_simgrid
from edgellm.sim.runs import RunError, sums_by
from edgellm.sim.store import Store
from edgellm.sim.study import Study, StudyError
from edgellm.sim.sweep import Planned, Sweep, TemporaryFolder, describe_store, sweep

DEFAULT_TEXT = "smart_home"
#: Requests of the first seed that are traced, about.
TRACED = 200
_QUANT = re.compile(
    r"(?:^|[^A-Za-z0-9])(BF16|F16|F32|I?Q[2-8]_(?:[0-9]|K|NL)|TQ[12]_0)(?:_[SML])?(?=[^A-Za-z0-9]|$)", re.I
)


def evaluate(
    scenario: Any,
    strategies: Sequence[Any] | None = None,
    seeds: Iterable[int] | None = None,
    *,
    workers: int = 2,
    progress: bool = True,
    quality: str = "measure",
    cache_dir: str | Path | None = None,
    models: Sequence[str] | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
) -> Study:
    """Simulate a scenario under several strategies, models and seeds, and measure the quality of its models.

    Parameters
    ----------
    scenario : Scenario, path or mapping
        What `load_scenario` returns, or what it takes.
    strategies : sequence of str, Strategy or Strategy class, or None
        Names of built-in strategies, also with parameters ("cascade(threshold=0.6)"), instances or classes.
        None: those of the scenario.
    seeds : iterable of int, or None
        One simulation per strategy, model and seed. None: those of the scenario.
    workers : int
        Simulations at once, each in an own process; >= 1.
    progress : bool
        Show progress on standard error (needs tqdm; silent without).
    quality : {"measure", "cached", "refresh", "off"}
        "measure" runs the engine on what was not measured before; "cached" only looks up; "refresh" measures
        anew; "off" leaves quality out. What could not be measured is labelled so, with a warning.
    cache_dir : path or None
        Where measurements are kept; None: edgellm/quality under the user's cache folder.
    models : sequence of str, or None
        Variants that requests ask for by default, each strategy once with each. None: those of the scenario.
    executor : concurrent.futures.Executor or None
        Who runs the simulations instead of local processes, for example
        `dask.distributed.Client(...).get_executor()`; edgellm must be installed where it works.
    store : path or None
        A folder that keeps every run as it ends. A study that is evaluated again with the same folder makes
        only those runs that are not there: after Ctrl-C, a crash, or with more seeds and strategies. What
        counts is the content of scenario, strategy (its code), seed and measured confidence, and the version
        of edgellm.

    Returns
    -------
    Study
        Stopped with Ctrl-C while simulating, it holds the finished runs and `interrupted` is True. Runs
        that fail (the strategy raises, a process dies) are in `errors`, with a warning, and the others in
        `runs`.

    Raises
    ------
    ScenarioError
        If the scenario or one of `models` is wrong.
    SimulationError
        If no run at all gave a result: the first error. A `StrategyError` names the strategy, the request and
        the line.
    StudyError
        If a strategy is unknown, `seeds` is empty, or an argument is out of range.
    MissingExtra
        If SimGrid or a Python package of the testbed is not installed.
    """
    from edgellm.sim.scenario import Scenario, load_scenario

    if quality not in q.MODES:
        raise StudyError(f"quality must be one of {', '.join(q.MODES)}, got {quality!r}")
    if workers < 1:
        raise StudyError(f"workers must be at least 1, got {workers}")
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    chosen = resolve_strategies(scenario.study.strategies if strategies is None else strategies)
    names = list(scenario.study.models if models is None else models)
    compared = len(chosen) * max(1, len(names)) > 1
    seed_list = list(
        dict.fromkeys(int(s) for s in (scenario.study.seeds_for(compared) if seeds is None else seeds))
    )
    if not chosen or not seed_list:
        raise StudyError(
            f"a study needs at least one strategy and one seed, got {len(chosen)} and {len(seed_list)}"
        )
    variants = [(name, scenario.with_model(name)) for name in names] if names else [("", scenario)]

    engine = require_simgrid()
    qualities = measure_scenario(scenario, quality, cache_dir, progress)
    confidence = {name: item.confidence for name, item in qualities.items()}
    plan = [
        Planned(
            info["label"],
            base,
            engine.RunTask(sc, strategy, seed, confidence, TRACED * (seed == seed_list[0]), sc.study.solver),
        )
        for strategy, info in chosen
        for base, sc in variants
        for seed in seed_list
    ]
    meta = describe(scenario, [info for _, info in chosen], seed_list, names)
    temporary = TemporaryFolder() if store is None else None
    kept = Store(temporary.path if temporary is not None else Path(store or ""))
    describe_store(kept, plan, meta, qualities, Sweep())
    bar = progress_bar("simulating", len(plan), "run", progress)
    try:
        made = sweep(engine, plan, kept, workers, executor, bar)
    finally:
        bar.close()
    if made.first_error is not None and not made.done and not made.interrupted:
        raise made.first_error
    describe_store(kept, plan, meta, qualities, made)
    _warn(made.failed)
    return Study(meta, made.runs, qualities, made.interrupted, made.failed, _folder=temporary)


def _warn(failed: Sequence[RunError]) -> None:
    for label in dict.fromkeys(error.strategy for error in failed):
        own = [error for error in failed if error.strategy == label]
        runs = "1 run" if len(own) == 1 else f"{len(own)} runs"
        warnings.warn(f"{runs} of {label} failed: {own[0]}", stacklevel=3)


def split_specs(text: str) -> list[str]:
    """Split "local,cascade(threshold=0.6, to='cloud')" at the commas outside parentheses.

    Examples
    --------
    >>> split_specs("local, cascade(a=1,b=2)")
    ['local', 'cascade(a=1,b=2)']
    """
    parts, depth = [""], 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts if p.strip()]


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of "name" or "name(key=value, ...)"; values are Python literals.

    Raises
    ------
    StudyError
        If it is neither.

    Examples
    --------
    >>> parse_spec("cascade(threshold=0.6)")
    ('cascade', {'threshold': 0.6})
    """
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError):
        pass
    raise StudyError(f"strategy {spec!r}: expected a name or name(key=value, ...)")


def resolve_strategies(strategies: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Return (instance, what the study says of it) for each strategy; labels are unique.

    Raises
    ------
    StudyError
        If a name is unknown, a parameter does not fit, or an object is no strategy.
    """
    room = importlib.import_module("edgellm.sim.strategy")
    built_in, base_class = room.BUILT_IN, room.Strategy

    if isinstance(strategies, (str, base_class)):
        strategies = [strategies]
    out: list[tuple[Any, dict[str, Any]]] = []
    labels: set[str] = set()
    for item in strategies:
        label = ""
        if isinstance(item, str):
            name, parameters = parse_spec(item)
            if name not in built_in:
                raise StudyError(f"no strategy {name!r}; built in: {', '.join(sorted(built_in))}")
            try:
                instance = built_in[name](**parameters)
            except (TypeError, ValueError) as error:
                raise StudyError(f"strategy {item!r}: {error}") from None
            if parameters:
                label = f"{name}({', '.join(f'{k}={v!r}' for k, v in parameters.items())})"
        elif isinstance(item, type) and issubclass(item, base_class):
            instance = item()
        elif isinstance(item, base_class):
            instance = item
        else:
            raise StudyError(
                f"{item!r} is no strategy: give a name, or a subclass or instance of edgellm.sim.Strategy"
            )
        family = str(getattr(instance, "name", "") or type(instance).__name__)
        label = base = label or family
        count = 2
        while label in labels:
            label, count = f"{base} #{count}", count + 1
        labels.add(label)
        text = inspect.getdoc(type(instance)) or ""
        out.append(
            (
                instance,
                {
                    "label": label,
                    "family": family,
                    "class": type(instance).__name__,
                    "summary": text.split("\n\n")[0].replace("\n", " "),
                    "validation": str(getattr(instance, "validation", "") or ""),
                },
            )
        )
    return out


def shipped_quant(weights: Path) -> str:
    """Return the quantization that a weights file was published in, from its name.

    Raises
    ------
    QualityError
        If the name does not say.

    Examples
    --------
    >>> shipped_quant(Path("SmolLM2-135M-Instruct.Q4_1.gguf"))
    'q4_1'
    """
    found = _QUANT.findall(weights.stem)
    if not found:
        raise q.QualityError(f"cannot tell the quantization of {weights.name}: name it like model.Q4_1.gguf")
    return str(found[-1]).lower()


def measure_scenario(
    scenario: Any, mode: str, cache_dir: str | Path | None = None, progress: bool = False
) -> dict[str, q.Quality]:
    """Return the quality of every variant of a scenario: measured, cited, or labelled "not measured: why".

    Parameters
    ----------
    scenario : Scenario
    mode, cache_dir, progress
        As in `evaluate`.
    """
    import edgellm

    out = {name: cited(name, variant) for name, variant in scenario.models.items()}
    by_weights: dict[str, list[str]] = {}
    for name, variant in scenario.models.items():
        if variant.weights:
            by_weights.setdefault(variant.weights, []).append(name)
    if mode == "off" or not by_weights:
        return out
    settings = scenario.quality
    folder = Path(scenario.source_path).parent if scenario.source_path else None
    name = settings.text or DEFAULT_TEXT
    text = q.Text(name, q.read_text(name, folder), settings.tokens, settings.context, settings.kv)
    bar = progress_bar("measuring quality", text.tokens * (len(scenario.models) + 1), "token", progress)
    try:
        for weights, names in by_weights.items():
            try:
                path = _find_weights(weights, folder, mode)
                shipped = shipped_quant(path)
                wanted = [q.Wanted(n, path, scenario.models[n].quant, shipped) for n in names]
                out |= q.measure(
                    wanted, text, engine=cast(Any, edgellm), mode=mode, cache_dir=cache_dir, tick=bar.update
                )
            except Exception as error:  # whatever it was, the study can do without, and says so
                why = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(f"quality of {', '.join(names)} was not measured: {why}", stacklevel=3)
                out |= {n: q.Quality(n, label=f"not measured: {why}") for n in names}
    finally:
        bar.close()
    return {name: out[name] for name in scenario.models}


def _find_weights(weights: str, folder: Path | None, mode: str) -> Path:
    beside = (folder or Path()) / weights
    if beside.is_file():
        return beside
    from edgellm import models

    return Path(models.resolve(weights, pull=mode != "cached"))


def cited(name: str, variant: Any) -> q.Quality:
    """Return the quality that a model's profile cites for the variant's quantization, labelled so.

    A cited perplexity is on another text than ours; it is shown, never averaged with a measured one.
    """
    if variant.weights:
        return q.Quality(name, label="not measured: left out")
    found = variant.profile.quality.get(variant.quant)
    if found is None:
        return q.Quality(name, label="not measured: no weights here and nothing cited")
    value = f"{found.metric} {found.value:g} on {found.text} ({found.source})"
    perplexity = float(found.value) if found.metric == "perplexity" else float("nan")
    return q.Quality(name, perplexity=perplexity, label=f"cited: {value}")


def describe(
    scenario: Any, strategies: list[dict[str, Any]], seeds: list[int], models: list[str]
) -> dict[str, Any]:
    """Return the metadata of a study: what was simulated, with which constants, from which sources."""
    import edgellm

    slo = scenario.slo
    return {
        "scenario": {
            "name": scenario.name,
            "title": scenario.title,
            "digest": scenario.digest,
            "schema": scenario.schema,
            "duration_s": float(scenario.duration_s),
        },
        "slo": {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s, "e2e_s": slo.e2e_s, "target": slo.target},
        "study": scenario.study.to_meta(),
        "strategies": strategies,
        "seeds": seeds,
        "models": models,
        "variants": [
            {"name": v.name, "model": v.profile.title, "params": int(v.profile.params), "quant": v.quant,
             "bytes": float(v.profile.weight_bytes(v.quant)), "weights": _weights_name(v.weights)}
            for v in scenario.models.values()
        ],
        "quality": {
            "text": _weights_name(scenario.quality.text) or DEFAULT_TEXT, "tokens": scenario.quality.tokens,
            "context": scenario.quality.context, "kv": scenario.quality.kv,
        },
        "fleet": fleet_summary(scenario.fleet),
        "topology": scenario.fleet.kinds(),
        "constants": constants_of(scenario.fleet),
        "validation": validation_of(scenario),
        "numerics": str(cast(Any, edgellm).__numerics__),
        "edgellm": edgellm.__version__,
    }  # fmt: skip


def _weights_name(name: str | None) -> str:
    return Path(name).name if name else ""  # no path of this machine goes into a result


def fleet_summary(fleet: Any) -> list[dict[str, Any]]:
    """Return how many nodes of which device, and with which uplink, a fleet has at each site."""
    uplinks = {link.lower: link.profile.title for link in fleet.links}
    rows = {
        "site": [n.site for n in fleet.nodes],
        "role": [n.role for n in fleet.nodes],
        "device": [n.device.title for n in fleet.nodes],
        "uplink": [uplinks.get(n.name, "") for n in fleet.nodes],
        "models": [", ".join(n.models) for n in fleet.nodes],
    }
    return sums_by(rows, tuple(rows), ())


def validation_of(scenario: Any) -> list[dict[str, Any]]:
    """Return, for each device and variant placed on it, how far published measurements were predicted."""
    from edgellm.cost import known_errors

    pairs = {
        (node.device.name, name): (node.device, scenario.models[name])
        for node in scenario.fleet.nodes
        for name in node.models
    }
    return [
        {"device": device.title, "model": variant.name,
         "errors": known_errors(device, variant.profile, variant.quant)}
        for device, variant in pairs.values()
    ]  # fmt: skip


def constants_of(fleet: Any) -> list[dict[str, Any]]:
    """Return every constant of the device and link profiles of a fleet, once each."""
    profiles = {n.device.name: n.device for n in fleet.nodes} | {
        x.profile.name: x.profile for x in fleet.links
    }
    return [
        {"profile": name, "constant": key, "value": c.value, "unit": c.unit, "low": c.low, "high": c.high,
         "guess": bool(c.guess), "source": c.source}
        for name, profile in profiles.items()
        for key, c in profile.constants()
    ]  # fmt: skip


class _Silent:
    """A progress bar that shows nothing."""

    def update(self, count: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def progress_bar(title: str, total: int, unit: str, shown: bool) -> Any:
    """Return a bar on standard error, or one that shows nothing (tqdm is missing, or it is not wanted)."""
    if not shown:
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, desc=title, unit=unit, file=sys.stderr, leave=False, delay=0.5)
