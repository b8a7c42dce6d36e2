"""``edgellm calibrate``: measure this machine and write its profile for the testbed."""

import argparse
import json
from pathlib import Path
from typing import Any

from edgellm.cli import UsageError

NAME = "calibrate"
HELP = 'measure this machine and write its profile for scenarios (device = "this-machine")'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm calibrate``."""
    parser.add_argument("model", nargs="?", default="smollm2-135m", help="a known name or a GGUF file")
    parser.add_argument(
        "--out", type=Path, help="where to write the profile instead of the user's cache folder"
    )
    parser.add_argument("--threads", type=int, help="threads of the profile; all cores by default")
    parser.add_argument("--budget-s", type=float, default=60.0, help="seconds to spend, roughly (60)")
    parser.add_argument(
        "--quick", action="store_true", help="one model, two thread counts, nothing at once: half a minute"
    )
    parser.add_argument(
        "--soak",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="decode so long at the end, to see it heat up",
    )
    parser.add_argument("--idle-w", type=float, help="power while idle, from a meter at the wall")
    parser.add_argument("--active-w", type=float, help="power while a model runs, idle included")
    parser.add_argument("--price-usd", type=float, help="price of the machine")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm calibrate``; prints what was measured, the errors, and the path of the profile."""
    if args.threads is not None and args.threads < 1:
        raise UsageError("--threads must be at least 1")
    if not 1.0 <= args.budget_s <= 3600.0:
        raise UsageError("--budget-s must be from 1 to 3600")
    if not 0.0 <= args.soak <= 24 * 60:
        raise UsageError("--soak must be from 0 to 1440 minutes")
    for name in ("idle_w", "active_w"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1e6:
            raise UsageError(f"--{name.replace('_', '-')} must be positive")
    if args.price_usd is not None and not 0 <= args.price_usd < 1e9:
        raise UsageError("--price-usd must be 0 or more")
    # the engine is loaded only once the arguments are good
    import edgellm
    from edgellm import models
    from edgellm._progress import Progress
    from edgellm.cost.calibrate import calibrate, steps
    from edgellm.cost.machine import usable_cores
    from edgellm.cost.profile_file import write_profile

    path = models.resolve(args.model)

    def load(file: str, threads: int) -> Any:
        return edgellm.load(file, threads=threads)

    total = steps(args.threads or usable_cores(), args.quick, args.soak)
    with Progress("calibrating", total, unit="steps", shown=not args.json) as bar:

        def report(line: str) -> None:
            bar.note(line)
            bar.advance(1)

        result = calibrate(
            str(path),
            load,
            threads=args.threads,
            budget_s=min(args.budget_s, 15.0) if args.quick else args.budget_s,
            quick=args.quick,
            soak_s=60.0 * args.soak,
            idle_w=args.idle_w,
            active_w=args.active_w,
            price_usd=args.price_usd,
            stamp={"numerics": str(edgellm.__numerics__), "edgellm": edgellm.__version__, **_features()},
            report=report,
        )
    written = write_profile(result.profile, args.out)
    if args.json:
        print(json.dumps(_as_json(result, written)))
    else:
        _print(result, written)
    return 0


def _features() -> dict[str, str]:
    """Return what the engine says of the processor."""
    from edgellm import cpu

    return {"features": " ".join(sorted(cpu.features())), "isas": " ".join(cpu.runnable_isas())}


def _as_json(result: Any, written: Path) -> dict[str, Any]:
    return {
        "profile": str(written),
        "constants": {key: constant.value for key, constant in result.profile.constants()},
        "intervals": {
            key: [constant.low, constant.high]
            for key, constant in result.profile.constants()
            if constant.low is not None and constant.high is not None
        },
        "guessed": [key for key, constant in result.profile.constants() if constant.guess],
        "fitted_errors": dict(result.fitted),
        "held_out_errors": dict(result.held_out),
        "stamp": dict(result.profile.stamp),
    }


def _print(result: Any, written: Path) -> None:
    print(f"{'measured':<26} {'threads':>7} {'time':>12} {'tokens/s':>10}")
    for point in result.points:
        rate = point.tokens / point.seconds
        print(f"{point.label:<26} {point.threads:>7} {1000 * point.seconds:>9.3f} ms {rate:>10.1f}")
    print()
    for key, constant in result.profile.constants():
        mark = "  (guess)" if constant.guess else ""
        if constant.low is not None and constant.high is not None:
            mark = f"  [{constant.low:.4g}, {constant.high:.4g}]{mark}"
        print(f"{key:<36} {constant.value:>14.6g}{mark}")
    print()
    print("error of the fit:      " + _errors(result.fitted))
    print("error on held-out:     " + _errors(result.held_out))
    print(f"power, idle:           {result.power.idle_w:.1f} W ({result.power.idle_source})")
    print(f"power, active:         {result.power.active_w:.1f} W ({result.power.active_source})")
    if result.soak is not None:
        print(f"soak:                  {100 * result.soak.sustained:.0f} % of the pace is sustained")
    if result.profile.notes:
        print(f"note:                  {result.profile.notes}")
    print(f"profile:               {written}")
    print('use it in a scenario:  device = "this-machine"')


def _errors(errors: dict[str, float]) -> str:
    return "; ".join(f"{name} {100 * error:+.1f} %" for name, error in errors.items())
