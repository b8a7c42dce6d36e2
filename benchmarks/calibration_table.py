"""Rewrite the table of docs/calibration.md from the profiles and the published measurements.

Usage: python benchmarks/calibration_table.py
"""

from pathlib import Path

from edgellm.cost.published import calibration_table

DOC = Path(__file__).resolve().parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def main() -> None:
    """Replace what is between the markers."""
    before, _, rest = DOC.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOC.write_text(before + BEGIN + calibration_table() + END + after, "utf-8")


if __name__ == "__main__":
    main()
