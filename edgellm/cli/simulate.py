"""``edgellm simulate``: compare deployment strategies on a scenario."""

import argparse
import importlib
import importlib.util
import json
import math
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.cli import UsageError

if TYPE_CHECKING:
    from edgellm.sim.study import Study

NAME = "simulate"
HELP = "simulate a fleet of devices and compare where the model should run"
DEFAULT = "local,gateway,cloud,cascade"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm simulate``."""
    parser.add_argument("scenario", help="a scenario in TOML; docs/scenario.md describes it")
    parser.add_argument(
        "--strategies",
        metavar="NAMES",
        help=f"built-in strategies, also cascade(threshold=0.6); default: the scenario's, else {DEFAULT}",
    )
    parser.add_argument(
        "--strategy",
        metavar="FILE.py:CLASS",
        action="append",
        default=[],
        help="a strategy of your own, in addition; may be repeated",
    )
    parser.add_argument(
        "--models", metavar="NAMES", help="model variants to try each strategy with, with commas"
    )
    parser.add_argument("--seeds", metavar="N", help="how many seeds (1 to N), or a list with commas")
    parser.add_argument("--workers", type=int, default=2, help="simulations at once (default 2)")
    parser.add_argument(
        "--quality",
        choices=("measure", "cached", "refresh", "off"),
        default="measure",
        help="run the models on a text, only look up what was measured before, measure anew, or leave it out",
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="where measurements of quality are kept")
    parser.add_argument(
        "--out", metavar="FILE.parquet", help="write one row per request, and everything else, here"
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep every run here as it ends; runs that are there already are not made again "
        "(default: FILE.parquet.runs until --out is whole)",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="simulate on the workers of this dask.distributed scheduler, for example tcp://host:8786",
    )
    parser.add_argument(
        "--search",
        metavar="FILE.toml",
        help="instead of comparing strategies, search the choices of this file for the Pareto front "
        "(docs/study.md); --out takes .csv or .parquet, --report an .svg or .png",
    )
    parser.add_argument(
        "--sensitivity",
        metavar="N",
        type=int,
        help="afterwards simulate N times with constants drawn from their spreads: does the winner stay?",
    )
    parser.add_argument(
        "--metric", metavar="NAME", default="e2e_p95_s", help="figure of --sensitivity (default e2e_p95_s)"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", help="write the report here: one file, readable offline"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE.json",
        help="write where traced requests spent their time, for ui.perfetto.dev",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON (NaN as null, infinite as the text inf)"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm simulate``; prints the table, and where the files are."""
    from edgellm import sim
    from edgellm.sim.evaluation import split_specs
    from edgellm.sim.extras import require

    if args.workers < 1:
        raise UsageError(f"--workers must be at least 1, got {args.workers}")
    seeds = _seeds(args.seeds)
    if args.sensitivity is not None:
        if args.sensitivity < 2:
            raise UsageError(f"--sensitivity must be at least 2, got {args.sensitivity}")
        from edgellm.sim.columns import directed

        directed(args.metric)  # what is wrong is said before the work, not after it
    if args.search:
        from edgellm.cli.search import run as run_search

        with _executor(args.dask) as executor:
            return run_search(args, seeds, executor)
    if args.out:  # what is missing is said before the work, not after it
        require("pyarrow.parquet")
    if args.report:
        require("matplotlib.figure")
    store, unfinished = args.store, None
    if args.out and not store:
        store = unfinished = Path(f"{args.out}.runs")
    scenario = sim.load_scenario(args.scenario)
    strategies: list[Any] | None = split_specs(args.strategies) if args.strategies is not None else None
    if strategies is None and not args.strategy and not scenario.study.strategies:
        strategies = split_specs(DEFAULT)
    if args.strategy:
        given = strategies if strategies is not None else list(scenario.study.strategies)
        strategies = [*given, *(load_strategy(spec) for spec in args.strategy)]
    with _executor(args.dask) as executor, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        study = sim.evaluate(
            scenario,
            strategies,
            seeds,
            workers=args.workers,
            quality=args.quality,
            cache_dir=args.cache_dir,
            models=split_specs(args.models) if args.models else None,
            executor=executor,
            store=store,
        )
        drawn = _sensitivity(args, scenario, strategies, executor) if study.runs else None
    for warning in told:
        print(f"edgellm: {warning.message}", file=sys.stderr)
    if not study.runs:
        print("edgellm: interrupted before a run had ended", file=sys.stderr)
        return 130
    out = study.save(args.out) if args.out else None
    report = study.report(args.report) if args.report else None
    trace = study.trace(args.trace) if args.trace else None
    if args.json:
        print(json.dumps(_as_json(study, out, report, drawn), allow_nan=False))
    else:
        print(study.summary())
        if drawn is not None:
            print(f"\n{drawn.text()}")
        for what, path in (("results", out), ("report", report), ("trace", trace)):
            if path is not None:
                print(f"{what}: {path}")
    if unfinished is not None and not study.interrupted:
        shutil.rmtree(unfinished, ignore_errors=True)
    if study.interrupted:
        print(f"edgellm: interrupted; {len(study.runs)} finished runs were kept", file=sys.stderr)
        return 130
    return 1 if study.errors else 0


@contextmanager
def _executor(address: str | None) -> Iterator[Any]:
    """The workers of a dask cluster, or None for processes of this machine."""
    if address is None:
        yield None
        return
    from edgellm.sim.extras import require

    distributed = require("distributed")
    try:
        client = distributed.Client(address, timeout="5s")
    except (OSError, ValueError) as error:
        raise ValueError(f"--dask {address}: {error}") from None
    with client:
        yield client.get_executor()


def _sensitivity(args: argparse.Namespace, scenario: Any, strategies: Any, executor: Any) -> Any:
    """Return the sensitivity that was asked for, else None; its draws are kept beside the runs."""
    from edgellm import sim

    if args.sensitivity is None:
        return None
    kept = Path(args.store) / "sensitivity.jsonl" if args.store else None
    return sim.sensitivity(
        scenario,
        strategies,
        args.metric,
        args.sensitivity,
        workers=args.workers,
        executor=executor,
        resume=kept,
    )


def load_strategy(spec: str) -> Any:
    """Import a strategy class from a file.

    Parameters
    ----------
    spec : str
        "path.py:Class".

    Returns
    -------
    type
        A subclass of `edgellm.sim.Strategy`.

    Raises
    ------
    UsageError
        If `spec` has no class.
    ValueError
        If there is no such file or class, the file raises, or the class is no strategy.
    """
    base: Any = importlib.import_module("edgellm.sim.strategy").Strategy

    path, colon, name = spec.rpartition(":")
    if not colon or not path or not name:
        raise UsageError(f"--strategy {spec!r}: expected FILE.py:CLASS")
    if not Path(path).is_file():
        raise ValueError(f"--strategy: there is no file {path!r}")
    module_spec = importlib.util.spec_from_file_location(f"edgellm_user_{Path(path).stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"--strategy: {path!r} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses look their module up there
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"--strategy: {path} raised {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        have = [c.__name__ for c in classes if issubclass(c, base) and c is not base]
        raise ValueError(f"--strategy: {path} has no strategy {name!r}; it has: {', '.join(have) or 'none'}")
    return found


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text!r}: expected a number, or numbers with commas") from None
    if len(numbers) == 1 and "," not in text:
        numbers = list(range(1, numbers[0] + 1))
    if not numbers or min(numbers) < 0:
        raise UsageError(f"--seeds {text!r}: at least one seed, none negative")
    return numbers


def _as_json(study: "Study", out: Path | None, report: Path | None, drawn: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else "inf"
        return value

    return {
        "rows": [{name: plain(value) for name, value in row.items()} for row in study.rows()],
        "quality": [q.to_json() | {"confidence": list(q.confidence)} for q in study.qualities.values()],
        "sensitivity": None
        if drawn is None
        else {
            "metric": drawn.metric,
            "winner": drawn.winner,
            "changed": plain(drawn.changed),
            "rows": [{name: plain(value) for name, value in row.items()} for row in drawn.rows()],
            "effects": [{name: plain(value) for name, value in row.items()} for row in drawn.effects()],
        },
        "interrupted": study.interrupted,
        "out": str(out) if out else None,
        "report": str(report) if report else None,
    }
