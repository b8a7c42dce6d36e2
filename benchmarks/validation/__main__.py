"""Predict published measurements and print the error of each. README.md beside this file has the format.

Usage: python -m benchmarks.validation [TABLE.toml ...] [--json FILE] [--write]

Without tables, those that ship with the package. `--write` renews docs/calibration.md and the errors that
reports of studies quote. The exit status is 1 where a table is not within its limits.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import edgellm.cost
from edgellm.cost import ProfileError, TableError, Validation, shipped_tables, validate
from edgellm.cost.scores import as_json, as_markdown, as_text, error_records

DOC = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"
ERRORS = Path(edgellm.cost.__file__).parent / "data" / "errors.json"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("tables", nargs="*", type=Path, help="tables of measurements (TOML)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    parser.add_argument("--write", action="store_true", help="renew docs/calibration.md and errors.json")
    chosen = parser.parse_args(arguments)
    if chosen.write and chosen.tables:
        parser.error("--write is for the shipped tables")
    try:
        found = [validate(table) for table in (chosen.tables or shipped_tables())]
    except (TableError, ProfileError) as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    for one in found:
        print(as_text(one))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([as_json(one) for one in found], indent=1) + "\n", "utf-8")
    if chosen.write:
        _renew(found)
    return 0 if all(one.passed for one in found) else 1


def _renew(found: list[Validation]) -> None:
    before, _, rest = DOC.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOC.write_text(before + BEGIN + as_markdown(found) + END + after, "utf-8")
    ERRORS.write_text(error_records(found), "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
