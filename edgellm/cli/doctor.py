"""``edgellm doctor``: is this machine fit, and does it keep the arithmetic contract?"""

import argparse
import dataclasses
import json

NAME = "doctor"
HELP = "check this machine: kernels, and the same bits on every instruction set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edgellm doctor``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run ``edgellm doctor``; 1 if a check failed."""
    import edgellm

    report = edgellm.doctor()
    if args.json:
        print(json.dumps({"ok": report.ok, **dataclasses.asdict(report)}, indent=2))
    else:
        print(report)
    return 0 if report.ok else 1
