"""``edgellm calibrate``: measure this machine and write its profile for the testbed."""

import argparse
import json
import sys
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
    for name in ("idle_w", "active_w"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1e6:
            raise UsageError(f"--{name.replace('_', '-')} must be positive")
    if args.price_usd is not None and not 0 <= args.price_usd < 1e9:
        raise UsageError("--price-usd must be 0 or more")
    # the engine is loaded only once the arguments are good
    import edgellm
    from edgellm import models
    from edgellm.cost.calibrate import calibrate, write_profile

    path = models.resolve(args.model)

    def load(file: str, threads: int) -> Any:
        return edgellm.load(file, threads=threads)

    result = calibrate(
        str(path),
        load,
        threads=args.threads,
        budget_s=args.budget_s,
        idle_w=args.idle_w,
        active_w=args.active_w,
        price_usd=args.price_usd,
        stamp={"numerics": str(edgellm.__numerics__), "edgellm": edgellm.__version__, **_features()},
        report=lambda line: print(f"measuring: {line}", file=sys.stderr, flush=True),
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
        print(f"{key:<36} {constant.value:>14.6g}{mark}")
    print()
    print("error of the fit:      " + _errors(result.fitted))
    print("error on held-out:     " + _errors(result.held_out))
    print(f"power, idle:           {result.power.idle_w:.1f} W ({result.power.idle_source})")
    print(f"power, active:         {result.power.active_w:.1f} W ({result.power.active_source})")
    if result.profile.notes:
        print(f"note:                  {result.profile.notes}")
    print(f"profile:               {written}")
    print('use it in a scenario:  device = "this-machine"')


def _errors(errors: dict[str, float]) -> str:
    return "; ".join(f"{name} {100 * error:+.1f} %" for name, error in errors.items())
